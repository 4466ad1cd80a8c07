"""A corpus as parts: a part is read, and its results are written, in one go, whoever does it and when.

No file is read for that, except for the first lines of JSON lines and the metadata of Parquet. So the parts of a corpus
are the same in every run, and a part that has its output file is done.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from experiments.common.documents import TEXT_ENDINGS, ending, find_files
from experiments.common.errors import InputError
from lsg.errors import one_line

LINES, PARQUET, TEXT = "JSON lines", "Parquet", "text files"
KINDS = {".jsonl": LINES, ".parquet": PARQUET}
SAMPLE = 1000  # lines of each file that say which columns there are
JSON_TYPES = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
OTHER_FIELDS = "other_fields"  # column with all fields of a line that have no column, or do not fit it, as JSON


@dataclass(frozen=True)
class Part:
    """Documents that are read together.

    Args:
        number: of its output file.
        files: paths as the user gave them; several for text files only.
        first, behind: of JSON lines, bytes: the lines that begin there. Of Parquet, rows of the row group.
        row_group: of Parquet.
        first_row: of Parquet, the number of the row group's first row in its file.
    """

    number: int
    files: list[str]
    first: int = 0
    behind: int = 0
    row_group: int = 0
    first_row: int = 0


@dataclass(frozen=True)
class Corpus:
    """The documents to read.

    Args:
        kind: LINES, PARQUET or TEXT.
        root: the folder that paths start from.
        schema: the input's columns; none for text files.
        checksum: of names, sizes and times of all files.
    """

    kind: str
    root: str
    parts: list[Part]
    schema: pa.Schema
    checksum: str


def find_corpus(paths: list[Path], text_column: str, bytes_per_part: int) -> Corpus:
    """Return the parts of the files and folders that a user names.

    Args:
        text_column: of JSON lines and Parquet, where the documents are.
        bytes_per_part: about so many bytes of text are in a part.

    Raises:
        InputError: a path that does not exist; files of several kinds, with other columns, or none.
    """
    files = find_files(paths, (*KINDS, *TEXT_ENDINGS))
    if not files:
        raise InputError(f"--text {' '.join(map(str, paths))}: there are no documents")
    kinds = {kind_of(file): file for file in files}
    if len(kinds) > 1:
        found = ", ".join(f"{kind} ({file})" for kind, file in kinds.items())
        raise InputError(f"--text: files of one kind are expected, these are {found}; make a run for each")
    kind, stats = kind_of(files[0]), [file.stat() for file in files]
    if kind == PARQUET:
        schema, cut = parquet_schema(files), cut_parquet(files, text_column, bytes_per_part)
    elif kind == LINES:
        schema = lines_schema(files, text_column)
        cut = cut_lines(files, [stat.st_size for stat in stats], bytes_per_part)
    else:
        schema = pa.schema([])
        cut = group_files(files, [stat.st_size for stat in stats], bytes_per_part)
    if kind != TEXT and text_column not in schema.names:
        raise InputError(f"--text_column: no column {text_column!r}; there are {', '.join(schema.names)}")
    parts = [Part(number, **fields) for number, fields in enumerate(cut)]
    if not parts:
        raise InputError(f"--text {' '.join(map(str, paths))}: there are no rows in it")
    listed = [(str(file), stat.st_size, stat.st_mtime_ns) for file, stat in zip(files, stats, strict=True)]
    return Corpus(kind, str(Path.cwd()), parts, schema, hashlib.sha256(json.dumps(listed).encode()).hexdigest())


def kind_of(file: Path) -> str:
    """Return the kind of a file, by its name."""
    return KINDS.get(file.suffix.lower(), TEXT)


def cut_lines(files: list[Path], sizes: list[int], bytes_per_part: int) -> Iterator[dict[str, Any]]:
    """Yield the fields of the parts of JSON lines."""
    for file, size in zip(files, sizes, strict=True):
        for first in range(0, size, bytes_per_part):
            yield {"files": [str(file)], "first": first, "behind": min(first + bytes_per_part, size)}


def cut_parquet(files: list[Path], text_column: str, bytes_per_part: int) -> Iterator[dict[str, Any]]:
    """Yield the fields of the parts of Parquet files: rows of a row group, by their mean size."""
    for file in files:
        metadata, first_row = pq.read_metadata(file), 0
        column = metadata.schema.names.index(text_column) if text_column in metadata.schema.names else 0
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            per_row = group.column(column).total_uncompressed_size / max(group.num_rows, 1)
            step = max(int(bytes_per_part / max(per_row, 1)), 1)
            for first in range(0, group.num_rows, step):
                rows = {"first": first, "behind": min(first + step, group.num_rows)}
                yield {"files": [str(file)], **rows, "row_group": number, "first_row": first_row}
            first_row += group.num_rows


def group_files(files: list[Path], sizes: list[int], bytes_per_part: int) -> Iterator[dict[str, Any]]:
    """Yield the fields of the parts of text files: as many files as fit, at least one."""
    own: list[str] = []
    total = 0
    for file, size in zip(files, sizes, strict=True):
        if own and total + size > bytes_per_part:
            yield {"files": own}
            own, total = [], 0
        own.append(str(file))
        total += size
    yield {"files": own}


def parquet_schema(files: list[Path]) -> pa.Schema:
    """Return the columns of Parquet files.

    Raises:
        InputError: a file that cannot be read, or one whose columns are not those of the first.
    """
    schemas: list[pa.Schema] = []
    for file in files:
        try:
            schemas.append(pq.read_schema(file).remove_metadata())
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{file}: not readable as Parquet: {one_line(error)}") from error
        if schemas[-1] != schemas[0]:
            raise InputError(f"{file}: the columns are not those of {files[0]}")
    return schemas[0]


def lines_schema(files: list[Path], text_column: str) -> pa.Schema:
    """Return the columns of JSON lines, by the first lines of each file.

    Fields that are always strings, booleans, integers or numbers become columns of that type; all others, of mixed
    types, lists and objects, have no column of their own, and are part of OTHER_FIELDS. The text column has strings.
    """
    types: dict[str, set[type]] = {}
    for file in files:
        try:
            with file.open("rb") as lines:
                rows = [parse_line(line) for line in islice(lines, SAMPLE)]
        except OSError:
            continue  # it is reported in a row
        for row in rows:
            for name, value in row.items() if isinstance(row, dict) else ():
                types.setdefault(name, set()).update(set() if value is None else {type(value)})
    if text_column in types:
        types[text_column] = {str}
    numbers = {int, float}
    kinds = {name: {float} if found == numbers else found for name, found in types.items()}
    single = {name: next(iter(found)) for name, found in kinds.items() if len(found) == 1}
    fields = [(name, JSON_TYPES[kind]) for name, kind in single.items() if kind in JSON_TYPES]
    return pa.schema([*fields, (OTHER_FIELDS, pa.string())])


def parse_line(line: bytes) -> Any:
    """Return what a line of JSON says; the error, if it says nothing."""
    try:
        return json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        return error


def is_markup(file: Path) -> bool:
    """Return whether a text file is reduced to its prose; .txt, and what is unknown, is read as it is."""
    return ending(file) in TEXT_ENDINGS and ending(file) != ".txt"
