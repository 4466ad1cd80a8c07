"""Rows without their padding: which part of each row is worth computing, and a batch packed into one long row.

Shapes: n batch, t tokens, g globals, D hidden size, N tokens and globals of all packed rows.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

WORTH_PACKING = 1 / 8  # share of the tokens that it must save where attention would else take all rows at once


def unpadded_ranges(mask: Tensor, block_size: int) -> list[tuple[int, int]]:
    """Give the tokens [start, stop) of each row of mask (n, t) without the blocks at either end that are all padding.

    A row without kept tokens gives (0, 0).
    """
    t = mask.shape[1]
    places = torch.arange(t, device=mask.device)
    first = torch.where(mask, places, t).amin(1) // block_size  # (n,), block of the first kept token
    stop = torch.where(mask, places + block_size, 0).amax(1) // block_size  # (n,), the one behind that of the last
    rows = zip(first.tolist(), stop.tolist(), strict=True)
    return [(first * block_size, min(stop * block_size, t)) if stop else (0, 0) for first, stop in rows]


@dataclass(frozen=True)
class Packing:
    """How a padded batch is packed into one row: layers that look at one token at a time then do no padding.

    It goes to the attention in place of the mask, and there each row is attended to alone.
    """

    num_tokens: int  # t, of the padded rows
    num_globals: int
    ranges: list[tuple[int, int]]  # tokens [start, stop) of each row
    key_masks: list[Tensor | None]  # of these tokens, (1, stop - start); None if all may be attended to

    @property
    def shape(self) -> tuple[int]:
        """What transformers asks of a mask on its way to the attention: N at its end."""
        return (sum(self.lengths),)

    @property
    def ndim(self) -> int:
        """The other thing it asks: it would move a mask of two dimensions to another device."""
        return len(self.shape)

    @property
    def lengths(self) -> list[int]:
        """Positions of each packed row, its globals included."""
        return [self.num_globals + stop - start for start, stop in self.ranges]

    def pack(self, hidden_states: Tensor) -> Tensor:
        """Put the rows of (n, g + t, D) behind each other, without their padding: (1, N, D)."""
        g = self.num_globals
        parts = []
        for row, (start, stop) in zip(hidden_states, self.ranges, strict=True):
            parts += [row[:g], row[g + start : g + stop]]
        return torch.cat(parts)[None]

    def unpack(self, hidden_states: Tensor) -> Tensor:
        """Put (1, N, D) back into (n, g + t, D), with zeros for the padding."""
        rows = []
        for row, (start, stop) in zip(hidden_states[0].split(self.lengths), self.ranges, strict=True):
            tokens = functional.pad(row[self.num_globals :], (0, 0, start, self.num_tokens - stop))
            rows.append(torch.cat([row[: self.num_globals], tokens]))
        return torch.stack(rows)


def plan_packing(mask: Tensor, key_mask: Tensor, num_globals: int, block_size: int, from_start: bool) -> Packing | None:
    """Return how to pack rows, or None if there is too little padding for it.

    Args:
        mask: (n, t) boolean, the caller's mask: what is to be computed.
        key_mask: (n, t) boolean, what may be attended to; other than `mask`, it can lack token 0.
        num_globals: g.
        block_size: b; blocks that are all padding are left out at either end of a row.
        from_start: keep the padding in front of a row.
    """
    n, t = mask.shape
    ranges = unpadded_ranges(mask, block_size)
    if from_start:
        ranges = [(0, stop) for _, stop in ranges]
    saved = n * t - sum(stop - start for start, stop in ranges)
    least = 0 if mask.device.type == "cpu" else n * t * WORTH_PACKING  # a CPU takes row by row anyway
    if saved <= least:
        return None
    kept = [row[None, start:stop] for row, (start, stop) in zip(key_mask, ranges, strict=True)]
    return Packing(t, num_globals, ranges, [None if bool(row.all()) else row for row in kept])
