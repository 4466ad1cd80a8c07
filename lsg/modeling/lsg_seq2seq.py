"""Parts that every encoder-decoder type shares: LSG attention in the encoder; the decoder stays as it is.

The encoder hands its g global tokens to the decoder (`pass_global_tokens_to_decoder`), or cuts them off.
Shapes: n batch, t tokens, g globals, D hidden size. Source: arXiv 2210.15497, section 3.
"""

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import ModelOutput

from .lsg_config import LSGConfigMixin
from .lsg_encoder import LSGAttentionMixin, LSGPreTrainedMixin, check_inputs, check_length
from .lsg_globals import cut_globals, cut_hidden_states, record_layers, recorded_tokens, without_first_token
from .lsg_inheritance import asks_hidden_states, format_outputs, refuse_attentions, sign_forward
from .lsg_packing import packing_of
from .lsg_pattern import MAX_GLOBAL_TOKENS, LSGPattern, check


class LSGSeq2SeqConfigMixin(LSGConfigMixin):
    """LSGConfigMixin, and whether the decoder attends to the encoder's global tokens.

    The encoder has a copy of the model's config, as its attention is not the decoder's. Both keep the LSG fields in one
    dictionary, so that a field that is set in one is set in both.
    """

    lsg_defaults: ClassVar[dict[str, Any]] = {**LSGConfigMixin.lsg_defaults, "pass_global_tokens_to_decoder": True}

    def check_pinning(self, pattern: LSGPattern) -> None:
        """Raise ValueError: questions can be pinned in encoders alone."""
        check(False, "pin_first_segment", True, "the encoders of encoder-decoders have no pinned tokens (yet)")

    def copy_for_encoder(self) -> "LSGSeq2SeqConfigMixin":
        """Return a copy that shares the LSG fields."""
        copied = copy.deepcopy(self)
        copied._lsg_fields = self._lsg_fields
        return copied

    def __copy__(self) -> "LSGSeq2SeqConfigMixin":
        """Return a copy with LSG fields of its own; everything else is shared, as in any shallow copy."""
        copied = object.__new__(type(self))
        vars(copied).update(vars(self), _lsg_fields=dict(self._lsg_fields))
        return copied

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, the LSG ones among them."""
        fields = super().to_dict()
        return {**fields.pop("_lsg_fields", {}), **fields}


def shared_field(name: str) -> property:
    """Return a property that keeps an LSG field in the dictionary `_lsg_fields` of a config."""

    def read(config: LSGSeq2SeqConfigMixin) -> Any:
        fields = vars(config).get("_lsg_fields", {})
        if name not in fields:
            raise AttributeError(name)
        return fields[name]

    def write(config: LSGSeq2SeqConfigMixin, value: Any) -> None:
        vars(config).setdefault("_lsg_fields", {})[name] = value

    return property(read, write)


for field in LSGSeq2SeqConfigMixin.lsg_defaults:
    setattr(LSGSeq2SeqConfigMixin, field, shared_field(field))


class LSGPositionsMixin:
    """Over a position table: our encoder adds the positions of its `position_ids` itself.

    The Hugging Face encoder knows neither globals nor packed rows; it calls without `position_ids`, and adds zero.
    """

    def forward(self, *args: Any, position_ids: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Return the positions `position_ids` (t), as (t, D) or (1, t, D)."""
        if position_ids is None:
            return self.weight.new_zeros(())
        return super().forward(None, position_ids=position_ids)


