"""What stands in a checkpoint's weight files: names and number formats, without the numbers."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers.utils import cached_file
from transformers.utils.hub import cached_files

from .errors import ConversionError, one_line

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# as safetensors names them; what is not here keeps its name
FORMATS = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
}


def read_formats(name_or_path: str, hub: dict[str, Any]) -> dict[str, str]:
    """Return the number format of each tensor of a checkpoint, by name; nothing if there are no weight files.

    Args:
        name_or_path: folder, or name on the Hub.
        hub: `token`, `revision`, `subfolder`, ... as from_pretrained takes them.

    Raises:
        ConversionError: a file that is damaged, or cannot be had.
    """
    formats: dict[str, str] = {}
    try:
        for file in find_weight_files(name_or_path, hub):
            read: Callable[[Path], dict[str, str]] = formats_of_pickle
            if file.suffix == ".safetensors":
                read = formats_of_safetensors
            formats |= read(file)
    except Exception as error:  # safetensors and pickle raise classes of their own
        raise ConversionError(f"{name_or_path}: the weights cannot be loaded: {one_line(error)}") from error
    return formats


def find_weight_files(name_or_path: str, hub: dict[str, Any]) -> list[Path]:
    """Return the files that transformers would load, in its order of preference."""
    for name in WEIGHT_FILES:
        found = cached_file(name_or_path, name, _raise_exceptions_for_missing_entries=False, **hub)
        if found is None:
            continue
        if not name.endswith(".json"):
            return [Path(found)]
        index = json.loads(Path(found).read_text(encoding="utf-8"))
        shards = sorted(set(index["weight_map"].values()))
        return [Path(file) for file in cached_files(name_or_path, shards, **hub)]
    return []


def formats_of_safetensors(file: Path) -> dict[str, str]:
    """Return name and number format of each tensor; only the head of the file is read."""
    with safe_open(file, framework="pt") as tensors:
        kinds = {name: tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118 (no mapping)
    return {name: FORMATS.get(kind, kind.lower()) for name, kind in kinds.items()}


def formats_of_pickle(file: Path) -> dict[str, str]:
    """Return name and number format of each tensor; no code is run, and on "meta" no numbers are kept."""
    found = torch.load(file, map_location="meta", weights_only=True, mmap=zipfile.is_zipfile(file))
    return {name: format_of(tensor) for name, tensor in found.items() if isinstance(tensor, torch.Tensor)}


def format_of(tensor: torch.Tensor) -> str:
    """Return the name of a tensor's number format, such as "float32"."""
    return str(tensor.dtype).removeprefix("torch.")
