"""From the losses of single tokens to means, paired differences, a table and a plot."""

from collections import Counter
from typing import Any

import torch
from torch import Tensor

from experiments.common.masked_readers import Reader
from experiments.common.masked_text import MaskedDocument
from experiments.common.measurement import conditions
from experiments.common.results import markdown_table
from experiments.common.statistics import paired_difference
from experiments.common.tokens import AROUND
from experiments.extrapolation.variants import FULL

TICKS = [-0.1, -0.05, 0, 0.05, 0.1, 0.2, 0.5, 1, 2, 5]  # of the loss, which is linear up to 0.1, then logarithmic


def summarize(
    readers: list[Reader], losses: list[Tensor], seconds: list[float], documents: list[MaskedDocument]
) -> dict[str, Any]:
    """Return the figures of the results file: what was read, and a row for each reader.

    Args:
        losses: (N,) of each reader, of the chosen tokens of all documents; the first reader is the reference.
        seconds: of each reader, for all documents.
    """
    lengths = [len(document.tokens) + AROUND for document in documents]
    cluster = torch.arange(len(documents)).repeat_interleave(torch.tensor([len(d.targets) for d in documents]))
    rows = []
    for reader, loss, own in zip(readers, losses, seconds, strict=True):
        paired = paired_difference(loss, losses[0], cluster)
        rows.append(
            {
                "reader": reader.name,
                "reach": reader.reach,
                "loss": paired["mean"],
                "difference": paired["difference"],
                "margin": paired["margin"],
                "seconds": round(own / sum(lengths) * 1000, 4),  # for 1,000 tokens
                "cost": round(own / seconds[0], 3),
            }
        )
    return {
        "documents": len(documents),
        "tokens": {"fewest": min(lengths), "most": max(lengths), "all": sum(lengths), "masked": len(cluster)},
        "rows": rows,
    }


def make_tables(results: dict[str, Any]) -> str:
    """Return the table in Markdown."""
    rows, tokens = results["rows"], results["tokens"]
    table = []
    for row in rows:
        paired = f"{row['difference']:+.3f} ± {row['margin']:.3f}"
        cells = [row["reader"], "" if row["reach"] is None else f"{row['reach']}", f"{row['loss']:.3f}"]
        table.append([*cells, "" if row is rows[0] else paired, f"{row['seconds']:.3f} ({row['cost']:.2f})"])
    header = ["reader", "reach", "loss", "less that on chunks", "CPU seconds for 1,000 tokens (ratio)"]
    return (
        f"Masked-token loss in nats on {results['documents']} documents of {tokens['fewest']:,} to {tokens['most']:,} "
        f"tokens, {tokens['all']:,} in all, {tokens['masked']:,} of them masked, the same ones for every reader; "
        f"{results['arguments']['checkpoint']}. Differences are paired, ± half a 95 % interval, clustered by document. "
        f"{conditions(results)}.\n\n" + markdown_table(header, table)
    )


def draw(results: dict[str, Any], figure: Any) -> None:
    """Draw the difference from the loss on chunks against CPU time, and against LSG's reach."""
    rows, drawn, handles = results["rows"], Counter[int](), {}
    figure.set_size_inches(12, 9)
    left = figure.add_subplot(1, 2, 1, xlabel="CPU time, divided by that of the chunks")
    right = figure.add_subplot(1, 2, 2, xlabel="reach of LSG (tokens; the same reach side by side)", sharey=left)
    for number, row in enumerate(rows):
        style = {"color": f"C{number % 10}", "marker": "so^Dv"[number // 5 % 5], "ms": 7, "capsize": 3, "ls": ""}
        points = [(left, row["cost"])]
        if row["reach"] is not None:
            points.append((right, row["reach"] + 8 * drawn[row["reach"]]))
            drawn[row["reach"]] += 1
        for axis, x in points:
            handles[row["reader"]] = axis.errorbar([x], [row["difference"]], [row["margin"]], **style)
    windows = [row for row in rows if row["reach"] is None and row["reader"] != FULL]
    left.plot([row["cost"] for row in windows], [row["difference"] for row in windows], "k--", lw=1, zorder=0)
    left.set_xlim(left=0)
    left.set_yscale("symlog", linthresh=0.1, linscale=2)
    left.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
    left.set_ylabel("loss, less that on chunks (nats)")
    for axis in (left, right):
        axis.grid(alpha=0.4)
        axis.axhline(0, color="gray", lw=1)
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=3, fontsize=9)
    figure.suptitle(f"{results['documents']} documents, {results['tokens']['all']:,} tokens")
