"""Rows of text for fine-tuning: local files or a data set on the Hub, checked before a model is loaded."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.common.errors import InputError, check_range
from lsg.errors import one_line

if TYPE_CHECKING:
    from datasets import Dataset

LOADERS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".txt": "text"}
SPLITS = ("train", "validation", "test")
FILES_HELP = """.csv, .tsv (with a header), .json (a list of objects), .jsonl (an object per line) or .txt (a row per
line, its fields separated by tabs, in this order: {})"""


def add_data_options(parser: argparse.ArgumentParser, fields: Sequence[str]) -> None:
    """Add the options for the source of the rows.

    Args:
        fields: what a line of a .txt file holds, in order.
    """
    group = parser.add_argument_group("data", "Local files, or the name of a data set on the Hub.")
    formats = FILES_HELP.format(", ".join(fields))
    group.add_argument("--train_file", type=Path, metavar="FILE", help=formats)
    group.add_argument("--validation_file", type=Path, metavar="FILE", help="measured after each epoch")
    group.add_argument("--test_file", type=Path, metavar="FILE", help="measured at the end")
    group.add_argument("--dataset", metavar="NAME", help="data set on the Hub, with a split named train")
    group.add_argument("--dataset_config", metavar="NAME", help="its configuration")
    group.add_argument("--dataset_revision", metavar="NAME", help="its branch, tag or commit, as refs/convert/parquet")
    group.add_argument("--max_train_samples", type=int, metavar="N", help="take the first N rows only")
    group.add_argument("--max_eval_samples", type=int, metavar="N", help="the same for validation and test")


def local_files(args: argparse.Namespace) -> dict[str, Path]:
    """Return the user's files by split."""
    files = {split: getattr(args, f"{split}_file") for split in SPLITS}
    return {split: file for split, file in files.items() if file is not None}


def check_sources(args: argparse.Namespace) -> None:
    """Raise InputError if the options name no data, or files that cannot hold any; nothing is read."""
    files = local_files(args)
    if files and args.dataset:
        raise InputError("--dataset and local files exclude each other")
    if not args.dataset and "train" not in files:
        raise InputError("no training data: pass --train_file FILE, or --dataset NAME")
    for split, file in files.items():
        if not file.is_file():
            raise InputError(f"--{split}_file: {file}: no such file")
        if file.suffix not in LOADERS:
            raise InputError(f"--{split}_file: {file}: the name has to end in one of {', '.join(LOADERS)}")
        if not file.stat().st_size:
            raise InputError(f"--{split}_file: {file}: the file is empty")
    check_range(args, "max_train_samples", "max_eval_samples", minimum=1)


def load_splits(args: argparse.Namespace, columns: Sequence[str]) -> "dict[str, Dataset]":
    """Read the splits, check that each has the columns, and cut them to the samples asked for.

    Args:
        args: with the options of `add_data_options`.
        columns: names of the required columns, in the order in which a .txt file has them.

    Raises:
        InputError: with the reason in one line.
    """
    if args.dataset:
        splits = load_from_hub(args.dataset, args.dataset_config, args.dataset_revision)
    else:
        splits = {split: load_file(file, columns) for split, file in local_files(args).items()}
    for split, rows in splits.items():
        for column in columns:
            if column not in rows.column_names:
                raise InputError(f"{split} split: no column {column!r}; there are {', '.join(rows.column_names)}")
        limit = args.max_train_samples if split == "train" else args.max_eval_samples
        splits[split] = rows.select(range(min(limit or len(rows), len(rows))))
    return splits


def load_file(file: Path, columns: Sequence[str]) -> "Dataset":
    """Read a local file."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError

    kind = LOADERS[file.suffix]
    # "", "NA" and "None" in a cell are strings, not missing values
    options = {"keep_default_na": False, "delimiter": "\t" if file.suffix == ".tsv" else ","} if kind == "csv" else {}
    try:
        rows = load_dataset(kind, data_files={"train": str(file)}, split="train", **options)
    except (DatasetGenerationError, OSError, ValueError) as error:
        if "corresponds to no data" in str(error):
            raise InputError(f"{file}: there are no rows in this file") from error
        raise InputError(f"{file}: not readable as {file.suffix}: {one_line(error.__cause__ or error)}") from error
    return split_lines(rows, columns, file) if kind == "text" else rows


def split_lines(lines: "Dataset", columns: Sequence[str], file: Path) -> "Dataset":
    """Split the lines of a text file at their tabs."""

    def cut(row: dict[str, str], index: int) -> dict[str, str]:
        fields = row["text"].split("\t")
        if len(fields) != len(columns):
            wanted = f"{len(columns)} fields separated by tabs ({', '.join(columns)}) are expected"
            raise InputError(f"{file}: row {index + 1}: {wanted}, got {len(fields)}")
        return dict(zip(columns, fields, strict=True))

    return lines.map(cut, with_indices=True, remove_columns=["text"])


def load_from_hub(name: str, config: str | None, revision: str | None) -> "dict[str, Dataset]":
    """Load a data set from the Hub, or from the cache; return its train, validation and test splits."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        found = load_dataset(name, config, revision=revision)
    except (DatasetsError, OSError, ValueError, RuntimeError) as error:
        raise InputError(f"--dataset: {name} cannot be loaded: {one_line(error)}") from error
    if "train" not in found:
        raise InputError(f"--dataset: {name} has no split named train, it has {', '.join(found)}")
    return {split: found[split] for split in SPLITS if split in found}


def numbered(splits: "dict[str, Dataset]", column: str) -> Iterator[tuple[str, Any]]:
    """Yield the values of a column, each with its place for error messages."""
    for split, rows in splits.items():
        for index, value in enumerate(rows[column]):
            yield f"{split} split, row {index + 1}, column {column!r}", value


def check_texts(splits: "dict[str, Dataset]", column: str, is_list: bool = False) -> None:
    """Raise InputError unless every value is a string, or a list of strings if `is_list`."""
    expected = "a list of strings" if is_list else "a string"
    for where, value in numbered(splits, column):
        if isinstance(value, list) and is_list:
            wrong = next((item for item in value if not isinstance(item, str)), None)
            if wrong is not None or None in value:
                raise InputError(f"{where}: {expected} is expected, there is {describe(wrong)} in it")
        elif is_list or not isinstance(value, str):
            raise InputError(f"{where}: {expected} is expected, this is {describe(value)}")


def describe(value: Any) -> str:
    """Return a value's type, as JSON calls it, and the value, shortened."""
    if value is None:
        return "missing (null)"
    words = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object", str: "a string"}
    return f"{words.get(type(value), type(value).__name__)} ({one_line(repr(value), 40)})"
