"""Figures of paired measurements."""

import torch
from torch import Tensor


def paired_difference(values: Tensor, reference: Tensor, cluster: Tensor) -> dict[str, float]:
    """Compare two measurements of the same things, such as the losses of tokens or the ranks of documents.

    Args:
        values, reference: (N,), of the same things.
        cluster: (N,), the number of each one's document; those of one document are not independent.

    Returns:
        The mean of the values, the mean difference, and half of its 95 % interval, clustered by document (0 if there is
        only one).
    """
    difference = (values - reference).double()
    mean = difference.mean()
    _, index = cluster.unique(return_inverse=True)
    count = int(index.max()) + 1
    sums = torch.zeros(count, dtype=torch.float64).index_add(0, index, difference - mean)  # (documents,)
    error = (sums.square().sum() * count / max(count - 1, 1)).sqrt() / len(difference)
    return {
        "mean": round(values.double().mean().item(), 4),
        "difference": round(mean.item(), 4),
        "margin": round(1.96 * error.item(), 4),
    }
