"""FlexAttention as its documentation defines it, all scores at once: quick on a CPU, where it has gradients, too.

(torch's own has none there, and is traced again for every shape, which takes a hundred times as long.)
"""

import contextlib
from collections.abc import Iterator
from unittest.mock import patch

import torch
from oracle import softmax_over
from torch import Tensor

from lsg.modeling import lsg_flex


def flex_reference(query, key, value, block_mask, scale, score_mod=None) -> Tensor:
    """Return what `flex_attention` does: tiles that are not listed are not read, full ones are not masked."""
    places = torch.meshgrid(*map(torch.arange, (*query.shape[:3], key.shape[2])), indexing="ij")
    partial = listed_tiles(block_mask.kv_num_blocks, block_mask.kv_indices, block_mask)
    allowed = partial & block_mask.mask_mod(*places)
    if block_mask.full_kv_num_blocks is not None:
        allowed = allowed | listed_tiles(block_mask.full_kv_num_blocks, block_mask.full_kv_indices, block_mask)
    zeros = query.new_zeros(places[0].shape)
    bias = 0 if score_mod is None else score_mod(zeros, *places)
    return softmax_over(query, key, value, allowed, scale, bias)


def listed_tiles(counts: Tensor, indices: Tensor, block_mask) -> Tensor:
    """Return which pairs (n or 1, h or 1, queries, keys) lie in the first `counts` tiles of `indices`."""
    listed = torch.arange(indices.shape[-1]) < counts[..., None]  # (n or 1, h or 1, query tiles, key tiles)
    tiles = torch.zeros_like(listed).scatter(-1, indices.long(), listed)
    q, k = block_mask.BLOCK_SIZE
    return tiles.repeat_interleave(q, -2).repeat_interleave(k, -1)


@contextlib.contextmanager
def with_flex_reference() -> Iterator[None]:
    """Have "flex" computed by its definition, which has gradients on a CPU, in small tiles, which is quick."""
    cached = lsg_flex.pattern_mask, lsg_flex.make_mask_mod, lsg_flex.visited_tiles
    uncached = {function.__name__: function.__wrapped__ for function in cached}
    with patch.multiple(lsg_flex, flex_kernel=lambda device_type: flex_reference, TILE=4, **uncached):
        yield
