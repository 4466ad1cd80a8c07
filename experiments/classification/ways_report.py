"""From the classes that documents were given to a table and a picture."""

from collections import Counter
from typing import Any

import torch

from experiments.common.results import markdown_table
from experiments.common.statistics import paired_difference

REFERENCE = 0  # the first way


def summarize(answers: dict[str, dict[str, Any]], labels: list[int]) -> dict[str, Any]:
    """Return the figures of the results file: a row for each way, compared with the first.

    Args:
        answers: of each way, what `classify` returns, and its minutes of training.
        labels: the right classes.
    """
    right = {name: torch.tensor(own["found"]).eq(torch.tensor(labels)).double() for name, own in answers.items()}
    reference = [*right.values()][REFERENCE]
    documents = torch.arange(len(labels))
    rows = [
        {"way": name, **paired_difference(right[name], reference, documents), **own} for name, own in answers.items()
    ]
    return {"labels": labels, "rows": rows}


def make_tables(results: dict[str, Any]) -> str:
    """Return the table in Markdown."""
    rows, versions, given = results["rows"], results["versions"], results["arguments"]
    labels, (least, most) = results["labels"], given["tokens"]
    header = ["way", "right", f"less that of the {rows[REFERENCE]['way']}", "training, CPU minutes"]
    table = []
    for number, row in enumerate(rows):
        paired = "" if number == REFERENCE else f"{row['difference']:+.3f} ± {row['margin']:.3f}"
        costs = f"{row['training_minutes']:.1f}", f"{row['seconds']:.2f}"
        table.append([row["way"], f"{row['mean']:.3f}", paired, *costs])
    most_frequent = max(Counter(labels).values()) / len(labels)
    return (
        f"{len(labels)} documents of {least:,} to {most:,} tokens from {given['text']}, of the classes "
        f"{', '.join(results['classes'])}, the most frequent of which has {most_frequent:.3f} of them; "
        f"{results['learned']} others were learned, {given['epochs']} times. Differences are paired, ± half a 95 % "
        f"interval. {results['device']}, torch {versions['torch']}, transformers {versions['transformers']}, "
        f"{results['date']}.\n\n" + markdown_table([*header, "CPU seconds a document"], table)
    )


def draw(results: dict[str, Any], figure: Any) -> None:
    """Draw a bar for each way, how many documents were right."""
    rows = results["rows"]
    figure.set_size_inches(8, 3)
    axis = figure.add_subplot(xlabel="part of the documents that were classified right", xlim=(0, 1.02))
    axis.barh([row["way"] for row in rows], [row["mean"] for row in rows])
    for place, row in enumerate(rows):
        axis.text(row["mean"] - 0.01, place, f"{row['mean']:.3f}", va="center", ha="right", color="white")
    axis.invert_yaxis()
    axis.grid(axis="x", alpha=0.4)
