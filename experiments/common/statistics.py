"""Figures of paired measurements."""

import torch
from torch import Tensor


def paired_difference(loss: Tensor, reference: Tensor, cluster: Tensor) -> dict[str, float]:
    """Compare two losses of the same tokens.

    Args:
        loss, reference: (N,), of the same tokens.
        cluster: (N,), the number of each token's document; tokens of one document are not independent.

    Returns:
        The mean loss, the mean difference, and its standard error, clustered by document (0 if there is only one).
    """
    difference = (loss - reference).double()
    mean = difference.mean()
    _, index = cluster.unique(return_inverse=True)
    count = int(index.max()) + 1
    sums = torch.zeros(count, dtype=torch.float64).index_add(0, index, difference - mean)  # (documents,)
    error = (sums.square().sum() * count / max(count - 1, 1)).sqrt() / len(difference)
    return {
        "tokens": len(loss),
        "loss": round(loss.double().mean().item(), 4),
        "difference": round(mean.item(), 4),
        "standard_error": round(error.item(), 4),
    }
