"""Buffers that a walk uses in turn, and its dropout."""

from math import prod

import torch
from torch import Tensor

DROPOUT_STEPS = 2**16  # 16 random bits a weight: its probability is rounded to a multiple of 1 / 65,536


class Scratch:
    """Buffers by name, each as large as the largest tensor that was ever asked for."""

    def __init__(self, like: Tensor) -> None:
        self.like = like
        self.buffers: dict[str, Tensor] = {}
        self.views: dict[tuple, Tensor] = {}  # what was given before

    def __call__(self, name: str, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Give the buffer as a contiguous tensor of a shape, with whatever is in it."""
        if (name, shape) not in self.views:
            size = prod(shape)
            if name not in self.buffers or self.buffers[name].numel() < size:
                self.views = {key: view for key, view in self.views.items() if key[0] != name}
                self.buffers[name] = torch.empty(size, dtype=dtype or self.like.dtype, device=self.like.device)
            self.views[name, shape] = self.buffers[name][:size].view(shape)
        return self.views[name, shape]


class Dropout:
    """Draws the weights that stay, group after group, the same ones for the same seed."""

    def __init__(self, probability: float, seed: int, device: torch.device) -> None:
        self.steps = round(probability * DROPOUT_STEPS)
        self.is_on = self.steps > 0
        self.scale = 0.0 if self.steps == DROPOUT_STEPS else DROPOUT_STEPS / (DROPOUT_STEPS - self.steps)
        self.generator = torch.Generator(device).manual_seed(seed)

    def draw(self, weights: Tensor, scratch: Scratch) -> Tensor:
        """Give ones and zeros, in the weights' dtype and shape. (`bernoulli_` takes five times as long.)"""
        size = weights.numel()
        words = scratch("random", -(-size // 4), dtype=torch.int64).random_(-(2**63), None, generator=self.generator)
        bits = words.view(torch.int16)[:size].view(weights.shape)  # -32,768 to 32,767
        return torch.gt(bits, self.steps - 2**15 - 1, out=scratch("stays", *weights.shape))

    def apply(self, weights: Tensor, scratch: Scratch) -> Tensor:
        """Drop weights, in place; `scale` is left to the product that they go into."""
        return weights.mul_(self.draw(weights, scratch)) if self.is_on else weights

    def repeat(self, weights: Tensor, d_weights: Tensor, scratch: Scratch) -> Tensor:
        """Drop the same in backward: in place in the gradient of the weights, and in a copy of the weights."""
        if not self.is_on:
            return weights
        stays = self.draw(weights, scratch)
        d_weights.mul_(stays)
        return stays.mul_(weights)
