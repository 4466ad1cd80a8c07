"""Documents as token ids, some of which are masked, and the windows in which they are read."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedTokenizerBase

from experiments.common.errors import InputError
from experiments.common.tokens import special_token


@dataclass(frozen=True)
class MaskedDocument:
    """A document's T tokens without start and end token, some of which the model has to predict."""

    tokens: Tensor  # (T,), the true ids
    chosen: Tensor  # (T,) boolean, the tokens to predict
    start: int  # ids of the start, end and mask token
    end: int
    mask: int

    def windows(self, size: int, step: int) -> tuple[Tensor, Tensor]:
        """Cut into w windows of `size` tokens, one every `step` tokens; the last one ends with the document.

        A token is to be predicted in one window only, the one in which it is farthest from the ends.

        Args:
            size: at most T.

        Returns:
            input ids (w, size + 2) with start and end token, chosen tokens masked, and which tokens to predict, of the
            same shape. Read row by row, these tokens are in the order of the document.
        """
        first = torch.tensor([*range(0, len(self.tokens) - size, step), len(self.tokens) - size])[:, None]  # (w, 1)
        places = first + torch.arange(size)  # (w, size)
        from_center = (torch.arange(len(self.tokens)) - first - (size - 1) / 2).abs()  # (w, T)
        is_own = from_center.argmin(0)[places] == torch.arange(len(first))[:, None]  # (w, size)
        ids = torch.where(self.chosen, self.mask, self.tokens)[places]
        ids = torch.cat([torch.full_like(first, self.start), ids, torch.full_like(first, self.end)], 1)
        return ids, pad(self.chosen[places] & is_own, (1, 1))

    @property
    def targets(self) -> Tensor:
        """The ids of the chosen tokens, (N,), in the order of the document."""
        return self.tokens[self.chosen]


def mask_documents(
    documents: list[list[int]], tokenizer: PreTrainedTokenizerBase, fraction: float, seed: int
) -> list[MaskedDocument]:
    """Choose the tokens to predict.

    Args:
        documents: token ids without special tokens.
        fraction: probability of choosing a token.
        seed: of the choice.

    Raises:
        InputError: no token was chosen.
    """
    start, end, mask = (special_token(tokenizer, *names) for names in (("cls", "bos"), ("sep", "eos"), ("mask",)))
    special, generator = torch.tensor(tokenizer.all_special_ids), torch.Generator().manual_seed(seed)
    masked = []
    for tokens in map(torch.tensor, documents):
        chosen = (torch.rand(len(tokens), generator=generator) < fraction) & ~torch.isin(tokens, special)
        masked.append(MaskedDocument(tokens, chosen, start, end, mask))
    if not any(document.chosen.any() for document in masked):
        raise InputError(f"no token was chosen: raise --masked_share ({fraction})")
    return masked
