"""Masked language models: texts as one row of token ids, and logits of the masked tokens alone."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from experiments.common.tokens import encode


def join_texts(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, end: int) -> Tensor:
    """Return the token ids of all texts in one row, (T,), with the token `end` behind each text."""
    return torch.tensor([token for ids in encode(texts, tokenizer) for token in (*ids, end)])


@contextlib.contextmanager
def only_chosen(model: PreTrainedModel, chosen: Tensor) -> Iterator[None]:
    """Let a model compute the logits (N, V) of the N chosen tokens alone; the output layer, V wide, skips the others.

    Args:
        chosen: (n, t) boolean, for inputs (n, t).
    """

    def select(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (inputs[0][chosen],)  # (n, t, D) to (N, D)

    hook = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield
    finally:
        hook.remove()


def chosen_logits(model: PreTrainedModel, ids: Tensor, chosen: Tensor, **inputs: Any) -> Tensor:
    """Return the logits (N, V) of the N chosen tokens; see `only_chosen`.

    Args:
        ids: (n, t), input ids.
        chosen: (n, t) boolean.
        inputs: further inputs of the model.
    """
    with only_chosen(model, chosen):
        return model(input_ids=ids, attention_mask=torch.ones_like(ids), **inputs).logits.float()
