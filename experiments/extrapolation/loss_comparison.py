"""From the losses of single tokens to means and paired differences."""

from typing import Any

import torch
from torch import Tensor

from experiments.extrapolation.masked_text import MaskedText, boundary_distance, distance_bins
from experiments.extrapolation.variants import CHUNKS


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
