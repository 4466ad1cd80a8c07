"""The ways to read a long document that are compared."""

import copy
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from experiments.common.lsg_settings import lsg_fields
from experiments.common.masked_readers import Reader, convert_reader
from experiments.common.models import tokens_read
from experiments.common.tokens import AROUND
from lsg.embedding_tables import EmbeddingTables
from lsg.model_types import find_model_type

FULL = "full attention, tiled positions"
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
    readers += [convert_reader(model, tokenizer, fields, length) for fields in settings]
    return readers


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
