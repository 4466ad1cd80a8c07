"""FlexAttention as its documentation defines it, all scores at once: quick on a CPU, where it has gradients, too.

(torch's own has none there, and is traced again for every shape, which takes a hundred times as long.)
"""

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from unittest.mock import patch

import torch
from torch import Tensor

from lsg.modeling import lsg_flex, lsg_flex_mask


def flex_reference(query, key, value, block_mask, **others) -> tuple[Tensor, Tensor]:
    """Return what `flex_attention` does: tiles that are not listed are not read, full ones are not masked."""

    def mask_mod(*places: Tensor) -> Tensor:
        partial = listed_tiles(block_mask.kv_num_blocks, block_mask.kv_indices, block_mask)
        allowed = partial & block_mask.mask_mod(*places)
        if block_mask.full_kv_num_blocks is None:
            return allowed
        return allowed | listed_tiles(block_mask.full_kv_num_blocks, block_mask.full_kv_indices, block_mask)

    return lsg_flex.dense_flex(query, key, value, SimpleNamespace(mask_mod=mask_mod), **others)


def listed_tiles(counts: Tensor, indices: Tensor, block_mask) -> Tensor:
    """Return which pairs (n or 1, h or 1, queries, keys) lie in the first `counts` tiles of `indices`."""
    listed = torch.arange(indices.shape[-1]) < counts[..., None]  # (n or 1, h or 1, query tiles, key tiles)
    tiles = torch.zeros_like(listed).scatter(-1, indices.long(), listed)
    q, k = block_mask.BLOCK_SIZE
    return tiles.repeat_interleave(q, -2).repeat_interleave(k, -1)


@contextlib.contextmanager
def with_flex_reference() -> Iterator[None]:
    """Have "flex" computed by its definition, which has gradients on a CPU, in small tiles, which is quick."""
    cached = lsg_flex_mask.pattern_mask, lsg_flex_mask.make_mask_mod, lsg_flex_mask.visited_tiles
    uncached = {function.__name__: function.__wrapped__ for function in cached}
    with (
        patch.multiple(lsg_flex_mask, TILE=4, **uncached),
        patch.object(lsg_flex, "flex_kernel", lambda device_type: flex_reference),
    ):
        yield
