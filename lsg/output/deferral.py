"""Ctrl-C and its like wait while files change their names."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # the last one is not there on Windows


@contextlib.contextmanager
def signals_deferred() -> Iterator[None]:
    """Hold the signals that end a program back until the block has ended; the first of them takes effect then."""
    if threading.current_thread() is not threading.main_thread():  # Python runs no signal handlers elsewhere
        yield
        return
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    try:
        with contextlib.ExitStack() as handlers:
            for number in numbers:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):  # None: not of Python's making
                    handlers.callback(signal.signal, number, signal.signal(number, note))
            yield
    finally:
        for number in received[:1]:
            signal.raise_signal(number)
