"""The fields of pinned tokens that conversion writes, and the sizes it chooses for them; see modeling/lsg_pinned.py."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from .errors import ConversionError
from .model_types import ModelType, is_lsg_config
from .modeling.lsg_config import fitting_sizes, pinned_reach

logger = logging.get_logger(__name__)

PIN_FIELD = "pin_first_segment"
SIZE_FIELDS = ("block_size", "sparse_block_size", "sparsity_factor", "sparsity_type")


@dataclass(frozen=True)
class Original:
    """What is known of a checkpoint before it is converted.

    Args:
        model_class: the LSG class into which it is converted.
        config_dict: its config.json.
        read_positions: returns its position table, (rows, D), None if that is not at hand.
    """

    model_type: ModelType
    model_class: type[PreTrainedModel]
    config_dict: dict[str, Any]
    tokenizer: PreTrainedTokenizerBase
    read_positions: Callable[[], Tensor | None]

    @property
    def is_lsg(self) -> bool:
        """Whether it is an LSG checkpoint."""
        return is_lsg_config(self.config_dict)


def add_pinning(original: Original, config: PreTrainedConfig, model_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the user's fields, and those of pinned tokens that neither the user nor an LSG checkpoint has.

    Args:
        config: of the output, with the user's fields, but without pinning.
        model_kwargs: the user's fields.

    Raises:
        ConversionError: a `position_period` beyond what a plain checkpoint reads.
    """
    if "AutoModelForSeq2SeqLM" in original.model_type.auto_classes:
        return model_kwargs  # their encoders have no pinned tokens
    fields = dict(model_kwargs)
    if config.separator_token_id is None:
        fields["separator_token_id"] = config.separator_token_id = original.tokenizer.sep_token_id
    if config.position_period is None:
        fields["position_period"] = config.position_period = find_period(original, config)
    elif not original.is_lsg and config.position_period > original.model_type.tokens_read(config):
        raise ConversionError(
            f"position_period={config.position_period} is not allowed: the checkpoint reads "
            f"{original.model_type.tokens_read(config)} tokens, which is what it is without this field"
        )
    return {**fields, **choose_sizes(original, config, model_kwargs)}


def find_period(original: Original, config: PreTrainedConfig) -> int | None:
    """Return how many positions are repeated: what a plain checkpoint reads, or what an LSG checkpoint's table shows.

    None if that table does not repeat itself, or is not at hand.
    """
    if not original.is_lsg:
        return original.model_type.tokens_read(config)
    table = original.read_positions()
    return None if table is None else smallest_period(table[original.model_type.position_offset(config) :])


def smallest_period(table: Tensor) -> int | None:
    """Return the smallest p with which row k + p of a table (n, D) is row k wherever it has both; None for none."""
    like_first = (table == table[:1]).all(1).nonzero().flatten().tolist()
    return next((p for p in like_first if p > 0 and torch.equal(table[p:], table[:-p])), None)


def choose_sizes(original: Original, config: PreTrainedConfig, model_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return what is chosen for the user, who is told so in one line.

    A user who pins and names no size gets sizes that fit. A plain checkpoint that answers questions pins by itself, if
    the user names neither the field nor a size.

    Args:
        config: of the output, without pinning.
        model_kwargs: the user's fields.
    """
    if any(name in model_kwargs for name in SIZE_FIELDS):
        return {}
    if PIN_FIELD in model_kwargs or original.is_lsg:
        if {**original.config_dict, **model_kwargs}.get(PIN_FIELD) is not True:
            return {}
        return sizes_for_user(original, config)
    if not original.model_class.__name__.endswith("ForQuestionAnswering"):
        return {}
    sizes = find_sizes(config)
    can_pin = config.adaptive and not config.lsg_pattern().is_causal and config.separator_token_id is not None
    if sizes is None or not can_pin:
        logger.warning(
            "the question is not pinned: this needs a separator in the tokenizer, adaptive=True, and sizes that fit "
            f"position_period={config.position_period} and max_pinned_tokens={config.max_pinned_tokens}"
        )
        return {}
    logger.warning(
        f"the question is pinned, so that the whole text sees it: {PIN_FIELD}=True, {in_words(sizes)}; set any of "
        "these fields to choose otherwise"
    )
    return {PIN_FIELD: True, **sizes}


def sizes_for_user(original: Original, config: PreTrainedConfig) -> dict[str, Any]:
    """Return sizes for a user who pins and names none; an LSG checkpoint keeps its own if they fit."""
    sizes = find_sizes(config)
    if sizes is None or (original.is_lsg and pinned_reach(config.lsg_pattern()) <= longest_reach(config)):
        return {}  # if none fit, the config's check says so
    logger.warning(f"{PIN_FIELD}: no size was named, so these are set: {in_words(sizes)}")
    return sizes


def longest_reach(config: Any) -> int:
    """Return how far a pinned model's keys may be from a token."""
    return config.position_period - config.max_pinned_tokens


def find_sizes(config: Any) -> dict[str, Any] | None:
    """Return the sizes that fit and measure best; None if none fit, or if the positions are not known to repeat."""
    return None if config.position_period is None else fitting_sizes(longest_reach(config))


def in_words(fields: dict[str, Any]) -> str:
    """Return fields with their values."""
    return ", ".join(f"{name}={value!r}" for name, value in fields.items())
