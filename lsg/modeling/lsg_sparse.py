"""Sparse keys: one small function per sparsity type, and the table that finds them by name.

Each takes the tokens (no globals) of a sequence whose length t is a multiple of the block size and returns
`SparseKeys`. A masked token (padding) is never selected in place of another one, nor does it enter a mean.

Shapes: n batch, h heads, t tokens, d head size, f sparsity factor, r = t / f sparse keys.
Source: arXiv 2210.15497, section 3.2.
"""

from collections.abc import Callable
from functools import lru_cache
from threading import Thread
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from .lsg_pattern import LSGPattern

NORM_CHUNK = 1024  # tokens


def is_traced() -> bool:
    """Return whether the code is being traced, compiled or exported, so that no branch may depend on values."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()


class SparseKeys(NamedTuple):
    """Sparse keys and values (n, h, r, d), which of them may be attended to (None: all), and where they stand."""

    key: Tensor
    value: Tensor
    key_mask: Tensor | None  # (n, h or 1, r)
    position: Tensor  # (n or 1, h or 1, r), among the tokens; the mean of several is rounded down


def query_of_first_token(query: Tensor, key_mask: Tensor | None, pattern: LSGPattern) -> Tensor:
    """Return the query (n, h, 1, d) of token 0 out of (n, h, g + P + t, d): the first pinned one of a row that has any.

    A row of a batch has none if all its P places are masked.
    """
    g, P = pattern.num_global_tokens, pattern.num_pinned_tokens
    first = query[:, :, g : g + 1]
    if P == 0 or key_mask is None:
        return first
    has_pinned = key_mask[:, g : g + P].any(1)[:, None, None, None]
    return torch.where(has_pinned, first, query[:, :, g + P : g + P + 1])


def select_sparse(
    first_query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None, pattern: LSGPattern
) -> SparseKeys:
    """Return the sparse keys of a sequence.

    Args:
        first_query: (n, h, 1, d), that of token 0, see `query_of_first_token`.
        key, value: (n, h, t, d), tokens only; t is a multiple of the block size.
        key_mask: (n, t) boolean, False where a token may not be attended to; None if all may.
        pattern: the attention's numbers; `pattern.has_sparse` must hold.
    """
    f = pattern.sparsity_factor
    if f == 1:
        places = torch.arange(key.shape[2], device=key.device)[None, None]
        return SparseKeys(key, value, None if key_mask is None else key_mask[:, None], places)
    if selects_tokens(pattern):
        indices, sparse_mask = sparse_indices(key, key_mask, pattern)
        rows = indices.expand(key.shape[0], -1, -1)[..., None].expand(-1, -1, -1, key.shape[-1])  # (n, h, r, d)
        return SparseKeys(key.gather(2, rows), value.gather(2, rows), sparse_mask, indices)
    if pattern.needs_first_query:
        return bos_pooling(first_query, key, value, key_mask, f)
    if pattern.sparsity_type == "pooling":
        return mean_pooling(key, value, key_mask, f)
    return lsh_clusters(key, value, key_mask, pattern)


def selects_tokens(pattern: LSGPattern) -> bool:
    """Return whether a sparse key is one of the tokens, rather than made of several, or all of them."""
    return pattern.has_sparse and pattern.sparsity_type in INDEX_SELECTORS and pattern.sparsity_factor > 1


def sparse_indices(key: Tensor, key_mask: Tensor | None, pattern: LSGPattern) -> tuple[Tensor, Tensor | None]:
    """Return which tokens are the sparse keys, (n or 1, h, r), and which of those may be attended to, (n, h, r)."""
    with torch.no_grad():
        indices = INDEX_SELECTORS[str(pattern.sparsity_type)](key, key_mask, pattern)
    if key_mask is None:
        return indices, None
    n, h = key.shape[:2]
    return indices, key_mask[:, None].expand(-1, h, -1).gather(2, indices.expand(n, -1, -1))


def pad_to_blocks(
    key: Tensor, value: Tensor, key_mask: Tensor | None, block_size: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return key, value (n, h, t, d) and key_mask (n, t), filled up to whole blocks with masked rows."""
    n, _, t, _ = key.shape
    if not is_traced() and t % block_size == 0:
        return key, value, key_mask
    key_mask = torch.ones(n, t, dtype=torch.bool, device=key.device) if key_mask is None else key_mask
    rows = rows_of_blocks(t, block_size, key.device)
    key_mask = key_mask.index_select(1, rows) & (torch.arange(rows.shape[0], device=key.device) < t)
    return fill_blocks(key, block_size), fill_blocks(value, block_size), key_mask


