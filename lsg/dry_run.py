"""--dry_run: what a conversion would write, told from config.json and the heads of the weight files alone."""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi
from safetensors import safe_open
from transformers import PreTrainedConfig, PreTrainedModel

from .converter import LSGConverter, check_length
from .embedding_tables import find_tables
from .errors import ConversionError, one_line
from .loading import choose_class, load_tokenizer, make_config, quiet, read_config
from .model_types import find_model_type, is_lsg_config
from .output.files import LIST
from .output.folder import Output
from .text import read_json

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# by the names that weight files use; what is not here is no format that a conversion writes
FORMATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}  # all others have 1


def describe(args: argparse.Namespace, converter: LSGConverter, output: Output, hub: dict[str, Any]) -> str:
    """Return what the conversion would make and write; nothing is written, and no weights are loaded.

    Args:
        args: of the command line.
        converter: made of them.
        output: as `check_output` gives it.
        hub: `token` and `revision` of the original.

    Raises:
        ConversionError: the conversion would be refused.
    """
    source, length = args.initial_model, args.max_sequence_length
    config_dict = read_config(source, hub)
    converter.check_globals(config_dict, source)
    check_length(length, source, config_dict, args.model_kwargs)
    model_type = find_model_type(config_dict, source)
    model_class = choose_class(model_type, args.architecture, config_dict.get("architectures"))
    config = make_config(model_type, config_dict, args.model_kwargs)
    load_tokenizer(source, hub, args.trust_remote_code)
    start = model_type.position_offset(config)
    config.max_position_embeddings = length + (start if model_type.max_positions_includes_offset else 0)
    config.architectures = [model_class.__name__]
    counts, why = count_numbers(source, hub)
    dtype = choose_dtype(args.dtype, config, counts)
    config.dtype = dtype
    model = make_shell(model_class, config)
    lines = [
        f"Would make {model_class.__name__}, {model.num_parameters() / 1e6:,.1f} million parameters, "
        f"{length:,} tokens, in {output.folder}; nothing was written",
        *describe_place(output),
        describe_weights(model, dtype, counts, why, is_lsg_config(config_dict)),
        f"Files: config.json, {WEIGHTS} (several if it is above 5 GB), {model_class.__module__.split('.')[-1]}.py and "
        f"the lsg_*.py files that it needs, those of the tokenizer, README.md, {LIST}",
        *(["Its self test would be run"] if args.run_test else []),
        *([f"It would be pushed to {args.push_to_hub}"] if args.push_to_hub else []),
        f"config.json: {config.to_json_string().strip()}",
    ]
    return "\n".join(lines) + "\n"


def describe_place(output: Output) -> list[str]:
    """Return what would become of what stands at an output."""
    if output.before is None:
        return []
    kept = [f"{name} as {name}.old" for name in output.before.edited] + output.before.kept
    return [f"Would replace what stands there; kept: {', '.join(kept) or 'nothing, as nothing was edited'}"]


def describe_weights(model: PreTrainedModel, dtype: torch.dtype, counts: Counter, why: str, is_lsg: bool) -> str:
    """Return the sizes of the weights, and what positions and globals have to do with them."""
    size = dtype.itemsize
    tables = find_tables(model)
    positions = sum(module.weight.numel() for module in tables.positions)
    globals_ = 0 if tables.globals_ is None else tables.globals_.weight.numel()
    before = sum(BYTES.get(name, 1) * count for name, count in counts.items())
    original = f"{before:,} bytes" if counts else f"not known ({why})"
    return (
        f"Weights: {count_bytes(model, size):,} bytes in {str(dtype).removeprefix('torch.')}, of them positions "
        f"{positions * size:,} and globals {globals_ * size:,} ({'from' if is_lsg else 'new to'} the checkpoint); "
        f"the checkpoint's weights: {original}"
    )


def count_bytes(model: PreTrainedModel, size: int) -> int:
    """Return the bytes of a model's weights, tied ones once, at `size` bytes for a number."""
    unique = {id(parameter): parameter.numel() for parameter in model.parameters()}
    persistent = model.state_dict(keep_vars=True)
    buffers = {
        id(x): x.numel() * (size if x.is_floating_point() else x.element_size())
        for x in persistent.values()
        if id(x) not in unique
    }
    return size * sum(unique.values()) + sum(buffers.values())


def make_shell(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> PreTrainedModel:
    """Return a model that has shapes, and no weights."""
    try:
        with torch.device("meta"), quiet():
            return model_class(config)
    except Exception as error:
        raise ConversionError(f"config: no model can be made of it: {one_line(error)}") from error


def choose_dtype(asked: str | None, config: PreTrainedConfig, counts: Counter) -> torch.dtype:
    """Return the format of the output: the one asked for, else that of config.json, else that of most weights."""
    if asked is not None:
        return getattr(torch, asked)
    if isinstance(config.dtype, torch.dtype):
        return config.dtype
    common = [FORMATS[name] for name, _ in counts.most_common() if name in FORMATS]
    return common[0] if common else torch.float32


def count_numbers(source: str, hub: dict[str, Any]) -> tuple[Counter, str]:
    """Count the numbers in a checkpoint's weight files, by format, from the heads of the files.

    Returns:
        The counts; or none, and why.
    """
    folder = Path(source)
    try:
        if not folder.exists():
            found = HfApi().get_safetensors_metadata(source, **hub)
            return Counter(found.parameter_count), ""
        files = [folder / WEIGHTS]
        if not files[0].exists():
            files = [folder / name for name in sorted(set(read_json(folder / INDEX)["weight_map"].values()))]
        counts: Counter = Counter()
        for file in files:
            counts += count_in_file(file)
        return counts, ""
    except FileNotFoundError:
        return Counter(), f"there is neither {WEIGHTS} nor {INDEX}"
    except Exception as error:  # noqa: BLE001 (whatever it is, the sizes of the output are known without)
        return Counter(), one_line(error)


def count_in_file(file: Path) -> Counter:
    """Count the numbers in one weight file, by format."""
    counts: Counter = Counter()
    with safe_open(file, framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 (it is no dictionary)
            piece = tensors.get_slice(name)
            counts[piece.get_dtype()] += torch.Size(piece.get_shape()).numel()
    return counts
