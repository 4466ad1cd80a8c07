"""Scores that depend on distance: a bias that is added to them, and windows beyond which a key is hidden.

A token's position is its place in the row: pinned tokens stand at 0 to P - 1, the others behind them, and globals at 0,
as token 0 does, for which the first of them stands. A sparse key made of several tokens has the mean of their
positions, rounded down. The code counts from the first token that is not pinned, so globals and pinned tokens have
negative positions where there are pinned ones.

Shapes: n batch, h heads, g globals, P pinned tokens, q queries, k keys; D is the distance from which on the bias is
constant. The distance is that of the key from the query: positive for a key that stands behind.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from .lsg_pattern import LSGPattern, check


class Scoring(NamedTuple):
    """How scores are made of the products of queries and keys, and what becomes of them."""

    scaling: float  # their factor
    dropout: float = 0.0  # probability of dropping an attention weight
    distance_bias: Tensor | None = None  # (h, 2D + 1), added by head and distance from -D to D; None for nothing


def make_scoring(query: Tensor, scaling: float | None, dropout: float, distance_bias: Tensor | None = None) -> Scoring:
    """Return the scoring of queries (n, h, q, d); scores are scaled by 1 / sqrt(d) by default."""
    return Scoring(query.shape[-1] ** -0.5 if scaling is None else scaling, dropout, distance_bias)


def check_bias(table: Tensor, num_heads: int, pattern: LSGPattern) -> None:
    """Raise ValueError unless a bias by distance has the right shape and goes with the pattern."""
    fits = table.dim() == 2 and table.shape[0] == num_heads and table.shape[1] % 2 == 1
    rule = f"it must have the shape ({num_heads}, 2D + 1), one row for each head"
    check(fits, "the shape of distance_bias", tuple(table.shape), rule)
    check(not pattern.is_causal, "distance_bias", "a tensor", "causal attention has no bias by distance")


def at_least_single(table: Tensor) -> Tensor:
    """Return a bias in at least single precision, in which the gradients of many scores are added up."""
    return table.to(torch.promote_types(table.dtype, torch.float32))


def front_positions(key_mask: Tensor | None, pattern: LSGPattern, device: torch.device) -> Tensor:
    """Return the positions (n or 1, g + P) of globals and pinned tokens.

    `key_mask` is (n, g + P + t), or None. A row has as many pinned tokens as there are places up to the last one that
    is not masked.
    """
    g, P = pattern.num_global_tokens, pattern.num_pinned_tokens
    places = torch.arange(P, device=device)
    positions = torch.cat([places.new_zeros(g), places])[None]
    if P == 0:
        return positions
    if key_mask is None:
        return positions - P
    return positions - ((places + 1) * key_mask[:, g : g + P]).amax(1, keepdim=True)


def consecutive_distances(num_queries: int, first_key: int, num_keys: int, device: torch.device) -> Tensor:
    """Return the distances (q, k) of consecutive keys, from `first_key` on, from consecutive queries, from 0 on."""
    return torch.arange(num_keys, device=device) + first_key - torch.arange(num_queries, device=device)[:, None]


def within_reach(distances: Tensor, pattern: LSGPattern) -> Tensor | None:
    """Return at which distances a token may attend to another one, boolean; None if at all."""
    if pattern.is_causal:
        return distances <= 0
    return None if pattern.max_distance is None else distances.abs() <= pattern.max_distance


def look_up(table: Tensor, distances: Tensor) -> Tensor:
    """Return the bias (..., h, c, q, k) out of a table (h, 2D + 1) for distances (..., h or 1, c, q, k)."""
    first_rows = torch.arange(len(table), device=table.device)[:, None, None, None] * table.shape[1]
    return functional.embedding(bias_index(table, distances) + first_rows, table.reshape(-1, 1)).squeeze(-1)


def far_distance(table: Tensor, pattern: LSGPattern, is_behind: bool) -> Tensor | None:
    """Return a distance (1, 1, 1, 1) that stands for those of all sparse keys of one side; None if they matter.

    These are more than b tokens away, and from D on the bias is constant.
    """
    longest = table.shape[1] // 2
    is_far = pattern.block_size >= longest
    return torch.full((1, 1, 1, 1), longest if is_behind else -longest, device=table.device) if is_far else None


def add_at(table: Tensor, distances: Tensor, gradient: Tensor) -> None:
    """Add the gradient (h, c, q, k) of what `look_up` gives, or of numbers it was spread to, to that of its table."""
    gradient = gradient.to(table.dtype).sum_to_size(len(table), *distances.shape[1:])
    index = bias_index(table, distances).expand(len(table), -1, -1, -1)
    table.scatter_add_(1, index.flatten(1), gradient.flatten(1))


def bias_index(table: Tensor, distances: Tensor) -> Tensor:
    """Return the columns of a table (h, 2D + 1) for distances."""
    longest = table.shape[1] // 2
    return distances.clamp(-longest, longest) + longest