def fill_blocks(x: Tensor, block_size: int) -> Tensor:
    """Return (n, h, t, d) filled up to whole blocks: with zeros, in traced code with copies of the last row."""
    t = x.shape[2]
    return x.index_select(2, rows_of_blocks(t, block_size, x.device)) if is_traced() else pad_tokens(x, -t % block_size)


def cut_to_tokens(x: Tensor, num_tokens: int) -> Tensor:
    """Return the first t rows of (n, h, rows, d); a tracer would ask whether a slice ends behind the rows."""
    return x.index_select(2, torch.arange(num_tokens, device=x.device)) if is_traced() else x[:, :, :num_tokens]


def rows_of_blocks(num_tokens: int, block_size: int, device: torch.device) -> Tensor:
    """Return the token that stands in each row of the blocks, (blocks * b,); behind the last one, it is the last one.

    In traced code there are always t // b + 2 blocks, the last of them padding: a number that a tracer need not ask
    about, so that one graph serves all lengths. (In up to two blocks every token sees every other, as it should.)
    """
    num_blocks = num_tokens // block_size + 2 if is_traced() else -(-num_tokens // block_size)
    return torch.arange(num_blocks * block_size, device=device).clamp(max=num_tokens - 1)


def pad_tokens(x: Tensor, padding: int) -> Tensor:
    """Return (n, h, t, d) with `padding` zero rows behind the tokens."""
    return functional.pad(x, (0, 0, 0, padding))


