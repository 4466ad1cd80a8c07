"""Readers of whole masked documents: a model, and the windows in which it reads; the losses of each."""

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from experiments.common.lsg_settings import describe
from experiments.common.masked_lm import chosen_logits
from experiments.common.masked_text import MaskedDocument
from lsg.modeling.lsg_config import pinned_reach
from lsg_converter import LSGConverter

BATCH_TOKENS = 8192  # per forward pass; at least one window


@dataclass(frozen=True)
class Reader:
    """A model, and the windows in which it reads a document.

    Args:
        name: for the tables.
        size, step: see `MaskedDocument.windows`; None to read the document whole.
        reach: how far away a token's keys may be, in tokens; None if it depends on the window or the document.
    """

    name: str
    model: PreTrainedModel
    size: int | None = None
    step: int = 1
    reach: int | None = None

    @torch.no_grad()
    def losses(self, document: MaskedDocument) -> Tensor:
        """Return the cross-entropy in nats of each chosen token, (N,), in the order of the document."""
        ids, chosen = document.windows(self.size or len(document.tokens), self.step)
        batch = max(BATCH_TOKENS // ids.shape[1], 1)
        parts = zip(ids.split(batch), chosen.split(batch), strict=True)
        logits = torch.cat([chosen_logits(self.model, *part) for part in parts])  # (N, V)
        return cross_entropy(logits, document.targets, reduction="none")


def convert_reader(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, fields: dict[str, Any], length: int
) -> Reader:
    """Convert a plain model; return the reader of whole documents, which uses the original's weights.

    Args:
        fields: LSG fields; `mask_first_token` is set unless they name it.
        length: of the longest document with its start and end token.

    Raises:
        ConversionError: LSG fields that do not exist, or contradict each other.
    """
    converted, _ = LSGConverter(length).convert(model, tokenizer, **{"mask_first_token": True, **fields})
    share_weights(model, converted)
    reach = pinned_reach(converted.config.lsg_pattern())
    return Reader(f"LSG {describe(converted.config, fields)}", converted, reach=reach)


def share_weights(model: PreTrainedModel, converted: PreTrainedModel) -> None:
    """Free the memory of all weights of a converted model that are the same in the original, and use those."""
    weights = dict(model.named_parameters(remove_duplicate=False))
    for name, own in converted.named_parameters():
        if name in weights and torch.equal(weights[name], own):
            own.data = weights[name].data


def read_all(readers: list[Reader], documents: list[MaskedDocument]) -> tuple[list[Tensor], list[float]]:
    """Return each reader's losses, (N,) of all documents, and its CPU seconds.

    Readers take turns for each document, so that whatever slows the machine down affects all of them.
    """
    losses: list[list[Tensor]] = [[] for _ in readers]
    seconds = [0.0] * len(readers)
    for reader in readers:  # what is done once, in the first call, is not measured
        reader.losses(documents[0])
    for number, document in enumerate(tqdm(documents, desc="reading", unit="document", mininterval=2)):
        for turn in range(len(readers)):
            index = (number + turn) % len(readers)
            started = time.process_time()
            losses[index].append(readers[index].losses(document))
            seconds[index] += time.process_time() - started
    return [torch.cat(own) for own in losses], seconds
