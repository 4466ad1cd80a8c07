"""Pinned tokens: the first segment of a pair, such as a question about a document, which every token attends to.

A row is laid out as [P pinned | D tokens], the tokens that its mask keeps, in their order. In a batch, each row has as
many places for pinned tokens as the row with most of them. The layers have this order; the output is in the caller's.

Shapes: n batch, t tokens, S places for pinned tokens, T for the others, D hidden size.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.utils import logging

from .lsg_sparse import is_traced

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class PinnedLayout:
    """Where the tokens of a batch stand while the layers run.

    Args:
        num_places: S.
        rows: (n, S + T), which of the caller's tokens stands in each place.
        key_mask: (n, S + T) boolean, False where none stands.
        places: (n, t), where each of the caller's tokens stands; any place for one that is masked.
        num_pinned: (n, 1), P of each row.
        is_first: (n, t) boolean, True for token 0, the first one that is not masked.
    """

    num_places: int
    rows: Tensor
    key_mask: Tensor
    places: Tensor
    num_pinned: Tensor
    is_first: Tensor

    def arrange(self, x: Tensor) -> Tensor:
        """Return (n, t, D) in the order of the layout, (n, S + T, D)."""
        return x.gather(1, self.rows[..., None].expand(-1, -1, x.shape[-1]))

    def restore(self, x: Tensor) -> Tensor:
        """Return (n, S + T, D) in the caller's order, (n, t, D)."""
        return x.gather(1, self.places[..., None].expand(-1, -1, x.shape[-1]))

    def without_first_token(self) -> Tensor:
        """Return the key mask without token 0: the first pinned one, or the first token of a row that has none."""
        place = torch.where(self.num_pinned > 0, 0, self.num_places)  # (n, 1)
        return self.key_mask.scatter(1, place, False)

    def positions(self, period: int) -> Tensor:
        """Return the positions (n, t) of the caller's tokens: pinned ones from 0 on, the others repeat those behind."""
        index = self.places - self.num_places
        repeated = self.num_pinned + index % (period - self.num_pinned)
        return torch.where(index < 0, self.places, repeated)


class MaskSubstitute:
    """What travels to the attention in the place of the mask: BART's family on transformers 5.0 drops keywords."""

    @property
    def num_keys(self) -> int:
        """How many keys a layer has."""
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int]:
        """(number of keys,), as transformers expects a mask to have a shape that ends with it."""
        return (self.num_keys,)

    @property
    def ndim(self) -> int:
        """1, as transformers would move a mask of two dimensions to another device."""
        return len(self.shape)


@dataclass(frozen=True)
class PinnedMask(MaskSubstitute):
    """Which keys are there, and how many of them are places for pinned ones."""

    key_mask: Tensor  # (n, S + T)
    num_places: int

    @property
    def num_keys(self) -> int:
        """S + T."""
        return self.key_mask.shape[1]


def find_layout(config: Any, input_ids: Tensor | None, mask: Tensor, pinned_mask: Tensor | None) -> PinnedLayout | None:
    """Return the layout of a batch; None if nothing is pinned, and no token would change its place.

    Args:
        config: with `pin_first_segment`.
        input_ids: (n, t); None if the caller gave embeddings.
        mask: (n, t) boolean, the tokens that are kept.
        pinned_mask: (n, t) boolean, the caller's choice of tokens; None for the first segment of pairs.

    Raises:
        ValueError: a pinned_mask of another shape, or with too many tokens.
    """
    if pinned_mask is not None:
        pinned = check_pinned_mask(pinned_mask, mask, config.max_pinned_tokens)
    elif input_ids is None:
        logger.warning_once("without input_ids no question is found, and nothing is pinned: pass pinned_mask")
        pinned = torch.zeros_like(mask)
    else:
        pinned = first_segments(input_ids, mask, config.separator_token_id, config.max_pinned_tokens)
    is_first = mask & (mask.cumsum(1) == 1)
    if config.mask_first_token:  # a segment of hidden tokens alone pins nothing
        pinned = pinned & (pinned & ~is_first).any(1, keepdim=True)
    num_kept = mask.sum(1, keepdim=True)
    pinned = pinned & (num_kept > 2 * config.block_size)  # shorter texts are read as by the original
    num_pinned = pinned.sum(1, keepdim=True)
    num_places, num_others = config.max_pinned_tokens, mask.shape[1]
    if not is_traced():
        num_places = int(num_pinned.max())
        num_others = max(1, int((num_kept - num_pinned).max()))
        in_order = bool((mask[:, 1:] <= mask[:, :-1]).all())
        if num_places == 0 and in_order:
            return None
    return make_layout(mask, pinned, is_first, num_places, num_others)


def make_layout(mask: Tensor, pinned: Tensor, is_first: Tensor, num_places: int, num_others: int) -> PinnedLayout:
    """Return the layout of a batch with S places for pinned tokens and T for others."""
    num_pinned, num_kept = pinned.sum(1, keepdim=True), mask.sum(1, keepdim=True)  # (n, 1)
    # (n, t): pinned tokens, the others, what is masked; counted, as ONNX has no stable sort
    others = mask & ~pinned
    rank = torch.where(pinned, pinned.cumsum(1), num_pinned + others.cumsum(1)) - 1
    rank = torch.where(mask, rank, num_kept + (~mask).cumsum(1) - 1)
    index = torch.arange(mask.shape[1], device=mask.device).expand_as(rank)
    order = torch.zeros_like(rank).scatter(1, rank, index)
    column = torch.arange(num_places + num_others, device=mask.device)[None]
    is_place = column < num_places
    source = torch.where(is_place, column, num_pinned + column - num_places)  # (n, S + T)
    key_mask = (column < num_pinned) | (~is_place & (source < num_kept))
    last = num_places + num_others - 1
    places = torch.where(rank < num_pinned, rank, rank - num_pinned + num_places).clamp(max=last)
    rows = order.gather(1, source.clamp(max=mask.shape[1] - 1))
    return PinnedLayout(num_places, rows, key_mask, places, num_pinned, is_first)


def first_segments(input_ids: Tensor, mask: Tensor, separator: int, max_tokens: int) -> Tensor:
    """Return which tokens (n, t) are the first segment of a pair, their separator included, up to a number of them.

    A row is a pair if a token other than a separator follows its first separator.
    """
    is_separator = (input_ids == separator) & mask
    before = is_separator.cumsum(1) - is_separator.long()  # separators in front of each token
    first = mask & (before == 0)
    is_pair = (mask & ~is_separator & (before > 0)).any(1, keepdim=True)
    kept = first & (first.cumsum(1) <= max_tokens)
    if not is_traced() and bool((is_pair & (first != kept)).any()):
        logger.warning_once(
            f"a first segment has more than max_pinned_tokens = {max_tokens} tokens; only these are pinned"
        )
    return kept & is_pair


def check_pinned_mask(pinned_mask: Tensor, mask: Tensor, max_tokens: int) -> Tensor:
    """Return the kept tokens of a caller's pinned_mask; raise ValueError if it cannot be used."""
    if pinned_mask.shape != mask.shape:
        expected = f"{tuple(mask.shape)}, that of input_ids"
        raise ValueError(f"a pinned_mask of shape {expected}, is expected, got {tuple(pinned_mask.shape)}")
    pinned = pinned_mask.bool() & mask
    if not is_traced() and (most := int(pinned.sum(1).max())) > max_tokens:
        raise ValueError(
            f"pinned_mask names {most} tokens of a row; at most max_pinned_tokens = {max_tokens} are allowed"
        )
    return pinned
