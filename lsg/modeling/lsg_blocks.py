"""Backend "blocks": gather the keys of every block, then one scaled_dot_product_attention over all blocks.

It is the plain backend: it runs on every device, in training with dropout, and can be traced and exported.
Cost per token: g + 3b + 2s keys, whatever the length (arXiv 2210.15497, section 3).
"""

from dataclasses import replace
from math import inf

import torch
from torch import Tensor
from torch.nn import functional

from .lsg_distance import (
    Scoring,
    consecutive_distances,
    far_distance,
    front_positions,
    look_up,
    within_reach,
)
from .lsg_pattern import LSGPattern
from .lsg_sparse import (
    SparseKeys,
    cut_to_tokens,
    fill_blocks,
    is_traced,
    pad_to_blocks,
    query_of_first_token,
    select_sparse,
)


def attend_blocks(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask: Tensor | None,
    pattern: LSGPattern,
    scoring: Scoring,
) -> Tensor:
    """Return the attention of a long sequence (t > 2b, or any if there are pinned tokens or a sliding window).

    Args:
        query, key, value: (n, h, g + P + t, d): globals, pinned tokens, tokens.
        key_mask: (n, g + P + t) boolean, False where a key may not be attended to; None if all may.
        pattern: the attention's numbers.
        scoring: scaling, dropout and a bias by distance.

    Returns:
        (n, h, g + P + t, d)
    """
    tokens = attend_tokens(query, key, value, key_mask, pattern, scoring)
    globals_ = globals_attention(query, key, value, key_mask, pattern, scoring)
    pinned = pinned_attention(query, key, value, key_mask, pattern, scoring)
    return torch.cat([globals_, pinned, tokens], 2)


def attend_tokens(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask: Tensor | None,
    pattern: LSGPattern,
    scoring: Scoring,
) -> Tensor:
    """Return the attention of the tokens' queries, (n, h, t, d); arguments as in `attend_blocks`."""
    n, h, _, d = query.shape
    b, g = pattern.block_size, pattern.num_front_tokens
    queries = fill_blocks(query[:, :, g:], b)
    tokens = pad_to_blocks(key[:, :, g:], value[:, :, g:], None if key_mask is None else key_mask[:, g:], b)
    token_key, token_value, token_mask = tokens
    sparse = None
    if pattern.has_sparse:
        sparse = select_sparse(query_of_first_token(query, key_mask, pattern), *tokens, pattern)
    keys = gather_keys(key[:, :, :g], token_key, None if sparse is None else sparse.key, pattern)
    values = gather_keys(value[:, :, :g], token_value, None if sparse is None else sparse.value, pattern)
    mask = gather_mask(key_mask, token_mask, sparse, queries.shape[2] // b, pattern, query.device)
    if scoring.distance_bias is not None:
        front = front_positions(key_mask, pattern, query.device)
        positions = None if sparse is None else sparse.position
        bias = gather_bias(scoring.distance_bias, front, positions, queries.shape[2] // b, pattern)
        mask = hide(bias.to(query.dtype), mask)
    is_shared = not is_traced() and mask.shape[:2] == (1, 1)
    # blocks take the place of heads, (n * h, blocks, b or k, d): the fast kernels want four dimensions
    output = functional.scaled_dot_product_attention(
        queries.unflatten(2, (-1, b)).flatten(0, 1),
        keys.flatten(0, 1),
        values.flatten(0, 1),
        attn_mask=mask[0] if is_shared else mask.expand(n, h, -1, -1, -1).flatten(0, 1),
        dropout_p=scoring.dropout,
        scale=scoring.scaling,
    )
    return cut_to_tokens(output.reshape(n, h, -1, d), query.shape[2] - g)


def full_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask: Tensor | None,
    is_causal: bool,
    scoring: Scoring,
    distances: Tensor | None = None,
) -> Tensor:
    """Return full attention (n, h, q, d) over keys (n, h, k, d); causal queries are the last q positions.

    The distances (n or 1, q or 1, k) are those that a bias goes by; None without one.
    """
    q, k = query.shape[2], key.shape[2]
    mask = None if key_mask is None else key_mask[:, None, None]  # (n, 1, 1, k)
    if is_causal and q > 1:
        causal = torch.ones(q, k, dtype=torch.bool, device=query.device).tril(k - q)
        mask = causal if mask is None else mask & causal
    if scoring.distance_bias is not None and distances is not None:
        bias = look_up(scoring.distance_bias, distances[:, None, None]).squeeze(2)  # (n or 1, h, q or 1, k)
        mask = hide(bias.to(query.dtype), mask)
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=scoring.dropout, scale=scoring.scaling
    )


