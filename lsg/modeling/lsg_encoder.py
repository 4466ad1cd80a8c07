"""Parts that every model type shares: global tokens in front, LSG attention, pooling and cutting behind the layers.

Each mixin goes in front of the Hugging Face class of the same part and calls it; nothing of it is copied.
Shapes: n batch, t tokens, g globals, D hidden size. Source: arXiv 2210.15497, section 3.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput, logging

from .lsg_attention import ATTENTION_NAME
from .lsg_globals import (
    CACHE_NAME,
    cache_name,
    cached_length,
    cut_hidden_states,
    record_layers,
    recorded_tokens,
    without_globals,
)
from .lsg_inheritance import (
    PartsMixin,
    asks_hidden_states,
    format_outputs,
    refuse_attentions,
    sign_forward,
    with_classes,
)
from .lsg_packing import arrange_rows
from .lsg_pattern import MAX_GLOBAL_TOKENS, check
from .lsg_pinned import PinnedLayout, find_layout
from .lsg_sparse import is_traced

logger = logging.get_logger(__name__)


def check_length(length: int, longest: int) -> None:
    """Raise ValueError if a sequence is longer than the position table; on a GPU, torch could not name the cause."""
    if length > longest:
        raise ValueError(
            f"the model reads {longest} tokens, {length} were given: truncate them, or convert the checkpoint again "
            "with a larger max_sequence_length (and resize_lsg)"
        )


class LSGEmbeddingsMixin:
    """Over an Embeddings class with `dropout`, mostly `LayerNorm`, too: puts g globals in front, (n, g + t, D)."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.config = config
        self.global_embeddings = nn.Embedding(MAX_GLOBAL_TOKENS, self.word_embeddings.embedding_dim)

    @property
    def position_offset(self) -> int:
        """The position of token 0: some types count from behind padding."""
        return self.padding_idx + 1 if hasattr(self, "padding_idx") else 0

    def check_length(self, past: int, tokens: Tensor, has_ids: bool) -> None:
        """Raise ValueError if p cached tokens and (n, t) or (n, t, D) more are too many for the position table."""
        table, length = getattr(self.position_embeddings, "weight", None), past + tokens.shape[1]
        if table is None:  # a module of the user's in its place
            return
        unused = self.position_offset
        if unused and has_ids and length > len(table) - unused and not is_traced():
            length = past + int((tokens != self.padding_idx).sum(1).max())  # padding takes no positions there
        check_length(length, len(table) - unused)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Embed the tokens, and the globals, at every call: a cache does not hold them."""
        tokens = super().forward(*args, **kwargs)  # (n, t, D)
        indices = torch.arange(self.config.num_global_tokens, device=tokens.device)
        globals_ = self.global_embeddings(indices)  # (g, D)
        if hasattr(self, "LayerNorm"):  # not in XLM-RoBERTa-XL
            globals_ = self.LayerNorm(globals_)
        return torch.cat([self.dropout(globals_.expand(tokens.shape[0], -1, -1)), tokens], 1)


class LSGEncoderMixin(PartsMixin):
    """Over an Encoder class: takes (n, g + t, D), returns (n, t, D)."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.config = config
        record_layers(self)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        may_pack: bool = False,
        layout: PinnedLayout | None = None,
        **kwargs: Any,
    ) -> ModelOutput:
        """Mask token 0 if the config says so, run the layers, pool, and cut the globals off.

        A causal model's cache holds the tokens before these, and its first is token 0. An encoder's cache is a prefix
        of keys in front of token 0, which all tokens attend to (prefix tuning). Both are filled with tokens only.
        `may_pack` allows unpadding: the outputs of single layers then have another shape. With a layout, they have
        the tokens in its order.

        Raises:
            ValueError: a mask that is not of shape (n, t), a length that the config forbids, a static cache.
        """
        self.config.check_lsg()  # fields may have been changed
        g, is_causal = self.config.num_global_tokens, self.config.lsg_pattern().is_causal
        name = cache_name(kwargs)
        cache = kwargs.get(name)
        past = cached_length(cache)
        shape = (hidden_states.shape[0], past + hidden_states.shape[1] - g)
        check_inputs(self.config, attention_mask, shape, past)
        may_pack = may_pack and cache is None and kwargs.get("encoder_hidden_states") is None
        rows = arrange_rows(self.config, hidden_states, attention_mask, layout, may_pack, past)
        kwargs[name] = without_globals(cache, g)
        outputs = super().forward(rows.arrange(hidden_states), attention_mask=rows.mask, **kwargs)
        if outputs.get(CACHE_NAME) is not None:
            outputs[CACHE_NAME] = cache
        pool = self.config.pool_with_global and (past == 0 or not is_causal)  # token 0 is among these
        outputs.last_hidden_state = rows.restore(outputs.last_hidden_state, pool)
        if outputs.get("hidden_states") is not None:  # of an encoder that collects them itself
            outputs.hidden_states = (*outputs.hidden_states[:-1], outputs.last_hidden_state)
        return outputs


