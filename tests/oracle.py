"""The dense oracle: LSG attention straight from its definition, with a mask over all keys, one softmax.

Nothing of the library is used but the numbers of the pattern and the random projections of "lsh", so that a
mistake in blocks, windows or selection shows. Slow and plain on purpose.
"""

import torch

from lsg.modeling.lsg_sparse import lsh_projections

MARGINS: list[float] = []  # by how much each selection was decided, relative; whoever reads it clears it first


def oracle_attention(query, key, value, key_mask, pattern, scaling, distance_bias=None, factors=None):
    """Same arguments and result as `lsg_attention`, no cache.

    Instead of dropout it takes the factors of the weights, (n, h, g + P + t, g + P + t + m).
    """
    g, P, b = pattern.num_global_tokens, pattern.num_pinned_tokens, pattern.block_size
    n, h, length, d = query.shape
    front = g + P
    t = length - front
    key_mask = torch.ones(n, length, dtype=torch.bool) if key_mask is None else key_mask
    sparse_key, sparse_value, sparse_mask = key[:, :, :0], value[:, :, :0], torch.ones(n, h, 0, dtype=torch.bool)
    sparse_place = torch.zeros(n, h, 0, dtype=torch.long)
    is_long = t > 2 * b or P > 0  # short texts have no sparse keys, as all that they could see lies beyond the end
    first = query[:, :, front:]
    if P > 0:  # token 0 is the first pinned one, in rows that have any
        rows = [query[i, :, g:] if key_mask[i, g:front].any() else query[i, :, front:] for i in range(n)]
        first = torch.stack([row[:, :1] for row in rows])
    if is_long and pattern.has_sparse:
        sparse_key, sparse_value, sparse_mask, sparse_place = oracle_sparse(
            first, key[:, :, front:], value[:, :, front:], key_mask[:, front:], pattern
        )
    m = sparse_key.shape[2]
    seen = visible_pairs(pattern, t, m, is_long)
    allowed = torch.cat([key_mask[:, None].expand(n, h, length), sparse_mask], -1)
    allowed = allowed[:, :, None] & seen
    keys, values = torch.cat([key, sparse_key], 2), torch.cat([value, sparse_value], 2)
    bias = 0 if distance_bias is None else oracle_bias(distance_bias, key_mask, sparse_place, pattern, t)
    if factors is None:
        return softmax_over(query, keys, values, allowed, scaling, bias)
    longest = keys.shape[2]  # a weight is what its key adds to a column of its own
    weights = softmax_over(query, keys, torch.eye(longest).to(keys).expand(n, h, -1, -1), allowed, scaling, bias)
    return (weights * factors) @ values


def oracle_bias(table, key_mask, sparse_place, pattern, t):
    """What distance adds to the score of every query and key, (n, h, g + P + t, g + P + t + m), row by row."""
    g, P, longest = pattern.num_global_tokens, pattern.num_pinned_tokens, table.shape[1] // 2
    rows = []
    for i, sparse in enumerate(sparse_place):  # (h, m)
        pinned = [k + 1 for k in range(P) if key_mask[i, g + k]]
        before = pinned[-1] if pinned else 0  # pinned tokens of this row
        places = torch.tensor([*[0] * g, *range(P), *range(before, before + t)])
        heads = []
        for head, own in enumerate(sparse):
            distance = torch.cat([places, own + before])[None] - places[:, None]
            heads.append(table[head][distance.clamp(-longest, longest) + longest])
        rows.append(torch.stack(heads))
    return torch.stack(rows)


def softmax_over(query, key, value, allowed, scaling, bias=0):
    """One softmax over the allowed keys; a row that may see nothing is zero."""
    scores = (query @ key.transpose(2, 3) * scaling + bias).masked_fill(~allowed, -torch.inf)
    return scores.softmax(-1).masked_fill(~allowed, 0).nan_to_num() @ value


def visible_pairs(pattern, t, m, is_long):
    """Which queries see which keys of [globals | pinned | t tokens | m sparse], padding aside: boolean."""
    g, b, s = pattern.num_global_tokens, pattern.block_size, pattern.sparse_block_size
    front = g + pattern.num_pinned_tokens
    per_block = b // pattern.sparsity_factor
    query, key = torch.arange(front + t)[:, None], torch.arange(front + t + m)[None]
    block, key_block, j = (query - front) // b, (key - front) // b, key - front - t
    is_sparse = key >= front + t
    left, right = (block - 1) * per_block, (block + 2) * per_block
    near = (key < front) | (not is_long) | ((key_block - block).abs() <= 1)
    if pattern.max_distance is not None:
        near = (key < front) | ((key - query).abs() <= pattern.max_distance)
    far = (left - s <= j) & (j < left)
    if not pattern.is_causal:
        far |= (right <= j) & (j < right + s)
    seen = torch.where(is_sparse, far, near)
    seen[:g] = ~is_sparse  # the globals see everything
    seen[g:front] = (key >= g) & (key < front)  # pinned tokens see each other
    if pattern.is_causal:
        seen &= is_sparse | (key <= query)
    return seen


