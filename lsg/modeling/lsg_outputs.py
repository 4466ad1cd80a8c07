"""What a model returns: without globals, in the form that is asked for, with hidden states that are in the graph.

Shapes: n batch, t tokens, g globals, D hidden size.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from .lsg_attention import is_traced

# (g, the tokens of each layer's input so far) while hidden states are asked for; each thread has its own
RECORD: ContextVar[tuple[int, list[Tensor]] | None] = ContextVar("lsg_record", default=None)


def resolve_option(option: str, given: bool | None, config: Any) -> bool:
    """Whether the caller, else the config, asks for one of transformers' options."""
    return bool(getattr(config, option) if given is None else given)


def asks_hidden_states(config: Any, kwargs: dict[str, Any]) -> bool:
    """Whether what each layer gives is asked for: packed rows are no use then."""
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


def cut_globals(hidden_states: Tensor, num_global_tokens: int, pool: bool) -> Tensor:
    """Cut g globals off (n, g + t, D); if `pool`, global 0 takes the place of token 0."""
    tokens = hidden_states[:, num_global_tokens:]
    return torch.cat([hidden_states[:, :1], tokens[:, 1:]], 1) if pool else tokens


def cut_hidden_states(
    outputs: ModelOutput, num_global_tokens: int, tokens: list[Tensor], uncut: Tensor | None = None
) -> None:
    """Cut g globals off the hidden states, if there are any.

    Args:
        outputs: whose `last_hidden_state` is cut already.
        num_global_tokens: g.
        tokens: parts of the states that went into the layers; they are in the graph, where slices would not be.
        uncut: what `last_hidden_state` was before.
    """
    if outputs.hidden_states is None:
        return
    length = outputs.last_hidden_state.shape[1]
    *states, last = outputs.hidden_states
    last = outputs.last_hidden_state if last is uncut and last is not None else last
    if len(tokens) != len(states):
        tokens = [state if state is None else state[:, num_global_tokens:] for state in states]
    states = [None if state is None else part for state, part in zip(states, tokens, strict=True)]
    if last is not None and last.shape[1] != length:
        last = last[:, num_global_tokens:]
    outputs.hidden_states = (*states, last)


@contextlib.contextmanager
def recorded_tokens(num_global_tokens: int, is_on: bool) -> Iterator[list[Tensor]]:
    """Collect, in the block, the tokens (n, t, D) that go into each layer of an encoder; nothing if not `is_on`."""
    states: list[Tensor] = []
    if not is_on or is_traced():
        yield states
        return
    token = RECORD.set((num_global_tokens, states))
    try:
        yield states
    finally:
        RECORD.reset(token)


def record_layers(encoder: nn.Module) -> None:
    """Have the layers of an encoder, its only list of modules, take part in `recorded_tokens`."""
    layers = next(child for child in encoder.children() if isinstance(child, nn.ModuleList))
    for layer in layers:
        layer.register_forward_pre_hook(record_tokens)


def record_tokens(layer: nn.Module, inputs: tuple) -> tuple | None:
    """Split a layer's input (n, g + t, D), so that its tokens are a part of the graph of their own."""
    record = None if is_traced() else RECORD.get()
    if record is None:
        return None
    num_global_tokens, states = record
    hidden_states, *others = inputs
    tokens = hidden_states[:, num_global_tokens:]
    states.append(tokens)
    return torch.cat([hidden_states[:, :num_global_tokens], tokens], 1), *others


def like_the_original(model_class: type, ours: type) -> Callable:
    """Return the forward of `ours`, with the signature and hints of the one behind it, which other tools look at.

    Args:
        model_class: whose method it becomes.
        ours: the mixin among its bases that has the forward.
    """
    behind = model_class.__mro__[model_class.__mro__.index(ours) + 1 :]
    original = next(vars(c)["forward"] for c in behind if "forward" in vars(c) and issubclass(c, nn.Module))

    @wraps(original)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return ours.forward(self, *args, **kwargs)

    return forward
