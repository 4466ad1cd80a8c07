"""The fields of pinned tokens that conversion writes, and the sizes it chooses for them; see modeling/lsg_pinned.py."""

import copy
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
from .modeling.lsg_pinned import first_segments

logger = logging.get_logger(__name__)

PIN_FIELD = "pin_first_segment"
SIZE_FIELDS = ("block_size", "sparse_block_size", "sparsity_factor", "sparsity_type")


@dataclass(frozen=True)
class Original:
    """What is known of a checkpoint before it is converted.

    Args:
        model_type: its row.
        model_class: the LSG class into which it is converted.
        config_dict: its config.json.
        tokenizer: its tokenizer.
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

    def pins_by_itself(self, model_kwargs: dict[str, Any]) -> bool:
        """Return whether pinning is for the conversion to decide: a plain checkpoint is to answer questions."""
        answers = self.model_class.__name__.endswith("ForQuestionAnswering")
        return answers and not self.is_lsg and PIN_FIELD not in model_kwargs


def add_pinning(original: Original, config: PreTrainedConfig, model_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the user's fields, and those of pinned tokens that neither the user nor an LSG checkpoint has.

    Args:
        config: of the output, with the user's fields, but without pinning.
        model_kwargs: the user's fields.

    Raises:
        ConversionError: a `position_period` beyond what the checkpoint reads.
    """
    if "AutoModelForSeq2SeqLM" in original.model_type.auto_classes:
        if original.pins_by_itself(model_kwargs):
            logger.warning("the question is not pinned: encoder-decoders have no pinned tokens (yet)")
        return model_kwargs
    found = {"separator_token_id": config.separator_token_id, "position_period": config.position_period}
    if found["separator_token_id"] is None:
        found["separator_token_id"] = original.tokenizer.sep_token_id
    has_length = isinstance(config.max_position_embeddings, int)  # otherwise no model can be built
    length = original.model_type.tokens_read(config) if has_length else None
    if found["position_period"] is None:
        found["position_period"] = find_period(original, config) if original.is_lsg else length
    elif length is not None and found["position_period"] > length:
        raise ConversionError(
            f"position_period={found['position_period']} is not allowed: the checkpoint reads {length} tokens; choose "
            f"{length} or less, or leave it out"
        )
    known = copy.copy(config)
    known.separator_token_id, known.position_period = found["separator_token_id"], found["position_period"]
    return {**model_kwargs, **found, **choose_sizes(original, known, model_kwargs)}


def find_period(original: Original, config: PreTrainedConfig) -> int | None:
    """Return the number of positions that an LSG checkpoint's table repeats; None if it does not, or is not at hand."""
    table = original.read_positions()
    return None if table is None else smallest_period(table[original.model_type.position_offset(config) :])


def smallest_period(table: Tensor) -> int | None:
    """Return the smallest p with which row k + p of a table (n, D) is row k wherever it has both; None for none.

    A table of p rows may itself have been made by repeating fewer, not a whole number of times: then those count.
    """
    like_first = (table == table[:1]).all(1).nonzero().flatten().tolist()
    period = next((p for p in like_first if p > 0 and torch.equal(table[p:], table[:-p])), None)
    return None if period is None else smallest_period(table[:period]) or period


def choose_sizes(original: Original, config: PreTrainedConfig, model_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return what is chosen for the user, and say so in one line.

    A user who pins and names no size gets sizes that fit. A plain checkpoint that answers questions pins by itself, if
    the user names neither the field nor a size.

    Args:
        config: of the output, without pinning.
        model_kwargs: the user's fields.
    """
    names_size = any(name in model_kwargs for name in SIZE_FIELDS)
    if original.pins_by_itself(model_kwargs):
        return choose_for_questions(original, config, names_size)
    if {**original.config_dict, **model_kwargs}.get(PIN_FIELD) is not True:
        return {}
    if config.separator_token_id is not None and not separates(original.tokenizer, config.separator_token_id):
        logger.warning(
            f"{PIN_FIELD}: the tokenizer puts no separator_token_id={config.separator_token_id} between two texts, so "
            "nothing is pinned but what pinned_mask names"
        )
    fits = original.is_lsg and config.position_period is not None
    fits = fits and pinned_reach(config.lsg_pattern()) < longest_reach(config)
    sizes = None if names_size or fits else find_sizes(config)  # an LSG checkpoint keeps sizes that fit
    if sizes is None:
        return {}  # the config's check says so if the user's do not fit, or if none do
    logger.warning(f"{PIN_FIELD}: no size was named, so these are set: {in_words(sizes)}")
    return sizes


def choose_for_questions(original: Original, config: PreTrainedConfig, names_size: bool) -> dict[str, Any]:
    """Return the fields with which a plain checkpoint that answers questions pins; none if it cannot."""
    sizes = find_sizes(config)
    reasons = {
        "a size was named": names_size,
        "causal models cannot": config.lsg_pattern().is_causal,
        "adaptive is false": not config.adaptive,
        "the tokenizer puts no separator between two texts": not separates(
            original.tokenizer, config.separator_token_id
        ),
        f"no sizes fit with position_period={config.position_period} and max_pinned_tokens={config.max_pinned_tokens}, "
        "which may be lowered": sizes is None,
    }
    why = next((reason for reason, is_true in reasons.items() if is_true), None)
    if why is not None or sizes is None:
        hint = f"; {PIN_FIELD}=True pins it" if names_size else ""
        logger.warning(f"the question is not pinned: {why}{hint}")
        return {}
    logger.warning(
        f"the question is pinned, so that the whole text sees it: {PIN_FIELD}=True, {in_words(sizes)}; set any of "
        "these fields to choose otherwise"
    )
    return {PIN_FIELD: True, **sizes}


def separates(tokenizer: PreTrainedTokenizerBase, separator: int | None) -> bool:
    """Return whether a tokenizer puts this token between the two texts of a pair."""
    if separator is None:
        return False
    # a copy, as calling a tokenizer changes the tokenizer.json that it saves
    ids = torch.tensor([copy.deepcopy(tokenizer)("a", "b")["input_ids"]])
    return bool(first_segments(ids, torch.ones_like(ids, dtype=torch.bool), separator, ids.shape[1]).any())


def longest_reach(config: Any) -> int:
    """Return how many tokens away those are that may share a position with a pinned model's token."""
    return config.position_period - config.max_pinned_tokens


def find_sizes(config: Any) -> dict[str, Any] | None:
    """Return the sizes that fit and measure best; None if none fit, or if the positions are not known to repeat."""
    return None if config.position_period is None else fitting_sizes(longest_reach(config))


def in_words(fields: dict[str, Any]) -> str:
    """Return fields with their values."""
    return ", ".join(f"{name}={value!r}" for name, value in fields.items())