def hide(bias: Tensor, mask: Tensor | None) -> Tensor:
    """Return a bias that is -inf where a mask is False."""
    return bias if mask is None else bias.masked_fill(~mask, -inf)


def key_positions(key: Tensor, key_mask: Tensor | None, pattern: LSGPattern) -> Tensor:
    """Return the positions (n or 1, g + P + t) of globals, pinned tokens and tokens."""
    front = front_positions(key_mask, pattern, key.device)
    tokens = torch.arange(key.shape[2] - pattern.num_front_tokens, device=key.device)
    return torch.cat([front, tokens.expand(len(front), -1)], 1)


def attend_short(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask: Tensor | None,
    pattern: LSGPattern,
    scoring: Scoring,
) -> Tensor:
    """Return the attention of a sequence in which all attend to all, (n, h, g + t, d); arguments as in `attend_blocks`.

    With more keys than queries, those too many stand behind the globals, at their position.
    """
    distances = None
    if scoring.distance_bias is not None:
        g, past = pattern.num_global_tokens, key.shape[2] - query.shape[2]
        keys = key_positions(key, None, replace(pattern, num_global_tokens=g + past))
        queries = torch.cat([keys[:, :g], keys[:, g + past :]], 1)
        distances = keys[:, None] - queries[..., None]  # (1, g + t, keys)
    return full_attention(query, key, value, key_mask, pattern.is_causal, scoring, distances)


def globals_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask: Tensor | None,
    pattern: LSGPattern,
    scoring: Scoring,
) -> Tensor:
    """Return the output (n, h, g, d) of the globals, which attend to all keys, or only to each other if causal."""
    g = pattern.num_global_tokens
    first = g if pattern.is_causal else None  # keys that a global may see
    visible = (key[:, :, :first], value[:, :, :first], None if key_mask is None else key_mask[:, :first])
    distances = None
    if scoring.distance_bias is not None and g > 0:
        positions = key_positions(key, key_mask, pattern)
        distances = (positions - positions[:, :1])[:, None]  # (n or 1, 1, keys): all globals have one position
    return full_attention(query[:, :, :g], *visible, pattern.is_causal, scoring, distances)


def pinned_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask: Tensor | None,
    pattern: LSGPattern,
    scoring: Scoring,
) -> Tensor:
    """Return the output (n, h, P, d) of the pinned tokens, which attend to each other only."""
    g, P = pattern.num_global_tokens, pattern.num_pinned_tokens
    queries, keys, values = (x.narrow(2, g, P) for x in (query, key, value))
    mask = None if key_mask is None else key_mask.narrow(1, g, P)
    distances = None if scoring.distance_bias is None else consecutive_distances(P, 0, P, query.device)[None]
    return full_attention(queries, keys, values, mask, False, scoring, distances)


def block_windows(x: Tensor, first: int, size: int, step: int) -> Tensor:
    """Return for each block i the `size` rows from i * step + first on; rows that do not exist are zero (False).

    Args:
        x: (n, h, blocks * step, ...), of three or four dimensions.

    Returns:
        (n, h, blocks, size, ...)
    """
    before, behind = -first, first + size - step  # rows to add, or to cut if negative
    padded = functional.pad(x, (0, 0) * (x.dim() - 3) + (max(before, 0), max(behind, 0)))
    start = max(-before, 0)
    padded = padded.narrow(2, start, padded.shape[2] - start - max(-behind, 0))
    windows = padded.unfold(2, size, step)  # (n, h, blocks, ..., size)
    return windows.movedim(-1, 3)


