"""What turns a Hugging Face encoder into an LSG one: globals in front, pooling and cutting behind, our attention.

Each class goes in front of the Hugging Face class of the same part and calls it; nothing of it is copied.
Shapes: n batch, t tokens, g globals, D hidden size. Source: arXiv 2210.15497, section 3.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput, logging

from .lsg_attention import is_traced  # (the import registers "lsg" with transformers)
from .lsg_cache import without_globals
from .lsg_outputs import (
    asks_hidden_states,
    cut_globals,
    cut_hidden_states,
    format_outputs,
    like_the_original,
    record_layers,
    recorded_tokens,
    refuse_attentions,
)
from .lsg_packing import Packing, plan_packing
from .lsg_pattern import MAX_GLOBAL_TOKENS

logger = logging.get_logger(__name__)


class LSGEmbeddingsMixin:
    """Over an Embeddings class with `LayerNorm` and `dropout`: puts g global tokens in front, (n, g + t, D)."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.config = config
        self.global_embeddings = nn.Embedding(MAX_GLOBAL_TOKENS, self.word_embeddings.embedding_dim)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Embed the tokens, and the globals, at every call: a cache does not hold them."""
        g = self.config.num_global_tokens
        try:
            tokens = super().forward(*args, **kwargs)  # (n, t, D)
        except (IndexError, RuntimeError) as error:
            raise self.explain(error, *args, **kwargs) from error
        globals_ = self.LayerNorm(self.global_embeddings(torch.arange(g, device=tokens.device)))  # (g, D)
        return torch.cat([self.dropout(globals_.expand(len(tokens), -1, -1)), tokens], 1)

    def explain(self, error: Exception, input_ids: Tensor | None = None, *args: Any, **kwargs: Any) -> Exception:
        """Say it in words where the error is that of a sequence longer than the position table."""
        tokens = input_ids if input_ids is not None else kwargs.get("inputs_embeds")
        start = self.padding_idx + 1 if hasattr(self, "padding_idx") else 0
        longest = self.position_embeddings.num_embeddings - start
        given = 0 if tokens is None else kwargs.get("past_key_values_length", 0) + tokens.shape[1]
        return error if given <= longest else too_long(longest, given)


def too_long(longest: int, given: int) -> ValueError:
    """Make the error of a sequence longer than the position table."""
    return ValueError(
        f"the model reads {longest} tokens, {given} were given: truncate them, or convert the checkpoint again with a "
        "larger max_sequence_length (and resize_lsg)"
    )


class LSGEncoderMixin:
    """Over an Encoder class: takes (n, g + t, D), gives (n, t, D)."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.config = config

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        may_pack: bool = False,
        **kwargs: Any,
    ) -> ModelOutput:
        """Mask token 0 if asked to, run the layers, pool, and cut the globals off.

        A causal model's cache holds the tokens before these, and its first is token 0. An encoder's cache is a prefix,
        keys in front of token 0 that all see (prefix tuning). Either is filled with tokens only, and handed back.
        `may_pack` allows to leave padding out of the layers' work; their outputs then have another shape.

        Raises:
            ValueError: a mask that is not of shape (n, t), a length that the config forbids, a static cache.
        """
        self.config.check_lsg()  # fields may have been set by now
        g, is_causal = self.config.num_global_tokens, self.config.lsg_pattern().is_causal
        past = cached_length(past_key_values)
        shape = (len(hidden_states), past + hidden_states.shape[1] - g)
        check_cache(past_key_values)
        check_inputs(self.config, attention_mask, shape, past)
        key_mask = attention_mask
        if self.config.mask_first_token:
            first = 0 if is_causal else past
            key_mask = without_first_token(attention_mask, shape, hidden_states.device, first)
        packing = None
        if may_pack and past_key_values is None and kwargs.get("encoder_hidden_states") is None:
            packing = packing_of(self.config, attention_mask, key_mask)
        if packing is not None:
            hidden_states, key_mask = packing.pack(hidden_states), packing
        cache = without_globals(past_key_values, g)
        outputs = super().forward(hidden_states, attention_mask=key_mask, past_key_values=cache, **kwargs)
        if outputs.get("past_key_values") is not None:
            outputs.past_key_values = past_key_values
        if packing is not None:
            outputs.last_hidden_state = packing.unpack(outputs.last_hidden_state)
        has_first_token = past == 0 or not is_causal
        pool = self.config.pool_with_global and has_first_token
        outputs.last_hidden_state = cut_globals(outputs.last_hidden_state, g, pool)
        return outputs


def packing_of(config: Any, mask: Tensor | None, key_mask: Tensor | None) -> Packing | None:
    """Return how to pack rows, None if there is nothing to gain, or to look at (traced code).

    What is computed is what the caller's mask (n, t) keeps: token 0, too, where `key_mask` hides it as a key.
    """
    if mask is None or key_mask is None or is_traced():
        return None
    pattern = config.lsg_pattern()
    masks = mask.bool(), key_mask.bool()
    return plan_packing(*masks, pattern.num_global_tokens, pattern.block_size, pattern.needs_first_query)


def cached_length(past_key_values: Any) -> int:
    """Return how many tokens a cache holds."""
    return 0 if past_key_values is None else int(past_key_values.get_seq_length())


def check_cache(past_key_values: Any) -> None:
    """Raise ValueError for a cache that LSG attention cannot take."""
    if past_key_values is not None and getattr(past_key_values, "is_compileable", False):
        given = type(past_key_values).__name__
        raise ValueError(f"LSG models generate with a dynamic cache (the default), not with a static one ({given})")


