"""A text with masked tokens, the same ones for every length of windows. Pure functions on token ids."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from experiments.common.errors import InputError
from experiments.common.masked_lm import join_texts

DISTANCE_BINS = (0, 16, 64, 128)  # first distance of each bin; the last bin has no upper bound


@dataclass(frozen=True)
class MaskedText:
    """A sequence of tokens, some of which the model has to guess."""

    tokens: Tensor  # (T,), the true ids; T is a multiple of every window's length
    chosen: Tensor  # (T,) boolean, the tokens to guess; none at either end of a span of `unit` tokens
    unit: int  # number of tokens that the original reads
    start: int  # ids of the first and last token of a window, and of the mask token
    end: int
    mask: int

    def windows(self, length: int) -> tuple[Tensor, Tensor]:
        """Cut into windows of `length` tokens, the first and last of which become the start and end token.

        Returns:
            input ids (T / length, length), with the chosen tokens masked, and chosen, of the same shape
        """
        ids = torch.where(self.chosen, self.mask, self.tokens).view(-1, length)
        ids[:, 0], ids[:, -1] = self.start, self.end
        return ids, self.chosen.view(-1, length)

    @property
    def targets(self) -> Tensor:
        """The ids of the chosen tokens, (N,), in the order of the text."""
        return self.tokens[self.chosen]

    @property
    def places(self) -> Tensor:
        """The positions of the chosen tokens in the text, (N,)."""
        return self.chosen.nonzero()[:, 0]


def special_token(tokenizer: PreTrainedTokenizerBase, *names: str) -> int:
    """Return the id of the first of these special tokens that the tokenizer has.

    Raises:
        InputError: it has none of them.
    """
    for name in names:
        if getattr(tokenizer, f"{name}_token_id") is not None:
            return getattr(tokenizer, f"{name}_token_id")
    raise InputError(f"the tokenizer has no {' or '.join(names)} token: it is not that of a masked language model")


def whole_windows(texts: list[str], tokenizer: PreTrainedTokenizerBase, length: int, max_windows: int) -> Tensor:
    """Join the texts, with the end token behind each, and cut them to at most `max_windows` windows of `length` tokens.

    Returns:
        (T,) token ids; T is a multiple of `length`.

    Raises:
        InputError: the text is shorter than one window.
    """
    stream = join_texts(texts, tokenizer, special_token(tokenizer, "sep", "eos"))
    if len(stream) < length:
        raise InputError(
            f"the text has {len(stream)} tokens, the longest window {length}: give more text (--text) or smaller "
            "--factors"
        )
    return stream[: min(len(stream) // length, max_windows) * length]


def mask_tokens(
    tokens: Tensor, tokenizer: PreTrainedTokenizerBase, unit: int, fraction: float, seed: int
) -> MaskedText:
    """Choose the tokens to guess.

    Args:
        tokens: (T,), a multiple of `unit`.
        unit: number of tokens that the original reads.
        fraction: probability of choosing a token.
        seed: of the choice.

    Raises:
        InputError: no token was chosen.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(len(tokens), generator=generator) < fraction
    chosen &= ~torch.isin(tokens, torch.tensor(tokenizer.all_special_ids))
    chosen.view(-1, unit)[:, [0, -1]] = False  # windows of one unit have their start and end token there
    if not chosen.any():
        raise InputError(f"no token was chosen: raise --masked_share ({fraction})")
    ids = [special_token(tokenizer, *names) for names in (("cls", "bos"), ("sep", "eos"), ("mask",))]
    return MaskedText(tokens, chosen, unit, *ids)


def boundary_distance(places: Tensor, unit: int) -> Tensor:
    """Return the number of tokens between each place and the nearest multiple of `unit`; 0 on both sides of it."""
    within = places % unit
    return torch.minimum(within, unit - 1 - within)


def distance_bins(unit: int) -> list[tuple[int, int]]:
    """Return the (first, last) distance of each bin."""
    last = (unit - 1) // 2
    starts = [first for first in DISTANCE_BINS if first <= last]
    return list(zip(starts, [first - 1 for first in starts[1:]] + [last], strict=True))
