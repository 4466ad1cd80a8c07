"""Windows of a text, with masked tokens to guess."""

import torch

from experiments.demo.model import BOS, EOS, LENGTH, MASK, MODEL, PAD


def all_windows(stream: torch.Tensor, length: int) -> torch.Tensor:
    """Return the consecutive windows of the stream, (n, length), each <s> ... </s>."""
    rows = stream[: len(stream) // (length - 2) * (length - 2)].view(-1, length - 2)
    return torch.cat([rows.new_full((len(rows), 1), BOS), rows, rows.new_full((len(rows), 1), EOS)], dim=1)


def random_windows(stream: torch.Tensor, shape: tuple[int, int], rng: torch.Generator) -> torch.Tensor:
    """Return windows that start at random places of the stream, of shape (n, length), each <s> ... </s>."""
    count, length = shape
    starts = torch.randint(1, len(stream) - length, (count, 1), generator=rng)
    rows = stream[starts + torch.arange(length) - 1]
    rows[:, 0], rows[:, -1] = BOS, EOS
    return rows


def choose(ids: torch.Tensor, fraction: float, rng: torch.Generator) -> torch.Tensor:
    """Return a boolean mask of randomly chosen tokens, none of them a special token."""
    return (torch.rand(ids.shape, generator=rng) < fraction) & (ids > MASK)


def corrupt(ids: torch.Tensor, chosen: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Return the ids with 80 % of the chosen tokens replaced by <mask> and 10 % by random tokens."""
    fate = torch.rand(ids.shape, generator=rng)
    random = torch.randint(MASK + 1, MODEL["vocab_size"], ids.shape, generator=rng)
    return torch.where(chosen & (fate < 0.8), MASK, torch.where(chosen & (fate >= 0.9), random, ids))


def random_positions(ids: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Return random consecutive positions for each window, so that short windows train all positions."""
    rows, length = ids.shape
    return PAD + 1 + torch.randint(LENGTH - length + 1, (rows, 1), generator=rng) + torch.arange(length)
