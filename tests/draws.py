"""Cases of attention, drawn by a seed: patterns, lengths and paddings of all kinds."""

import random

import torch

from lsg.lsg_pattern import SPARSITY_TYPES, LSGPattern


def draw_pattern(rng: random.Random) -> LSGPattern:
    """Draw numbers until they form an allowed pattern."""
    while True:
        b = rng.choice([1, 2, 3, 4, 5, 6, 8])
        f = rng.choice([f for f in range(1, b + 1) if b % f == 0])
        s = rng.choice([0, 1, 2, 3, 4, 6, 8, b, 2 * b])
        kind = rng.choice([*SPARSITY_TYPES, None])
        try:
            return LSGPattern(
                b, s, f, kind, rng.choice([0, 1, 1, 2, 5]), rng.random() < 0.4, rng.randrange(3), rng.randrange(99)
            )
        except ValueError:
            continue


def draw_keep(rng: random.Random, n: int, t: int) -> torch.Tensor | None:
    """Draw a padding: none, left, right, whole rows, scattered, or the first token alone."""
    kind = rng.choice(["none", "left", "right", "rows", "scattered", "first"])
    if kind == "none":
        return None
    keep = torch.ones(n, t, dtype=torch.bool)
    for row in range(n):
        length = rng.randrange(0, t + 1)
        if kind == "left":
            keep[row, :length] = False
        elif kind == "right":
            keep[row, length:] = False
        elif kind == "rows":
            keep[row] = row > 0
        elif kind == "scattered":
            keep[row] = torch.tensor([rng.random() < 0.6 for _ in range(t)])
        else:
            keep[row, 0] = False
    return keep


def draw_case(seed: int) -> tuple:
    """Draw everything that a seed stands for: query, key, value, keep, pattern, scaling, gradient of the output."""
    rng = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    pattern = draw_pattern(rng)
    n, h, d = rng.choice([1, 2]), rng.choice([1, 2, 3, 5]), rng.choice([2, 3, 8])
    t = rng.randrange(1, 9 * pattern.block_size + 2)
    shape = (n, h, pattern.num_global_tokens + t, d)
    query, key, value, gradient = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(4))
    return query, key, value, draw_keep(rng, n, shape[2]), pattern, rng.choice([0.3, d**-0.5]), gradient


def with_gradients(function, query, key, value, keep, pattern, scaling, gradient):
    """Run the function; give output and gradients."""
    leaves = [x.clone().requires_grad_() for x in (query, key, value)]
    output = function(*leaves, keep, pattern, scaling)
    return [output, *torch.autograd.grad(output, leaves, gradient, allow_unused=True, materialize_grads=True)]
