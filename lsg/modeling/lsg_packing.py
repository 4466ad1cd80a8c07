"""Unpadding: a padded batch packed into one long row, so that the layers do not compute padding.

Shapes: n batch, t tokens, g globals, D hidden size, N tokens and globals of all packed rows.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .lsg_globals import cut_globals, without_first_token
from .lsg_pinned import MaskSubstitute, PinnedLayout, PinnedMask
from .lsg_sparse import is_traced

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
class Packing(MaskSubstitute):
    """How a padded batch is packed into one row, in which the attention still takes each row alone.

    It travels to the attention as the mask.
    """

    num_tokens: int  # t, of the padded rows; without places for pinned tokens
    num_globals: int
    ranges: list[tuple[int, int]]  # tokens [start, stop) of each row
    key_masks: list[Tensor | None]  # of pinned and these tokens, (1, P + stop - start); None if all may be attended to
    num_places: int  # S, for pinned tokens in the padded rows
    num_pinned: list[int]  # P of each row

    @property
    def num_keys(self) -> int:
        """N, globals included, as the rows stand behind each other."""
        return sum(self.lengths)

    @property
    def lengths(self) -> list[int]:
        """Globals, pinned tokens and others of each packed row."""
        ranges = zip(self.num_pinned, self.ranges, strict=True)
        return [self.num_globals + pinned + stop - start for pinned, (start, stop) in ranges]

    def pack(self, hidden_states: Tensor) -> Tensor:
        """Return the rows of (n, g + S + t, D) behind each other, without their padding: (1, N, D)."""
        g, first = self.num_globals, self.num_globals + self.num_places
        parts = []
        for row, pinned, (start, stop) in zip(hidden_states, self.num_pinned, self.ranges, strict=True):
            parts += [row[: g + pinned], row[first + start : first + stop]]
        return torch.cat(parts)[None]

    def spread(self, x: Tensor) -> Tensor:
        """Return what each row has one of, (n, 1, D), for all its places, (n, g + S + t, D)."""
        return x.expand(-1, self.num_globals + self.num_places + self.num_tokens, -1)

    def unpack(self, hidden_states: Tensor) -> Tensor:
        """Return (1, N, D) as (n, g + S + t, D) again; padding has the numbers of global 0, without its gradient.

        Not zeros, of which a LayerNorm behind the encoder makes gradients that are NaN in half precision.
        """
        rows = []
        packed = zip(hidden_states[0].split(self.lengths), self.num_pinned, self.ranges, strict=True)
        for row, pinned, (start, stop) in packed:
            front = self.num_globals + pinned
            before, behind = self.num_places - pinned + start, self.num_tokens - stop
            padding = row[:1].detach()  # (1, D)
            parts = [row[:front], padding.expand(before, -1), row[front:], padding.expand(behind, -1)]
            rows.append(torch.cat(parts))
        return torch.stack(rows)


def plan_packing(
    mask: Tensor,
    key_mask: Tensor,
    num_globals: int,
    block_size: int,
    from_start: bool,
    num_pinned: list[int] | None = None,
) -> Packing | None:
    """Return how to pack rows, None if there is too little padding for it.

    Args:
        mask: (n, S + t) boolean, the caller's mask: what is to be computed.
        key_mask: (n, S + t) boolean, what may be attended to: `mask`, or the same without token 0.
        num_globals: g.
        block_size: b; only whole blocks of padding are left out, at either end of a row.
        from_start: keep the padding in front of a row.
        num_pinned: P of each row, for which there are S places, as many as the largest needs; None for none.
    """
    n = len(mask)
    num_pinned = num_pinned or [0] * n
    places = max(num_pinned)
    ranges = unpadded_ranges(mask[:, places:], block_size)
    if from_start:
        ranges = [(0, stop) for _, stop in ranges]
    ranges = [
        (start, max(stop, start + (pinned > 0))) for pinned, (start, stop) in zip(num_pinned, ranges, strict=True)
    ]
    saved = mask.numel() - sum(num_pinned) - sum(stop - start for start, stop in ranges)
    least = 0 if mask.device.type == "cpu" else mask.numel() * MIN_SAVED  # a CPU takes row by row anyway
    if saved <= least:
        return None
    rows = [
        torch.cat([row[:pinned], row[places + start : places + stop]])[None]
        for row, pinned, (start, stop) in zip(key_mask, num_pinned, ranges, strict=True)
    ]
    key_masks = [None if bool(row.all()) else row for row in rows]
    return Packing(mask.shape[1] - places, num_globals, ranges, key_masks, places, num_pinned)


def packing_of(
    config: Any, mask: Tensor | None, key_mask: Tensor | None, layout: PinnedLayout | None = None
) -> Packing | None:
    """Return how to pack rows, None if nothing is gained, or if the code is traced.

    All tokens of the caller's mask (n, t) are computed, also token 0 where `key_mask` hides it as a key.
    """
    if mask is None or key_mask is None or is_traced():
        return None
    pattern = config.lsg_pattern()
    masks = mask.bool(), key_mask.bool()
    num_pinned = None if layout is None else layout.num_pinned.flatten().tolist()
    from_start = pattern.needs_first_query or config.has_distance_bias  # which counts from the first place
    return plan_packing(*masks, pattern.num_global_tokens, pattern.block_size, from_start, num_pinned)


@dataclass(frozen=True)
class Arrangement:
    """How the rows of a batch lie while the layers run: as the caller's, with pinned tokens in front, or packed.

    Args:
        mask: what the layers get as the mask.
        num_globals: g.
    """

    mask: Tensor | MaskSubstitute | None
    num_globals: int
    layout: PinnedLayout | None
    packing: Packing | None

    @property
    def is_plain(self) -> bool:
        """Whether all rows lie as the caller's."""
        return self.layout is None and self.packing is None

    def arrange(self, x: Tensor) -> Tensor:
        """Return (n, g + t, D) as the layers take it."""
        if self.layout is not None:
            x = torch.cat([x[:, : self.num_globals], self.layout.arrange(x[:, self.num_globals :])], 1)
        return x if self.packing is None else self.packing.pack(x)

    def restore(self, hidden_states: Tensor, pool: bool) -> Tensor:
        """Return what the layers gave as (n, t, D), in the caller's order; see `cut_globals`."""
        if self.packing is not None:
            hidden_states = self.packing.unpack(hidden_states)
        return cut_globals(hidden_states, self.num_globals, pool, self.layout)