def check_inputs(config: Any, mask: Tensor | None, shape: tuple[int, int], past: int) -> None:
    """Raise ValueError for what LSG attention cannot take.

    Args:
        config: an LSG config.
        mask: the caller's.
        shape: (n, p + t), which the mask has to have.
        past: p, keys of a cache among them.
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


def without_first_token(mask: Tensor | None, shape: tuple[int, int], device: torch.device, first: int = 0) -> Tensor:
    """Mask token 0, which stands in column `first`, in a copy of the mask of a shape (n, t)."""
    mask = torch.ones(shape, dtype=torch.bool, device=device) if mask is None else mask.clone()
    mask[:, first] = False
    return mask


class LSGCheckedMixin:
    """Over any model class: checks the LSG config, puts our parts in, and has its code copied when it is saved."""

    _auto_class: ClassVar[str] = "AutoModel"  # save_pretrained copies the code of a class that has one

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        config.check_lsg()  # fields may have been set since the config was made
        # old configs have this field; transformers acts on it in post_init, where our parts have to be in place
        asks_checkpointing = vars(config).pop("gradient_checkpointing", False)
        super().__init__(config, *args, **kwargs)
        self.put_in_parts()
        if asks_checkpointing:
            self.config.gradient_checkpointing = True
        self.post_init()

    def put_in_parts(self) -> None:
        """Put our parts in the place of the dense ones."""


class LSGAttentionMixin(LSGCheckedMixin):
    """Over a model class whose self-attention is ours, whatever implementation is asked for."""

    def _check_and_adjust_attn_implementation(self, attn_implementation: str | None, *args: Any, **kwargs: Any) -> str:
        if attn_implementation not in (None, "lsg", "sdpa"):
            logger.warning_once(f"LSG models have their own attention: {attn_implementation!r} is not used")
        return "lsg"

    def get_correct_attn_implementation(self, *args: Any, **kwargs: Any) -> str:
        """Answer transformers, which asks for the name to use: ours."""
        return "lsg"


class LSGModelMixin(LSGAttentionMixin):
    """Over a base model class: builds our embeddings and encoder, and cuts `hidden_states`.

    A subclass names `embeddings_class` and `encoder_class`, and `encoder_name`, where its model keeps the encoder.
    """

    embeddings_class: ClassVar[type]
    encoder_class: ClassVar[type]
    encoder_name: ClassVar[str] = "encoder"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.forward = like_the_original(cls, LSGModelMixin)

    def put_in_parts(self) -> None:
        """Build our embeddings and encoder."""
        self.embeddings = self.embeddings_class(self.config)
        encoder = self.encoder_class(self.config)
        record_layers(encoder)
        setattr(self, self.encoder_name, encoder)

    def forward(self, *args: Any, return_dict: bool | None = None, **kwargs: Any) -> ModelOutput | tuple:
        """Run the Hugging Face model; see its documentation for arguments and results.

        Raises:
            ValueError: attention weights are asked for, or what LSGEncoderMixin raises.
        """
        refuse_attentions(self.config, kwargs)
        has_states = asks_hidden_states(self.config, kwargs)
        if not has_states:
            kwargs["may_pack"] = True
        g = self.config.num_global_tokens
        with recorded_tokens(g, has_states and torch.is_grad_enabled()) as tokens:
            outputs = super().forward(*args, return_dict=True, **kwargs)
        cut_hidden_states(outputs, g, tokens)
        return format_outputs(outputs, return_dict, self.config)


class LSGHeadBaseMixin(LSGCheckedMixin):
    """Over a model class with a head: its base model is ours. A subclass names `lsg_model_class`."""

    lsg_model_class: ClassVar[type]

    def put_in_parts(self) -> None:
        """Build our base model."""
        dense_model = getattr(self, self.base_model_prefix)
        options = {}
        if hasattr(dense_model, "pooler"):
            # transformers 5.0 forgot the pooler of CamembertForMultipleChoice and its XLM-RoBERTa sister
            needs_pooler = type(self).__name__.endswith("ForMultipleChoice")
            options["add_pooling_layer"] = needs_pooler or dense_model.pooler is not None
        setattr(self, self.base_model_prefix, self.lsg_model_class(self.config, **options))


class PositionsAfterPaddingMixin:
    """Over a causal head whose positions start after the padding's (RoBERTa's way).

    transformers' `generate` counts positions from 0 for every model, and so gives these the wrong ones.
    """

    def _prepare_position_ids_for_generation(self, *args: Any, **kwargs: Any) -> Tensor:
        return super()._prepare_position_ids_for_generation(*args, **kwargs) + self.config.pad_token_id + 1

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, *args: Any, inputs_embeds: Tensor | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Shift positions that are made here (in the first 5.x) and not given; `generate` looks for inputs_embeds."""
        made_here = kwargs.get("position_ids") is None
        inputs = super().prepare_inputs_for_generation(input_ids, *args, inputs_embeds=inputs_embeds, **kwargs)
        if made_here and inputs.get("position_ids") is not None:
            inputs["position_ids"] = inputs["position_ids"] + self.config.pad_token_id + 1
        return inputs


class LSGHeadMixin(LSGAttentionMixin, LSGHeadBaseMixin):
    """A head over an encoder, whose only self-attention is ours."""
