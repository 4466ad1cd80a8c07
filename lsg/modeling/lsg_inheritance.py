"""How classes and functions of transformers are reused: constructors with our parts, signatures, options, outputs."""

import inspect
from contextvars import ContextVar
from functools import wraps
from types import FunctionType, MethodType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

# what goes around code of transformers that drops keywords; each thread has its own
AROUND: ContextVar[dict[str, Any]] = ContextVar("lsg_around", default={})  # noqa: B039 (never changed in place)


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


class PartsMixin:
    """Directly in front of a class of transformers: builds what `parts` names where its constructor names a class."""

    parts: ClassVar[dict[str, Any]] = {}

    def __init__(self, config: Any) -> None:
        with_classes(super().__init__, self.parts)(config)


def sign_forward(model_class: type, ours: type, *added: str) -> None:
    """Set the forward of a class to that of `ours`, with the signature of the one behind it, which other tools inspect.

    Args:
        model_class: the class; one that has another forward, its own or that of a base, keeps it.
        ours: the mixin among its bases that has the forward; it gets all arguments by name.
        added: names of further arguments, None by default: Trainer drops columns that are in no signature.
    """
    nearest = next(c for c in model_class.__mro__ if "forward" in vars(c))
    if nearest is not ours or not issubclass(model_class, nn.Module):
        return
    behind = model_class.__mro__[model_class.__mro__.index(ours) + 1 :]
    original = next(vars(c)["forward"] for c in behind if "forward" in vars(c) and issubclass(c, nn.Module))
    signature = inspect.signature(original)
    _, *names = (p.name for p in signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD)

    @wraps(original)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if len(args) > len(names):
            given = f"takes at most {len(names)} positional arguments but {len(args)} were given"
            raise TypeError(f"{type(self).__name__}.forward() {given}")
        return ours.forward(self, **dict(zip(names, args, strict=False)), **kwargs)

    parameters = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    others = [p for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD]
    parameters += [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in added]
    forward.__signature__ = signature.replace(parameters=parameters + others)
    model_class.forward = forward


class KeywordsAround:
    """Between our part and a class of transformers that drops keywords in some releases: hands them on around it."""

    def forward(self, **kwargs: Any) -> Any:
        """Run what is behind it; the part inside it that is ours takes the keywords with `take_around`."""
        if torch.compiler.is_dynamo_compiling():  # knows no context variables
            return super().forward(**kwargs)
        names = kwargs.keys() & {"pinned_mask", "may_pack", "layout"}
        token = AROUND.set({name: kwargs.pop(name) for name in names})
        try:
            return super().forward(**kwargs)
        finally:
            AROUND.reset(token)


def take_around(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the keywords, and those that `KeywordsAround` has handed on."""
    return kwargs if torch.compiler.is_dynamo_compiling() else {**kwargs, **AROUND.get()}


class AroundModelMixin:
    """In front of LSGModelMixin: takes `pinned_mask`, too, where the head cannot hand it on."""

    def pin_tokens(self, kwargs: dict[str, Any]) -> Any:
        """Return and set what LSGModelMixin does."""
        kwargs.update(take_around({}))
        return super().pin_tokens(kwargs)


class AdditiveMaskMixin:
    """In front of LSGEncoderMixin, where the model makes a mask of the caller's that is added to scores."""

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Any:
        """Run the encoder with the mask (n, t) instead of (n, 1, 1, t), in which 0 says that a key is there."""
        if attention_mask is not None and attention_mask.shape[1:-1] == (1, 1) and attention_mask.is_floating_point():
            attention_mask = attention_mask[:, 0, 0] == 0  # Splinter's models do so in 5.0, but not in 5.24
        return super().forward(hidden_states, attention_mask, **take_around(kwargs))


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
