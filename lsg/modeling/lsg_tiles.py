"""What the backend "tiled" does with one tile: it gathers its rows, multiplies them, and adds gradients to rows.

Shapes: h heads, t tokens, g globals, d head size, r sparse keys; in a tile c blocks, each with q queries and k keys.
"rows" are queries, outputs or their gradients, (h, c, q, d); "scores" have a number for each query and key, (h, c, q,
k). Both are contiguous, in the order that `Products.arrange` gives them. "keys" are keys or values, (h, c, k, d).
"""

from functools import lru_cache
from math import inf, prod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from .lsg_distance import add_at, consecutive_distances, far_distance, look_up, within_reach
from .lsg_pattern import LSGPattern, Tile, Window

Shape = tuple[int, int, int]  # of the local keys of a block, see `local_shape`

CONVOLVED_BLOCK = 128  # the smallest block size with which convolutions are faster


def window_rows(x: Tensor, window: Window, num_blocks: int, first: int = 0) -> Tensor:
    """Return a view (h, c, size, d) of the windows of c blocks, counted from row `first` of x (h, rows, d).

    They may overlap. One call, where narrow, unfold and transpose are three: it is called thousands of times.
    """
    head, row, column = x.stride()
    start = x.storage_offset() + (first + window.start) * row
    size = (x.shape[0], num_blocks, window.size, x.shape[2])
    return x.as_strided(size, (head, window.step * row, row, column), start)


def gather_tile(x: Tensor, sparse: Tensor, tile: Tile, g: int, out: Tensor | None = None) -> Tensor:
    """Return a tile's rows of x (h, g + t, d) and sparse (h, r, d) side by side, (h, c, k, d)."""
    globals_ = x[:, None, :g].expand(-1, tile.num_blocks, -1, -1)
    windows = [window_rows(x, tile.local, tile.num_blocks, g)]
    windows += [window_rows(sparse, window, tile.num_blocks) for window in tile.sparse]
    return torch.cat([globals_, *windows], 2, out=out)


def scatter_tile(target: Tensor, sparse_target: Tensor, tile: Tile, g: int, gradient: Tensor) -> None:
    """Add the gradient (h, c, k, d) of a tile's keys to those of a row, (h, g + t, d) and (h, r, d)."""
    globals_, local, *sparse = gradient.split(tile.key_sizes(g), 2)
    target[:, :g] += globals_.sum(1)
    add_windows(target[:, g:], local, tile.local)
    for part, window in zip(sparse, tile.sparse, strict=True):
        add_windows(sparse_target, part, window)


def add_windows(target: Tensor, gradient: Tensor, window: Window) -> None:
    """Add (h, c, size, d) to the windows of target (h, rows, d), in parts that do not overlap."""
    for first in range(0, window.size, window.step):
        width = min(window.step, window.size - first)
        part = Window(window.start + first, width, window.step)
        window_rows(target, part, gradient.shape[1]).add_(gradient[:, :, first : first + width])


def empty_rows(like: Tensor) -> Tensor:
    """Return memory for (n, h, g + t, d) that lies as (n, g + t, h, d), as the layers in front and behind want it."""
    return like.new_empty(like.transpose(1, 2).shape).transpose(1, 2)


def by_token(x: Tensor) -> Tensor:
    """Return (h, t, d) as (t * h, d): a view, if it comes out of a linear layer."""
    return x.transpose(0, 1).flatten(0, 1)


def add_by_token(target: Tensor, places: Tensor, gradient: Tensor) -> None:
    """Add (h, r, d) to the rows of target (h, t, d), which lies as (t, h, d), that stand at `places` of `by_token`."""
    d = target.shape[-1]
    target.transpose(0, 1).view(-1, d).scatter_add_(0, places.flatten()[:, None].expand(-1, d), gradient.flatten(0, 1))


class Tensors(NamedTuple):
    """What the tokens' attention reads, or its gradients: of a batch, or without n of one row of it."""

    query: Tensor  # (n, h, g + t, d)
    key: Tensor
    value: Tensor
    sparse_key: Tensor  # (n, h, r, d); r = 0 if there are none, or as long as they are to be found at `places`
    sparse_value: Tensor
    places: Tensor | None = None  # (n, h, r) rows of `by_token`
    key_mask: Tensor | None = None  # (n, g + t); both masks are None if every key may be attended to
    sparse_mask: Tensor | None = None  # (n, h or 1, r)
    distance_bias: Tensor | None = None  # (n, h, 2D + 1), the same for all rows; None if there is none
    front_position: Tensor | None = None  # (n, g)
    sparse_position: Tensor | None = None  # (n, h or 1, r)

    def row(self, index: int) -> "Tensors":
        """Return one row."""
        return Tensors._make(None if x is None else x[index] for x in self)

    def with_sparse(self) -> "Tensors":
        """Return a row with the sparse keys and values that are found at `places`, (h, r, d)."""
        if self.places is None:
            return self
        rows, shape = self.places.flatten(), self.places.shape
        keys, values = (by_token(x).index_select(0, rows).unflatten(0, shape) for x in (self.key, self.value))
        return self._replace(sparse_key=keys, sparse_value=values)


