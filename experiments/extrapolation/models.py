"""The readers that are compared, and the loss of each on the masked tokens."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoModelForMaskedLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from experiments.extrapolation.common import InputError
from experiments.extrapolation.masked_text import MaskedText
from lsg.embedding_tables import EmbeddingTables
from lsg.errors import one_line
from lsg.loading import LOAD_ERRORS, quiet, read_config
from lsg.model_types import ModelType, find_model_type, is_lsg_config

BATCH_TOKENS = 8192  # that a forward pass reads, at least one window


def load_plain(name_or_path: str, auto_class: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load an original encoder, in single precision, and its tokenizer.

    Raises:
        ConversionError: no checkpoint, or of a type that LSG does not know.
        InputError: one that is LSG already or no encoder, that cannot be loaded, or that lacks this class's head.
    """
    where = f"--checkpoint {name_or_path}"
    fields = read_config(name_or_path)
    find_model_type(fields, where)
    if is_lsg_config(fields) or fields.get("is_encoder_decoder"):
        kind = "an LSG checkpoint" if is_lsg_config(fields) else "an encoder-decoder"
        raise InputError(f"{where}: a plain encoder is expected, this is {kind}")
    try:
        with quiet():
            model, info = auto_class.from_pretrained(name_or_path, dtype=torch.float32, output_loading_info=True)
            tokenizer = AutoTokenizer.from_pretrained(name_or_path)
    except LOAD_ERRORS as error:
        raise InputError(f"{where}: it cannot be loaded: {one_line(error)}") from error
    missing = sorted(name for name in info["missing_keys"] if "pooler" not in name)
    if missing:
        raise InputError(f"{where}: not a checkpoint for {type(model).__name__}, as it lacks {missing[0]}")
    return model.eval(), tokenizer


def load_masked_lm(folder: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load an original masked language model; errors as `load_plain`."""
    return load_plain(folder, AutoModelForMaskedLM)


def type_of(model: PreTrainedModel) -> ModelType:
    """Find what conversion knows of a model."""
    return find_model_type(model.config.to_dict(), type(model).__name__)


def original_length(model: PreTrainedModel) -> int:
    """Count the tokens that an original encoder reads."""
    start = type_of(model).position_offset(model.config)
    return model.base_model.embeddings.position_embeddings.num_embeddings - start


def with_tiled_positions(model: PreTrainedModel, length: int) -> PreTrainedModel:
    """Copy an original encoder and tile its positions as conversion does; it attends in full at every length."""
    longer = copy.deepcopy(model)
    embeddings, model_type = longer.base_model.embeddings, type_of(model)
    tables = EmbeddingTables(embeddings.word_embeddings.weight.data, [embeddings.position_embeddings], None)
    tables.buffers = embeddings
    start = model_type.position_offset(model.config)
    tables.set_positions(0, model_type.extend_positions(embeddings.position_embeddings.weight.data, start, length))
    return longer


@torch.no_grad()
def token_losses(model: PreTrainedModel, text: MaskedText, length: int, on_window: Callable[[int], Any]) -> Tensor:
    """Measure the cross-entropy of each masked token, (N,) in the order of the text, in windows of `length` tokens.

    Args:
        on_window: called with the number of tokens that were just read.
    """
    ids, chosen = text.windows(length)
    device = next(model.parameters()).device
    batch = max(BATCH_TOKENS // length, 1)
    targets, losses, done = text.targets, [], 0
    for some_ids, some_chosen in zip(ids.split(batch), chosen.split(batch), strict=True):
        logits = chosen_logits(model, some_ids.to(device), some_chosen.to(device)).cpu()  # (chosen here, V)
        losses.append(cross_entropy(logits, targets[done : done + len(logits)], reduction="none"))
        done += len(logits)
        on_window(some_ids.numel())
    return torch.cat(losses)


def chosen_logits(model: PreTrainedModel, ids: Tensor, chosen: Tensor) -> Tensor:
    """Give the logits (N, V) of the chosen tokens: the output layer, V wide, is spared the others."""

    def keep_chosen(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (inputs[0][chosen],)  # (n, t, D) to (N, D)

    hook = model.get_output_embeddings().register_forward_pre_hook(keep_chosen)
    try:
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float()
    finally:
        hook.remove()
