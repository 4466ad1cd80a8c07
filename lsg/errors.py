"""The one error that a user's input can cause, and the words it is told in."""

import difflib
from collections.abc import Iterable


class ConversionError(ValueError):
    """A conversion that cannot be done; the message is one line for the user: what was expected, given, allowed."""


def one_line(error: BaseException | str, limit: int = 300) -> str:
    """Fold an error's message into one line of at most `limit` characters."""
    text = " ".join(str(error).split())
    text = text or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Name what the user may have meant: the nearest allowed names, else all of them."""
    allowed = sorted(allowed)
    close = difflib.get_close_matches(name, allowed, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"choose from {', '.join(allowed)}"