class DistanceTerms:
    """What distance adds to the scores of tiles: the bias, and -inf where tokens are out of each other's reach.

    That of local keys is the same for all tiles of a shape: it is kept, and its gradients are added up before they go
    into the table's.
    """

    def __init__(self, pattern: LSGPattern) -> None:
        self.pattern = pattern
        self.local: dict[tuple[Shape, float], Tensor | None] = {}
        self.local_gradients: dict[Shape, Tensor] = {}

    def add(self, scores: Tensor, row: Tensors, tile: Tile, factor: float) -> None:
        """Add the terms, times a factor, to the scores (h, c, q, k)."""
        terms = self.local_terms(row, tile, factor)
        if terms is None:
            return
        front, local, *sparse = scores.split(tile.key_sizes(self.pattern.num_front_tokens), -1)
        local.add_(terms)
        if row.distance_bias is not None:
            for part, distances in zip((front, *sparse), self.other_distances(row, tile), strict=True):
                part.add_(look_up(row.distance_bias, distances), alpha=factor)

    def add_gradient(self, d_scores: Tensor, row: Tensors, tile: Tile, d_table: Tensor) -> None:
        """Add the gradient of scores (h, c, q, k) to that of the bias, (h, 2D + 1), but for that of local keys."""
        front, local, *sparse = d_scores.split(tile.key_sizes(self.pattern.num_front_tokens), -1)
        summed, shape = local.sum(1, dtype=d_table.dtype), local_shape(tile)  # (h, q, k)
        self.local_gradients[shape] = (
            self.local_gradients[shape].add_(summed) if shape in self.local_gradients else summed
        )
        for part, distances in zip((front, *sparse), self.other_distances(row, tile), strict=True):
            add_at(d_table, distances, part)

    def add_local_gradients(self, d_table: Tensor) -> None:
        """Add what `add_gradient` has left out so far, and forget it."""
        for shape, gradient in self.local_gradients.items():
            add_at(d_table, consecutive_distances(*shape, d_table.device)[None, None], gradient[:, None])
        self.local_gradients.clear()

    def local_terms(self, row: Tensors, tile: Tile, factor: float) -> Tensor | None:
        """Return the terms of local keys, (h or 1, 1, q, k), times a factor; None if there are none."""
        shape = local_shape(tile)
        if (shape, factor) not in self.local:
            distances = consecutive_distances(*shape, row.key.device)
            pairs, terms = within_reach(distances, self.pattern), None
            if row.distance_bias is not None:
                terms = look_up(row.distance_bias, distances[None, None]) * factor
            if pairs is not None:
                terms = row.key.new_zeros(1, 1, *pairs.shape) if terms is None else terms
                terms = terms.masked_fill(~pairs, -inf)
            self.local[shape, factor] = terms
        return self.local[shape, factor]

    def other_distances(self, row: Tensors, tile: Tile) -> list[Tensor]:
        """Return the distances of front and sparse keys, each (h or 1, c, q, k), or with 1 where they are all alike."""
        assert row.distance_bias is not None and row.front_position is not None
        table, places = row.distance_bias, torch.arange(tile.num_blocks * tile.num_queries, device=row.key.device)
        places = (places + tile.first_token).view(1, tile.num_blocks, tile.num_queries, 1)
        is_far = tile.first_token >= table.shape[1] // 2
        distances = [places.new_full((1, 1, 1, 1), -tile.first_token) if is_far else row.front_position - places]
        for window in tile.sparse:
            assert row.sparse_position is not None
            is_behind = window.start * self.pattern.sparsity_factor > tile.first_token
            distance = far_distance(table, self.pattern, is_behind)
            if distance is None:
                distance = window_rows(row.sparse_position[..., None], window, tile.num_blocks).mT - places
            distances.append(distance)
        return distances

    def hide_pairs(self, visible: Tensor, tile: Tile) -> Tensor:
        """Return which keys are visible, (h or 1, c, q or 1, k), without local ones that are out of reach."""
        pairs = within_reach(consecutive_distances(*local_shape(tile), visible.device), self.pattern)
        if pairs is None:
            return visible
        before, behind = self.pattern.num_front_tokens, sum(window.size for window in tile.sparse)
        return visible & functional.pad(pairs, (before, behind), value=True)


def local_shape(tile: Tile) -> Shape:
    """Return the queries of a block, its first local key as counted from its first query, and its local keys."""
    return tile.num_queries, tile.local.start - tile.first_token, tile.local.size


