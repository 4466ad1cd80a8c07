"""Groups of blocks, for the backend "tiled": which rows of queries and keys they have, how those are copied and added.

Shapes: h heads, t tokens, g globals, d head size, r sparse keys; in a group c blocks, each with q queries (b, fewer at
the end of the row) and k keys, [globals | local | sparse left | sparse right].
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from .lsg_pattern import LSGPattern

GROUP_BYTES = 2**21  # of a group's scores, which then stay in the cache; one block may have more


class Window(NamedTuple):
    """The rows that the first block of a group sees; those of each next block begin `step` rows later."""

    start: int
    size: int
    step: int


@dataclass(frozen=True)
class Group:
    """Blocks in a row that have the same number of keys."""

    first: int  # token
    count: int  # blocks
    queries: int  # tokens in each
    local: Window
    sparse: tuple[Window, ...]

    @property
    def num_keys(self) -> int:
        """Keys of a block, without the globals."""
        return sum(self.key_sizes(0))

    def key_sizes(self, num_globals: int) -> list[int]:
        """Keys of a block, part by part, in the order in which they stand side by side."""
        return [num_globals, self.local.size, *(window.size for window in self.sparse)]


def max_scores_per_group(query: Tensor) -> int:
    """Give how many scores (heads x blocks x q x k) a group may have, if it is not a single block's."""
    return GROUP_BYTES // query.element_size()


@lru_cache(maxsize=256)
def plan_groups(num_tokens: int, heads: int, pattern: LSGPattern, max_scores: int) -> tuple[Group, ...]:
    """Put the blocks of a row of t tokens into groups."""
    t, b, m, g = num_tokens, pattern.block_size, pattern.sparse_per_block, pattern.num_global_tokens
    num_blocks = -(-t // b)
    groups: list[Group] = []
    for i in range(num_blocks):
        local = clip(i * b, pattern.local_window, b, t)
        sparse = (clip(i * m, window, m, num_blocks * m) for window in pattern.sparse_windows)
        block = Group(i * b, 1, min(b, t - i * b), local, tuple(window for window in sparse if window.size > 0))
        if groups and continues(groups[-1], block, max_count=max_scores // (heads * b * (g + block.num_keys))):
            groups[-1] = replace(groups[-1], count=groups[-1].count + 1)
        else:
            groups.append(block)
    return tuple(groups)


def clip(origin: int, window: tuple[int, int], step: int, end: int) -> Window:
    """Cut off what of a block's window lies in front of 0 or behind the end."""
    first = origin + window[0]
    start = max(first, 0)
    return Window(start, max(0, min(first + window[1], end) - start), step)


def continues(group: Group, block: Group, max_count: int) -> bool:
    """Whether the block has the keys that the next block of the group would have, and there is room for it."""
    after = tuple(w._replace(start=w.start + group.count * w.step) for w in (group.local, *group.sparse))
    return group.count < max_count and group.queries == block.queries and after == (block.local, *block.sparse)


def window_rows(x: Tensor, window: Window, count: int, first: int = 0) -> Tensor:
    """See the windows of `count` blocks, counted from row `first` of x (h, rows, d), as (h, c, size, d).

    They may overlap. One call, where narrow, unfold and transpose are three: a walk calls this thousands of times.
    """
    head, row, column = x.stride()
    start = x.storage_offset() + (first + window.start) * row
    size = (x.shape[0], count, window.size, x.shape[2])
    return x.as_strided(size, (head, window.step * row, row, column), start)


def block_rows(x: Tensor, group: Group, num_globals: int) -> Tensor:
    """See the rows of a group's queries, out of (h, g + t, d), as (h, c, q, d)."""
    return window_rows(x, Window(group.first, group.queries, group.queries), group.count, num_globals)


def side_by_side(x: Tensor, sparse: Tensor | None, group: Group, num_globals: int, out: Tensor) -> Tensor:
    """Copy a group's rows of x (h, g + t, d) and sparse (h, r, d) into `out`, (h, c, k, d)."""
    globals_ = x[:, None, :num_globals].expand(-1, group.count, -1, -1)
    windows = [window_rows(x, group.local, group.count, num_globals)]
    windows += [window_rows(sparse, window, group.count) for window in group.sparse]
    return torch.cat([globals_, *windows], 2, out=out)


def add_windows(target: Tensor, gradient: Tensor, window: Window) -> None:
    """Add (h, c, size, d) to the windows of target (h, t, d), in parts that do not overlap."""
    for first in range(0, window.size, window.step):
        width = min(window.step, window.size - first)
        part = Window(window.start + first, width, window.step)
        window_rows(target, part, gradient.shape[1]).add_(gradient[:, :, first : first + width])