def arrange_rows(
    config: Any,
    hidden_states: Tensor,
    attention_mask: Tensor | None,
    layout: PinnedLayout | None,
    may_pack: bool,
    past: int = 0,
) -> Arrangement:
    """Return how rows lie while the layers run, and what they get as the mask: token 0 hidden if the config says so.

    Args:
        hidden_states: (n, g + t, D), embedded.
        attention_mask: the caller's, (n, p + t); None if all keys are there.
        layout: the order of the tokens; None for the caller's.
        may_pack: whether rows may be packed.
        past: p, the number of cached keys.
    """
    mask = key_mask = attention_mask
    if layout is not None:
        mask = layout.key_mask
        key_mask = layout.without_first_token() if config.mask_first_token else mask
    elif config.mask_first_token:
        first = 0 if config.lsg_pattern().is_causal else past
        shape = (hidden_states.shape[0], past + hidden_states.shape[1] - config.num_global_tokens)
        key_mask = without_first_token(attention_mask, shape, hidden_states.device, first)
    packing = packing_of(config, mask, key_mask, layout) if may_pack else None
    substitute: Tensor | MaskSubstitute | None = key_mask if packing is None else packing
    if packing is None and layout is not None and key_mask is not None:
        substitute = PinnedMask(key_mask, layout.num_places)
    return Arrangement(substitute, config.num_global_tokens, layout, packing)