def oracle_sparse(query, key, value, key_mask, pattern):
    """Sparse keys, values, their mask and their places among the tokens, one head and one group at a time."""
    n, h, t, d = key.shape
    b, f = pattern.block_size, pattern.sparsity_factor
    end = -(-t // b) * b - t
    key, value = (torch.cat([x, x.new_zeros(n, h, end, d)], 2) for x in (key, value))
    key_mask = torch.cat([key_mask, torch.zeros(n, end, dtype=torch.bool)], 1)
    kind = pattern.sparsity_type
    if f == 1:
        return key, value, key_mask[:, None].expand(n, h, -1), torch.arange(t + end).expand(n, h, -1)
    if kind == "lsh" and f == pattern.sparse_block_size:
        kind = "bos_pooling"
    rows = []  # `head` below is (number of this head, how many heads)
    for batch in range(n):
        for head in range(h):
            one = (query[batch, head, 0], key[batch, head], value[batch, head], key_mask[batch], (head, h), pattern)
            rows.append(ORACLES[kind](*one))
    return tuple(torch.stack(parts).unflatten(0, (n, h)) for parts in zip(*rows, strict=True))


def pick(indices, key, value, key_mask):
    indices = torch.tensor(indices)
    return key[indices], value[indices], key_mask[indices], indices


def oracle_norm(q0, key, value, key_mask, head, pattern):
    chunk = min(pattern.block_size, pattern.sparse_block_size)
    norms = (key.detach() ** 2).sum(-1).sqrt() * key_mask
    picked = []
    for start in range(0, len(key), chunk):
        order = sorted(range(start, start + chunk), key=lambda j: norms[j].item())
        first = chunk - chunk // pattern.sparsity_factor
        if norms[order[first]] > 0:  # among masked ones it does not matter
            MARGINS.append(1 - float(norms[order[first - 1]] / norms[order[first]]))
        picked += order[first:]
    return pick(picked, key, value, key_mask)


def oracle_stride(q0, key, value, key_mask, head, pattern):
    f = pattern.sparsity_factor
    return pick([r * f + head[0] % f for r in range(len(key) // f)], key, value, key_mask)


def oracle_block_stride(q0, key, value, key_mask, head, pattern):
    b, m = pattern.block_size, pattern.block_size // pattern.sparsity_factor
    picked = []
    for start in range(0, len(key), b):
        picked += [start + (head[0] * m + offset) % b for offset in range(m)]
    return pick(picked, key, value, key_mask)


def weighted_groups(key, value, key_mask, f, weigh):
    """One sparse key per f tokens: the sum of the kept ones with the weights that `weigh` gives them."""
    keys, values, keeps, places = [], [], [], []
    for start in range(0, len(key), f):
        kept = [j for j in range(start, start + f) if key_mask[j]]
        keeps.append(torch.tensor(bool(kept)))
        places.append(torch.tensor(sum(kept) // max(1, len(kept))))
        if kept:
            weights = weigh(key[kept])[:, None]
            keys.append((weights * key[kept]).sum(0))
            values.append((weights * value[kept]).sum(0))
        else:
            keys.append(torch.zeros_like(key[0]))
            values.append(torch.zeros_like(value[0]))
    return tuple(torch.stack(parts) for parts in (keys, values, keeps, places))


def oracle_pooling(q0, key, value, key_mask, head, pattern):
    return weighted_groups(
        key, value, key_mask, pattern.sparsity_factor, lambda k: torch.full_like(k[:, 0], 1 / len(k))
    )


def oracle_bos_pooling(q0, key, value, key_mask, head, pattern):
    return weighted_groups(
        key, value, key_mask, pattern.sparsity_factor, lambda k: (k @ q0 / k.shape[-1] ** 0.5).softmax(0)
    )


def oracle_lsh(q0, key, value, key_mask, head, pattern):
    chunk = min(pattern.block_size, pattern.sparse_block_size)
    sizes = [chunk] * pattern.lsh_num_pre_rounds + [chunk // pattern.sparsity_factor]
    keys, values, keeps, places = [], [], [], []
    for start in range(0, len(key), chunk):
        # a cluster is (sum of keys, sum of values, count, sum of places)
        clusters = [
            (key[j], value[j], 1, j) if key_mask[j] else (key[j] * 0, value[j] * 0, 0, 0)
            for j in range(start, start + chunk)
        ]
        for number, size in enumerate(sizes):
            merged = [(key[0] * 0, value[0] * 0, 0, 0) for _ in range(size)]
            for k, v, count, place in clusters:
                bucket = oracle_bucket(k.detach(), size, head, pattern.lsh_seed + number) if count else 0
                merged[bucket] = tuple(a + c for a, c in zip(merged[bucket], (k, v, count, place), strict=True))
            clusters = merged
        for k, v, count, place in clusters:
            keys.append(k / max(count, 1))
            values.append(v / max(count, 1))
            keeps.append(torch.tensor(count > 0))
            places.append(torch.tensor(place // max(count, 1)))
    return tuple(torch.stack(parts) for parts in (keys, values, keeps, places))


def oracle_bucket(key, size, head, seed):
    if size // 2 == 0:
        return 0
    projections = lsh_projections(head[1], len(key), (size // 2,), seed)[head[0]].to(key)
    length = key.norm()
    scores = (key / length if length > 0 else key) @ projections
    scores = torch.cat([scores, -scores])
    first, second = scores.topk(2).values
    MARGINS.append(float((first - second) / first.clamp(min=1e-9)))
    return int(scores.argmax())


ORACLES = {
    "norm": oracle_norm,
    "pooling": oracle_pooling,
    "stride": oracle_stride,
    "block_stride": oracle_block_stride,
    "bos_pooling": oracle_bos_pooling,
    "lsh": oracle_lsh,
}
