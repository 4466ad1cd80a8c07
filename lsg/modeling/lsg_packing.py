"""Unpadding: a padded batch packed into one long row, so that the layers do not compute padding.

Shapes: n batch, t tokens, g globals, D hidden size, N tokens and globals of all packed rows.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

MIN_SAVED = 1 / 8  # share of the tokens; below it, a GPU is faster with all rows at once


def unpadded_ranges(mask: Tensor, block_size: int) -> list[tuple[int, int]]:
    """Return the tokens [start, stop) of each row of mask (n, t), without blocks at either end that are all padding.

    (0, 0) for a row that is all padding.
    """
    t = mask.shape[1]
    places = torch.arange(t, device=mask.device)
    first = torch.where(mask, places, t).amin(1) // block_size  # (n,), block of the first token
    stop = torch.where(mask, places + block_size, 0).amax(1) // block_size  # (n,), the one behind that of the last
    rows = zip(first.tolist(), stop.tolist(), strict=True)
    return [(first * block_size, min(stop * block_size, t)) if stop else (0, 0) for first, stop in rows]


@dataclass(frozen=True)
class Packing:
    """How a padded batch is packed into one row, in which the attention still takes each row alone.

    It travels to the attention as the mask: BART's family on transformers 5.0 drops keywords on the way.
    """

    num_tokens: int  # t, of the padded rows
    num_globals: int
    ranges: list[tuple[int, int]]  # tokens [start, stop) of each row
    key_masks: list[Tensor | None]  # of these tokens, (1, stop - start); None if all may be attended to

    @property
    def shape(self) -> tuple[int]:
        """(N,), as transformers expects a mask to have a shape that ends with the number of keys."""
        return (sum(self.lengths),)

    @property
    def ndim(self) -> int:
        """1, as transformers would move a mask of two dimensions to another device."""
        return len(self.shape)

    @property
    def lengths(self) -> list[int]:
        """Globals and tokens of each packed row."""
        return [self.num_globals + stop - start for start, stop in self.ranges]

    def pack(self, hidden_states: Tensor) -> Tensor:
        """Return the rows of (n, g + t, D) behind each other, without their padding: (1, N, D)."""
        g = self.num_globals
        parts = []
        for row, (start, stop) in zip(hidden_states, self.ranges, strict=True):
            parts += [row[:g], row[g + start : g + stop]]
        return torch.cat(parts)[None]

    def unpack(self, hidden_states: Tensor) -> Tensor:
        """Return (1, N, D) as (n, g + t, D) again, with zeros for the padding."""
        rows = []
        for row, (start, stop) in zip(hidden_states[0].split(self.lengths), self.ranges, strict=True):
            tokens = functional.pad(row[self.num_globals :], (0, 0, start, self.num_tokens - stop))
            rows.append(torch.cat([row[: self.num_globals], tokens]))
        return torch.stack(rows)


def plan_packing(mask: Tensor, key_mask: Tensor, num_globals: int, block_size: int, from_start: bool) -> Packing | None:
    """Return how to pack rows, None if there is too little padding for it.

    Args:
        mask: (n, t) boolean, the caller's mask: what is to be computed.
        key_mask: (n, t) boolean, what may be attended to: `mask`, or the same without token 0.
        num_globals: g.
        block_size: b; only whole blocks of padding are left out, at either end of a row.
        from_start: keep the padding in front of a row.
    """
    n, t = mask.shape
    ranges = unpadded_ranges(mask, block_size)
    if from_start:
        ranges = [(0, stop) for _, stop in ranges]
    saved = n * t - sum(stop - start for start, stop in ranges)
    least = 0 if mask.device.type == "cpu" else n * t * MIN_SAVED  # a CPU takes row by row anyway
    if saved <= least:
        return None
    rows = [row[None, start:stop] for row, (start, stop) in zip(key_mask, ranges, strict=True)]
    return Packing(t, num_globals, ranges, [None if bool(row.all()) else row for row in rows])
