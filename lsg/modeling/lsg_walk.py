"""Backend "tiled", the CPU's: it walks over groups of blocks, so that the scores of a group stay in the cache.

For each row of the batch:

1. The globals attend to all tokens (to themselves only, if causal).
2. Consecutive blocks with equally many keys form groups (`plan_groups`). Blocks near either end have fewer keys:
   nothing beyond the end needs to be masked.
3. A group's keys, [globals | local | sparse left | sparse right], are copied side by side into a buffer that all groups
   use in turn; so are its values.
4. One matrix product gives the scores, softmax works on them in place, a second product gives the output
   (`lsg_walk_products`). Scores are masked only where there is padding, or a future to hide. Where there is none,
   softmax is taken apart, which takes half the time: plain exponentials, and the output is divided by their totals.
   Totals that are not moderate tell that some may be lost to the range of numbers; the group is then done again with
   the usual softmax.

Backward walks the same way. It computes the scores once more and draws the same dropout again from the seed, so that
nothing of the size of the scores is kept: saved are query, key, value and the places of the sparse keys.

Same definition as "blocks" (arXiv 2210.15497, section 3).

Shapes: n batch, h heads, t tokens, g globals, d head size, r sparse keys of a row; in a group c blocks, each with
q queries (b, fewer at the end of the row) and k keys. A group's "rows" (queries, outputs) and "scores" have the order
of its products, `BatchedProducts.arrange`.
"""

from math import e, inf, log2
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .lsg_pattern import LSGPattern
from .lsg_sparse import SparseKeys, pad_to_blocks, select_sparse, selects_tokens, sparse_indices
from .lsg_walk_groups import Group, block_rows, max_scores_per_group, side_by_side
from .lsg_walk_products import BatchedProducts, choose_products
from .lsg_walk_rows import KeyGradients, Row, empty_rows, walk_rows
from .lsg_walk_scratch import Dropout, Scratch

LOG2_E = log2(e)
MODERATE = 2.0**64  # totals of exponentials up to this, and down to its inverse, lose nothing to float32's range
CHUNK = 1024  # keys that the globals take at a time: what is copied on the way then stays in the cache


def attend_walking(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask: Tensor | None,
    pattern: LSGPattern,
    scaling: float,
    dropout: float,
) -> Tensor:
    """Attention of a long sequence; arguments and result are those of `attend_blocks`.

    float16 is computed in float32, as in `scaled_dot_product_attention`: scores are often beyond its range.
    """
    if query.dtype == torch.float16:
        wide = (x.float() for x in (query, key, value))
        return attend_walking(*wide, key_mask, pattern, scaling, dropout).half()
    g, b = pattern.num_global_tokens, pattern.block_size
    n, t = query.shape[0], query.shape[2] - g
    indices, sparse = None, SparseKeys(None, None, None)
    if pattern.has_sparse:
        tokens = pad_to_blocks(key[:, :, g:], value[:, :, g:], None if key_mask is None else key_mask[:, g:], b)
        if selects_tokens(pattern):
            indices, kept = sparse_indices(tokens[0], tokens[2], pattern)
            # a place in the padding is masked, and any token may stand there
            indices, sparse = indices.clamp(max=t - 1).expand(n, -1, -1), SparseKeys(None, None, kept)
        else:
            sparse = select_sparse(query[:, :, g:], *tokens, pattern)
    seed = int(torch.randint(2**62, ())) if dropout > 0 else 0
    walk = Walk(pattern, scaling, dropout, seed)
    return Walking.apply(query, key, value, sparse.key, sparse.value, indices, key_mask, sparse.key_mask, walk)


class Walk(NamedTuple):
    """What both directions of a walk need to know besides the tensors."""

    pattern: LSGPattern
    scaling: float
    dropout: float
    seed: int


