"""A text with masked tokens, the same ones however it is cut into windows. Pure functions on token ids."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from experiments.extrapolation.common import InputError

DISTANCE_BINS = (0, 16, 64, 128)  # first distances of the bins; the last bin has no end


@dataclass(frozen=True)
class MaskedText:
    """A stream of tokens, some of which the model is to guess.

    Args:
        tokens: (T,), the true ones; T is a multiple of every window's length.
        chosen: (T,) boolean, those to guess.
        unit: tokens that the original reads; no token at either end of such a span is chosen.
        start, end, mask: ids of the tokens that begin and end a window, and of the one that hides a token.
    """

    tokens: Tensor
    chosen: Tensor
    unit: int
    start: int
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
        """The chosen tokens, (N,), in the order of the text."""
        return self.tokens[self.chosen]

    @property
    def places(self) -> Tensor:
        """Where in the text the chosen tokens stand, (N,)."""
        return self.chosen.nonzero()[:, 0]


def special_token(tokenizer: PreTrainedTokenizerBase, *names: str) -> int:
    """Give the id of the first of these special tokens that the tokenizer has."""
    for name in names:
        if getattr(tokenizer, f"{name}_token_id") is not None:
            return getattr(tokenizer, f"{name}_token_id")
    raise InputError(f"the tokenizer has no {' or '.join(names)} token: it is not that of a masked language model")


def mask_texts(
    texts: list[str],
    tokenizer: PreTrainedTokenizerBase,
    unit: int,
    longest: int,
    max_windows: int,
    share: float,
    seed: int,
) -> MaskedText:
    """Join the texts, with the end token between them, cut to whole windows, and choose the tokens to guess.

    Args:
        unit: tokens that the original reads.
        longest: tokens in the longest window.
        max_windows: how many of those to take, at most.
        share: of the tokens to choose.

    Raises:
        InputError: the text is shorter than one window.
    """
    start, end = special_token(tokenizer, "cls", "bos"), special_token(tokenizer, "sep", "eos")
    mask = special_token(tokenizer, "mask")
    encoded = tokenizer(texts, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    stream = torch.tensor([token for ids in encoded for token in (*ids, end)])
    if len(stream) < longest:
        raise InputError(
            f"the text has {len(stream)} tokens, the longest window {longest}: give more text (--text) or smaller "
            "--factors"
        )
    tokens = stream[: min(len(stream) // longest, max_windows) * longest]
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(len(tokens), generator=generator) < share
    chosen &= ~torch.isin(tokens, torch.tensor(tokenizer.all_special_ids))
    chosen.view(-1, unit)[:, [0, -1]] = False  # in a window of one unit the start and end token stand there
    if not chosen.any():
        raise InputError(f"no token was chosen: raise --masked_share ({share})")
    return MaskedText(tokens, chosen, unit, start, end, mask)


def boundary_distance(places: Tensor, unit: int) -> Tensor:
    """Count the tokens between each place and the nearest multiple of `unit`: 0 on either side of a boundary."""
    within = places % unit
    return torch.minimum(within, unit - 1 - within)


def distance_bins(unit: int) -> list[tuple[int, int]]:
    """Give the (first, last) distance of each bin that a unit has."""
    last = (unit - 1) // 2
    starts = [first for first in DISTANCE_BINS if first <= last]
    return list(zip(starts, [first - 1 for first in starts[1:]] + [last], strict=True))
