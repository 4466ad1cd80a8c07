"""The ways to read a long document that are compared, and the losses of each."""

import copy
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from experiments.common.masked_lm import chosen_logits
from experiments.common.models import tokens_read
from experiments.extrapolation.masked_text import AROUND, MaskedDocument
from lsg.embedding_tables import EmbeddingTables
from lsg.model_types import find_model_type
from lsg.modeling.lsg_config import pinned_reach
from lsg_converter import LSGConverter

BATCH_TOKENS = 8192  # per forward pass; at least one window
FULL = "full attention, tiled positions"


def lsg_fields(sparsity_type: str, block_size: int, sparse_block_size: int = 0, sparsity_factor: int = 1) -> dict:
    """Return the LSG fields of a setting."""
    return {
        "sparsity_type": sparsity_type,
        "block_size": block_size,
        "sparse_block_size": sparse_block_size,
        "sparsity_factor": sparsity_factor,
    }


SETTINGS = (
    *(lsg_fields(kind, 128, 128, 2) for kind in ("norm", "block_stride", "stride", "pooling", "bos_pooling", "lsh")),
    lsg_fields("none", 256),
    lsg_fields("norm", 64, 192, 2),
    lsg_fields("block_stride", 64, 96, 4),
    lsg_fields("norm", 32, 96, 4),
    lsg_fields("norm", 64, 64, 4),
    lsg_fields("norm", 64, 64, 2),
    lsg_fields("none", 128),
    lsg_fields("norm", 32, 32, 4),
    lsg_fields("none", 64),
    lsg_fields("norm", 256, 128, 2),
)


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


def make_readers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: list[dict[str, Any]], length: int
) -> list[Reader]:
    """Return the readers: the original on chunks first, on overlapping windows, with full attention, then LSG.

    Args:
        settings: the LSG fields of each LSG reader.
        length: of the longest document with its start and end token.

    Raises:
        ConversionError: LSG fields that do not exist, or contradict each other.
    """
    size = tokens_read(model.config, tokenizer) - AROUND
    readers = [Reader(f"chunks of {size}", model, size, size)]
    for share, step in (("1/4", size * 3 // 4), ("1/2", size // 2), ("3/4", size // 4)):
        readers.append(Reader(f"windows of {size}, {share} shared", model, size, step))
    readers.append(Reader(FULL, with_tiled_positions(model, length)))
    for fields in settings:
        converted, _ = LSGConverter(length).convert(model, tokenizer, **{"mask_first_token": True, **fields})
        share_weights(model, converted)
        reach = pinned_reach(converted.config.lsg_pattern())
        readers.append(Reader(f"LSG {describe(converted.config, fields)}", converted, reach=reach))
    return readers


def share_weights(model: PreTrainedModel, converted: PreTrainedModel) -> None:
    """Free the memory of all weights of a converted model that are the same in the original, and use those."""
    weights = dict(model.named_parameters(remove_duplicate=False))
    for name, own in converted.named_parameters():
        if name in weights and torch.equal(weights[name], own):
            own.data = weights[name].data


def describe(config: PreTrainedConfig, fields: dict[str, Any]) -> str:
    """Return the sizes of a converted model, and the further fields that were set, in words."""
    b, s, f = config.block_size, config.sparse_block_size, config.sparsity_factor
    sizes = f"b = s = {b}, f = {f}" if s == b else f"b = {b}, s = {s}, f = {f}"
    further = [f"{name} = {value}" for name, value in fields.items() if name not in lsg_fields("none", 1)]
    is_sparse = config.lsg_pattern().has_sparse
    return ", ".join([str(config.sparsity_type), sizes if is_sparse else f"b = {b}", *further])


def with_tiled_positions(model: PreTrainedModel, length: int) -> PreTrainedModel:
    """Return a copy of a plain encoder with its positions tiled as conversion does; its attention stays full."""
    longer = copy.deepcopy(model)
    model_type = find_model_type(model.config.to_dict(), type(model).__name__)
    embeddings: Any = longer.base_model.embeddings
    positions = embeddings.position_embeddings
    tables = EmbeddingTables(embeddings.word_embeddings.weight.data, [positions], None, embeddings=embeddings)
    start = model_type.position_offset(model.config)
    tables.set_positions(0, model_type.extend_positions(positions.weight.data, start, length))
    longer.config.max_position_embeddings = start + length
    return longer


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