class Walking(torch.autograd.Function):
    """The walk forth and back; the sparse keys are either given, (n, h, r, d), or found at `indices`, (n, h, r).

    Tensors and gradients may have any layout in memory. Autocast is off, so that backward computes what forward did.
    """

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        """Return the output (n, h, g + t, d)."""
        *tensors, walk = arguments
        ctx.save_for_backward(*tensors)
        ctx.walk = walk
        with torch.autocast(tensors[0].device.type, enabled=False):
            return walk_forward(walk, *tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of query, key and value, and of sparse keys and values if those were given."""
        with torch.autocast(gradient.device.type, enabled=False):
            return *walk_backward(ctx.walk, gradient, *ctx.saved_tensors), None, None, None, None


def walk_forward(walk: Walk, *tensors: Tensor | None) -> Tensor:
    """Return the output (n, h, g + t, d); the tensors are those of a batch of `Row`."""
    query, pattern = tensors[0], walk.pattern
    h, g, t = query.shape[1], pattern.num_global_tokens, query.shape[2] - pattern.num_global_tokens
    output = empty_rows(query)
    most, scratch, dropout = max_scores_per_group(query), Scratch(query), Dropout(walk.dropout, walk.seed, query.device)
    products = choose_products(query, pattern.block_size, scratch)
    for row, row_output in zip(walk_rows(pattern, *tensors), output, strict=True):
        for part in plan_globals(t, h, pattern, most):
            _, _, values, weights = attend_globals(row, part, walk)
            used = dropout.apply(weights, scratch)
            row_output[:, part] = weighted_values(used, values).mul_(dropout.scale)
        for group in products.plan_groups(t, h, pattern):
            _, _, weights, totals = attend_group(row, group, walk, products)
            used = dropout.apply(weights, scratch)
            values = values_of_group(row, group, g, scratch, "keys")  # in the same place: a cache holds one
            summed = products.with_scores(used, values, dropout.scale, "summed")
            torch.div(summed, totals, out=products.arrange(block_rows(row_output, group, g)))
    return output


def walk_backward(walk: Walk, gradient: Tensor, *tensors: Tensor | None) -> list[Tensor | None]:
    """Return the gradients of query, key, value, sparse keys and sparse values, from that of the output."""
    h, g = tensors[0].shape[1], walk.pattern.num_global_tokens
    t = tensors[0].shape[2] - g
    most, scratch = max_scores_per_group(tensors[0]), Scratch(tensors[0])
    dropout = Dropout(walk.dropout, walk.seed, gradient.device)
    products = choose_products(tensors[0], walk.pattern.block_size, scratch)
    sums = [empty_rows(tensors[0]), *(empty_rows(x).zero_() for x in tensors[1:3])]
    sums += [None if x is None else torch.zeros_like(x) for x in tensors[3:5]]
    for place, row in enumerate(walk_rows(walk.pattern, *tensors)):
        d_query, *d_row = (None if x is None else x[place] for x in sums)
        d_keys = KeyGradients(row, *d_row, walk.pattern)
        for part in plan_globals(t, h, walk.pattern, most):
            found = attend_globals(row, part, walk)
            d_query[:, part] = backward_of_globals(*found, gradient[place][:, part], walk, scratch, dropout, d_keys)
        for group in products.plan_groups(t, h, walk.pattern):
            d_output = products.take(block_rows(gradient[place], group, g))
            values = values_of_group(row, group, g, scratch, "values")
            queries, keys, weights, totals = attend_group(row, group, walk, products)
            parts = queries, keys, weights.div_(totals), values, d_output
            d_queries = backward_of_group(*parts, group, walk, products, dropout, d_keys)
            products.arrange(block_rows(d_query, group, g)).copy_(d_queries)
        d_keys.finish()
    return sums


def attend_group(
    row: Row, group: Group, walk: Walk, products: BatchedProducts
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Attend with a group's queries.

    Returns queries (rows), keys (h, c, k, d), attention weights (scores) that are still to be divided by their totals,
    and the totals, one for each row.
    """
    h, g = row.query.shape[0], walk.pattern.num_global_tokens
    queries = products.take(block_rows(row.query, group, g))
    out = products.scratch("keys", h, group.count, g + group.num_keys, row.key.shape[-1])
    keys = side_by_side(row.key, row.sparse_key, group, g, out)
    visible = visible_keys(row, group, keys.shape[2], walk.pattern)  # (h or 1, c, q or 1, k)
    if visible is None:
        weights = products.with_keys(queries, keys, walk.scaling * LOG2_E, "weights")
        totals = torch.exp2(weights, out=weights).sum(-1, keepdim=True)  # in half of softmax's time
        smallest, largest = totals.aminmax()
        if float(smallest) > 1 / MODERATE and float(largest) < MODERATE:
            return queries, keys, weights, totals
    weights = products.with_keys(queries, keys, walk.scaling, "weights")
    weights = softmax_of_visible(weights, None if visible is None else products.arrange(visible))
    return queries, keys, weights, torch.ones_like(weights[..., :1])


def values_of_group(row: Row, group: Group, num_globals: int, scratch: Scratch, name: str) -> Tensor:
    """Copy a group's values (h, c, k, d) into the buffer of that name."""
    h, d = row.value.shape[0], row.value.shape[-1]
    out = scratch(name, h, group.count, num_globals + group.num_keys, d)
    return side_by_side(row.value, row.sparse_value, group, num_globals, out)


def visible_keys(row: Row, group: Group, num_keys: int, pattern: LSGPattern) -> Tensor | None:
    """Give which keys a group's queries may attend to, (h or 1, c, q or 1, k); None if all."""
    g, c, q = pattern.num_global_tokens, group.count, group.queries
    visible = None
    if row.key_mask is not None or row.sparse_mask is not None:
        device = row.key.device
        key_mask = (
            torch.ones(row.key.shape[1], dtype=torch.bool, device=device) if row.key_mask is None else row.key_mask
        )
        sparse_mask = row.sparse_mask
        if sparse_mask is None and group.sparse:
            sparse_mask = torch.ones(1, row.sparse_key.shape[1], dtype=torch.bool, device=device)
        heads = 1 if sparse_mask is None else len(sparse_mask)
        out = torch.empty(heads, c, num_keys, 1, dtype=torch.bool, device=device)
        sparse_mask = None if sparse_mask is None else sparse_mask[..., None]
        kept = side_by_side(key_mask[None, :, None].expand(heads, -1, -1), sparse_mask, group, g, out)
        visible = None if kept.all() else kept.transpose(2, 3)
    if pattern.is_causal:
        past = torch.ones(q, num_keys, dtype=torch.bool, device=row.key.device)
        own = g + group.first - group.local.start  # where a block's own tokens stand among its keys
        past[:, : g + group.local.size].tril_(own)  # sparse keys stand before all that
        visible = past[None, None] if visible is None else visible & past
    return visible


def backward_of_group(
    queries: Tensor,
    keys: Tensor,
    weights: Tensor,
    values: Tensor,
    d_output: Tensor,
    group: Group,
    walk: Walk,
    products: BatchedProducts,
    dropout: Dropout,
    d_keys: KeyGradients,
) -> Tensor:
    """Give the gradient of a group's queries (rows), and add up those of its keys and values."""
    d_weights = products.with_keys(d_output, values, dropout.scale, "d_weights")
    used = dropout.repeat(weights, d_weights, products.scratch)
    d_keys.add_values(group, products.for_keys(used, d_output, dropout.scale, "d_keys"))
    d_scores = softmax_backward(d_weights, weights)
    d_keys.add_keys(group, products.for_keys(d_scores, queries, walk.scaling, "d_keys"))
    return products.with_scores(d_scores, keys, walk.scaling, "d_queries")


def softmax_backward(d_weights: Tensor, weights: Tensor) -> Tensor:
    """Return the gradient of the scores, weights * (d - sum of weights * d), from that of the weights, d.

    It is what autograd calls for a softmax: in one go, and right for every layout, as it is not done in place.
    """
    return torch.ops.aten._softmax_backward_data(d_weights, weights, -1, weights.dtype)


def plan_globals(num_tokens: int, heads: int, pattern: LSGPattern, max_scores: int) -> list[slice]:
    """Put the globals into slices with few enough scores."""
    g = pattern.num_global_tokens
    size = max(1, max_scores // (heads * (g + num_tokens)))
    return [slice(first, min(first + size, g)) for first in range(0, g, size)]


def attend_globals(row: Row, part: slice, walk: Walk) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Give queries (h, q, d), keys and values (h, k, d) and attention weights (h, q, k) of some globals; no copies."""
    g = walk.pattern.num_global_tokens
    k = g if walk.pattern.is_causal else row.key.shape[1]
    queries, keys, values = row.query[:, part], row.key[:, :k], row.value[:, :k]
    # this way round the product is fast in all dtypes
    scores = torch.cat([chunk @ queries.mT for chunk in keys.split(CHUNK, 1)], 1)  # (h, k, q)
    scores = scores.mT.mul(walk.scaling).contiguous()  # (h, q, k)
    visible = None if row.key_mask is None else row.key_mask[None, :k]
    if walk.pattern.is_causal:
        past = torch.ones(g, g, dtype=torch.bool, device=scores.device).tril()[part]
        visible = past if visible is None else visible & past
    return queries, keys, values, softmax_of_visible(scores, visible)


def softmax_of_visible(scores: Tensor, visible: Tensor | None) -> Tensor:
    """Return attention weights (..., k): 0 for keys that are not visible, and where none is. Overwrites the scores."""
    if visible is not None:
        scores.masked_fill_(~visible, -inf)
    weights = scores.softmax(-1)
    if visible is not None and not (sees_some := visible.any(-1, keepdim=True)).all():
        weights.masked_fill_(~sees_some, 0)  # there, softmax gives NaN
    return weights


def weighted_values(weights: Tensor, values: Tensor) -> Tensor:
    """Multiply the weights (h, q, k) of globals with values (h, k, d)."""
    parts = zip(weights.split(CHUNK, 2), values.split(CHUNK, 1), strict=True)
    return torch.stack([weights @ values for weights, values in parts]).sum(0)


def backward_of_globals(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    weights: Tensor,
    d_output: Tensor,
    walk: Walk,
    scratch: Scratch,
    dropout: Dropout,
    d_keys: KeyGradients,
) -> Tensor:
    """Give the gradient of some globals' queries (h, q, d), and add up those of keys and values, chunk by chunk."""
    d_weights = (values @ d_output.mT).mT.mul(dropout.scale).contiguous()
    used = dropout.repeat(weights, d_weights, scratch)
    used = used * dropout.scale
    d_scores = softmax_backward(d_weights, weights).mul_(walk.scaling)
    for first in range(0, keys.shape[1], CHUNK):
        chunk = slice(first, min(first + CHUNK, keys.shape[1]))
        d_keys.d_value[:, chunk] += used[..., chunk].mT @ d_output
        d_keys.d_key[:, chunk] += d_scores[..., chunk].mT @ queries
    return d_scores @ keys
