"""The matrix products of a group of blocks, for the backend "tiled", in two ways.

`BatchedProducts` do for all devices and dtypes. `ConvolvedProducts` are for large blocks in float32 on AMD's processors
with AVX-512: torch hands batched products of float32 to MKL, which has AVX-512 for Intel's processors alone, but
convolutions to oneDNN, which has it for all, and takes half the time. A product for each head is a convolution with a
kernel of 1 whose channels are in h groups. It takes queries, and leaves outputs, as the layers in front and behind have
them, (q, h, d).

Shapes: h heads, c blocks of a group, each with q queries (tokens) of size d and k keys. Called "rows" is what there is
for each query: queries, outputs and their gradients; called "scores" is what there is for each query and key. Both
are contiguous, in the order that `arrange` gives: (h, c, q, d or k) or (c = 1, q, h, d or k). Keys and values are
(h, c, k, d) in either.
"""

from functools import lru_cache

import torch
from torch import Tensor

from .lsg_pattern import LSGPattern
from .lsg_walk_groups import Group, max_scores_per_group, plan_groups
from .lsg_walk_scratch import Scratch

CONVOLVED_BLOCK = 128  # the smallest block size with which convolutions are faster


class BatchedProducts:
    """Batched products of groups of blocks, into buffers that are used again."""

    order = inverse = (0, 1, 2, 3)

    def __init__(self, scratch: Scratch) -> None:
        self.scratch = scratch

    def plan_groups(self, num_tokens: int, heads: int, pattern: LSGPattern) -> tuple[Group, ...]:
        """Put the blocks of a row of t tokens into groups."""
        return plan_groups(num_tokens, heads, pattern, max_scores_per_group(self.scratch.like))

    def arrange(self, x: Tensor) -> Tensor:
        """See (h, c, q, ...) in the order of these products."""
        return x.permute(self.order)

    def take(self, rows: Tensor) -> Tensor:
        """Give (h, c, q, d) in the order of these products, for several of them: copied, if each would have to."""
        return rows.flatten(0, 1).unflatten(0, rows.shape[:2])

    def restore(self, x: Tensor) -> Tensor:
        """See what is in the order of these products as (h, c, q, ...)."""
        return x.permute(self.inverse)

    def with_keys(self, rows: Tensor, keys: Tensor, scale: float, name: str) -> Tensor:
        """Multiply rows with keys (or values): scores, scaled, maybe in the buffer of that name."""
        return self.multiply(rows, keys.mT, scale, name)

    def with_scores(self, scores: Tensor, keys: Tensor, scale: float, name: str) -> Tensor:
        """Add up keys (or values) times their scores: rows, scaled, maybe in the buffer of that name."""
        return self.multiply(scores, keys, scale, name)

    def for_keys(self, scores: Tensor, rows: Tensor, scale: float, name: str) -> Tensor:
        """Add up rows times their scores for every key: (h, c, k, d), scaled, in the buffer of that name."""
        return self.multiply(self.restore(scores).mT, self.restore(rows), scale, name)

    def multiply(self, left: Tensor, right: Tensor, scale: float, name: str) -> Tensor:
        """Multiply the matrices (h, c, i, j) and (h, c, j, l), scaled, into the buffer of that name."""
        shape = (*left.shape[:3], right.shape[3])
        if scale == 0:  # baddbmm would leave a half-precision buffer as it is
            return self.scratch(name, *shape).zero_()
        out = self.scratch(name, *shape).flatten(0, 1)
        return torch.baddbmm(out, left.flatten(0, 1), right.flatten(0, 1), beta=0, alpha=scale, out=out).view(shape)


class ConvolvedProducts(BatchedProducts):
    """Convolutions, one block at a time."""

    order, inverse = (1, 2, 0, 3), (2, 0, 1, 3)

    def plan_groups(self, num_tokens: int, heads: int, pattern: LSGPattern) -> tuple[Group, ...]:
        """Give every block alone."""
        return plan_groups(num_tokens, heads, pattern, 1)

    def take(self, rows: Tensor) -> Tensor:
        """See `arrange`."""
        return self.arrange(rows)

    def with_keys(self, rows: Tensor, keys: Tensor, scale: float, name: str) -> Tensor:
        """See `BatchedProducts.with_keys`."""
        return convolve(rows * scale, keys, is_transposed=False)

    def with_scores(self, scores: Tensor, keys: Tensor, scale: float, name: str) -> Tensor:
        """See `BatchedProducts.with_scores`."""
        rows = convolve(scores, keys, is_transposed=True)
        return rows if scale == 1 else rows.mul_(scale)


def convolve(x: Tensor, keys: Tensor, is_transposed: bool) -> Tensor:
    """Multiply x (1, q, h, d) with keys (h, 1, k, d), or x (1, q, h, k) if transposed; contiguous, whatever x is."""
    h, _, k, d = keys.shape
    rows = x.flatten(2).contiguous()  # or else the image, and what comes back, would have its channels far apart
    image = rows[:, :, None].permute(0, 3, 1, 2)  # (1, channels, q, 1), the channels side by side in memory
    kernel = keys.reshape(h * k, d, 1, 1)
    image = torch.convolution(image, kernel, None, [1, 1], [0, 0], [1, 1], is_transposed, [0, 0], h)
    return image.permute(0, 2, 3, 1).reshape(1, x.shape[1], h, d if is_transposed else k).contiguous()


def choose_products(query: Tensor, block_size: int, scratch: Scratch) -> BatchedProducts:
    """Choose the faster products for groups of the blocks of a query."""
    is_large = query.dtype == torch.float32 and block_size >= CONVOLVED_BLOCK
    has_onednn = query.device.type == "cpu" and torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
    is_convolved = is_large and has_onednn and onednn_is_ahead()
    return (ConvolvedProducts if is_convolved else BatchedProducts)(scratch)


@lru_cache
def onednn_is_ahead() -> bool:
    """Whether oneDNN uses vectors of this processor that MKL does not; no, where torch is too old to name it."""
    if not hasattr(torch.cpu, "get_capabilities"):
        return False
    processor = torch.cpu.get_capabilities()
    return bool(processor.get("avx512_f")) and "AMD" in str(processor.get("cpu_name"))
