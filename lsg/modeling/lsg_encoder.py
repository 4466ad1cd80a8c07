"""Parts that every model type shares: global tokens in front, LSG attention, pooling and cutting behind the layers.

Each mixin goes in front of the Hugging Face class of the same part and calls it; nothing of it is copied.
Shapes: n batch, t tokens, g globals, D hidden size. Source: arXiv 2210.15497, section 3.
"""

import inspect
from functools import wraps
from types import FunctionType, MethodType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput, logging

from .lsg_attention import ATTENTION_NAME
from .lsg_globals import (
    CACHE_NAME,
    cache_name,
    cached_length,
    cut_globals,
    cut_hidden_states,
    record_layers,
    recorded_tokens,
    without_first_token,
    without_globals,
)
from .lsg_packing import Packing, plan_packing
from .lsg_pattern import MAX_GLOBAL_TOKENS
from .lsg_sparse import is_traced

logger = logging.get_logger(__name__)


def with_classes(method: MethodType, classes: dict[str, Any]) -> MethodType:
    """Return a constructor of transformers that uses other classes for some of the names in it.

    So it builds our parts, and no dense ones first. Only this copy of it has the other names: its module and all other
    models stay as they are.

    Raises:
        NotImplementedError: it has no such names: those of a newer transformers, or a constructor of the user's.
    """
    original: Any = getattr(method, "__func__", method)
    if unknown := sorted(classes.keys() - getattr(original, "__globals__", {}).keys()):
        where = f"{getattr(original, '__module__', None)}.{getattr(original, '__qualname__', original)}"
        raise NotImplementedError(
            f"{where} builds no {', '.join(unknown)}: an LSG class must be directly in front of a class of "
            "transformers, in a supported release"
        )
    names = {**original.__globals__, **classes}
    copied = FunctionType(original.__code__, names, original.__name__, original.__defaults__, original.__closure__)
    copied.__kwdefaults__ = original.__kwdefaults__
    return MethodType(copied, method.__self__)


def sign_forward(model_class: type, ours: type) -> None:
    """Set the forward of a class to that of `ours`, with the signature of the one behind it, which other tools inspect.

    Args:
        model_class: the class; one that has another forward, its own or that of a base, keeps it.
        ours: the mixin among its bases that has the forward; it gets all arguments by name.
    """
    if next(c for c in model_class.__mro__ if "forward" in vars(c)) is not ours:
        return
    behind = model_class.__mro__[model_class.__mro__.index(ours) + 1 :]
    original = next(vars(c)["forward"] for c in behind if "forward" in vars(c) and issubclass(c, nn.Module))
    _, *names = (p.name for p in inspect.signature(original).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD)

    @wraps(original)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if len(args) > len(names):
            given = f"takes at most {len(names)} positional arguments but {len(args)} were given"
            raise TypeError(f"{type(self).__name__}.forward() {given}")
        return ours.forward(self, **dict(zip(names, args, strict=False)), **kwargs)

    model_class.forward = forward


def resolve_option(option: str, given: bool | None, config: Any) -> bool:
    """Return one of transformers' options: the caller's value, or the config's if that is None."""
    return bool(getattr(config, option) if given is None else given)


def asks_hidden_states(config: Any, kwargs: dict[str, Any]) -> bool:
    """Return whether the caller wants the output of each layer; its rows cannot be packed."""
    return resolve_option("output_hidden_states", kwargs.get("output_hidden_states"), config)


def refuse_attentions(config: Any, kwargs: dict[str, Any]) -> None:
    """Raise ValueError if attention weights are asked for, which LSG attention does not keep."""
    if resolve_option("output_attentions", kwargs.get("output_attentions"), config):
        raise ValueError(
            "output_attentions=True is not supported: LSG attention never forms the matrix of attention weights"
        )


def format_outputs(outputs: ModelOutput, return_dict: bool | None, config: Any) -> ModelOutput | tuple:
    """Return the outputs as an object or a tuple."""
    return outputs if resolve_option("return_dict", return_dict, config) else outputs.to_tuple()


def check_length(length: int, longest: int) -> None:
    """Raise ValueError if a sequence is longer than the position table; on a GPU, torch could not name the cause."""
    if length > longest:
        raise ValueError(
            f"the model reads {longest} tokens, {length} were given: truncate them, or convert the checkpoint again "
            "with a larger max_sequence_length (and resize_lsg)"
        )


