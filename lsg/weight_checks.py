"""Whether weights are what an LSG model is made of: real numbers, all of them finite."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import logging

from .errors import ConversionError, one_line
from .weight_files import format_of

logger = logging.get_logger(__name__)

ALLOWED = ("float32", "float16", "bfloat16", "float64")
LOOKED_AT_ONCE = 2**24  # numbers


def check_config_format(config_dict: dict[str, Any], where: str) -> None:
    """Raise ConversionError if a config speaks of quantized weights, or of a number format that is not allowed."""
    where = one_line(where)
    for name in ("quantization_config", "compression_config"):
        if config_dict.get(name) is not None:
            raise ConversionError(
                f"{where}: quantized, its config has a {name}; weights in {', '.join(ALLOWED)} are expected, "
                "so dequantize it first"
            )
    given = config_format(config_dict)
    if given is not None and given not in ALLOWED:
        raise ConversionError(
            f"{where}: the config's dtype={one_line(repr(given))} is not allowed; choose one of {', '.join(ALLOWED)}"
        )


def config_format(config_dict: dict[str, Any]) -> Any:
    """Return the number format that a config speaks of, by the field's new or old name; None if it does not."""
    given = config_dict.get("dtype", config_dict.get("torch_dtype"))
    return str(given).removeprefix("torch.") if isinstance(given, str | torch.dtype) else given


def weights_of(model: PreTrainedModel, formats: dict[str, str]) -> dict[str, str]:
    """Return those of a checkpoint's tensors that are real numbers in the model.

    A checkpoint may have the base model's prefix where the model has none, and the other way round; old ones call the
    weights of a LayerNorm gamma and beta.
    """
    prefix = f"{model.base_model_prefix}."

    def bare(name: str) -> str:
        for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
            name = name.replace(old, new)
        return name.removeprefix(prefix)

    own = {bare(name) for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    return {name: kind for name, kind in formats.items() if bare(name) in own}


def check_formats(formats: dict[str, str], where: str) -> None:
    """Raise ConversionError, naming a tensor, unless all weights are real numbers."""
    where = one_line(where)
    wrong = sorted(name for name, kind in formats.items() if kind not in ALLOWED)
    if wrong:
        others = f", and {len(wrong) - 1} more are none of these either" if len(wrong) > 1 else ""
        raise ConversionError(
            f"{where}: {one_line(wrong[0])} is {formats[wrong[0]]}, "
            f"a weight has to be one of {', '.join(ALLOWED)}{others}"
        )


def tell_format(formats: Iterable[str], in_config: Any, output: torch.dtype, where: str) -> None:
    """Say what format the output has, where the weights are of another or several, or the config says another."""
    where = one_line(where)
    found, made = set(formats), str(output).removeprefix("torch.")
    if found - {made} or (in_config is not None and in_config != made):
        says = "nothing of it" if in_config is None else in_config
        logger.warning(
            f"{where}: the weights are {' and '.join(sorted(found))}, the config's dtype says {says}: "
            f"the output is in {made}"
        )


def check_finite(model: PreTrainedModel, where: str) -> None:
    """Raise ConversionError, naming a tensor, if a weight is NaN or infinite."""
    where = one_line(where)
    weights: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in model.state_dict().items():
        weights.setdefault(tensor.data_ptr(), (name, tensor))  # tied ones once
    counts = [(name, tensor, count_not_finite(tensor)) for name, tensor in weights.values()]
    wrong = [found for found in counts if found[-1]]
    if wrong:
        name, tensor, count = wrong[0]
        others = f", the first of {len(wrong)} such tensors," if len(wrong) > 1 else ""
        raise ConversionError(
            f"{where}: {count} of the {tensor.numel()} numbers of {one_line(name)}{others} are NaN or infinite in "
            f"{format_of(tensor)}; mend them, or convert them as they are with allow_nan"
        )


def count_not_finite(tensor: Tensor) -> int:
    """Return how many numbers of a tensor are NaN or infinite; looks at it piece by piece, to need little memory."""
    if not tensor.is_floating_point():
        return 0
    return sum(int((~piece.isfinite()).sum()) for piece in tensor.reshape(-1).split(LOOKED_AT_ONCE))
