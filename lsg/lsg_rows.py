"""Rows without their padding: which part of each row is worth computing, and batches packed into one long row.

Shapes: n batch, t tokens, g globals, D hidden size.
"""

import torch
from torch import Tensor


def kept_ranges(keep: Tensor, block_size: int) -> list[tuple[int, int]]:
    """Give the tokens [start, stop) of each row of keep (n, t) that are not padding at either end.

    `start` is the first token of the block that holds the first kept token, so that blocks stay where they were;
    `stop` comes right behind the last kept token. A row without kept tokens gives (0, 0).
    """
    n, t = keep.shape
    places = torch.arange(t, device=keep.device)
    first = torch.where(keep, places, t).amin(1)  # (n,)
    stop = torch.where(keep, places + 1, 0).amax(1)  # (n,)
    rows = zip((first // block_size * block_size).tolist(), stop.tolist(), strict=True)
    return [(start, stop) if stop else (0, 0) for start, stop in rows]