class LSGEmbeddingsMixin:
    """Over an Embeddings class with `LayerNorm` and `dropout`: puts g global tokens in front, (n, g + t, D)."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.config = config
        self.global_embeddings = nn.Embedding(MAX_GLOBAL_TOKENS, self.word_embeddings.embedding_dim)

    def check_length(self, past: int, tokens: Tensor, has_ids: bool) -> None:
        """Raise ValueError if p cached tokens and (n, t) or (n, t, D) more are too many for the position table."""
        table, length = getattr(self.position_embeddings, "weight", None), past + tokens.shape[1]
        if table is None:  # a module of the user's in its place
            return
        unused = self.padding_idx + 1 if hasattr(self, "padding_idx") else 0  # some types count from behind padding
        if unused and has_ids and length > len(table) - unused and not is_traced():
            length = past + int((tokens != self.padding_idx).sum(1).max())  # padding takes no positions there
        check_length(length, len(table) - unused)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Embed the tokens, and the globals, at every call: a cache does not hold them."""
        tokens = super().forward(*args, **kwargs)  # (n, t, D)
        indices = torch.arange(self.config.num_global_tokens, device=tokens.device)
        globals_ = self.LayerNorm(self.global_embeddings(indices))  # (g, D)
        return torch.cat([self.dropout(globals_.expand(tokens.shape[0], -1, -1)), tokens], 1)


class LSGEncoderMixin:
    """Over an Encoder class: takes (n, g + t, D), returns (n, t, D). `parts` as in LSGPreTrainedMixin."""

    parts: ClassVar[dict[str, Any]] = {}

    def __init__(self, config: Any) -> None:
        with_classes(super().__init__, self.parts)(config)
        self.config = config
        record_layers(self)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        may_pack: bool = False,
        **kwargs: Any,
    ) -> ModelOutput:
        """Mask token 0 if the config says so, run the layers, pool, and cut the globals off.

        A causal model's cache holds the tokens before these, and its first is token 0. An encoder's cache is a prefix
        of keys in front of token 0, which all tokens attend to (prefix tuning). Both are filled with tokens only.
        `may_pack` allows unpadding: the outputs of single layers then have another shape.

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
        key_mask = attention_mask
        if self.config.mask_first_token:
            first = 0 if is_causal else past
            key_mask = without_first_token(attention_mask, shape, hidden_states.device, first)
        packing = None
        if may_pack and cache is None and kwargs.get("encoder_hidden_states") is None:
            packing = packing_of(self.config, attention_mask, key_mask)
        if packing is not None:
            hidden_states, key_mask = packing.pack(hidden_states), packing
        kwargs[name] = without_globals(cache, g)
        outputs = super().forward(hidden_states, attention_mask=key_mask, **kwargs)
        if outputs.get(CACHE_NAME) is not None:
            outputs[CACHE_NAME] = cache
        if packing is not None:
            outputs.last_hidden_state = packing.unpack(outputs.last_hidden_state)
        pool = self.config.pool_with_global and (past == 0 or not is_causal)  # token 0 is among these
        outputs.last_hidden_state = cut_globals(outputs.last_hidden_state, g, pool)
        return outputs


def packing_of(config: Any, mask: Tensor | None, key_mask: Tensor | None) -> Packing | None:
    """Return how to pack rows, None if nothing is gained, or if the code is traced.

    All tokens of the caller's mask (n, t) are computed, also token 0 where `key_mask` hides it as a key.
    """
    if mask is None or key_mask is None or is_traced():
        return None
    pattern = config.lsg_pattern()
    masks = mask.bool(), key_mask.bool()
    return plan_packing(*masks, pattern.num_global_tokens, pattern.block_size, pattern.needs_first_query)


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
        sign_forward(cls, LSGModelMixin)

    def forward(self, *, return_dict: bool | None = None, **kwargs: Any) -> ModelOutput | tuple:
        """Run the Hugging Face model; see its documentation for arguments and results.

        Raises:
            ValueError: attention weights are asked for, a sequence is too long, or what LSGEncoderMixin raises.
        """
        refuse_attentions(self.config, kwargs)
        has_ids = kwargs.get("input_ids") is not None
        tokens = kwargs.get("input_ids" if has_ids else "inputs_embeds")
        if tokens is not None and tokens.dim() > 1 and kwargs.get("position_ids") is None:
            self.embeddings.check_length(cached_length(kwargs.get(cache_name(kwargs))), tokens, has_ids)
        has_states = asks_hidden_states(self.config, kwargs)
        kwargs["may_pack"] = not has_states
        g = self.config.num_global_tokens
        with recorded_tokens(g, has_states and torch.is_grad_enabled()) as states:
            outputs = super().forward(return_dict=True, **kwargs)
        cut_hidden_states(outputs, g, states)
        return format_outputs(outputs, return_dict, self.config)


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
