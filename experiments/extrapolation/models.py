"""The original with tiled positions, and the loss of a model on the masked tokens."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from experiments.common.masked_lm import chosen_logits
from experiments.extrapolation.masked_text import MaskedText
from lsg.embedding_tables import EmbeddingTables
from lsg.model_types import find_model_type

BATCH_TOKENS = 8192  # per forward pass; at least one window


def with_tiled_positions(model: PreTrainedModel, length: int) -> PreTrainedModel:
    """Return a copy of a plain encoder with its positions tiled as conversion does; its attention stays full."""
    longer = copy.deepcopy(model)
    model_type = find_model_type(model.config.to_dict(), type(model).__name__)
    embeddings: Any = longer.base_model.embeddings
    positions = embeddings.position_embeddings
    tables = EmbeddingTables(embeddings.word_embeddings.weight.data, [positions], None, buffers=embeddings)
    start = model_type.position_offset(model.config)
    tables.set_positions(0, model_type.extend_positions(positions.weight.data, start, length))
    longer.config.max_position_embeddings = start + length
    return longer


@torch.no_grad()
def token_losses(model: PreTrainedModel, text: MaskedText, length: int, on_window: Callable[[int], Any]) -> Tensor:
    """Return the cross-entropy of each masked token, (N,) in the order of the text, in windows of `length` tokens.

    Args:
        on_window: called with the number of tokens just read.
    """
    ids, chosen = text.windows(length)
    device = next(model.parameters()).device
    batch = max(BATCH_TOKENS // length, 1)
    targets, losses, done = text.targets, [], 0
    for batch_ids, batch_chosen in zip(ids.split(batch), chosen.split(batch), strict=True):
        logits = chosen_logits(model, batch_ids.to(device), batch_chosen.to(device)).cpu()  # (chosen here, V)
        losses.append(cross_entropy(logits, targets[done : done + len(logits)], reduction="none"))
        done += len(logits)
        on_window(batch_ids.numel())
    return torch.cat(losses)