class Workspace:
    """Memory by name, each as large as the largest tensor that was asked for, used by tile after tile."""

    def __init__(self, like: Tensor) -> None:
        self.like = like
        self.memory: dict[str, Tensor] = {}

    def __call__(self, name: str, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Return a contiguous tensor of a shape, with whatever is in it."""
        size = prod(shape)
        if name not in self.memory or self.memory[name].numel() < size:
            self.memory[name] = torch.empty(size, dtype=dtype or self.like.dtype, device=self.like.device)
        return self.memory[name][:size].view(shape)


class Products:
    """Batched matrix products, scaled, into the workspace of a name."""

    order = inverse = (0, 1, 2, 3)
    takes_one_block = False

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def arrange(self, x: Tensor) -> Tensor:
        """Return a view of (h, c, q, ...) in the order of these products."""
        return x.permute(self.order)

    def take(self, rows: Tensor) -> Tensor:
        """Return (h, c, q, d) in the order of these products; contiguous, so that no product needs a copy."""
        return rows.flatten(0, 1).unflatten(0, rows.shape[:2])

    def scores(self, rows: Tensor, keys: Tensor, scale: float, name: str) -> Tensor:
        """Return the products of queries and keys, or of outputs' gradients and values."""
        return self.multiply(rows, keys.mT, scale, name)

    def outputs(self, scores: Tensor, keys: Tensor, scale: float, name: str) -> Tensor:
        """Return the sums of values with their weights, or of keys with their scores' gradients."""
        return self.multiply(scores, keys, scale, name)

    def keys(self, scores: Tensor, rows: Tensor, scale: float, name: str) -> Tensor:
        """Return for every key the sum of rows with their scores, (h, c, k, d)."""
        return self.multiply(scores.permute(self.inverse).mT, rows.permute(self.inverse), scale, name)

    def multiply(self, left: Tensor, right: Tensor, scale: float, name: str) -> Tensor:
        """Return the products of the matrices (h, c, i, j) and (h, c, j, l)."""
        out = self.workspace(name, *left.shape[:3], right.shape[3])
        if scale == 0:  # baddbmm would leave half-precision memory as it is
            return out.zero_()
        flat = out.flatten(0, 1)
        torch.baddbmm(flat, left.flatten(0, 1), right.flatten(0, 1), beta=0, alpha=scale, out=flat)
        return out


class ConvolvedProducts(Products):
    """Convolutions with a kernel of 1 and a group of channels for each head, one block at a time: (1, q, h, d or k).

    For large blocks in float32 on AMD's processors with AVX-512. There torch leaves batched products to MKL, which has
    AVX-512 for Intel's alone, and convolutions to oneDNN, which has it for all and takes half the time. Queries and
    outputs stay as they lie in memory, (q, h, d).
    """

    order, inverse = (1, 2, 0, 3), (2, 0, 1, 3)
    takes_one_block = True

    def take(self, rows: Tensor) -> Tensor:
        """Return a view, see `arrange`."""
        return self.arrange(rows)

    def scores(self, rows: Tensor, keys: Tensor, scale: float, name: str) -> Tensor:
        """Return what `Products.scores` does."""
        return convolve(rows * scale, keys, is_transposed=False)

    def outputs(self, scores: Tensor, keys: Tensor, scale: float, name: str) -> Tensor:
        """Return what `Products.outputs` does."""
        rows = convolve(scores, keys, is_transposed=True)
        return rows if scale == 1 else rows.mul_(scale)


def convolve(x: Tensor, keys: Tensor, is_transposed: bool) -> Tensor:
    """Return x (1, q, h, d) times keys (h, 1, k, d), or x (1, q, h, k) if transposed; contiguous, whatever x is."""
    h, _, k, d = keys.shape
    rows = x.flatten(2).contiguous()  # or else the image, and what comes back, would have its channels far apart
    image = rows[:, :, None].permute(0, 3, 1, 2)  # (1, channels, q, 1), the channels side by side in memory
    kernel = keys.reshape(h * k, d, 1, 1)
    image = torch.convolution(image, kernel, None, [1, 1], [0, 0], [1, 1], is_transposed, [0, 0], h)
    return image.permute(0, 2, 3, 1).reshape(1, x.shape[1], h, d if is_transposed else k).contiguous()


def choose_products(query: Tensor, block_size: int) -> type[Products]:
    """Return the faster products for blocks of a query."""
    is_large = query.dtype == torch.float32 and block_size >= CONVOLVED_BLOCK
    has_onednn = query.device.type == "cpu" and torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
    return ConvolvedProducts if is_large and has_onednn and onednn_is_ahead() else Products


@lru_cache
def onednn_is_ahead() -> bool:
    """Return whether oneDNN uses vectors of this processor that MKL does not; no, where torch is too old to name it."""
    if not hasattr(torch.cpu, "get_capabilities"):
        return False
    processor = torch.cpu.get_capabilities()
    return bool(processor.get("avx512_f")) and "AMD" in str(processor.get("cpu_name"))
