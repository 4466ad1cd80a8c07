"""The words in which errors are told: one line, and never much of what the user, or a file, wrote."""

import difflib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SHOWN = 200  # characters of a text that is not ours


def one_line(text: object, limit: int = SHOWN) -> str:
    """Return a text, or an error's message, as one line of at most `limit` characters; the middle is left out."""
    line = " ".join(str(text).split()) or (type(text).__name__ if isinstance(text, BaseException) else "")
    if len(line) <= limit:
        return line
    end = (limit - 3) // 3
    return f"{line[: limit - 3 - end]}...{line[-end:]}"


def nearest(name: str, allowed: Iterable[str], listed: Iterable[str] | None = None) -> str:
    """Return what the user may have meant: the nearest allowed names, else all that are `listed` (all allowed ones)."""
    allowed = sorted(allowed)
    close = difflib.get_close_matches(name[:SHOWN], allowed, n=3, cutoff=0.5)
    choice = ", ".join(sorted(allowed if listed is None else listed))
    return f"did you mean {one_line(' or '.join(close))}?" if close else f"choose from {choice}"


def read_json(file: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON in UTF-8, or nested too deeply.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
