"""Standard output and error, whatever became of them: closed, full, or of an encoding that lacks our letters."""

import contextlib
import errno
import os
import sys


def open_closed_streams() -> None:
    """Open those of standard input, output and error that are closed, onto the null device.

    The next file to be opened would get their number otherwise, and what libraries print would land in it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest number that is free: this one
    if sys.stderr is None:  # so it is if it was closed; libraries write to it unasked
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the process ends)


def say(text: str) -> str:
    """Write a text to standard output, all of it; letters that its encoding lacks are escaped.

    Returns:
        Why it could not be written; nothing if it could.
    """
    if sys.stdout is None:
        return "it is closed"
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except (OSError, ValueError) as error:  # ValueError: closed by Python code
        discard_rest()
        return "it is closed" if getattr(error, "errno", None) == errno.EBADF else str(error)
    return ""


def discard_rest() -> None:
    """Lead standard output to the null device: Python tries again, as it ends, to write what it has not written."""
    with contextlib.suppress(OSError, ValueError):  # a stream without a number has no such rest
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def tell(program: str, line: str) -> None:
    """Write a line to standard error, with the program's name in front."""
    with contextlib.suppress(OSError):  # a SIGHUP says that the terminal is gone; there is nobody to tell
        sys.stderr.write(f"{program}: {line}\n")
        sys.stderr.flush()
