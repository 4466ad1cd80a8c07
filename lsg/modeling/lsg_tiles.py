"""What the backend "tiled" does with one tile: it gathers its rows, multiplies them, and adds gradients to rows.

Shapes: h heads, t tokens, g globals, d head size, r sparse keys; in a tile c blocks, each with q queries and k keys.
"rows" are queries, outputs or their gradients, (h, c, q, d); "scores" have a number for each query and key, (h, c, q,
k). Both are contiguous, in the order that `Products.arrange` gives them. "keys" are keys or values, (h, c, k, d).
"""

from functools import lru_cache
from math import prod

import torch
from torch import Tensor

from .lsg_pattern import Tile, Window

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