def check_inputs(config: Any, mask: Tensor | None, shape: tuple[int, int], past: int) -> None:
    """Raise ValueError for a mask or a length that LSG attention cannot take.

    Args:
        mask: the caller's.
        shape: (n, p + t), the expected shape of the mask.
        past: p, the number of cached keys.
    """
    if mask is not None and tuple(mask.shape) != shape:
        wanted = f"(batch = {shape[0]}, sequence length = {shape[1]}" + (f", {past} of it cached)" if past else ")")
        raise ValueError(f"LSG attention takes an attention_mask of shape {wanted}, got {tuple(mask.shape)}")
    b, num_tokens = config.block_size, shape[1] - past
    is_step = past > 0 and config.lsg_pattern().is_causal
    if not is_step and not config.adaptive and num_tokens > 2 * b and num_tokens % b:
        raise ValueError(
            f"a length of {num_tokens} is not allowed with adaptive=False: above 2 * block_size ({2 * b}) it must be "
            f"a multiple of block_size ({b})"
        )


class LSGPreTrainedMixin:
    """Over any model class: checks the LSG config, builds our parts, and has its code copied when it is saved.

    A subclass names in `parts` what is built where the Hugging Face constructor names a class of its own.
    """

    _auto_class: ClassVar[str] = "AutoModel"  # save_pretrained copies the code of a class that has one
    parts: ClassVar[dict[str, Any]] = {}

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        config.check_lsg()  # fields may have been set since the config was made
        with_classes(super().__init__, self.parts)(config, *args, **kwargs)

    @property
    def _weight_conversions(self) -> list:
        """Nothing: saving would undo what some releases of transformers rename at loading, of custom code, too."""
        return []

    @_weight_conversions.setter
    def _weight_conversions(self, conversions: list | None) -> None: ...

    def mark_tied_weights_as_initialized(self, *infos: Any) -> None:
        """Do what transformers does; 5.3 takes tied weights of custom code for loaded, and leaves them empty."""
        missing = [info.missing_keys & self.all_tied_weights_keys.keys() for info in infos]
        super().mark_tied_weights_as_initialized(*infos)
        for info, tied in zip(infos, missing, strict=True):
            info.missing_keys = info.missing_keys | tied

    def _check_and_adjust_attn_implementation(self, attn_implementation: str | None, *args: Any, **kwargs: Any) -> str:
        if str(attn_implementation).startswith("lsg"):
            attn_implementation = None  # that of the encoder; an encoder-decoder's decoder takes the default
        return super()._check_and_adjust_attn_implementation(attn_implementation, *args, **kwargs)


class LSGAttentionMixin(LSGPreTrainedMixin):
    """Over a model class whose self-attention is ours, whatever implementation is asked for."""

    def _check_and_adjust_attn_implementation(self, attn_implementation: str | None, *args: Any, **kwargs: Any) -> str:
        if attn_implementation not in (None, "sdpa") and not str(attn_implementation).startswith("lsg"):
            logger.warning_once(f"LSG models have their own attention: {attn_implementation!r} is not used")
        return ATTENTION_NAME

    def get_correct_attn_implementation(self, *args: Any, **kwargs: Any) -> str:
        """Return the name of our attention, for transformers."""
        return ATTENTION_NAME


