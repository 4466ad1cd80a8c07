"""Backend "blocks": gather the keys of every block, then one scaled_dot_product_attention over all blocks.

It is the plain backend: it runs on every device, in training with dropout, and can be traced and exported.
Cost per token: g + 3b + 2s keys, whatever the length (arXiv 2210.15497, section 3).
"""

import torch
from torch import Tensor
from torch.nn import functional

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
    scaling: float,
    dropout: float,
) -> Tensor:
    """Return the attention of a long sequence (t > 2b, or any if there are pinned tokens or a sliding window).

    Args:
        query, key, value: (n, h, g + P + t, d): globals, pinned tokens, tokens.
        key_mask: (n, g + P + t) boolean, False where a key may not be attended to; None if all may.
        pattern: the attention's numbers.
        scaling: factor of the scores.
        dropout: probability of dropping an attention weight.

    Returns:
        (n, h, g + P + t, d)
    """
    tokens = attend_tokens(query, key, value, key_mask, pattern, scaling, dropout)
    globals_ = globals_attention(query, key, value, key_mask, pattern, scaling, dropout)
    pinned = pinned_attention(query, key, value, key_mask, pattern, scaling, dropout)
    return torch.cat([globals_, pinned, tokens], 2)


def attend_tokens(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask: Tensor | None,
    pattern: LSGPattern,
    scaling: float,
    dropout: float,
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
    is_shared = not is_traced() and mask.shape[:2] == (1, 1)
    # blocks take the place of heads, (n * h, blocks, b or k, d): the fast kernels want four dimensions
    output = functional.scaled_dot_product_attention(
        queries.unflatten(2, (-1, b)).flatten(0, 1),
        keys.flatten(0, 1),
        values.flatten(0, 1),
        attn_mask=mask[0] if is_shared else mask.expand(n, h, -1, -1, -1).flatten(0, 1),
        dropout_p=dropout,
        scale=scaling,
    )
    return cut_to_tokens(output.reshape(n, h, -1, d), query.shape[2] - g)


def full_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask: Tensor | None,
    is_causal: bool,
    scaling: float | None,
    dropout: float,
) -> Tensor:
    """Return full attention (n, h, q, d) over keys (n, h, k, d); causal queries are the last q positions."""
    q, k = query.shape[2], key.shape[2]
    mask = None if key_mask is None else key_mask[:, None, None]  # (n, 1, 1, k)
    if is_causal and q > 1:
        causal = torch.ones(q, k, dtype=torch.bool, device=query.device).tril(k - q)
        mask = causal if mask is None else mask & causal
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling)


def globals_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask: Tensor | None,
    pattern: LSGPattern,
    scaling: float,
    dropout: float,
) -> Tensor:
    """Return the output (n, h, g, d) of the globals, which attend to all keys, or only to each other if causal."""
    g = pattern.num_global_tokens
    first = g if pattern.is_causal else None  # keys that a global may see
    visible = (key[:, :, :first], value[:, :, :first], None if key_mask is None else key_mask[:, :first])
    return full_attention(query[:, :, :g], *visible, pattern.is_causal, scaling, dropout)


def pinned_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask: Tensor | None,
    pattern: LSGPattern,
    scaling: float,
    dropout: float,
) -> Tensor:
    """Return the output (n, h, P, d) of the pinned tokens, which attend to each other only."""
    g, P = pattern.num_global_tokens, pattern.num_pinned_tokens
    queries, keys, values = (x.narrow(2, g, P) for x in (query, key, value))
    mask = None if key_mask is None else key_mask.narrow(1, g, P)
    return full_attention(queries, keys, values, mask, False, scaling, dropout)


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


def visible_pairs(
    num_queries: int, first_key: int, num_keys: int, pattern: LSGPattern, device: torch.device
) -> Tensor | None:
    """Return which pairs of tokens the pattern allows by their distance, (queries, keys) boolean; None if all.

    Queries and keys are consecutive, and the first key stands `first_key` places behind the first query.
    """
    if not pattern.is_causal and pattern.max_distance is None:
        return None
    keys = torch.arange(num_keys, device=device) + first_key
    distance = keys - torch.arange(num_queries, device=device)[:, None]  # (queries, keys), of the key from the query
    return distance <= 0 if pattern.max_distance is None else distance.abs() <= pattern.max_distance


def gather_mask(
    key_mask: Tensor | None,
    token_mask: Tensor | None,
    sparse: SparseKeys | None,
    num_blocks: int,
    pattern: LSGPattern,
    device: torch.device,
) -> Tensor:
    """Return which gathered keys a query may attend to: boolean, (n or 1, h or 1, blocks, b or 1, keys).

    False stands for padding and for keys beyond either end of the sequence. It has b rows if `visible_pairs` are some.
    `key_mask` is that of globals and tokens, `token_mask` that of the tokens padded to blocks; None if none is masked.
    """
    b, g, (first, size) = pattern.block_size, pattern.num_front_tokens, pattern.local_window
    key_mask = torch.ones(1, g, dtype=torch.bool, device=device) if key_mask is None else key_mask
    if token_mask is None:
        token_mask = torch.ones(1, num_blocks * b, dtype=torch.bool, device=device)
    globals_ = key_mask[:, None, None, None, :g].expand(-1, -1, num_blocks, -1, -1)  # (n, 1, blocks, 1, g)
    local = block_windows(token_mask[:, None], first, size, b)[:, :, :, None]  # (n, 1, blocks, 1, local)
    if (pairs := visible_pairs(b, first, size, pattern, device)) is not None:
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
