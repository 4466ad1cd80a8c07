"""Who attends to whom: the numbers that define one LSG attention, and their rules.

Source: arXiv 2210.15497, section 3. A sequence of t tokens, with g global tokens in front of it, is cut into
blocks of b tokens. A token attends to all globals, to its own block and its neighbours (local), and to s sparse
keys on either side of them, each of which stands for f tokens. Pinned tokens, if there are any, stand behind the
globals: every token attends to them, too, and they attend to each other only.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

SPARSITY_TYPES = ("norm", "pooling", "stride", "block_stride", "lsh", "bos_pooling", "none")
MAX_GLOBAL_TOKENS = 512
MAX_SEED = 2**63 - 1
BACKEND_NAMES = ("auto", "blocks", "tiled", "flex")  # see `choose_backend`
WINDOW_BLOCK = 64  # blocks of layers with a sliding window are multiples of it: smaller ones are slower
EARLIER_NAMES = {"walk": "tiled"}  # of backends, up to version 1.0


def check(condition: bool, name: str, value: object, rule: str) -> None:
    """Raise ValueError, naming the field, its value and what is allowed, unless the condition holds."""
    if not condition:
        raise ValueError(f"{name}={value!r} is not allowed: {rule}")


def check_integer(name: str, value: object, minimum: int, maximum: int | None = None) -> None:
    """Raise ValueError unless the value is a whole number within the bounds (a boolean is not a number)."""
    rule = f"it must be a whole number, at least {minimum}" + ("" if maximum is None else f" and at most {maximum}")
    fits = isinstance(value, int) and minimum <= value and (maximum is None or value <= maximum)
    check(fits and not isinstance(value, bool), name, value, rule)


@dataclass(frozen=True)
class LSGPattern:
    """The numbers of one LSG attention; a wrong one raises ValueError on construction.

    Args:
        block_size: b, tokens in a block.
        sparse_block_size: s, sparse keys seen on either side of the local blocks; 0 for none.
        sparsity_factor: f, tokens that one sparse key stands for; divides b.
        sparsity_type: one of SPARSITY_TYPES, or None, which is the same as "none".
        num_global_tokens: g, global tokens in front of the sequence.
        is_causal: whether a token sees only what stands before it.
        lsh_num_pre_rounds: rounds of clustering before the last one ("lsh" only).
        lsh_seed: seed of the random projections ("lsh" only), so that inference repeats.
        num_pinned_tokens: P, pinned tokens behind the globals; not for causal attention.
        max_distance: w, how many places away, on either side, the tokens are that a token attends to (a sliding
            window); None for no such limit. At most b, without sparse keys, and not for causal attention.
    """

    block_size: int = 128
    sparse_block_size: int = 128
    sparsity_factor: int = 2
    sparsity_type: str | None = "norm"
    num_global_tokens: int = 1
    is_causal: bool = False
    lsh_num_pre_rounds: int = 1
    lsh_seed: int = 123
    num_pinned_tokens: int = 0
    max_distance: int | None = None

    def __post_init__(self) -> None:
        b, s, f, kind = self.block_size, self.sparse_block_size, self.sparsity_factor, self.sparsity_type
        check_integer("block_size", b, 1)
        check_integer("sparse_block_size", s, 0)
        check_integer("sparsity_factor", f, 1)
        check_integer("num_global_tokens", self.num_global_tokens, 0, MAX_GLOBAL_TOKENS)
        check_integer("lsh_num_pre_rounds", self.lsh_num_pre_rounds, 0)
        check_integer("lsh_seed", self.lsh_seed, 0, MAX_SEED)
        check_integer("num_pinned_tokens", self.num_pinned_tokens, 0)
        rule = "causal attention has no pinned tokens"
        check(not (self.is_causal and self.num_pinned_tokens), "num_pinned_tokens", self.num_pinned_tokens, rule)
        check(kind in (None, *SPARSITY_TYPES), "sparsity_type", kind, f"choose one of {', '.join(SPARSITY_TYPES)}")
        check(b % f == 0, "sparsity_factor", f, f"it must divide block_size ({b})")
        if self.has_sparse and kind in ("norm", "lsh"):
            rule = f"with sparsity_type={kind!r} it must be 0, or a multiple or a divisor of block_size ({b})"
            check(s % b == 0 or b % s == 0, "sparse_block_size", s, rule)
            rule = f"with sparsity_type={kind!r} it must divide sparse_block_size ({s})"
            check(self.chunk_size % f == 0, "sparsity_factor", f, rule)
        if self.max_distance is not None:
            self.check_max_distance(self.max_distance)

    def check_max_distance(self, max_distance: int) -> None:
        """Raise ValueError unless a window of that many tokens on either side goes with the other numbers."""
        check_integer("max_distance", max_distance, 0)
        rule = f"it must be at most block_size ({self.block_size})"
        check(max_distance <= self.block_size, "max_distance", max_distance, rule)
        rule = 'there are no sparse keys with it: set sparsity_type="none", or sparse_block_size=0'
        check(not self.has_sparse, "max_distance", max_distance, rule)
        check(not self.is_causal, "max_distance", max_distance, "causal attention has no such limit")

    def with_sliding_window(self, sliding_window: int) -> "LSGPattern":
        """Return the pattern of a layer whose tokens attend to those less than `sliding_window` places away.

        Its blocks are as large as the window needs, whatever those of other layers: a block reads b + 2w keys.
        """
        w = sliding_window - 1
        return replace(
            self,
            block_size=max(1, -(-w // WINDOW_BLOCK)) * WINDOW_BLOCK,
            sparse_block_size=0,
            sparsity_factor=1,
            sparsity_type="none",
            max_distance=w,
        )

    @property
    def num_front_tokens(self) -> int:
        """Globals and pinned tokens, g + P: they stand in front, and every token attends to them."""
        return self.num_global_tokens + self.num_pinned_tokens

    @property
    def has_sparse(self) -> bool:
        """Return whether there are sparse keys at all."""
        return self.sparse_block_size > 0 and self.sparsity_type not in (None, "none")

    @property
    def needs_first_query(self) -> bool:
        """Return whether the query of token 0, even if that is padding, is used to make sparse keys."""
        is_like_bos_pooling = self.sparsity_type == "lsh" and self.sparsity_factor == self.sparse_block_size
        return self.has_sparse and (self.sparsity_type == "bos_pooling" or is_like_bos_pooling)

    @property
    def chunk_size(self) -> int:
        """Tokens among which "norm" and "lsh" select: the smaller of block and sparse block."""
        return min(self.block_size, self.sparse_block_size)

    @property
    def sparse_per_block(self) -> int:
        """Sparse keys that one block gives."""
        return self.block_size // self.sparsity_factor

    @property
    def local_window(self) -> tuple[int, int]:
        """First token, relative to the block's own first, and number of tokens of the local window."""
        if self.max_distance is not None:
            return -self.max_distance, self.block_size + 2 * self.max_distance
        return -self.block_size, (2 if self.is_causal else 3) * self.block_size

    @property
    def sparse_windows(self) -> tuple[tuple[int, int], ...]:
        """First sparse key, relative to the block's own first, and number of keys: left window, right window."""
        if not self.has_sparse:
            return ()
        s, m = self.sparse_block_size, self.sparse_per_block
        left, right = (-m - s, s), (2 * m, s)
        return (left,) if self.is_causal else (left, right)

    def is_dense(self, num_tokens: int) -> bool:
        """Return whether a sequence is so short (t <= 2b, or t <= w + 1) that all tokens attend to each other.

        Pinned tokens never attend to the others.
        """
        longest = 2 * self.block_size if self.max_distance is None else self.max_distance + 1
        return num_tokens <= longest and self.num_pinned_tokens == 0


