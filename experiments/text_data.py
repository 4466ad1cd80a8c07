"""The data of a fine-tuning run: local files or a Hub data set, checked row by row before a model is loaded."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.input_error import InputError
from lsg.errors import one_line

if TYPE_CHECKING:
    from datasets import Dataset

LOADERS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".txt": "text"}
SPLITS = ("train", "validation", "test")
FILES_HELP = """.csv, .tsv (with a header), .json (a list of objects), .jsonl (an object per line) or .txt (a row per
line, its fields divided by tabs, in this order: {})"""


def add_data_options(parser: argparse.ArgumentParser, fields: Sequence[str]) -> None:
    """Add the options that say where the rows come from.

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


def given_files(args: argparse.Namespace) -> dict[str, Path]:
    """Give the user's files by split."""
    files = {split: getattr(args, f"{split}_file") for split in SPLITS}
    return {split: file for split, file in files.items() if file is not None}


def check_sources(args: argparse.Namespace) -> None:
    """Raise InputError unless the options name data that can be there; nothing is read."""
    files = given_files(args)
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
    for name in ("max_train_samples", "max_eval_samples"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise InputError(f"--{name}: 1 or more is expected, got {getattr(args, name)}")


def load_splits(args: argparse.Namespace, columns: Sequence[str]) -> "dict[str, Dataset]":
    """Read the splits that there are, and see that each has rows and the columns.

    Args:
        args: with the options of `add_data_options`.
        columns: names of the columns that are needed, in the order in which a .txt file has them.

    Raises:
        InputError: with the reason in one line.
    """
    if args.dataset:
        splits = load_from_hub(args.dataset, args.dataset_config, args.dataset_revision)
    else:
        splits = {split: load_file(file, columns) for split, file in given_files(args).items()}
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
    # an empty cell, or one that says NA or None, is what it says
    options = {"keep_default_na": False, "delimiter": "\t" if file.suffix == ".tsv" else ","} if kind == "csv" else {}
    try:
        rows = load_dataset(kind, data_files={"train": str(file)}, split="train", **options)
    except (DatasetGenerationError, OSError, ValueError) as error:
        if "corresponds to no data" in str(error):
            raise InputError(f"{file}: there are no rows in this file") from error
        raise InputError(f"{file}: not readable as {file.suffix}: {one_line(error.__cause__ or error)}") from error
    return split_lines(rows, columns, file) if kind == "text" else rows


def split_lines(lines: "Dataset", columns: Sequence[str], file: Path) -> "Dataset":
    """Cut the lines of a text file at their tabs."""

    def cut(row: dict[str, str], index: int) -> dict[str, str]:
        fields = row["text"].split("\t")
        if len(fields) != len(columns):
            wanted = f"{len(columns)} fields divided by tabs ({', '.join(columns)}) are expected"
            raise InputError(f"{file}: row {index + 1}: {wanted}, got {len(fields)}")
        return dict(zip(columns, fields, strict=True))

    return lines.map(cut, with_indices=True, remove_columns=["text"])


def load_from_hub(name: str, config: str | None, revision: str | None) -> "dict[str, Dataset]":
    """Download a data set, or find it among those downloaded before; give its usual splits."""
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
    """Yield the values of a column with the words that say where each is."""
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
    """Name a value's type in the words of JSON, and show it."""
    if value is None:
        return "missing (null)"
    words = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object", str: "a string"}
    return f"{words.get(type(value), type(value).__name__)} ({one_line(repr(value), 40)})"


@dataclass(frozen=True)
class Labels:
    """The classes of a task, in the order of the model's outputs.

    Args:
        names: of the classes.
        is_multi: a row has any number of classes, not just one.
        name_of: turns what is in a row, such as a Hub data set's class number, into a name.
    """

    names: tuple[str, ...]
    is_multi: bool
    name_of: Callable[[Any], str]

    @property
    def config_fields(self) -> dict[str, Any]:
        """What a model's config says of them, but for their number."""
        return {
            "id2label": dict(enumerate(self.names)),
            "label2id": {name: index for index, name in enumerate(self.names)},
            "problem_type": "multi_label_classification" if self.is_multi else "single_label_classification",
        }

    def encode(self, value: Any) -> int | list[float]:
        """Give a row's class as its number, or its classes as 0 and 1 per class."""
        if not self.is_multi:
            return self.names.index(self.name_of(value))
        present = {self.name_of(item) for item in value}
        return [float(name in present) for name in self.names]


def find_labels(splits: "dict[str, Dataset]", column: str, is_multi: bool) -> Labels:
    """Find the classes: those that a Hub data set declares, else those of the training split.

    Raises:
        InputError: a value that is no label, or a class that the training split does not have.
    """
    from datasets import ClassLabel

    feature = splits["train"].features[column]
    feature = getattr(feature, "feature", feature)  # of a list's items
    declared = feature if isinstance(feature, ClassLabel) else None
    labels = Labels(tuple(declared.names) if declared else (), is_multi, declared.int2str if declared else str)
    names: dict[str, None] = dict.fromkeys(labels.names)
    for where, value in numbered(splits, column):
        if is_multi and not isinstance(value, list):
            raise InputError(f"{where}: a list of labels is expected, this is {describe(value)}")
        for item in value if is_multi else [value]:
            if not isinstance(item, str | int):
                hint = "; pass --multi_label" if isinstance(value, list) and not is_multi else ""
                raise InputError(f"{where}: a label (string or whole number) is expected, got {describe(item)}{hint}")
            if declared and not 0 <= item < declared.num_classes:
                raise InputError(f"{where}: no label ({item})")
            name = labels.name_of(item)
            if where.startswith("train "):
                names[name] = None
            elif name not in names:
                known = one_line(", ".join(sorted(names, key=natural)), 200)
                raise InputError(f"{where}: the label {name!r} is not one of the training split's: {known}")
    ordered = tuple(names) if declared else tuple(sorted(names, key=natural))
    if len(ordered) < 2 and not is_multi:
        raise InputError(f"train split, column {column!r}: at least 2 labels are expected, there is {len(ordered)}")
    return Labels(ordered, is_multi, labels.name_of)


def natural(name: str) -> tuple[bool, int, str]:
    """Sort numbers by value, before words."""
    return not name.isdecimal(), int(name) if name.isdecimal() else 0, name


def split_cells(splits: "dict[str, Dataset]", column: str, separator: str) -> "dict[str, Dataset]":
    """Turn a column of strings, as files without lists have it ("a;b"), into one of lists; lists stay."""

    def cut(values: list[Any]) -> dict[str, list[Any]]:
        return {column: [cell_items(value, separator) if isinstance(value, str) else value for value in values]}

    return {
        split: rows.map(cut, batched=True, input_columns=[column])
        if isinstance(next(iter(rows[column])), str)
        else rows
        for split, rows in splits.items()
    }


def cell_items(cell: str, separator: str) -> list[str]:
    """Give the items of a cell, without the blanks around them; none of an empty cell."""
    return [item.strip() for item in cell.split(separator) if item.strip()]
