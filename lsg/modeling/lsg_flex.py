"""Backend "flex", for GPUs: one FlexAttention kernel over keys laid out as [tokens | sparse | globals].

The pattern is a closed-form mask. Which tiles of 128 x 128 scores the kernel visits is computed in closed form, too,
and cached per length. Lengths are padded to a few sizes, so that texts of all lengths share compiled kernels. It has no
dropout. Same definition as "blocks" (arXiv 2210.15497, section 3).

Shapes: n batch, h heads, t tokens, g globals and pinned tokens, d head size; T padded tokens, R sparse keys, K all
keys, padded.
"""

from collections.abc import Callable
from functools import lru_cache
from math import lcm

import torch
import torch._dynamo.config
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from .lsg_blocks import globals_attention, pinned_attention
from .lsg_distance import Scoring, bias_index, front_positions
from .lsg_pattern import LSGPattern
from .lsg_sparse import SparseKeys, pad_tokens, query_of_first_token, select_sparse

TILE = 128
MAX_KERNELS = 256
SIZES_PER_DOUBLING = 8  # lengths are rounded up by an eighth of a power of two at most


def attend_flex(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask: Tensor | None,
    pattern: LSGPattern,
    scoring: Scoring,
) -> Tensor:
    """Return the attention of a long sequence; arguments and result are those of `attend_blocks`.

    Raises:
        ValueError: dropout is asked for.
    """
    if scoring.dropout > 0:
        raise ValueError(
            f"dropout={scoring.dropout} is not allowed with the backend 'flex', which has none: set the config's "
            'attention dropout to 0, or lsg_backend to "auto" or "blocks"'
        )
    g = pattern.num_front_tokens
    n, t = len(query), query.shape[2] - g
    padding = padded_length(t, pattern.block_size) - t
    queries, keys, values = (pad_tokens(x[:, :, g:], padding) for x in (query, key, value))  # (n, h, T, d)
    if padding > 0 or key_mask is not None:
        key_mask = torch.ones(n, g + t, dtype=torch.bool, device=query.device) if key_mask is None else key_mask
        key_mask = functional.pad(key_mask, (0, padding))
    sparse = SparseKeys(
        keys[:, :, :0], values[:, :, :0], None, torch.zeros(1, 1, 0, dtype=torch.long, device=key.device)
    )
    if pattern.has_sparse:
        first_query = query_of_first_token(query, key_mask, pattern)
        sparse = select_sparse(first_query, keys, values, None if key_mask is None else key_mask[:, g:], pattern)
    end = -(sparse.key.shape[2] + g) % TILE
    score_mod = None
    if scoring.distance_bias is not None:
        front = front_positions(key_mask, pattern, key.device)[:, None]  # (n or 1, 1, g)
        positions = [torch.arange(t + padding, device=key.device)[None, None], sparse.position, front]
        score_mod = make_score_mod(scoring.distance_bias, positions, len(keys), end)
    output = flex_kernel(query.device.type)(
        queries,
        pad_tokens(torch.cat([keys, sparse.key, key[:, :, :g]], 2), end),
        pad_tokens(torch.cat([values, sparse.value, value[:, :, :g]], 2), end),
        block_mask=make_mask(t + padding, key_mask, sparse, pattern, query.device),
        scale=scoring.scaling,
        score_mod=score_mod,
    )
    key_mask = None if key_mask is None else key_mask[:, : g + t]
    globals_ = globals_attention(query, key, value, key_mask, pattern, scoring)
    pinned = pinned_attention(query, key, value, key_mask, pattern, scoring)
    return torch.cat([globals_, pinned, output[:, :, :t]], 2)


def make_score_mod(table: Tensor, parts: list[Tensor], batch_size: int, padding: int) -> Callable[..., Tensor]:
    """Return what adds a bias by distance to a score, a function of it and of batch, head, query and key number.

    Args:
        table: (h, 2D + 1), by head and distance.
        parts: positions of the keys, (n or 1, h or 1, some of the keys) each; the queries are the tokens.
        batch_size: n.
        padding: the number of keys behind them.
    """
    expanded = [part.expand(batch_size, len(table), -1) for part in parts]
    positions = functional.pad(torch.cat(expanded, 2), (0, padding))  # (n, h, K)

    def add_bias(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score + table[head, bias_index(table, positions[batch, head, key] - query)]

    return add_bias


def padded_length(num_tokens: int, block_size: int) -> int:
    """Return a length rounded up to whole tiles and blocks, with SIZES_PER_DOUBLING lengths between powers of two."""
    step = max(1, 2 ** (num_tokens.bit_length() - 1) // SIZES_PER_DOUBLING)
    unit = lcm(TILE, block_size)
    step = -(-step // unit) * unit
    return -(-num_tokens // step) * step


@lru_cache
def flex_kernel(device_type: str) -> Callable[..., Tensor]:
    """Return FlexAttention: compiled on a GPU, and as it is on a CPU, where it is run by tests only."""
    if device_type == "cpu":
        return flex_attention
    return compile_flex("inductor")


def compile_flex(compiler: str) -> Callable[..., Tensor]:
    """Return FlexAttention, compiled, with room for MAX_KERNELS kernels.

    After its limit of 8, for all models and dtypes of a process, torch would run it uncompiled, and form all scores.
    Training and evaluation, with and without padding, need as many already.
    """
    compiled = torch.compile(flex_attention, fullgraph=True, backend=compiler)
    return torch._dynamo.config.patch(cache_size_limit=MAX_KERNELS)(compiled)


def make_mask(
    num_tokens: int, key_mask: Tensor | None, sparse: SparseKeys, pattern: LSGPattern, device: torch.device
) -> BlockMask:
    """Return the mask of T tokens; which tiles are visited is cached per length, padding is masked within tiles."""
    if key_mask is None and sparse.key_mask is None:
        return pattern_mask(num_tokens, pattern, device)
    g = pattern.num_front_tokens
    end = -(sparse.key.shape[2] + g) % TILE
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

    What depends on the length is in tensors: for another number torch would compile again.
    """
    b, m, g = pattern.block_size, pattern.sparse_per_block, pattern.num_front_tokens
    first, size = pattern.local_window
    windows = pattern.sparse_windows
    is_causal, max_distance = pattern.is_causal, pattern.max_distance
    tokens_end = torch.tensor(num_tokens, dtype=torch.int32, device=device)
    sparse_end = tokens_end + (num_tokens // b * m if windows else 0)

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
        return visible | ((key >= sparse_end) & (key < sparse_end + g))

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
    end = -(-(num_tokens + num_sparse + g) // TILE) * TILE
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
