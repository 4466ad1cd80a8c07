"""The labels of a classification task, and lists of labels in text files."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.common.data import describe, numbered
from experiments.common.errors import InputError
from lsg.errors import one_line

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Labels:
    """The classes of a task, in the order of the model's outputs."""

    names: tuple[str, ...]
    is_multi: bool  # a row has any number of classes, instead of one
    name_of: Callable[[Any], str]  # from a value of the column, such as a Hub data set's class number

    @property
    def config_fields(self) -> dict[str, Any]:
        """The fields of a model's config that describe the classes."""
        return {
            "num_labels": len(self.names),
            "id2label": dict(enumerate(self.names)),
            "label2id": {name: index for index, name in enumerate(self.names)},
            "problem_type": "multi_label_classification" if self.is_multi else "single_label_classification",
        }

    def encode(self, value: Any) -> int | list[float]:
        """Return the number of a row's class, or for several classes a 0 or 1 for each class."""
        if not self.is_multi:
            return self.names.index(self.name_of(value))
        present = {self.name_of(item) for item in value}
        return [float(name in present) for name in self.names]


def find_labels(splits: "dict[str, Dataset]", column: str, is_multi: bool) -> Labels:
    """Return the classes that a Hub data set declares, else those of the training split.

    Raises:
        InputError: a value that is not a label, or a class that is not in the training split.
    """
    from datasets import ClassLabel

    feature = splits["train"].features[column]
    feature = getattr(feature, "feature", feature)  # of the items, if it is a list
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
            if declared and isinstance(item, int) and not 0 <= item < declared.num_classes:
                raise InputError(f"{where}: not a label ({item})")
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
    """Return a sort key: numbers by value, before words."""
    return not name.isdecimal(), int(name) if name.isdecimal() else 0, name


def split_cells(splits: "dict[str, Dataset]", column: str, separator: str) -> "dict[str, Dataset]":
    """Split strings of labels ("a;b"), which files without lists have, into lists; leave lists as they are."""

    def cut(values: list[Any]) -> dict[str, list[Any]]:
        return {column: [cell_items(value, separator) if isinstance(value, str) else value for value in values]}

    return {
        split: rows.map(cut, batched=True, input_columns=[column])
        if isinstance(next(iter(rows[column])), str)
        else rows
        for split, rows in splits.items()
    }


def cell_items(cell: str, separator: str) -> list[str]:
    """Return the items of a cell without surrounding spaces; an empty cell has none."""
    return [item.strip() for item in cell.split(separator) if item.strip()]
