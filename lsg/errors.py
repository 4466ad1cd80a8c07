"""The error that bad input causes, its wording, and reading JSON with errors of one kind. Importable without torch."""

import contextlib
import difflib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

MAX_QUOTED = 200  # characters of a user's or a file's text that an error repeats


class ConversionError(ValueError):
    """A conversion that cannot be done; the message is one line for the user: what was expected, given, allowed.

    Args:
        message: the line.
        shown: a text to print before it.
    """

    def __init__(self, message: str, shown: str = "") -> None:
        super().__init__(message)
        self.shown = shown


def one_line(text: object, limit: int = MAX_QUOTED) -> str:
    """Return a text, or an error's message, as one line of at most `limit` characters; the middle is left out."""
    line = " ".join(str(text).split()) or (type(text).__name__ if isinstance(text, BaseException) else "")
    if len(line) <= limit:
        return line
    end = (limit - 3) // 3
    return f"{line[: limit - 3 - end]}...{line[-end:]}"


@contextlib.contextmanager
def reported_as(what: str, errors: type[Exception] | tuple[type[Exception], ...] = Exception) -> Iterator[None]:
    """Turn errors of the block into ConversionErrors, `what` and the reason in one line.

    ConversionErrors are passed through unchanged.
    """
    try:
        yield
    except ConversionError:
        raise
    except errors as error:
        raise ConversionError(f"{what}: {one_line(error)}") from error


def nearest(name: str, allowed: Iterable[str], listed: Iterable[str] | None = None) -> str:
    """Return what the user may have meant: the nearest allowed names, else all that are `listed` (all allowed ones)."""
    allowed = sorted(allowed)
    close = difflib.get_close_matches(name[:MAX_QUOTED], allowed, n=3, cutoff=0.5)
    choice = ", ".join(sorted(allowed if listed is None else listed))
    return f"did you mean {one_line(' or '.join(close))}?" if close else f"choose from {choice}"


def read_json(file: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON in UTF-8, or nested too deeply.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_json_object(file: Path, hint: str = "") -> dict[str, Any]:
    """Return the content of a JSON file that must hold an object.

    Args:
        hint: what to do about invalid JSON, to be added to the error.

    Raises:
        OSError: it cannot be read.
        ConversionError: it is not JSON, or not an object.
    """
    try:
        content = read_json(file)
    except ValueError as error:  # also for text that is not UTF-8
        raise ConversionError(f"{one_line(file)}: not valid JSON: {one_line(error)}{hint}") from error
    if not isinstance(content, dict):
        raise ConversionError(f"{one_line(file)}: a JSON object is expected, this is a {type(content).__name__}")
    return content
