"""Rows of a batch as the backend "tiled" reads them, and the gradients of their keys and values.

Shapes: n batch, h heads, t tokens, g globals, d head size, r sparse keys; in a group c blocks, each with k keys.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .lsg_pattern import LSGPattern
from .lsg_walk_groups import Group, add_windows


class Row(NamedTuple):
    """One row of the batch: (h, g + t, d) three times, (h, r, d) twice, (h, r), (g + t) and (h or 1, r)."""

    query: Tensor
    key: Tensor
    value: Tensor
    sparse_key: Tensor | None
    sparse_value: Tensor | None
    indices: Tensor | None  # where in head * (g + t) places of key and value the sparse ones were found
    key_mask: Tensor | None
    sparse_mask: Tensor | None


def walk_rows(pattern: LSGPattern, *tensors: Tensor | None) -> Iterator[Row]:
    """Give the tensors of each row, with the sparse keys fetched."""
    for place in range(len(tensors[0])):
        row = Row(*(None if x is None else x[min(place, len(x) - 1)] for x in tensors))
        if row.indices is not None:
            heads, g = row.key.shape[0], pattern.num_global_tokens
            places = (row.indices + g) * heads + torch.arange(heads, device=row.indices.device)[:, None]
            sparse = (rows_of_heads(x).index_select(0, places.flatten()) for x in (row.key, row.value))
            sparse_key, sparse_value = (x.unflatten(0, places.shape) for x in sparse)
            row = row._replace(sparse_key=sparse_key, sparse_value=sparse_value, indices=places)
        yield row


def empty_rows(like: Tensor) -> Tensor:
    """Make (n, h, g + t, d) that lies in memory as (n, g + t, h, d), as the layers in front and behind want it."""
    return like.new_empty(like.transpose(1, 2).shape).transpose(1, 2)


def rows_of_heads(x: Tensor) -> Tensor:
    """See (h, t, d) as (t * h, d): without a copy, if it comes out of a linear layer."""
    return x.transpose(0, 1).flatten(0, 1)


class KeyGradients:
    """Adds up the gradients of one row's keys and values: of the tokens, the globals and the sparse ones."""

    def __init__(
        self,
        row: Row,
        d_key: Tensor,
        d_value: Tensor,
        d_sparse_key: Tensor | None,
        d_sparse_value: Tensor | None,
        pattern: LSGPattern,
    ) -> None:
        self.row, self.num_globals = row, pattern.num_global_tokens
        self.d_key, self.d_value = d_key, d_value
        is_fetched = row.indices is not None
        self.d_sparse_key = torch.zeros_like(row.sparse_key) if is_fetched else d_sparse_key
        self.d_sparse_value = torch.zeros_like(row.sparse_value) if is_fetched else d_sparse_value

    def add_keys(self, group: Group, gradient: Tensor) -> None:
        """Add that of a group's keys, (h, c, k, d)."""
        self.add(group, gradient, self.d_key, self.d_sparse_key)

    def add_values(self, group: Group, gradient: Tensor) -> None:
        """Add that of a group's values, (h, c, k, d)."""
        self.add(group, gradient, self.d_value, self.d_sparse_value)

    def add(self, group: Group, gradient: Tensor, target: Tensor, sparse_target: Tensor | None) -> None:
        """Undo `side_by_side`."""
        g = self.num_globals
        globals_, local, *sparse = gradient.split(group.key_sizes(g), 2)
        target[:, :g] += globals_.sum(1)
        add_windows(target[:, g:], local, group.local)
        for part, window in zip(sparse, group.sparse, strict=True):
            add_windows(sparse_target, part, window)

    def finish(self) -> None:
        """Give the gradient of fetched sparse keys to the tokens they are."""
        if self.row.indices is None:
            return
        for target, source in ((self.d_key, self.d_sparse_key), (self.d_value, self.d_sparse_value)):
            places = self.row.indices.flatten()[:, None].expand(-1, source.shape[-1])
            target.transpose(0, 1).view(-1, source.shape[-1]).scatter_add_(0, places, source.flatten(0, 1))