class LSGSeq2SeqEncoderMixin(LSGAttentionMixin):
    """Over the encoder of an encoder-decoder model: global tokens in front, LSG attention, cutting behind."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config.copy_for_encoder(), *args, **kwargs)
        self.global_embeddings = nn.Embedding(MAX_GLOBAL_TOKENS, config.d_model)
        record_layers(self)
        self.post_init()  # again, for the globals

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        sign_forward(cls, LSGSeq2SeqEncoderMixin)

    def embed_words(self, input_ids: Tensor) -> Tensor:
        """Embed (n, t) tokens as the encoder would, scaled."""
        return self.embed_tokens(input_ids)

    def find_positions(self, input_ids: Tensor | None, tokens: Tensor) -> Tensor:
        """Return what the encoder adds to its tokens (n, t, D) for their positions, (t, D) or more."""
        return self.embed_positions(position_ids=torch.arange(tokens.shape[1], device=tokens.device))

    def forward(
        self,
        *,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> ModelOutput | tuple:
        """Return states (n, g + t, D) if the globals are passed on to the decoder, (n, t, D) otherwise.

        Raises:
            ValueError: attention weights are asked for, a mask that is not (n, t), a length that the config forbids.
        """
        refuse_attentions(self.config, kwargs)
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("the encoder takes either input_ids or inputs_embeds")
        tokens = self.embed_words(input_ids) if inputs_embeds is None else inputs_embeds  # (n, t, D)
        n, t, _ = tokens.shape
        self.config.check_lsg()  # fields may have been changed
        g = self.config.num_global_tokens
        check_inputs(self.config, attention_mask, (n, t), past=0)
        key_mask = attention_mask
        if self.config.mask_first_token:
            key_mask = without_first_token(attention_mask, (n, t), tokens.device)
        check_length(t, self.embed_positions.num_embeddings - getattr(self.embed_positions, "offset", 0))
        positions = self.find_positions(input_ids, tokens)
        globals_ = self.global_embeddings(torch.arange(g, device=tokens.device)).to(tokens.dtype)  # (g, D)
        states = torch.cat([globals_.expand(n, -1, -1), tokens + positions.to(tokens.device)], 1)
        has_states = asks_hidden_states(self.config, kwargs)
        packing = None if has_states else packing_of(self.config, attention_mask, key_mask)
        if packing is not None:
            states, key_mask = packing.pack(states), packing
        is_cut = not self.config.pass_global_tokens_to_decoder
        with recorded_tokens(g, is_cut and has_states and torch.is_grad_enabled()) as token_states:
            outputs = super().forward(inputs_embeds=states, attention_mask=key_mask, return_dict=True, **kwargs)
        if packing is not None:
            outputs.last_hidden_state = packing.unpack(outputs.last_hidden_state)
        if is_cut:
            uncut = outputs.last_hidden_state
            outputs.last_hidden_state = cut_globals(uncut, g, self.config.pool_with_global)
            cut_hidden_states(outputs, g, token_states, uncut)
        return format_outputs(outputs, return_dict, self.config)


def cross_attention_mask(config: Any, attention_mask: Tensor | None, states: Tensor) -> Tensor | None:
    """Return the caller's (n, t) mask for the encoder's states: (n, g + t) if the globals are among them."""
    if not config.pass_global_tokens_to_decoder:
        return attention_mask
    g = config.num_global_tokens
    if attention_mask is not None:
        attention_mask = functional.pad(attention_mask, (g, 0), value=1)
    elif config.mask_first_token:
        attention_mask = torch.ones(states.shape[:2], dtype=torch.long, device=states.device)
    if config.mask_first_token:
        attention_mask[:, g] = 0  # a copy, by now
    return attention_mask


class LSGSeq2SeqModelMixin(LSGPreTrainedMixin):
    """Over an encoder-decoder base model: extends the cross-attention's mask to the encoder's global tokens."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        sign_forward(cls, LSGSeq2SeqModelMixin)

    def forward(
        self,
        *,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        inputs_embeds: Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> ModelOutput | tuple:
        """Run encoder and decoder; see the Hugging Face model for arguments and results.

        Raises:
            ValueError: what LSGSeq2SeqEncoderMixin raises.
        """
        refuse_attentions(self.config, kwargs)
        if encoder_outputs is None:
            hidden = kwargs.get("output_hidden_states")  # or which of them, in newer versions
            encoder_outputs = self.encoder(
                input_ids=input_ids,
                attention_mask=attention_mask,
                inputs_embeds=inputs_embeds,
                output_hidden_states=self.config.output_hidden_states if hidden is None else hidden,
                return_dict=True,
            )
        elif not isinstance(encoder_outputs, ModelOutput):
            names = ("last_hidden_state", "hidden_states")
            encoder_outputs = BaseModelOutput(**dict(zip(names, encoder_outputs, strict=False)))
        outputs = super().forward(
            input_ids=input_ids,
            attention_mask=cross_attention_mask(self.config, attention_mask, encoder_outputs[0]),
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            return_dict=True,
            **kwargs,
        )
        return format_outputs(outputs, return_dict, self.config)