def gather_keys(globals_: Tensor, tokens: Tensor, sparse: Tensor | None, pattern: LSGPattern) -> Tensor:
    """Return the keys (or values) of every block side by side: (n, h, blocks, g + local + sparse, d)."""
    first, size = pattern.local_window
    local = block_windows(tokens, first, size, pattern.block_size)
    parts = [globals_[:, :, None].expand(-1, -1, local.shape[2], -1, -1), local]
    if sparse is not None:
        parts += [block_windows(sparse, *window, pattern.sparse_per_block) for window in pattern.sparse_windows]
    return torch.cat(parts, 3)


def gather_bias(table: Tensor, front: Tensor, sparse: Tensor | None, num_blocks: int, pattern: LSGPattern) -> Tensor:
    """Return what is added to the scores of gathered keys, (n or 1, h, blocks, b, keys).

    Args:
        table: (h, 2D + 1), by head and distance.
        front: (n or 1, g + P), positions of globals and pinned tokens.
        sparse: (n or 1, h or 1, r), those of the sparse keys; None if there are none.
        num_blocks: blocks of queries.
        pattern: the attention's numbers.
    """
    b = pattern.block_size
    places = torch.arange(num_blocks * b, device=table.device).view(1, 1, num_blocks, b, 1)
    local = consecutive_distances(b, *pattern.local_window, table.device)[None, None, None]  # (1, 1, 1, b, local)
    distances = [front[:, None, None, None] - places, local]
    sizes = [front.shape[1], pattern.local_window[1]]
    if sparse is not None:
        for first, size in pattern.sparse_windows:
            distance = far_distance(table, pattern, first > 0)
            if distance is None:
                distance = block_windows(sparse, first, size, pattern.sparse_per_block)[:, :, :, None] - places
            distances.append(distance)
            sizes.append(size)
    parts = [look_up(table, distance) for distance in distances]
    lead = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return torch.cat([part.expand(*lead, size) for part, size in zip(parts, sizes, strict=True)], -1)


def gather_mask(
    key_mask: Tensor | None,
    token_mask: Tensor | None,
    sparse: SparseKeys | None,
    num_blocks: int,
    pattern: LSGPattern,
    device: torch.device,
) -> Tensor:
    """Return which gathered keys a query may attend to: boolean, (n or 1, h or 1, blocks, b or 1, keys).

    False stands for padding and for keys beyond either end of the sequence. It has b rows if distances matter.
    `key_mask` is that of globals and tokens, `token_mask` that of the tokens padded to blocks; None if none is masked.
    """
    b, g, (first, size) = pattern.block_size, pattern.num_front_tokens, pattern.local_window
    key_mask = torch.ones(1, g, dtype=torch.bool, device=device) if key_mask is None else key_mask
    if token_mask is None:
        token_mask = torch.ones(1, num_blocks * b, dtype=torch.bool, device=device)
    globals_ = key_mask[:, None, None, None, :g].expand(-1, -1, num_blocks, -1, -1)  # (n, 1, blocks, 1, g)
    local = block_windows(token_mask[:, None], first, size, b)[:, :, :, None]  # (n, 1, blocks, 1, local)
    pairs = within_reach(consecutive_distances(b, first, size, device), pattern)
    if pairs is not None:
        local = local & pairs
    parts = [globals_, local]
    if sparse is not None:
        sparse_mask = sparse.key_mask
        if sparse_mask is None:
            sparse_mask = torch.ones(1, 1, sparse.key.shape[2], dtype=torch.bool, device=device)
        windows = pattern.sparse_windows
        parts += [block_windows(sparse_mask, *window, pattern.sparse_per_block)[:, :, :, None] for window in windows]
    lead = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return torch.cat([part.expand(*lead, -1) for part in parts], -1)
