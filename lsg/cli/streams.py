"""Standard output and error in every state: closed, full, or in an encoding that lacks some letters."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


def open_closed_streams() -> None:
    """Open standard input, output and error onto the null device where they are closed.

    Otherwise the next file to be opened gets their number, and what libraries print is written into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest free number: this one
    if sys.stderr is None:  # Python sets it to None if it was closed; libraries write to it all the same
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the process ends)


def write_stdout(text: str) -> str:
    """Write a whole text to standard output; letters that its encoding lacks are escaped.

    Returns:
        Why it could not be written; an empty text if it was.
    """
    if sys.stdout is None:
        return "it is closed"
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except (OSError, ValueError) as error:  # ValueError: closed by Python code
        discard_buffer(sys.stdout)
        return "it is closed" if getattr(error, "errno", None) == errno.EBADF else str(error)
    return ""


def write_error_line(program: str, line: str) -> None:
    """Write a line to standard error, with the program's name in front."""
    with contextlib.suppress(OSError):  # after a SIGHUP the terminal is gone
        sys.stderr.write(f"{program}: {line}\n")
        sys.stderr.flush()


def discard_buffer(stream: TextIO) -> None:
    """Redirect a stream to the null device: when Python ends, it tries again to write what is in the buffer."""
    with contextlib.suppress(OSError, ValueError):  # a stream without a number has no such buffer
        number, null = stream.fileno(), os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)


class LossyStream:
    """A stream that drops what cannot be written, instead of raising an error."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write a text if possible."""
        try:
            return self.stream.write(text)
        except OSError:
            discard_buffer(self.stream)
            return len(text)

    def flush(self) -> None:
        """Flush the stream if possible."""
        try:
            self.stream.flush()
        except OSError:
            discard_buffer(self.stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def lossy_stderr() -> Iterator[None]:
    """Ignore a full or closed standard error in the block: progress bars would raise an error there."""
    with contextlib.redirect_stderr(LossyStream(sys.stderr)):
        yield
