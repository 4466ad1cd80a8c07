"""Tensors that conversion computes: the longer position table and the global tokens. Pure functions.

Source: arXiv 2210.15497, section 3.4 (no training: positions are tiled, globals are sums of existing embeddings).
Shapes: D width of the embeddings, n positions of the original.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .modeling.lsg_pattern import MAX_GLOBAL_TOKENS

CHUNK = 512  # globals are spread over whole spans of 512 positions


def tile_positions(table: Tensor, start: int, length: int) -> Tensor:
    """Repeat the rows from `start` on until there are `length` of them; the rows before are unchanged.

    Args:
        table: (start + n, D)

    Returns:
        (start + length, D), row start + k a copy of row start + (k mod n)
    """
    positions = table[start:]
    rows = torch.arange(length, device=table.device) % len(positions)
    return torch.cat([table[:start], positions[rows]])


def position_factor(num_positions: int) -> int:
    """Return how many whole spans of 512 the positions fill, at least one."""
    return max(num_positions // CHUNK, 1)


def global_positions(num_positions: int, stride: int) -> Tensor:
    """Return the position of each of the 512 globals, (512,): neighbours are `stride` apart.

    Raises:
        ValueError: a stride with which the globals do not cover the positions evenly.
    """
    factor = position_factor(num_positions)
    span = CHUNK * factor
    if stride < 1 or span % stride or stride % factor:
        allowed = [s for s in range(factor, span + 1, factor) if span % s == 0]
        raise ValueError(
            f"global_positional_stride={stride} is not allowed: with {num_positions} positions it must divide {span} "
            f"and be a multiple of {factor}; choose one of {', '.join(map(str, allowed))}"
        )
    per_round = span // stride
    i = torch.arange(MAX_GLOBAL_TOKENS)
    return (i % per_round) * stride + (i // per_round) * factor


def fill_positions(positions: Tensor, generator: torch.Generator) -> Tensor:
    """Extend a table to at least 512 rows, with draws from a normal of its rows' mean and standard deviation."""
    missing = CHUNK - len(positions)
    if missing <= 0:
        return positions
    std = positions.std(0) if len(positions) > 1 else torch.zeros_like(positions[0])
    noise = torch.randn(missing, positions.shape[1], generator=generator)
    return torch.cat([positions, positions.mean(0) + noise * std])


def sinusoidal_positions(length: int, dim: int) -> Tensor:
    """Return Pegasus' fixed table (length, D): sines in the first half, cosines in the second (Vaswani et al., 3.5)."""
    rates = 10000 ** (torch.arange(0, dim, 2, dtype=torch.float64) / dim)  # one for each pair of columns
    angles = torch.arange(length, dtype=torch.float64)[:, None] / rates
    return torch.cat([angles.sin(), angles[:, : dim // 2].cos()], 1).float()


def draw_words(words: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw rows from a normal with the mean and covariance of the word embeddings (V, D).

    A random mixture of the centred words has exactly that covariance, so no (perhaps singular) matrix is factored.
    """
    mean = words.mean(0, dtype=torch.float32)
    drawn = torch.zeros(count, words.shape[1])
    for some in words.split(8192):  # a copy of them all in single precision could be as large as the checkpoint
        drawn += torch.randn(count, len(some), generator=generator) @ (some.float() - mean)
    return mean + drawn / max(len(words) - 1, 1) ** 0.5


def initial_globals(
    words: Tensor,
    positions: Tensor | None,
    token_type: Tensor | None,
    bos_token_id: int,
    mask_token_id: int | None,
    stride: int,
    seed: int,
    embed_words: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return the 512 global embeddings.

    Args:
        words: (V, D), word embeddings, on the CPU like the other tensors.
        positions: (n, D), position embeddings from the first real position on; None where positions are rotary, and
            globals have none.
        token_type: (D,), embedding of token type 0, added to all; None to leave it out.
        bos_token_id: word of global 0.
        mask_token_id: word of the other globals; None to draw each from the words' mean and covariance, as is always
            done without positions: those globals would be alike, and stay alike in training.
        stride: positions between neighbouring globals.
        seed: of all draws.
        embed_words: function of word embeddings (k, D) that returns what the model adds to positions for them, (k, D).

    Returns:
        (512, D) in single precision; global 0 = word[BOS] + position[0] + token type, global i > 0 =
        word[MASK] + its position + token type.
    """
    generator = torch.Generator().manual_seed(seed)
    places = torch.zeros(MAX_GLOBAL_TOKENS, words.shape[1])
    if positions is not None:
        chosen = global_positions(len(positions), stride)
        places = fill_positions(positions.float(), generator)[chosen]
    if mask_token_id is None or positions is None:
        content = draw_words(words, MAX_GLOBAL_TOKENS, generator)
    else:
        content = words[mask_token_id].float().repeat(MAX_GLOBAL_TOKENS, 1)
    content[0] = words[bos_token_id]
    globals_ = places + embed_words(content)
    return globals_ if token_type is None else globals_ + token_type.float()
