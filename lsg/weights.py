"""What numbers a checkpoint's weights are: read without loading them, and checked to be real and finite."""

import json
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import logging
from transformers.utils.hub import cached_files

from .errors import ConversionError, one_line, reported_as
from .hub_options import HubOptions

logger = logging.get_logger(__name__)

ALLOWED = ("float32", "float16", "bfloat16", "float64")
BUFFERS = ("position_ids", "token_type_ids")  # tables of integers, which the model computes itself
NUMBERS_AT_ONCE = 2**24  # numbers that are checked together
WEIGHT_FILES = [name + end for name in ("model.safetensors", "pytorch_model.bin") for end in ("", ".index.json")]
# torch's names of number formats, by those of safetensors; others are the same in lower case
FORMATS = {
    **{f"F{bits}": f"float{bits}" for bits in (64, 32, 16)},
    **{f"I{bits}": f"int{bits}" for bits in (64, 32, 16, 8)},
    **{"BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "U8": "uint8", "C64": "complex64"},
}


def format_of(dtype: Any) -> str:
    """Return the name of a number format, such as "float32"."""
    return str(dtype).removeprefix("torch.")


def read_formats(name_or_path: str, hub: HubOptions) -> dict[str, str]:
    """Return the number format of each tensor of a checkpoint, by name; empty if there are no weight files.

    Raises:
        ConversionError: a file that is damaged, or cannot be downloaded.
    """
    formats: dict[str, str] = {}
    with reported_as(f"{one_line(name_or_path)}: the weights cannot be loaded"):
        for file in find_weight_files(name_or_path, hub):
            if file.suffix == ".safetensors":
                formats |= {name: kind for name, kind, _ in read_safetensors_header(file)}
            else:
                formats |= formats_of_pickle(file)
    return formats


def find_weight_files(name_or_path: str, hub: HubOptions) -> list[Path]:
    """Return the files that transformers would load, in its order of preference."""
    for name in WEIGHT_FILES:
        file = hub.find_file(name_or_path, name)
        if file is None:
            continue
        if file.suffix != ".json":
            return [file]
        shards = sorted(set(json.loads(file.read_text(encoding="utf-8"))["weight_map"].values()))
        return [Path(shard) for shard in cached_files(name_or_path, shards, **hub.for_files()) or ()]
    return []


def read_safetensors_header(file: Path) -> Iterator[tuple[str, str, torch.Size]]:
    """Yield name, number format and shape of each tensor; the numbers are not read."""
    with safe_open(file, framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 (it is not a dictionary)
            tensor = tensors.get_slice(name)
            kind = tensor.get_dtype()
            yield name, FORMATS.get(kind, kind.lower()), torch.Size(tensor.get_shape())


def formats_of_pickle(file: Path) -> dict[str, str]:
    """Return name and number format of each tensor; no code is run, and on "meta" no numbers are kept."""
    found = torch.load(file, map_location="meta", weights_only=True, mmap=zipfile.is_zipfile(file))
    return {name: format_of(tensor.dtype) for name, tensor in found.items() if isinstance(tensor, Tensor)}


def read_tensor(name_or_path: str, hub: HubOptions, ending: str) -> Tensor | None:
    """Return the one tensor of a checkpoint whose name has this ending, None if there is none; no code is run.

    Raises:
        ConversionError: a file that is damaged, or cannot be downloaded.
    """
    with reported_as(f"{one_line(name_or_path)}: the weights cannot be loaded"):
        for file in find_weight_files(name_or_path, hub):
            if file.suffix == ".safetensors":
                with safe_open(file, framework="pt") as tensors:
                    found = [tensors.get_tensor(name) for name in tensors.keys() if name.endswith(ending)]  # noqa: SIM118
            else:
                pickled = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
                found = [tensor for name, tensor in pickled.items() if name.endswith(ending)]
            if found:
                return found[0]
    return None


def check_config_format(config_dict: dict[str, Any], where: str) -> None:
    """Raise ConversionError if a config says that the weights are quantized, or of a number format not allowed."""
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
    """Return the number format in a config, by the field's new or old name; None if there is none."""
    given = config_dict.get("dtype", config_dict.get("torch_dtype"))
    return format_of(given) if isinstance(given, str | torch.dtype) else given


def weights_of(model: PreTrainedModel, formats: dict[str, str]) -> dict[str, str]:
    """Return those of a checkpoint's tensors that are real numbers in the model.

    A checkpoint may have the base model's prefix where the model has none, and the reverse; old ones call the weights
    of a LayerNorm gamma and beta.
    """
    prefix = f"{model.base_model_prefix}."

    def normalize(name: str) -> str:
        for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
            name = name.replace(old, new)
        return name.removeprefix(prefix)

    own = {normalize(name) for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    return {name: kind for name, kind in formats.items() if normalize(name) in own}


def check_formats(formats: dict[str, str], where: str) -> None:
    """Raise ConversionError, naming a tensor, unless all weights are real numbers."""
    wrong = sorted(name for name, kind in formats.items() if kind not in ALLOWED)
    if wrong:
        others = f", and {len(wrong) - 1} more are none of these either" if len(wrong) > 1 else ""
        raise ConversionError(
            f"{one_line(where)}: {one_line(wrong[0])} is {formats[wrong[0]]}, "
            f"a weight has to be one of {', '.join(ALLOWED)}{others}"
        )


def warn_of_format(formats: Iterable[str], in_config: Any, output: torch.dtype | None, where: str) -> None:
    """Warn if the output's number format is not that of all weights, or not the one in the config."""
    found, made = set(formats), format_of(output)
    if found - {made} or (in_config is not None and in_config != made):
        says = "the config has no dtype" if in_config is None else f"the config's dtype says {in_config}"
        logger.warning(
            f"{one_line(where)}: the weights are {' and '.join(sorted(found))}, {says}: the output is in {made}"
        )


def check_weights_in_memory(model: PreTrainedModel) -> None:
    """Raise ConversionError unless a model's weights are real numbers; warn as `warn_of_format`."""
    fields, where = model.config.to_dict(), "the model"
    check_config_format(fields, where)
    weights = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith(BUFFERS)}
    absent = [name for name, tensor in weights.items() if tensor.is_meta]
    if absent:
        raise ConversionError(f"{where}: {absent[0]} is on the device 'meta' (offloaded); load all of it into memory")
    formats = {name: format_of(tensor.dtype) for name, tensor in weights.items()}
    check_formats(formats, where)
    warn_of_format(formats.values(), config_format(fields), model.dtype, where)


def check_finite(model: PreTrainedModel, where: str) -> None:
    """Raise ConversionError, naming a tensor, if a weight is NaN or infinite."""
    weights: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in model.state_dict().items():
        weights.setdefault(tensor.data_ptr(), (name, tensor))  # tied ones once
    counts = [(name, tensor, count_not_finite(tensor)) for name, tensor in weights.values()]
    wrong = [found for found in counts if found[-1]]
    if wrong:
        name, tensor, count = wrong[0]
        others = f", the first of {len(wrong)} such tensors," if len(wrong) > 1 else ""
        raise ConversionError(
            f"{one_line(where)}: {count} of the {tensor.numel()} numbers of {one_line(name)}{others} are NaN or "
            f"infinite in {format_of(tensor.dtype)}; repair them, or convert them as they are with allow_nan"
        )


def count_not_finite(tensor: Tensor) -> int:
    """Return how many numbers of a tensor are NaN or infinite; computed in pieces, to need little memory."""
    if not tensor.is_floating_point():
        return 0
    return sum(int((~piece.isfinite()).sum()) for piece in tensor.reshape(-1).split(NUMBERS_AT_ONCE))