class LSGModelMixin(LSGAttentionMixin):
    """Over a base model class: checks the length, and cuts the globals off `hidden_states`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        sign_forward(cls, LSGModelMixin, "pinned_mask")

    def forward(self, *, return_dict: bool | None = None, **kwargs: Any) -> ModelOutput | tuple:
        """Run the Hugging Face model; see its documentation for arguments and results.

        Raises:
            ValueError: attention weights are asked for, a sequence is too long, or what `pin_tokens` or LSGEncoderMixin
                raise.
        """
        refuse_attentions(self.config, kwargs)
        has_ids = kwargs.get("input_ids") is not None
        tokens = kwargs.get("input_ids" if has_ids else "inputs_embeds")
        if tokens is not None and tokens.dim() > 1 and kwargs.get("position_ids") is None:
            self.embeddings.check_length(cached_length(kwargs.get(cache_name(kwargs))), tokens, has_ids)
        layout = self.pin_tokens(kwargs)
        has_states = asks_hidden_states(self.config, kwargs)
        kwargs["may_pack"] = not has_states
        g = self.config.num_global_tokens
        with recorded_tokens(g, has_states and torch.is_grad_enabled()) as states:
            outputs = super().forward(return_dict=True, **kwargs)
        cut_hidden_states(outputs, g, states, layout=layout)
        return format_outputs(outputs, return_dict, self.config)

    def pin_tokens(self, kwargs: dict[str, Any]) -> PinnedLayout | None:
        """Return the order in which the layers compute, None for the caller's; set it, and position ids, in `kwargs`.

        Raises:
            ValueError: pinned_mask without pin_first_segment, or one that cannot be used; a cache.
        """
        pinned_mask, config = kwargs.pop("pinned_mask", None), self.config
        ids, embeds, mask = (kwargs.get(name) for name in ("input_ids", "inputs_embeds", "attention_mask"))
        tokens = embeds if ids is None else ids
        if not config.pin_first_segment:
            check(pinned_mask is None, "pinned_mask", "a tensor", "the config has pin_first_segment=False; set it")
            return None
        if tokens is None or (mask is not None and mask.shape != tokens.shape[:2]):
            return None  # others raise an error
        if cached_length(kwargs.get(cache_name(kwargs))) > 0:
            raise ValueError("pin_first_segment does not go with a cache or a prefix of keys")
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device) if mask is None else mask.bool()
        layout = find_layout(config, ids, mask, pinned_mask)
        if layout is not None:
            kwargs["layout"] = layout
            if kwargs.get("position_ids") is None:
                kwargs["position_ids"] = self.position_ids_of(layout)
        return layout

    def position_ids_of(self, layout: PinnedLayout) -> Tensor | None:
        """Return the position ids (n, t) of tokens of which some are pinned; None for those that they always have."""
        return layout.positions(self.config.position_period) + self.embeddings.position_offset


class LSGHeadMixin(LSGAttentionMixin):
    """Over a model class with a head: takes `pinned_mask`, too, and hands it to the base model."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        sign_forward(cls, LSGHeadMixin, "pinned_mask")

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        if config.pin_first_segment and type(self).__name__.endswith(
            ("ForSequenceClassification", "ForMultipleChoice", "ForNextSentencePrediction")
        ):
            logger.warning_once(
                "pin_first_segment is for extraction: a classifier of pairs loses by it, as the first segment then "
                "reads only itself"
            )

    def forward(self, *, pinned_mask: Tensor | None = None, **kwargs: Any) -> ModelOutput | tuple:
        """Run the Hugging Face model; pinned_mask is (n, t), for multiple choice (n, choices, t)."""
        if pinned_mask is not None:
            kwargs["pinned_mask"] = pinned_mask.flatten(0, -2)
        return super().forward(**kwargs)


class PositionsAfterPaddingMixin:
    """Over a causal head whose positions start after that of padding, as in RoBERTa.

    transformers' `generate` counts positions from 0 for every model, which is wrong for these.
    """

    def _prepare_position_ids_for_generation(self, *args: Any, **kwargs: Any) -> Tensor:
        return super()._prepare_position_ids_for_generation(*args, **kwargs) + self.config.pad_token_id + 1

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, *args: Any, inputs_embeds: Tensor | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Shift positions that the first 5.x make here; `generate` looks for `inputs_embeds` in the signature."""
        made_here = kwargs.get("position_ids") is None
        inputs = super().prepare_inputs_for_generation(input_ids, *args, inputs_embeds=inputs_embeds, **kwargs)
        if made_here and inputs.get("position_ids") is not None:
            inputs["position_ids"] = inputs["position_ids"] + self.config.pad_token_id + 1
        return inputs
