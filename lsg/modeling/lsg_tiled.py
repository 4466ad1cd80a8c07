"""Backend "tiled", the CPU's: FlashAttention-style tiling with recomputation in backward.

A tile is a run of blocks with equally many keys, so few that their scores stay in the processor's cache.

    for each row of the batch, for each tile of `plan_tiles`:
        K, V = globals, local, sparse left, sparse right of each block     (copied side by side)
        S = Q K^T * scaling                                                (masked only where something is hidden)
        P = exp(S), without shift; softmax(S) where exp would leave the range of numbers
        O = dropout(P) V / row_sums(P)                                     (normalized after P V)
    backward computes K, V, S, P and dropout again, tile by tile, and then
        dV += dropout(P)^T dO
        dS = softmax_backward(P, dropout(dO V^T)) * scaling
        dK += dS^T Q
        dQ = dS K

Nothing of the size of the scores is kept: saved are query, key, value and the places of the sparse keys. The queries of
globals and pinned tokens are left to lsg_blocks. Same definition as "blocks" (arXiv 2210.15497, section 3).
Shapes: n batch, h heads, t tokens, g globals and pinned tokens, d head size, r sparse keys; of a tile: see lsg_tiles.
"""

from math import e, inf, log2
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .lsg_blocks import globals_attention, pinned_attention
from .lsg_distance import Scoring, front_positions
from .lsg_pattern import LSGPattern, Tile, Window, plan_tiles
from .lsg_sparse import pad_to_blocks, query_of_first_token, select_sparse, selects_tokens, sparse_indices
from .lsg_tiles import (
    DistanceTerms,
    Tensors,
    Workspace,
    add_by_token,
    choose_products,
    empty_rows,
    gather_tile,
    scatter_tile,
    window_rows,
)

LOG2_E = log2(e)
MODERATE = 2.0**64  # row sums up to this, and down to its inverse, lose nothing to the range of float32
TILE_BYTES = 2**21  # of a tile's scores; a single block may have more
DROPOUT_STEPS = 2**16  # 16 random bits for each weight, so that the probability is rounded to a multiple of 1 / 65,536


class Settings(NamedTuple):
    """What the passes need to know besides the tensors; the seed is that of dropout."""

    pattern: LSGPattern
    scaling: float
    dropout: float
    seed: int


def attend_tiled(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask: Tensor | None,
    pattern: LSGPattern,
    scoring: Scoring,
) -> Tensor:
    """Return the attention of a long sequence; arguments and result are those of `attend_blocks`.

    float16 is computed in float32, as in `scaled_dot_product_attention`: scores are often beyond its range.
    """
    if query.dtype == torch.float16:
        return attend_tiled(query.float(), key.float(), value.float(), key_mask, pattern, scoring).half()
    scoring = scoring._replace(dropout=round(scoring.dropout * DROPOUT_STEPS) / DROPOUT_STEPS)
    dropout = scoring.dropout
    with torch.autocast(query.device.type, enabled=False):  # as in TiledAttention
        if dropout > 0 and query[:, :, : pattern.num_global_tokens].numel() > 0:
            globals_ = globals_with_dropout(query, key, value, key_mask, pattern, scoring)
        else:
            globals_ = globals_attention(query, key, value, key_mask, pattern, scoring)
        pinned = pinned_attention(query, key, value, key_mask, pattern, scoring)
    front = torch.cat([globals_, pinned], 2)
    settings = Settings(pattern, scoring.scaling, dropout, int(torch.randint(2**62, ())) if dropout > 0 else 0)
    tensors = find_sparse(query, key, value, key_mask, pattern)
    if scoring.distance_bias is None:
        tensors = tensors._replace(sparse_position=None)
    else:
        n = len(query)
        tensors = tensors._replace(
            distance_bias=scoring.distance_bias.expand(n, -1, -1),
            front_position=front_positions(key_mask, pattern, query.device).expand(n, -1),
        )
    return TiledAttention.apply(front, *tensors, settings)


