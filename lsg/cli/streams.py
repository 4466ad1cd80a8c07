"""Standard output and error, whatever became of them: closed, full, or of an encoding that lacks our letters."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


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
        discard_rest(sys.stdout)
        return "it is closed" if getattr(error, "errno", None) == errno.EBADF else str(error)
    return ""


def discard_rest(stream: TextIO) -> None:
    """Lead a stream to the null device: Python tries again, as it ends, to write what it has not written."""
    with contextlib.suppress(OSError, ValueError):  # a stream without a number has no such rest
        number, null = stream.fileno(), os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)


class Forgiving:
    """A stream that nobody has to read: what cannot be written is lost, and that is no error."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write a text if that is possible."""
        try:
            return self.stream.write(text)
        except OSError:
            discard_rest(self.stream)
            return len(text)

    def flush(self) -> None:
        """Hand over what was written, if that is possible."""
        try:
            self.stream.flush()
        except OSError:
            discard_rest(self.stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def messages_may_be_lost() -> Iterator[None]:
    """Let the block go on when standard error is full, or its reader is gone: progress bars would end it otherwise."""
    with contextlib.redirect_stderr(Forgiving(sys.stderr)):
        yield


def tell(program: str, line: str) -> None:
    """Write a line to standard error, with the program's name in front."""
    with contextlib.suppress(OSError):  # a SIGHUP says that the terminal is gone; there is nobody to tell
        sys.stderr.write(f"{program}: {line}\n")
        sys.stderr.flush()
