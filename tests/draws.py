"""Cases of attention, drawn by a seed: patterns, lengths, paddings and memory layouts of all kinds."""

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations

import torch

from lsg.modeling.lsg_pattern import SPARSITY_TYPES, LSGPattern


def draw_pattern(rng: random.Random, num_pinned: int = 0) -> LSGPattern:
    """Draw numbers until they form an allowed pattern; with pinned tokens it is not causal."""
    while True:
        b = rng.choice([1, 2, 3, 4, 5, 6, 8])
        f = rng.choice([f for f in range(1, b + 1) if b % f == 0])
        s = rng.choice([0, 1, 2, 3, 4, 6, 8, b, 2 * b])
        kind = rng.choice([*SPARSITY_TYPES, None])
        try:
            g, is_causal = rng.choice([0, 1, 1, 2, 5]), rng.random() < 0.4 and num_pinned == 0
            return LSGPattern(b, s, f, kind, g, is_causal, rng.randrange(3), rng.randrange(99), num_pinned)
        except ValueError:
            continue


def draw_bidirectional(rng: random.Random, num_pinned: int = 0) -> LSGPattern:
    """Draw an allowed pattern that is not causal."""
    return replace(draw_pattern(rng), is_causal=False, num_pinned_tokens=num_pinned)


def draw_window(rng: random.Random, num_pinned: int = 0) -> LSGPattern:
    """Draw the pattern of a layer with a sliding window, of up to as many tokens on either side as a block has."""
    b = rng.choice([1, 2, 3, 4, 5, 6, 8])
    pattern = LSGPattern(b, 0, 1, "none", rng.choice([0, 1, 1, 2, 5]), num_pinned_tokens=num_pinned)
    return replace(pattern, max_distance=rng.randint(0, b))


def draw_key_mask(rng: random.Random, n: int, t: int) -> torch.Tensor | None:
    """Draw a padding: none, left, right, whole rows, scattered, or the first token alone."""
    kind = rng.choice(["none", "left", "right", "rows", "scattered", "first"])
    if kind == "none":
        return None
    key_mask = torch.ones(n, t, dtype=torch.bool)
    for row in range(n):
        length = rng.randrange(0, t + 1)
        if kind == "left":
            key_mask[row, :length] = False
        elif kind == "right":
            key_mask[row, length:] = False
        elif kind == "rows":
            key_mask[row] = row > 0 or n == 1
        elif kind == "scattered":
            key_mask[row] = torch.tensor([rng.random() < 0.6 for _ in range(t)])
        else:
            key_mask[row, 0] = False
    return key_mask


def draw_layout(rng: random.Random, x: torch.Tensor, has_equal_tokens: bool = True) -> torch.Tensor:
    """Draw a layout in memory: contiguous, permuted, sliced out of a larger tensor, or expanded (which changes values).

    What lies around a slice is NaN, so that a read beside it shows. Keys of equal tokens would tie for "norm".
    """
    kind = rng.choice(["contiguous", "permuted", "sliced", "expanded"])
    if kind == "permuted":
        order = rng.choice(list(permutations(range(x.dim()))))
        return x.permute(order).contiguous().permute([order.index(place) for place in range(x.dim())])
    if kind == "sliced":
        steps = [rng.choice([1, 1, 2, 3]) for _ in x.shape]
        starts = [rng.choice([0, 0, 1, 4]) for _ in x.shape]
        around = zip(starts, x.shape, steps, strict=True)
        whole = x.new_full([start + size * step for start, size, step in around], torch.nan)
        part = whole[tuple(slice(start, None, step) for start, step in zip(starts, steps, strict=True))]
        return part.copy_(x)
    if kind == "expanded":
        chosen = [rng.random() < 0.4 and (has_equal_tokens or dim != 2) for dim in range(x.dim())]
        return x[tuple(slice(0, 1) if is_chosen else slice(None) for is_chosen in chosen)].expand(x.shape)
    return x


def draw_pinned_mask(rng: random.Random, key_mask: torch.Tensor | None, n: int, t: int, pattern: LSGPattern):
    """Return the mask with pinned tokens in front: all of them, or as many as each row has, none in some rows."""
    g, num_pinned = pattern.num_global_tokens, pattern.num_pinned_tokens
    if key_mask is None and rng.random() < 0.5:
        return None
    key_mask = torch.ones(n, g + num_pinned + t, dtype=torch.bool) if key_mask is None else key_mask.clone()
    for row in range(n):
        key_mask[row, :g] = True
        key_mask[row, g : g + num_pinned] = torch.arange(num_pinned) < rng.choice([0, 1, num_pinned, num_pinned])
    return key_mask


def draw_case(seed: int, max_pinned: int = 0, draw_pattern: Callable[..., LSGPattern] = draw_pattern) -> tuple:
    """Draw everything that a seed stands for: query, key, value, key_mask, pattern, scaling, gradient of the output."""
    rng = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    pattern = draw_pattern(rng, rng.randint(1, max_pinned) if max_pinned else 0)
    n, h, d = rng.choice([1, 2, 2, 3]), rng.choice([1, 2, 3, 5]), rng.choice([1, 2, 3, 8])
    t = rng.randrange(1, 9 * pattern.block_size + 2)
    shape = (n, h, pattern.num_front_tokens + t, d)
    key_mask, scaling = draw_key_mask(rng, n, shape[2]), rng.choice([0.3, -0.3, *[d**-0.5] * 8, 0.0])
    if pattern.num_pinned_tokens:
        key_mask = draw_pinned_mask(rng, key_mask, n, t, pattern)
    key_mask = None if key_mask is None else draw_layout(rng, key_mask)
    tensors = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(4))
    query, key, value, gradient = (draw_layout(rng, x, place != 1) for place, x in enumerate(tensors))
    return query, key, value, key_mask, pattern, scaling, gradient


def draw_bias(seed: int, num_heads: int) -> torch.Tensor:
    """Draw a bias by distance, (h, 2D + 1), and its layout; D is less, as much or more than what blocks reach."""
    rng = random.Random(seed)
    table = torch.randn(num_heads, 2 * rng.choice([0, 1, 3, 8, 20, 99]) + 1, dtype=torch.float64)
    return draw_layout(rng, table)


def with_gradients(function, query, key, value, key_mask, pattern, scaling, gradient, *bias):
    """Run the function; return output and gradients. The arguments keep their layouts in memory."""
    leaves = [x.detach().requires_grad_() for x in (query, key, value, *bias)]
    named = dict(zip(["distance_bias"], leaves[3:], strict=False))
    output = function(*leaves[:3], key_mask, pattern, scaling, **named)
    return [output, *torch.autograd.grad(output, leaves, gradient, allow_unused=True, materialize_grads=True)]