def globals_with_dropout(
    query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None, pattern: LSGPattern, scoring: Scoring
) -> Tensor:
    """Return what `globals_attention` does, a few globals of a row at a time, each part computed again in backward.

    With dropout torch forms the weights, (n, h, g, g + t), and would keep them.
    """
    (n, h, length, _), g = key.shape, pattern.num_global_tokens
    step = g if pattern.is_causal else max(1, TILE_BYTES // query.element_size() // (h * length))
    masks = [None] * n if key_mask is None else key_mask.split(1)
    rows = [
        [
            checkpoint(globals_attention, part, k, v, mask, pattern, scoring, use_reentrant=False)
            for part in q[:, :, :g].split(step, 2)
        ]
        for q, k, v, mask in zip(query.split(1), key.split(1), value.split(1), masks, strict=True)
    ]
    return torch.cat([torch.cat(row, 2) for row in rows])


def find_sparse(query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None, pattern: LSGPattern) -> Tensors:
    """Return the tensors of `attend_tiled` with its sparse keys, or their places, and both masks or neither."""
    (n, h, length, d), g = key.shape, pattern.num_front_tokens
    no_sparse = key.new_empty(n, h, 0, d)
    if not pattern.has_sparse:
        sparse_mask = None if key_mask is None else key_mask.new_ones(n, 1, 0)
        return Tensors(query, key, value, no_sparse, no_sparse, None, key_mask, sparse_mask)
    token_mask = None if key_mask is None else key_mask[:, g:]
    tokens = pad_to_blocks(key[:, :, g:], value[:, :, g:], token_mask, pattern.block_size)
    sparse_key, sparse_value, places = no_sparse, no_sparse, None
    if selects_tokens(pattern):
        position, sparse_mask = sparse_indices(tokens[0], tokens[2], pattern)
        # those in the padding are masked, so any token may stand in for them
        places = (position.clamp(max=length - g - 1) + g) * h + torch.arange(h, device=key.device)[:, None]
        places = places.expand(n, -1, -1)
    else:
        first_query = query_of_first_token(query, key_mask, pattern)
        sparse_key, sparse_value, sparse_mask, position = select_sparse(first_query, *tokens, pattern)
    if sparse_mask is not None and key_mask is None:
        key_mask = sparse_mask.new_ones(n, length)
    if key_mask is not None and sparse_mask is None:
        sparse_mask = key_mask.new_ones(n, 1, tokens[0].shape[2] // pattern.sparsity_factor)
    found = Tensors(query, key, value, sparse_key, sparse_value, places, key_mask, sparse_mask)
    return found._replace(sparse_position=position.expand(n, -1, -1))


class TiledAttention(torch.autograd.Function):
    """The tokens' attention, put behind the output (n, h, front, d) of globals and pinned tokens, which is given.

    Tensors and gradients may have any layout in memory. Autocast is off, so that backward computes what forward did.
    """

    @staticmethod
    def forward(ctx: Any, front: Tensor, *arguments: Any) -> Tensor:
        """Return the output (n, h, g + t, d)."""
        tensors, settings = Tensors(*arguments[:-1]), arguments[-1]
        ctx.save_for_backward(*tensors)
        ctx.settings = settings
        output = empty_rows(tensors.query)
        output[:, :, : front.shape[2]] = front
        with torch.autocast(output.device.type, enabled=False):
            tiles = TilePass(settings, tensors.query)
            for index, row_output in enumerate(output):
                row = tensors.row(index).with_sparse()
                for tile in tiles.plan:
                    tiles.forward(row, tile, row_output)
        return output

    @staticmethod
    def backward(ctx: Any, d_output: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the front's output, query, key, value, and of sparse keys that were given."""
        if torch.is_grad_enabled():
            raise RuntimeError('the backend "tiled" can be differentiated once; choose lsg_backend="blocks"')
        tensors, g = Tensors(*ctx.saved_tensors), ctx.settings.pattern.num_front_tokens
        query, key, value = (empty_rows(x) for x in (tensors.query, tensors.key, tensors.value))
        for zeros in (query[:, :, :g], key, value):  # the tiles write the rest of the queries'
            zeros.zero_()
        sparse = torch.zeros_like(tensors.sparse_key), torch.zeros_like(tensors.sparse_value)
        table = (
            None
            if tensors.distance_bias is None
            else torch.zeros_like(tensors.distance_bias, memory_format=torch.contiguous_format)
        )
        gradients = Tensors(query, key, value, *sparse, distance_bias=table)
        with torch.autocast(d_output.device.type, enabled=False):
            tiles = TilePass(ctx.settings, tensors.query)
            for index, d_row_output in enumerate(d_output):
                row, d_row = tensors.row(index).with_sparse(), gradients.row(index)
                if row.places is not None:
                    fetched = torch.zeros_like(row.sparse_key), torch.zeros_like(row.sparse_value)
                    d_row = d_row._replace(sparse_key=fetched[0], sparse_value=fetched[1])
                for tile in tiles.plan:
                    tiles.backward(row, tile, d_row_output, d_row)
                if d_row.distance_bias is not None:
                    tiles.terms.add_local_gradients(d_row.distance_bias)
                if row.places is not None:
                    add_by_token(d_row.key, row.places, d_row.sparse_key)
                    add_by_token(d_row.value, row.places, d_row.sparse_value)
        return d_output[:, :, :g], *gradients, None


class TilePass:
    """One pass over the tiles of a batch, forward or backward: its numbers, workspace, products and dropout."""

    def __init__(self, settings: Settings, query: Tensor) -> None:
        self.pattern, self.scaling = settings.pattern, settings.scaling
        self.num_front = settings.pattern.num_front_tokens
        self.terms = DistanceTerms(settings.pattern)
        self.workspace = Workspace(query)
        self.products = choose_products(query, settings.pattern.block_size)(self.workspace)
        steps = round(settings.dropout * DROPOUT_STEPS)
        self.dropout_steps, self.dropout_scale = steps, DROPOUT_STEPS / (DROPOUT_STEPS - steps or inf)
        self.generator = torch.Generator(query.device).manual_seed(settings.seed)
        heads, num_tokens = query.shape[1], query.shape[2] - self.num_front
        max_scores = 1 if self.products.takes_one_block else TILE_BYTES // query.element_size()
        self.plan = plan_tiles(num_tokens, heads, settings.pattern, max_scores)

    def forward(self, row: Tensors, tile: Tile, output: Tensor) -> None:
        """Write the output of a tile's queries into that of the row, (h, g + t, d)."""
        _, _, weights, row_sums = self.weights(row, tile)
        if self.dropout_steps:
            weights.mul_(self.draw_dropout(weights))
        values = self.gather(row.value, row.sparse_value, tile, "keys")  # in the same place: a cache holds one
        summed = self.products.outputs(weights, values, self.dropout_scale, "outputs")
        torch.div(summed, row_sums, out=self.products.arrange(self.query_rows(output, tile)))

    def backward(self, row: Tensors, tile: Tile, d_output: Tensor, d_row: Tensors) -> None:
        """Write the gradient of a tile's queries, and add that of its keys and values, to the gradients of the row."""
        products = self.products
        d_outputs = products.take(self.query_rows(d_output, tile))
        values = self.gather(row.value, row.sparse_value, tile, "values")
        queries, keys, weights, row_sums = self.weights(row, tile)
        dropped = weights.div_(row_sums)
        d_weights = products.scores(d_outputs, values, self.dropout_scale, "d_weights")
        if self.dropout_steps:
            drawn = self.draw_dropout(weights)
            d_weights.mul_(drawn)
            dropped = drawn.mul_(weights)
        d_values = products.keys(dropped, d_outputs, self.dropout_scale, "d_keys")
        scatter_tile(d_row.value, d_row.sparse_value, tile, self.num_front, d_values)
        # what autograd calls for a softmax: right for every layout, as it is not done in place
        d_scores = torch.ops.aten._softmax_backward_data(d_weights, weights, -1, weights.dtype)
        if row.distance_bias is not None and d_row.distance_bias is not None:
            self.terms.add_gradient(d_scores.permute(products.inverse), row, tile, d_row.distance_bias)
        d_keys = products.keys(d_scores, queries, self.scaling, "d_keys")
        scatter_tile(d_row.key, d_row.sparse_key, tile, self.num_front, d_keys)
        d_queries = products.outputs(d_scores, keys, self.scaling, "d_queries")
        products.arrange(self.query_rows(d_row.query, tile)).copy_(d_queries)

    def weights(self, row: Tensors, tile: Tile) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return a tile's queries, keys, attention weights before normalization, and their row sums."""
        queries = self.products.take(self.query_rows(row.query, tile))
        keys = self.gather(row.key, row.sparse_key, tile, "keys")
        visible = self.visible_keys(row, tile)
        if visible is None:
            weights = self.scores(queries, keys, row, tile, LOG2_E)
            row_sums = torch.exp2(weights, out=weights).sum(-1, keepdim=True)  # in half of softmax's time
            smallest, largest = row_sums.aminmax()
            if float(smallest) > 1 / MODERATE and float(largest) < MODERATE:
                return queries, keys, weights, row_sums
        scores = self.scores(queries, keys, row, tile, 1.0)
        if visible is not None:
            visible = self.products.arrange(visible)
            scores.masked_fill_(~visible, -inf)
        weights = scores.softmax(-1)
        if visible is not None and not (sees_some := visible.any(-1, keepdim=True)).all():
            weights.masked_fill_(~sees_some, 0)  # softmax has given NaN
        return queries, keys, weights, torch.ones_like(weights[..., :1])

    def scores(self, queries: Tensor, keys: Tensor, row: Tensors, tile: Tile, factor: float) -> Tensor:
        """Return the scores of a tile, times a factor; -inf where tokens are out of each other's reach."""
        scores = self.products.scores(queries, keys, self.scaling * factor, "weights")
        self.terms.add(scores.permute(self.products.inverse), row, tile, factor)
        return scores

    def visible_keys(self, row: Tensors, tile: Tile) -> Tensor | None:
        """Return which keys a tile's queries may attend to, (h or 1, c, q or 1, k); None if none is masked.

        In that case a token sees itself at least, and `scores` hides what is out of its reach.
        """
        if row.key_mask is None or row.sparse_mask is None:
            return None
        key_mask = row.key_mask[:, None].expand(len(row.sparse_mask), -1, -1)  # (h or 1, g + t, 1)
        visible = gather_tile(key_mask, row.sparse_mask[..., None], tile, self.num_front).mT  # (h or 1, c, 1, k)
        return None if visible.all() else self.terms.hide_pairs(visible, tile)

    def draw_dropout(self, weights: Tensor) -> Tensor:
        """Return ones and zeros like the weights, the same in both passes. (`bernoulli_` takes five times as long.)"""
        size = weights.numel()
        words = self.workspace("random", -(-size // 4), dtype=torch.int64)
        bits = words.random_(-(2**63), None, generator=self.generator).view(torch.int16)[:size].view(weights.shape)
        return torch.gt(bits, self.dropout_steps - 2**15 - 1, out=self.workspace("dropout", *weights.shape))

    def query_rows(self, x: Tensor, tile: Tile) -> Tensor:
        """Return a view (h, c, q, d) of the queries' rows of x (h, g + t, d)."""
        window = Window(tile.first_token, tile.num_queries, tile.num_queries)
        return window_rows(x, window, tile.num_blocks, self.num_front)

    def gather(self, x: Tensor, sparse: Tensor, tile: Tile, name: str) -> Tensor:
        """Return a tile's keys or values (h, c, k, d), in the workspace of that name."""
        out = self.workspace(name, len(x), tile.num_blocks, sum(tile.key_sizes(self.num_front)), x.shape[-1])
        return gather_tile(x, sparse, tile, self.num_front, out)
