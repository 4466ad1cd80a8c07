"""Tables and heatmaps of the needle test."""

from statistics import fmean
from typing import Any

from experiments.common.results import markdown_table
from experiments.extrapolation.inputs import conditions


def make_tables(results: dict[str, Any]) -> str:
    """Return the tables in Markdown: by length over all depths, and by depth at the longest length."""
    rows, count = results["rows"], results["arguments"]["needles"]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    lengths, depths = (sorted({row[name] for row in rows}) for name in ("length", "depth"))

    def cell(method: str, **where: float) -> str:
        own = [row for row in rows if {"method": method, **where}.items() <= row.items()]
        return f"{fmean(row['accuracy'] for row in own):.2f} ({fmean(row['reciprocal_rank'] for row in own):.2f})"

    by_length = [[m, vectors(m), *(cell(m, length=length) for length in lengths)] for m in methods]
    by_depth = [[m, vectors(m), *(cell(m, length=lengths[-1], depth=depth) for depth in depths)] for m in methods]
    chance = sum(1 / rank for rank in range(1, count + 1)) / count
    return (
        f"Top-1 accuracy, in brackets the mean reciprocal rank, among {count} documents (chance: {1 / count:.2f}, "
        f"{chance:.2f}), mean over {len(depths)} depths, each with {count} queries. "
        f"{conditions(results)}.\n\n"
        + markdown_table(["length", "vectors", *(f"{length:,}" for length in lengths)], by_length)
        + f"\nAt {lengths[-1]:,} tokens, by depth of the needle:\n\n"
        + markdown_table(["depth", "vectors", *map(str, depths)], by_depth)
    )


def vectors(method: str) -> str:
    """Return how many vectors a method stores for a document, in words."""
    return "one for each chunk" if "best chunk" in method else "one"


def draw(results: dict[str, Any], figure: Any) -> None:
    """Draw, for each method, top-1 accuracy by length and depth."""
    rows = results["rows"]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    lengths, depths = (sorted({row[name] for row in rows}) for name in ("length", "depth"))
    figure.set_size_inches(13, 10)
    axes = figure.subplots(-(-len(methods) // 3), 3, squeeze=False, sharey=True)
    for axis in axes.flat[len(methods) :]:
        axis.set_axis_off()
    for axis, method in zip(axes.flat, methods, strict=False):
        found = {(row["depth"], row["length"]): row["accuracy"] for row in rows if row["method"] == method}
        grid = [[found[depth, length] for length in lengths] for depth in depths]
        image = axis.imshow(grid, vmin=0, vmax=1, aspect="auto", cmap="viridis")
        for y, line in enumerate(grid):
            for x, value in enumerate(line):
                axis.text(x, y, f"{value:.1f}", ha="center", va="center", color="white" if value < 0.6 else "black")
        axis.set(title=method, xlabel="tokens in a document", ylabel="depth of the needle")
        axis.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths])
        axis.set_yticks(range(len(depths)), [str(depth) for depth in depths])
    figure.colorbar(image, ax=axes, label="top-1 accuracy", shrink=0.7)
