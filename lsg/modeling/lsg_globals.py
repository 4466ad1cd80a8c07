"""Global tokens: the layers see them in front of the tokens, the caller sees neither them nor their keys in a cache.

Globals depend on weights only (arXiv 2210.15497, section 3), so they are computed at every call and never cached.
Shapes: n batch, h heads, t tokens, g globals, d head size, D hidden size.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils import ModelOutput

from .lsg_pinned import PinnedLayout
from .lsg_sparse import is_traced

# what transformers calls a cache, among arguments and outputs: "past_key_values" up to 5.23, "cache" from 5.24 on
CACHE_NAME = "cache" if hasattr(BaseModelOutputWithPast, "cache") else "past_key_values"

# (g, the tokens of each layer's input so far) while hidden states are recorded; each thread has its own
RECORD: ContextVar[tuple[int, list[Tensor]] | None] = ContextVar("lsg_record", default=None)


class TokenCache(Cache):
    """A view of the caller's cache for keys that begin with g globals: it stores tokens only.

    Args:
        cache: the caller's, which is filled.
        num_globals: g.
    """

    def __init__(self, cache: Cache, num_globals: int) -> None:  # the layers are those of the caller's cache
        self.cache, self.num_globals = cache, num_globals

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["cache"], name)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Cache keys and values (n, h, g + t, d) without the globals; return all, (n, h, g + cached + t, d)."""
        g = self.num_globals
        cached = self.cache.update(key_states[:, :, g:], value_states[:, :, g:], *args, **kwargs)
        key, value = (
            torch.cat([new[:, :, :g], x], 2) for new, x in zip((key_states, value_states), cached, strict=True)
        )
        return key, value


def without_globals(cache: Cache | None, num_globals: int) -> Cache | None:
    """Return the cache that the layers get: it stores tokens, not globals, in the caller's."""
    if cache is None:
        return None
    if not isinstance(cache, EncoderDecoderCache):
        return TokenCache(cache, num_globals)
    pair = EncoderDecoderCache(TokenCache(cache.self_attention_cache, num_globals), cache.cross_attention_cache)
    pair.is_updated = cache.is_updated  # the same dictionary, as the layers write into it
    return pair


def cache_name(kwargs: dict[str, Any]) -> str:
    """Return the name of the cache among the arguments of a forward.

    transformers 5.24 to 5.39 also take the old name, with a warning; if both are given, the new one counts.
    """
    return "past_key_values" if "past_key_values" in kwargs and CACHE_NAME not in kwargs else CACHE_NAME


def cached_length(cache: Any) -> int:
    """Return how many tokens a cache holds; raise ValueError if LSG attention cannot take it."""
    if cache is None:
        return 0
    if getattr(cache, "is_compileable", False):
        given = type(cache).__name__
        raise ValueError(f"LSG models generate with a dynamic cache (the default), not with a static one ({given})")
    return int(cache.get_seq_length())


def without_first_token(mask: Tensor | None, shape: tuple[int, int], device: torch.device, first: int = 0) -> Tensor:
    """Return a copy of the mask (n, t), or of a new one, in which token 0, in column `first`, is masked."""
    mask = torch.ones(shape, dtype=torch.bool, device=device) if mask is None else mask.clone()
    mask[:, first] = False
    return mask


def cut_globals(hidden_states: Tensor, num_globals: int, pool: bool, layout: PinnedLayout | None = None) -> Tensor:
    """Return (n, g + t, D) without its g globals; if `pool`, global 0 takes the place of token 0.

    With a layout, (n, g + S + T, D) is returned in the caller's order.
    """
    tokens = hidden_states[:, num_globals:]
    if layout is not None:
        tokens = layout.restore(tokens)
        return torch.where(layout.is_first[..., None], hidden_states[:, :1], tokens) if pool else tokens
    return torch.cat([hidden_states[:, :1], tokens[:, 1:]], 1) if pool else tokens


def cut_hidden_states(
    outputs: ModelOutput,
    num_globals: int,
    tokens: list[Tensor],
    uncut: Tensor | None = None,
    layout: PinnedLayout | None = None,
) -> None:
    """Cut the globals off `outputs.hidden_states`, if there are any.

    Args:
        outputs: whose `last_hidden_state` is cut already.
        num_globals: g.
        tokens: the recorded inputs of the layers; they are in the graph, where slices would not be.
        uncut: what `last_hidden_state` was before.
        layout: the order in which the layers computed.
    """
    if outputs.hidden_states is None:
        return
    length = outputs.last_hidden_state.shape[1]
    *states, last = outputs.hidden_states
    last = outputs.last_hidden_state if last is uncut and last is not None else last
    if len(tokens) != len(states):
        tokens = [state if state is None else state[:, num_globals:] for state in states]
    if layout is not None:
        tokens = [part if part is None else layout.restore(part) for part in tokens]
    states = [None if state is None else part for state, part in zip(states, tokens, strict=True)]
    is_cut = last is outputs.last_hidden_state if layout is not None else last is None or last.shape[1] == length
    if last is not None and not is_cut:
        last = cut_globals(last, num_globals, pool=False, layout=layout)
    outputs.hidden_states = (*states, last)


@contextlib.contextmanager
def recorded_tokens(num_globals: int, is_on: bool) -> Iterator[list[Tensor]]:
    """Collect, in the block, the tokens (n, t, D) that go into each layer of an encoder; nothing if not `is_on`."""
    states: list[Tensor] = []
    if not is_on or is_traced():
        yield states
        return
    token = RECORD.set((num_globals, states))
    try:
        yield states
    finally:
        RECORD.reset(token)


def record_layers(encoder: nn.Module) -> None:
    """Prepare the layers of an encoder, its only list of modules, for `recorded_tokens`."""
    layers = next(child for child in encoder.children() if isinstance(child, nn.ModuleList))
    for layer in layers:
        layer.register_forward_pre_hook(record_tokens)


def record_tokens(layer: nn.Module, inputs: tuple) -> tuple | None:
    """Split a layer's input (n, g + t, D) and join it again, so that its tokens are a tensor in the graph."""
    record = None if is_traced() else RECORD.get()
    if record is None:
        return None
    num_globals, states = record
    hidden_states, *others = inputs
    tokens = hidden_states[:, num_globals:]
    states.append(tokens)
    return torch.cat([hidden_states[:, :num_globals], tokens], 1), *others
