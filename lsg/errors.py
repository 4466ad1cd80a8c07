"""The one error that a user's input can cause, and the words it is told in."""

from .text import nearest, one_line

__all__ = ["ConversionError", "nearest", "one_line"]


class ConversionError(ValueError):
    """A conversion that cannot be done; the message is one line for the user: what was expected, given, allowed.

    Args:
        message: the line.
        shown: a text that the user should see before it.
    """

    def __init__(self, message: str, shown: str = "") -> None:
        super().__init__(message)
        self.shown = shown
