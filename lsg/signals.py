"""Signals that end a program: turned into an exception, or deferred while files are renamed."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]  # not all on Windows


class TerminatedBySignal(BaseException):
    """SIGTERM or SIGHUP arrived; not an Exception, so that no `except Exception` takes it for an error."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code, self.name = 128 + number, signal.Signals(number).name


def exception_for(number: int) -> BaseException:
    """Return the exception that a signal raises."""
    return KeyboardInterrupt() if number == signal.SIGINT else TerminatedBySignal(number)


@contextlib.contextmanager
def signals_raised() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP raise exceptions in the block, so that incomplete files are removed."""
    received: list[int] = []

    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        received.append(number)
        raise exception_for(number)

    with contextlib.ExitStack() as previous:
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
                previous.callback(signal.signal, number, signal.signal(number, terminate))
        try:
            yield
        except Exception as error:
            if received:  # native code, of torch for example, replaced the exception by one of its own
                raise exception_for(received[0]) from error
            raise


@contextlib.contextmanager
def signals_deferred() -> Iterator[None]:
    """Defer Ctrl-C, SIGTERM and SIGHUP until the block has ended; the first of them takes effect then."""
    if threading.current_thread() is not threading.main_thread():  # Python runs no signal handlers elsewhere
        yield
        return
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    try:
        with contextlib.ExitStack() as previous:
            for number in SIGNALS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):  # None: not set from Python
                    previous.callback(signal.signal, number, signal.signal(number, note))
            yield
    finally:
        for first in received[:1]:
            signal.raise_signal(first)
