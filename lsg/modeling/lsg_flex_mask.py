"""Masks of the backend "flex": the pattern in closed form, over keys laid out as [tokens | sparse | globals].

Which tiles of 128 x 128 scores the kernel visits is computed in closed form, too, and cached per length.

Shapes: n batch, h heads, g globals and pinned tokens, T padded tokens, K all keys, padded.
"""

from collections.abc import Callable
from functools import lru_cache
from math import lcm

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask

from .lsg_pattern import LSGPattern
from .lsg_sparse import SparseKeys

TILE = 128
SIZES_PER_DOUBLING = 8  # lengths are rounded up by an eighth of a power of two at most


def padded_length(num_tokens: int, block_size: int) -> int:
    """Return a length rounded up to whole tiles and blocks, with SIZES_PER_DOUBLING lengths between powers of two."""
    step = max(1, 2 ** (num_tokens.bit_length() - 1) // SIZES_PER_DOUBLING)
    unit = lcm(TILE, block_size)
    step = -(-step // unit) * unit
    return -(-num_tokens // step) * step


def tile_padding(num_keys: int) -> int:
    """Return how many keys have to stand behind so many, so that they fill whole tiles."""
    return -num_keys % TILE


def make_mask(
    num_tokens: int, key_mask: Tensor | None, sparse: SparseKeys, pattern: LSGPattern, device: torch.device
) -> BlockMask:
    """Return the mask of T tokens; which tiles are visited is cached per length, padding is masked within tiles."""
    if key_mask is None and sparse.key_mask is None:
        return pattern_mask(num_tokens, pattern, device)
    g = pattern.num_front_tokens
    end = tile_padding(sparse.key.shape[2] + g)
    n, h, r, _ = sparse.key.shape
    if key_mask is None:  # even without padding, "lsh" masks empty clusters
        key_mask = torch.ones(n, g + num_tokens, dtype=torch.bool, device=device)
    parts = [key_mask[:, None, g:].expand(-1, h, -1), key_mask[:, None, :g].expand(-1, h, -1)]
    sparse_mask = key_mask.new_ones(n, h, r) if sparse.key_mask is None else sparse.key_mask.expand(n, h, -1)
    all_keys = functional.pad(torch.cat([parts[0], sparse_mask, parts[1]], 2), (0, end))  # (n, h, K)
    is_visible = make_mask_mod(num_tokens, pattern, device)

    def is_visible_and_not_masked(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return is_visible(batch, head, query, key) & all_keys[batch, head, key]

    tiles = visited_tiles(num_tokens, pattern, device)[0]
    return BlockMask.from_kv_blocks(*listed(tiles), BLOCK_SIZE=TILE, mask_mod=is_visible_and_not_masked)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # what inference leaves in the cache must do for training
def pattern_mask(num_tokens: int, pattern: LSGPattern, device: torch.device) -> BlockMask:
    """Return the mask of T tokens none of which is padding."""
    visited, full = visited_tiles(num_tokens, pattern, device)
    return BlockMask.from_kv_blocks(
        *listed(visited & ~full), *listed(full), BLOCK_SIZE=TILE, mask_mod=make_mask_mod(num_tokens, pattern, device)
    )


def listed(tiles: Tensor) -> tuple[Tensor, Tensor]:
    """Turn booleans (query tiles, key tiles) into what FlexAttention wants: how many, and which first; as int32."""
    order = tiles.int().sort(dim=-1, descending=True, stable=True).indices
    return tiles.sum(-1, dtype=torch.int32)[None, None], order.to(torch.int32)[None, None]


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def make_mask_mod(num_tokens: int, pattern: LSGPattern, device: torch.device) -> Callable[..., Tensor]:
    """Return the pattern in closed form, a mask_mod: a function of batch, head, query and key number.

    What depends on the lengths of texts and questions is in tensors: for another number torch would compile again.
    """
    b, m, g = pattern.block_size, pattern.sparse_per_block, pattern.num_front_tokens
    first, size = pattern.local_window
    windows = pattern.sparse_windows
    is_causal, max_distance = pattern.is_causal, pattern.max_distance
    tokens_end = torch.tensor(num_tokens, dtype=torch.int32, device=device)
    sparse_end = tokens_end + (num_tokens // b * m if windows else 0)
    keys_end = sparse_end + g

    def is_visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        block = query // b
        place = key - block * b - first
        visible = (key < tokens_end) & (place >= 0) & (place < size)
        if is_causal:
            visible = visible & (key <= query)
        if max_distance is not None:
            visible = visible & (key - query <= max_distance) & (query - key <= max_distance)
        for start, count in windows:
            place = key - tokens_end - block * m - start
            visible = visible | ((key >= tokens_end) & (key < sparse_end) & (place >= 0) & (place < count))
        return visible | ((key >= sparse_end) & (key < keys_end))

    return is_visible


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # what inference leaves in the cache must do for training
def visited_tiles(num_tokens: int, pattern: LSGPattern, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return which tiles (query tiles, key tiles) hold a visible pair, and which hold nothing else.

    All queries of a tile see a key if those of its first and of its last block do, as windows move with the block.
    """
    b, m, g = pattern.block_size, pattern.sparse_per_block, pattern.num_front_tokens
    num_sparse = num_tokens // b * m if pattern.has_sparse else 0
    first_query = torch.arange(0, num_tokens, TILE, device=device)[:, None]
    first_block, last_block = first_query // b, (first_query + TILE - 1) // b  # (query tiles, 1)
    end = num_tokens + num_sparse + g + tile_padding(num_sparse + g)
    first_key = torch.arange(0, end, TILE, device=device)[None]  # (1, key tiles)
    visited = torch.zeros(len(first_query), first_key.shape[1], dtype=torch.bool, device=device)
    full = torch.zeros_like(visited)

    def add(any_from: Tensor, any_to: Tensor, all_from: Tensor, all_to: Tensor, low: int, high: int) -> None:
        """Add keys [any_from, any_to) that some query of a tile sees, and [all_from, all_to) that all see."""
        start, stop = first_key, first_key + TILE
        any_from, any_to = any_from.clamp(min=low), any_to.clamp(max=high)
        visited.logical_or_((stop > any_from) & (start < any_to) & (any_from < any_to))
        full.logical_or_((start >= all_from.clamp(min=low)) & (stop <= all_to.clamp(max=high)))

    first, size = pattern.local_window
    any_to, all_to = last_block * b + first + size, first_block * b + first + size
    if pattern.is_causal:
        any_to, all_to = any_to.clamp(max=first_query + TILE), all_to.clamp(max=first_query + 1)
    any_from, all_from = first_block * b + first, last_block * b + first
    if (w := pattern.max_distance) is not None:  # the block's window holds that of each of its queries
        any_from, any_to = first_query - w, first_query + TILE + w
        all_from, all_to = first_query + TILE - 1 - w, first_query + 1 + w
    add(any_from, any_to, all_from, all_to, 0, num_tokens)
    for start, size in pattern.sparse_windows:
        low, high = num_tokens + first_block * m + start, num_tokens + last_block * m + start
        add(low, high + size, high, low + size, num_tokens, num_tokens + num_sparse)
    globals_ = torch.full_like(first_query, num_tokens + num_sparse)
    add(globals_, globals_ + g, globals_, globals_ + g, num_tokens + num_sparse, num_tokens + num_sparse + g)
    return visited, full
