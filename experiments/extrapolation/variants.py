"""The ways to read a long text that are compared, and the losses of each."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from experiments.common.errors import InputError
from experiments.common.masked_lm import chosen_logits
from experiments.common.models import move_to_gpu
from experiments.extrapolation.masked_text import MaskedText
from lsg.embedding_tables import EmbeddingTables
from lsg.model_types import find_model_type
from lsg.modeling.lsg_pattern import SPARSITY_TYPES, LSGPattern
from lsg_converter import LSGConverter

BATCH_TOKENS = 8192  # per forward pass; at least one window
CHUNKS, FULL = "original on chunks", "full attention, tiled positions"


@dataclass(frozen=True)
class Variant:
    """One way to read a long text; `options` are the LSG fields, empty for the original."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


# the package's defaults (norm, b = s = 128, f = 2), and changes to them
DEFAULTS = (
    Variant("package defaults (token 0 kept)", {"mask_first_token": False}),
    Variant("package defaults, token 0 masked", {"mask_first_token": True}),
    Variant("package defaults, 16 globals", {"mask_first_token": True, "num_global_tokens": 16}),
)


def make_variants(
    sparsity_types: list[str] | None, block_sizes: list[int], sparse_block_size: int | None, sparsity_factor: int
) -> list[Variant]:
    """Return the variants: the original on chunks first, then LSG with each sparsity type (None: all) and block size.

    Args:
        sparse_block_size: of all variants; None for the block size.

    Raises:
        InputError: LSG options that contradict each other.
    """
    grid = []
    for block_size in block_sizes:
        for kind in sparsity_types or SPARSITY_TYPES:
            fields: dict[str, Any] = {
                "sparsity_type": kind,
                "block_size": block_size,
                "sparse_block_size": block_size if sparse_block_size is None else sparse_block_size,
                "sparsity_factor": sparsity_factor,
            }
            try:
                LSGPattern(**fields)
            except ValueError as error:
                raise InputError(str(error)) from error
            grid.append(Variant(f"{kind}, b={block_size}", {**fields, "mask_first_token": True}))
    return [Variant(CHUNKS), Variant(FULL), *grid, *DEFAULTS]


def read_all(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: MaskedText,
    variants: list[Variant],
    factors: list[int],
) -> dict[str, dict[int, Tensor]]:
    """Return the loss of each masked token, (N,), by variant and length."""
    lengths = sorted(factor * text.unit for factor in set(factors))
    converter = LSGConverter(max_sequence_length=lengths[-1])
    passes = 1 + (len(variants) - 1) * len(lengths)  # the chunks are the same at every length
    reader: PreTrainedModel
    losses: dict[str, dict[int, Tensor]] = {}
    with tqdm(total=passes * len(text.tokens), unit="token", unit_scale=True, mininterval=2) as bar:
        for variant in variants:
            bar.set_description(f"{variant.name:34}")
            if variant.options:
                reader, _ = converter.convert(model, tokenizer, **variant.options)
            else:
                reader = with_tiled_positions(model, lengths[-1]) if variant.name == FULL else model
            move_to_gpu(reader)
            if variant.name == CHUNKS:
                losses[CHUNKS] = dict.fromkeys(lengths, token_losses(reader, text, text.unit, bar.update))
            else:
                losses[variant.name] = {n: token_losses(reader, text, n, bar.update) for n in lengths}
    return losses


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