def largest_norm_indices(key: Tensor, key_mask: Tensor | None, pattern: LSGPattern) -> Tensor:
    """ "norm": in each chunk, the chunk / f keys of largest L2 norm, in ascending order of norm."""
    n, h, t, _ = key.shape
    chunk = pattern.chunk_size
    norms = norms_of(key)
    if key_mask is not None:
        norms = norms.masked_fill(~key_mask[:, None], 0)
    top = norms.reshape(n, h, t // chunk, chunk).topk(chunk // pattern.sparsity_factor).indices.flip(-1)
    chunk_start = torch.arange(t // chunk, device=key.device)[:, None] * chunk
    return (top + chunk_start).flatten(2)  # (n, h, r)


def norms_of(key: Tensor) -> Tensor:
    """Return the L2 norms (n, h, t) in at least single precision: in half precision, different norms would tie."""
    dtype = torch.promote_types(key.dtype, torch.float32)
    if key.device.type != "cpu" or dtype == key.dtype or is_traced():
        return torch.linalg.vector_norm(key, dim=-1, dtype=dtype)
    # a CPU converts key first, which is quicker where that stays in the cache
    parts = key.transpose(1, 2).split(NORM_CHUNK, 1)  # (n, at most NORM_CHUNK, h, d), as the key lies in memory
    return torch.cat([torch.linalg.vector_norm(x, dim=-1, dtype=dtype) for x in parts], 1).transpose(1, 2)


def stride_indices(key: Tensor, key_mask: Tensor | None, pattern: LSGPattern) -> Tensor:
    """ "stride": head k takes tokens r * f + (k mod f)."""
    h, t, f = key.shape[1], key.shape[2], pattern.sparsity_factor
    heads = torch.arange(h, device=key.device)[:, None]
    return (torch.arange(0, t, f, device=key.device) + heads % f)[None]  # (1, h, r)


def block_stride_indices(key: Tensor, key_mask: Tensor | None, pattern: LSGPattern) -> Tensor:
    """ "block_stride": in each block, head k takes the b / f tokens in a row that start at (k * b / f) mod b."""
    h, t, b, m = key.shape[1], key.shape[2], pattern.block_size, pattern.sparse_per_block
    first = (torch.arange(h, device=key.device) * m) % b  # (h,); m divides b, so no window leaves its block
    offsets = first[:, None] + torch.arange(m, device=key.device)  # (h, b / f)
    blocks = torch.arange(0, t, b, device=key.device)
    return (blocks[None, :, None] + offsets[:, None]).flatten(1)[None]  # (1, h, r)


INDEX_SELECTORS: dict[str, Callable[[Tensor, Tensor | None, LSGPattern], Tensor]] = {
    "norm": largest_norm_indices,
    "stride": stride_indices,
    "block_stride": block_stride_indices,
}


def group(x: Tensor, f: int) -> Tensor:
    """Return (n, h, t, ...) as (n, h, r, f, ...): each f consecutive tokens in a dimension of their own."""
    return x.unflatten(2, (-1, f))


def mean_pooling(key: Tensor, value: Tensor, key_mask: Tensor | None, f: int) -> SparseKeys:
    """ "pooling": the mean over each f consecutive tokens, of those that are not masked."""
    position = mean_positions(key, key_mask, f)
    if key_mask is None:
        return SparseKeys(group(key, f).mean(3), group(value, f).mean(3), None, position)
    group_mask = group(key_mask[:, None], f)  # (n, 1, r, f)
    weights = group_mask.to(key.dtype) / group_mask.sum(-1, keepdim=True).clamp(min=1)
    return SparseKeys(weighted_sum(weights, key, f), weighted_sum(weights, value, f), group_mask.any(-1), position)


def bos_pooling(first_query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None, f: int) -> SparseKeys:
    """ "bos_pooling": the mean over each f consecutive tokens, weighted by the softmax of token 0's scores."""
    # in at least single precision, autocast or not: float16 is too narrow for scores
    dtype = torch.promote_types(key.dtype, torch.float32)
    scores = (key.to(dtype) * first_query.to(dtype)).sum(-1) / key.shape[-1] ** 0.5  # (n, h, t)
    scores = group(scores, f)  # (n, h, r, f)
    group_mask = None if key_mask is None else group(key_mask[:, None], f)  # (n, 1, r, f)
    if group_mask is not None:
        # finite, so that a group of masked tokens gives numbers (masked below), not NaN
        scores = scores.masked_fill(~group_mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1).to(key.dtype)
    return SparseKeys(
        weighted_sum(weights, key, f),
        weighted_sum(weights, value, f),
        None if group_mask is None else group_mask.any(-1),
        mean_positions(key, key_mask, f),
    )


def mean_positions(key: Tensor, key_mask: Tensor | None, f: int) -> Tensor:
    """Return the mean place (n or 1, 1, r) of each f consecutive tokens, of those that are not masked, rounded down."""
    places = group(torch.arange(key.shape[2], device=key.device)[None, None], f)  # (1, 1, r, f)
    if key_mask is None:
        return places[..., (f - 1) // 2]
    kept = group(key_mask[:, None], f)  # (n, 1, r, f)
    return (places * kept).sum(-1) // kept.sum(-1).clamp(min=1)


def weighted_sum(weights: Tensor, x: Tensor, f: int) -> Tensor:
    """Return the weighted sums (n, h, r, d) of each f rows of x (n, h, t, d), with weights (n, h or 1, r, f)."""
    return (weights[..., None, :] @ group(x, f)).squeeze(-2)


def lsh_clusters(key: Tensor, value: Tensor, key_mask: Tensor | None, pattern: LSGPattern) -> SparseKeys:
    """ "lsh": in each chunk, the means of chunk / f clusters found by random projections of the keys.

    `lsh_num_pre_rounds` rounds sum the tokens of a chunk into as many clusters as it has tokens, so that close
    ones fall together; a last round sums those into chunk / f. Keys need no normalising, as every score of a key
    scales alike.
    """
    d, chunk = key.shape[-1], pattern.chunk_size
    # key, value, count and place in the chunk travel together, summed in at least single precision
    places = torch.arange(key.shape[2], device=key.device).to(torch.promote_types(key.dtype, torch.float32)) % chunk
    counted = torch.stack([torch.ones_like(places), places], -1).expand(*key.shape[:3], 2)
    tokens = torch.cat([key, value, counted], -1)  # (n, h, t, 2d + 2)
    if key_mask is not None:
        tokens = tokens.masked_fill(~key_mask[:, None, :, None], 0)
    clusters = tokens.to(torch.promote_types(key.dtype, torch.float32))
    clusters = clusters.unflatten(2, (-1, chunk))  # (n, h, C, chunk, 2d + 2)
    sizes = (chunk,) * pattern.lsh_num_pre_rounds + (chunk // pattern.sparsity_factor,)
    counts = tuple(size // 2 for size in sizes)
    projections = lsh_projections(key.shape[1], d, counts, pattern.lsh_seed).to(clusters).split(counts, -1)
    for size, projection in zip(sizes, projections, strict=True):
        with torch.no_grad():
            buckets = lsh_buckets(clusters[..., :d], projection)  # (n, h, C, rows)
        summed = clusters.new_zeros(*clusters.shape[:3], size, clusters.shape[-1])
        clusters = summed.scatter_add(3, buckets[..., None].expand_as(clusters), clusters)
    members = clusters[..., -2]  # (n, h, C, chunk / f)
    sums, place_sums = clusters[..., :-2], clusters[..., -1]
    means = (sums / members[..., None].clamp(min=1)).to(key.dtype).flatten(2, 3)  # (n, h, r, 2d)
    chunk_start = torch.arange(members.shape[2], device=key.device)[:, None] * chunk
    position = (place_sums / members.clamp(min=1)).floor().long() + chunk_start
    return SparseKeys(means[..., :d], means[..., d:], (members > 0).flatten(2), position.flatten(2))


def lsh_buckets(keys: Tensor, projections: Tensor) -> Tensor:
    """Return the bucket of every key (n, h, C, rows, d): the argmax over [p, -p] of its projections p.

    Args:
        projections: (h, d, m); there are 2m buckets, or one if m is 0.
    """
    if projections.shape[-1] == 0:
        return torch.zeros(keys.shape[:-1], dtype=torch.long, device=keys.device)
    scores = keys @ projections[:, None]  # (n, h, C, rows, m)
    return torch.cat([scores, -scores], -1).argmax(-1)


@torch.compiler.assume_constant_result
def lsh_projections(heads: int, head_size: int, counts: tuple[int, ...], seed: int) -> Tensor:
    """Return the Gaussian projections of all rounds side by side, (h, d, sum of counts), always the same for a seed.

    In code that is being traced they become a constant: one for all rounds and layers, as torch.compile asks.
    """
    return draw_projections(heads, head_size, counts, seed)


@lru_cache(maxsize=64)
def draw_projections(heads: int, head_size: int, counts: tuple[int, ...], seed: int) -> Tensor:
    """Return the projections of `lsh_projections`, each round's drawn from a seed of its own; they are cached."""

    drawn: list[Tensor] = []

    def draw() -> None:
        generators = [torch.Generator("cpu").manual_seed(seed + place) for place in range(len(counts))]
        rounds = zip(counts, generators, strict=True)
        # whatever torch's defaults are at the moment
        parts = [
            torch.randn(heads, head_size, count, generator=generator, dtype=torch.float32, device="cpu")
            for count, generator in rounds
        ]
        drawn.append(torch.cat(parts, -1))

    # in a thread of its own, as torch's modes end there: a tracer's, which would draw nothing, and inference's
    thread = Thread(target=draw)
    thread.start()
    thread.join()
    return drawn[0]
