"""Parts of types with rotary positions (arXiv 2104.09864), whose base model runs its layers itself.

Globals stand at position 0, where nothing is rotated; tokens keep their positions, of which no table limits the number.
Shapes: n batch, t tokens, g globals, D hidden size.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from .lsg_config import LSGConfigMixin
from .lsg_encoder import LSGEmbeddingsMixin, LSGModelMixin, check_inputs, check_length
from .lsg_globals import cache_name, record_layers
from .lsg_packing import arrange_rows
from .lsg_pattern import check
from .lsg_pinned import PinnedLayout

FIXED_KINDS = ("default", "linear")  # of rotary positions, whose frequencies do not depend on any length


class LSGRotaryConfigMixin(LSGConfigMixin):
    """LSGConfigMixin of a type with rotary positions."""

    @property
    def exact_length(self) -> int:
        """Two blocks, or what a sliding window reaches: global 0 is seen beyond it, and token 0 was not."""
        is_sliding = "sliding_attention" in (getattr(self, "layer_types", None) or ())
        return min(2 * self.block_size, self.sliding_window + 1) if is_sliding else 2 * self.block_size

    def check_lsg(self) -> None:
        """Raise ValueError if a field is wrong, or if the frequencies would change with the maximum length."""
        super().check_lsg()
        parameters = self.rope_parameters or {}
        by_layer = [part for part in parameters.values() if isinstance(part, dict)] or [parameters]
        for kind in (part.get("rope_type", "default") for part in by_layer):
            rule = f"the frequencies must not depend on a length: choose one of {', '.join(FIXED_KINDS)}"
            check(kind in FIXED_KINDS, "rope_type", kind, rule)


@dataclass(frozen=True)
class EmbeddedTokens:
    """Globals and tokens (n, g + t, D) that are embedded already, in the place of `inputs_embeds`."""

    hidden_states: Tensor

    @property
    def shape(self) -> torch.Size:
        """(n, g + t, D), or (1, N, D) of packed rows."""
        return self.hidden_states.shape

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.hidden_states.device


class LSGRotaryEmbeddingsMixin(LSGEmbeddingsMixin):
    """Over an Embeddings class without positions: puts g globals in front, (n, g + t, D)."""

    position_offset = 0

    def check_length(self, past: int, tokens: Tensor, has_ids: bool) -> None:
        """Raise ValueError if (n, t) or (n, t, D) tokens are more than the model was converted for."""
        check_length(tokens.shape[1], self.config.max_position_embeddings)

    def forward(self, input_ids: Tensor | None = None, inputs_embeds: Any = None, **kwargs: Any) -> Tensor:
        """Embed globals and tokens, unless that was done before."""
        if isinstance(inputs_embeds, EmbeddedTokens):
            return inputs_embeds.hidden_states
        return super().forward(input_ids=input_ids, inputs_embeds=inputs_embeds, **kwargs)


def count_positions(attention_mask: Tensor | None, num_tokens: int, device: torch.device) -> Tensor:
    """Return the positions (1 or n, t) of tokens: their places behind the first one that (n, t) keeps.

    Between tokens it makes no difference where a row begins; the globals, at position 0, would be farther away.
    """
    places = torch.arange(num_tokens, device=device)[None]
    if attention_mask is None:
        return places
    first = attention_mask.to(device).bool().int().argmax(1, keepdim=True)  # (n, 1)
    return (places - first).clamp(min=0)


class RunsLayersMixin:
    """Behind LSGModelMixin, what LSGEncoderMixin is over an Encoder class: the model behind it runs the layers."""

    def embed(self, kwargs: dict[str, Any]) -> Tensor:
        """Return globals and tokens, embedded, (n, g + t, D); take what the embeddings read out of `kwargs`."""
        input_ids, inputs_embeds = (kwargs.pop(name, None) for name in ("input_ids", "inputs_embeds"))
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("the model takes either input_ids or inputs_embeds")
        types = {}
        if hasattr(self.embeddings, "token_type_embeddings"):
            tokens = input_ids if inputs_embeds is None else inputs_embeds[..., 0]  # (n, t)
            given = kwargs.pop("token_type_ids", None)  # up to 5.16, without them, they are looked up by position
            types["token_type_ids"] = torch.zeros_like(tokens, dtype=torch.long) if given is None else given
        return self.embeddings(input_ids=input_ids, inputs_embeds=inputs_embeds, **types)

    def forward(
        self,
        *,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        may_pack: bool = False,
        layout: PinnedLayout | None = None,
        **kwargs: Any,
    ) -> ModelOutput:
        """Embed, arrange rows and positions, run the layers, pool, and cut the globals off; see LSGEncoderMixin.

        Raises:
            ValueError: a mask that is not of shape (n, t), a length that the config forbids, a cache.
        """
        config = self.config
        config.check_lsg()  # fields may have been changed
        if kwargs.get(cache_name(kwargs)) is not None:
            raise ValueError("encoders with rotary positions take no cache or prefix of keys")
        hidden_states, g = self.embed(kwargs), config.num_global_tokens
        n, t = hidden_states.shape[0], hidden_states.shape[1] - g
        check_inputs(config, attention_mask, (n, t), past=0)
        rows = arrange_rows(config, hidden_states, attention_mask, layout, may_pack)
        if position_ids is None:
            position_ids = count_positions(attention_mask, t, hidden_states.device)
        positions = functional.pad(position_ids, (g, 0))[..., None]  # (1 or n, g + t, 1)
        positions = positions if rows.is_plain else rows.arrange(positions.expand(n, -1, -1))
        outputs = super().forward(
            inputs_embeds=EmbeddedTokens(rows.arrange(hidden_states)),
            attention_mask=rows.mask,
            position_ids=positions[..., 0],
            **kwargs,
        )
        uncut = outputs.last_hidden_state
        outputs.last_hidden_state = rows.restore(uncut, config.pool_with_global)
        if outputs.hidden_states is not None and outputs.hidden_states[-1] is uncut:
            outputs.hidden_states = (*outputs.hidden_states[:-1], outputs.last_hidden_state)
        if getattr(self, "pooler", None) is not None:
            outputs.pooler_output = self.pooler(outputs.last_hidden_state)
        return outputs


class InitializedMixin:
    """Over a model class, with or without a head: initializes every layer by its kind, and then as the class does.

    ModernBERT's classes do so from 5.13 on. Before, they name the parts that they fill by the module around them, and
    of custom code some releases pass over modules that have no weights but in those inside.
    """

    def _init_weights(self, module: nn.Module) -> None:
        PreTrainedModel._init_weights(self, module)
        super()._init_weights(module)


class LSGRotaryModelMixin(LSGModelMixin, RunsLayersMixin):
    """Over a base model class with rotary positions and a list of layers."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        record_layers(self)

    def position_ids_of(self, layout: PinnedLayout) -> Tensor | None:
        """Return None: positions do not repeat, so pinned tokens and the others keep theirs."""
        return None
