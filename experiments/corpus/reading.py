"""The documents of a part: their places, texts and columns, and what is wrong with those that cannot be read."""

import json
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from experiments.common.data import describe
from experiments.common.documents import ending, make_document, read_text
from experiments.corpus.parts import LINES, OTHER_FIELDS, PARQUET, Corpus, Part, is_markup, parse_line
from lsg.errors import one_line

READ_ERRORS = (OSError, EOFError, zlib.error, UnicodeDecodeError, pa.ArrowException)


class Documents:
    """The documents of a part, N of them.

    Args:
        places: where each one is: its file, and behind a colon its row (Parquet) or first byte (JSON lines).
        texts: as found, of any type.
        errors: why one cannot be read, else None.
        columns: the input's, (N rows).
    """

    def __init__(self, places: list[str], texts: list[Any], errors: list[str | None], columns: pa.Table) -> None:
        self.places, self.columns = places, columns
        self.errors = [error or text_error(text) for text, error in zip(texts, errors, strict=True)]
        self.texts = ["" if error else text for text, error in zip(texts, self.errors, strict=True)]


def text_error(text: Any) -> str | None:
    """Return what is wrong with a text; None if it can be read."""
    if not isinstance(text, str):
        return f"a text is expected, this is {describe(text)}"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"not a text: {one_line(error)}"
    return None if text.strip() else "the text is empty"


def read_part(corpus: Corpus, part: Part, text_column: str) -> Documents:
    """Return the documents of a part.

    A part that cannot be read at all has one document, with the reason.
    """
    file = part.files[0]
    try:
        if corpus.kind == LINES:
            return read_lines(Path(corpus.root, file), file, part, text_column, corpus.schema)
        if corpus.kind == PARQUET:
            return read_rows(Path(corpus.root, file), file, part, text_column)
    except READ_ERRORS as error:
        place = f"{file}:{part.first_row + part.first}"
        return Documents([place], [None], [cannot_be_read(error)], pa.Table.from_pylist([{}], corpus.schema))
    pairs = [read_file(Path(corpus.root, name)) for name in part.files]
    texts, errors = map(list, zip(*pairs, strict=True))
    return Documents(part.files, texts, errors, pa.table({}))


def cannot_be_read(error: Exception) -> str:
    """Return the reason for an error, in one line."""
    return f"it cannot be read: {one_line(error)}"


def read_file(file: Path) -> tuple[str | None, str | None]:
    """Return the text of a file, or what is wrong with it."""
    try:
        text = read_text(file)
    except READ_ERRORS as error:
        return None, cannot_be_read(error)
    if not is_markup(file):
        return text, None
    document = make_document(str(file), text, ending(file))
    return (f"{document.title}\n{document.text}", None) if document.text else (None, "there is no prose in it")


def lines_of(file: Path, part: Part) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that begin in a part, each with its first byte; empty ones are left out."""
    with file.open("rb") as lines:
        if part.first:  # the line before ends there, or goes on
            lines.seek(part.first - 1)
            lines.readline()
        while (place := lines.tell()) < part.behind:
            line = lines.readline()
            if line.strip():
                yield place, line


def read_lines(file: Path, name: str, part: Part, text_column: str, schema: pa.Schema) -> Documents:
    """Return the documents of JSON lines."""
    places, texts, errors, rows = list[str](), list[Any](), list[str | None](), list[dict[str, Any]]()
    for place, line in lines_of(file, part):
        row = parse_line(line)
        is_row = isinstance(row, dict)
        problem = "not JSON" if isinstance(row, Exception) else "an object is expected"
        places.append(f"{name}:{place}")
        rows.append(dict(row) if is_row else {})
        texts.append(rows[-1].get(text_column))
        errors.append(None if is_row else f"{problem}: {one_line(row)}")
    return Documents(places, texts, errors, to_table(rows, schema))


def to_table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Return rows of JSON as a table; what does not fit its column goes to OTHER_FIELDS. The rows are used up."""
    columns = {}
    for field in schema:
        if field.name != OTHER_FIELDS:
            columns[field.name] = pa.array([take(row, field) for row in rows], field.type)
    others = [json.dumps(row) if row else None for row in rows]
    return pa.table({**columns, OTHER_FIELDS: others}, schema=schema)


def take(row: dict[str, Any], field: pa.Field) -> Any:
    """Remove a field from a row of JSON, and return its value; None, and the row is as it was, if it does not fit."""
    value: Any = row.get(field.name)
    is_number = isinstance(value, int) and not isinstance(value, bool) and pa.types.is_floating(field.type)
    try:
        found = pa.scalar(float(value) if is_number else value, field.type).as_py()
    except (pa.ArrowException, UnicodeError, OverflowError):
        return None
    if type(found) is type(value) or (is_number and found == value):
        row.pop(field.name, None)
        return found
    return None


@lru_cache(maxsize=1)
def read_row_group(file: Path, number: int) -> pa.Table:
    """Return a row group of a Parquet file; parts of one are often read one after the other."""
    with pq.ParquetFile(file) as rows:
        return rows.read_row_group(number).replace_schema_metadata(None)


def read_rows(file: Path, name: str, part: Part, text_column: str) -> Documents:
    """Return the documents of a Parquet file's rows."""
    columns = read_row_group(file, part.row_group).slice(part.first, part.behind - part.first)
    numbers = range(part.first_row + part.first, part.first_row + part.behind)
    texts = columns[text_column].to_pylist()
    return Documents([f"{name}:{number}" for number in numbers], texts, [None] * len(texts), columns)
