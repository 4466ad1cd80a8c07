"""From the ranks of right documents to a table and a picture."""

from statistics import fmean
from typing import Any

import torch

from experiments.common.results import markdown_table
from experiments.common.statistics import paired_difference

REFERENCE = 1  # the second reader


def summarize(scores: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Return the figures of the results file: a row for each reader, compared with the second."""
    rows = []
    reference = [*scores.values()][REFERENCE]
    for name, own in scores.items():
        ranks, others = (torch.tensor([score["reciprocal_rank"] for score in part]) for part in (own, reference))
        paired = paired_difference(ranks, others, torch.arange(len(ranks)))  # each question has a document of its own
        row = {"reader": name, "reciprocal_rank": paired["mean"], **{k: paired[k] for k in ("difference", "margin")}}
        rows.append(row | {part: round(fmean(score[part] for score in own), 4) for part in ("first", "seconds")})
    return {"reference": rows[REFERENCE]["reader"], "questions": len(reference), "rows": rows}


def make_tables(results: dict[str, Any]) -> str:
    """Return the table in Markdown."""
    rows, versions, given = results["rows"], results["versions"], results["arguments"]
    reference = next(row for row in rows if row["reader"] == results["reference"])
    header = ["reader", "mean reciprocal rank", f"less that of {results['reference']}", "right one first"]
    table = []
    for row in rows:
        paired = "" if row is reference else f"{row['difference']:+.3f} ± {row['margin']:.3f}"
        ratio = f"{row['seconds']:.2f} ({row['seconds'] / reference['seconds']:.2f})"
        table.append([row["reader"], f"{row['reciprocal_rank']:.3f}", paired, f"{row['first']:.3f}", ratio])
    chance = fmean(1 / rank for rank in range(1, given["candidates"] + 1))
    return (
        f"{results['questions']} questions, each with {given['candidates']} documents of {given['tokens'][0]:,} to "
        f"{given['tokens'][1]:,} tokens to rank; chance is {chance:.3f}. Differences are paired, ± half a 95 % "
        f"interval. CPU seconds are those of a question, without tokenization; {results['device']}, torch "
        f"{versions['torch']}, transformers {versions['transformers']}, {results['date']}.\n\n"
        + markdown_table([*header, "CPU seconds (ratio)"], table)
    )


def draw(results: dict[str, Any], figure: Any) -> None:
    """Draw the mean reciprocal rank of each reader against CPU seconds."""
    figure.set_size_inches(7, 5.4)
    axis = figure.add_subplot(xlabel="CPU seconds a question", ylabel="mean reciprocal rank", ylim=(0, 1.05))
    for row in results["rows"]:
        marker = "o" if row["reader"].startswith("LSG") else "s"
        axis.plot(row["seconds"], row["reciprocal_rank"], marker, markersize=8, label=row["reader"])
    chance = fmean(1 / rank for rank in range(1, results["arguments"]["candidates"] + 1))
    axis.axhline(chance, color="gray", linestyle=":", label="chance")
    axis.set_xlim(left=0)
    axis.grid(alpha=0.4)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