class Window(NamedTuple):
    """The rows that the first block of a tile sees; those of each next block begin `step` rows later."""

    start: int
    size: int
    step: int


@dataclass(frozen=True)
class Tile:
    """Consecutive blocks that have equally many queries and keys, to be computed at once."""

    first_token: int
    num_blocks: int
    num_queries: int  # of each block: b, fewer at the end of the sequence
    local: Window
    sparse: tuple[Window, ...]

    def key_sizes(self, num_front: int) -> list[int]:
        """Return the number of keys of a block by part: front, local, sparse on the left, sparse on the right."""
        return [num_front, self.local.size, *(window.size for window in self.sparse)]


@lru_cache(maxsize=256)
def plan_tiles(num_tokens: int, heads: int, pattern: LSGPattern, max_scores: int) -> tuple[Tile, ...]:
    """Return the tiles of a sequence of t tokens, each of one block or of at most `max_scores` scores."""
    t, b, m, g = num_tokens, pattern.block_size, pattern.sparse_per_block, pattern.num_front_tokens
    num_blocks = -(-t // b)
    tiles: list[Tile] = []
    for i in range(num_blocks):
        local = clip(i * b, pattern.local_window, b, t)
        sparse = (clip(i * m, window, m, num_blocks * m) for window in pattern.sparse_windows)
        block = Tile(i * b, 1, min(b, t - i * b), local, tuple(window for window in sparse if window.size > 0))
        max_blocks = max_scores // (heads * b * sum(block.key_sizes(g)))
        if tiles and tiles[-1].num_blocks < max_blocks and continues(tiles[-1], block):
            tiles[-1] = replace(tiles[-1], num_blocks=tiles[-1].num_blocks + 1)
        else:
            tiles.append(block)
    return tuple(tiles)


def clip(origin: int, window: tuple[int, int], step: int, end: int) -> Window:
    """Return a block's window without the rows in front of 0 and from `end` on."""
    first = origin + window[0]
    start = max(first, 0)
    return Window(start, max(0, min(first + window[1], end) - start), step)


def continues(tile: Tile, block: Tile) -> bool:
    """Return whether a block has the queries and keys that the next block of the tile would have."""
    after = tuple(w._replace(start=w.start + tile.num_blocks * w.step) for w in (tile.local, *tile.sparse))
    return tile.num_queries == block.num_queries and after == (block.local, *block.sparse)
