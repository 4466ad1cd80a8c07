"""A classifier that reads a long text in overlapping windows: what its user would do without a longer model."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from transformers.modeling_outputs import SequenceClassifierOutput


class OnWindows(nn.Module):
    """A classifier on windows; the logits of a text are the mean of those of its windows.

    Args:
        model: the classifier.
        size: tokens in a window.
        overlap: tokens that a window shares with the one before.
    """

    def __init__(self, model: Any, size: int, overlap: int) -> None:
        super().__init__()
        self.model, self.size, self.step = model, size, size - overlap

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> SequenceClassifierOutput:
        """Return the logits (n, classes) of n texts (n, t) without padding, and the loss if there are labels (n,)."""
        n, t = input_ids.shape
        missing = (self.size - t) % self.step if t > self.size else 0
        mask = pad(torch.ones_like(input_ids), (0, missing))
        ids = pad(input_ids, (0, missing), value=self.model.config.pad_token_id)
        size = min(self.size, t)
        ids, mask = (x.unfold(1, size, self.step).reshape(-1, size) for x in (ids, mask))  # (n * windows, size)
        logits = self.model(input_ids=ids, attention_mask=mask if missing else None).logits
        logits = logits.view(n, -1, logits.shape[-1]).mean(1)
        return SequenceClassifierOutput(loss=None if labels is None else cross_entropy(logits, labels), logits=logits)
