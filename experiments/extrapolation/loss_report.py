"""From the losses of single tokens to means, paired differences, tables and a plot."""

from typing import Any

import torch
from torch import Tensor

from experiments.common.results import markdown_table
from experiments.extrapolation.inputs import conditions
from experiments.extrapolation.masked_text import MaskedText, boundary_distance, distance_bins
from experiments.extrapolation.variants import CHUNKS, FULL

TICKS = [-0.2, -0.1, 0, 0.1, 0.2, 0.5, 1, 2, 5]  # of the loss, which is linear up to 0.1 and logarithmic above


def paired_difference(loss: Tensor, reference: Tensor, cluster: Tensor) -> dict[str, float]:
    """Compare two losses of the same tokens.

    Args:
        loss, reference: (N,), of the same tokens.
        cluster: (N,), the number of each token's span of text; tokens of one span are not independent.

    Returns:
        The mean loss, the mean difference, and its standard error, clustered by span (0 if there is only one span).
    """
    difference = (loss - reference).double()
    mean = difference.mean()
    _, index = cluster.unique(return_inverse=True)
    count = int(index.max()) + 1
    sums = torch.zeros(count, dtype=torch.float64).index_add(0, index, difference - mean)  # (spans,)
    error = (sums.square().sum() * count / max(count - 1, 1)).sqrt() / len(difference)
    return {
        "tokens": len(loss),
        "loss": round(loss.double().mean().item(), 4),
        "difference": round(mean.item(), 4),
        "standard_error": round(error.item(), 4),
    }


def make_rows(losses: dict[str, dict[int, Tensor]], text: MaskedText) -> list[dict[str, Any]]:
    """Compare every variant at every length with the original on chunks, over all tokens and by distance."""
    distance, cluster = boundary_distance(text.places, text.unit), text.places // text.unit
    bins = [(first, last, (distance >= first) & (distance <= last)) for first, last in distance_bins(text.unit)]
    rows = []
    for variant, by_length in losses.items():
        for length, loss in by_length.items():
            reference = losses[CHUNKS][length]
            near = [
                {"first": first, "last": last, **paired_difference(loss[where], reference[where], cluster[where])}
                for first, last, where in bins
                if where.any()
            ]
            total = paired_difference(loss, reference, cluster)
            rows.append({"variant": variant, "length": length, **total, "by_distance": near})
    return rows


def cell(row: dict[str, Any]) -> str:
    """Return a loss, and its difference from the chunks, as text."""
    if row["variant"] == CHUNKS:
        return f"{row['loss']:.3f}"
    difference = round(row["difference"], 3) + 0.0  # no "-0.000"
    return f"{row['loss']:.3f} ({difference:+.3f} ± {row['standard_error']:.3f})"


def make_tables(results: dict[str, Any]) -> str:
    """Return the tables in Markdown: loss by length, and by distance at the longest length."""
    rows, names = results["rows"], list(results["variants"])
    lengths = sorted({row["length"] for row in rows})
    found = {(row["variant"], row["length"]): row for row in rows}
    by_length = [[name, *(cell(found[name, length]) for length in lengths)] for name in names]
    longest = [found[name, lengths[-1]] for name in names]
    bins = [f"{near['first']} to {near['last']}" for near in longest[0]["by_distance"]]
    counts = [near["tokens"] for near in longest[0]["by_distance"]]
    by_distance = [[r["variant"], *(cell({**r, **near}) for near in r["by_distance"])] for r in longest]
    text, unit = results["text"], results["original_length"]
    return (
        f"Masked-token loss in nats, in brackets the paired difference from the {CHUNKS} of {unit} tokens ± its "
        f"standard error, clustered by span of {unit} tokens. {results['arguments']['checkpoint']}, "
        f"{text['masked']:,} masked tokens of {text['tokens']:,}, the same ones everywhere; "
        f"{conditions(results)}.\n\n"
        + markdown_table(["length", *(f"{length:,}" for length in lengths)], by_length)
        + f"\nAt {lengths[-1]:,} tokens, by distance of the token from the nearest multiple of {unit} "
        f"({', '.join(f'{n:,}' for n in counts)} tokens):\n\n" + markdown_table(["distance", *bins], by_distance)
    )


def draw(results: dict[str, Any], figure: Any) -> None:
    """Draw, for each block size, the difference from the loss on chunks, by length and below it by distance."""
    rows, unit = results["rows"], results["original_length"]
    grid = {name: fields for name, fields in results["variants"].items() if "block_size" in fields}
    sizes = sorted({fields["block_size"] for fields in grid.values()})
    lengths = sorted({row["length"] for row in rows})
    figure.set_size_inches(4.2 * len(sizes), 8)
    axes = figure.subplots(2, len(sizes), squeeze=False, sharey="row")
    for column, size in enumerate(sizes):
        shown = [CHUNKS, FULL, *(name for name, fields in grid.items() if fields["block_size"] == size)]
        for number, name in enumerate(shown):
            own = [row for row in rows if row["variant"] == name]
            style = {CHUNKS: "k--", FULL: "k:"}.get(name, f"C{number - 2}o-")
            label = grid[name]["sparsity_type"] if name in grid else name
            near = own[-1]["by_distance"]
            bins = [f"{item['first']}-{item['last']}" for item in near]
            for axis, x, part in ((axes[0, column], lengths, own), (axes[1, column], bins, near)):
                axis.plot(x, [item["difference"] for item in part], style, label=label, ms=4)
        axes[0, column].set_xscale("log", base=2)
        axes[0, column].set_xticks(lengths, [f"{length:,}" for length in lengths])
        axes[0, column].set(title=f"LSG with blocks of {size} tokens", xlabel="tokens in a window")
        axes[1, column].set_xlabel(f"tokens to the nearest multiple of {unit}")
    for axis, where in ((axes[0, 0], "all tokens"), (axes[1, 0], f"windows of {lengths[-1]:,}")):
        axis.set_yscale("symlog", linthresh=0.1)
        axis.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
        axis.set_ylabel(f"loss, less that on chunks (nats)\n{where}")
    for axis in axes.flat:
        axis.grid(alpha=0.4)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
