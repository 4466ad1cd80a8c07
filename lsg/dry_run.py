"""--dry_run: describe what a conversion would write, from config.json and the headers of the weight files alone."""

import argparse
from collections import Counter
from pathlib import Path

import torch
from huggingface_hub import HfApi
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from .converter import LSGConverter, check_length
from .embedding_tables import find_tables
from .errors import one_line, reported_as
from .hub_options import HubOptions
from .loading import POSITION_TABLE, choose_class, load_tokenizer, make_converted_config, read_config
from .model_types import find_model_type, is_lsg_config
from .onnx_output import FILE as ONNX_FILE
from .output.contents import FILE_LIST
from .output.folder import Output
from .pinning import Original
from .quiet import quiet
from .saving import written_tensors
from .weights import ALLOWED, FORMATS, find_weight_files, format_of, read_safetensors_header, read_tensor

FOUND_LATER = "the conversion looks for it in the weights; it stays null if the positions do not repeat"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def describe(args: argparse.Namespace, converter: LSGConverter, output: Output, hub: HubOptions) -> str:
    """Return what the conversion would write, as text; nothing is written, and no weights are loaded.

    Args:
        args: of the command line.
        converter: with the options in them.
        output: from `check_output`.
        hub: how to load the original.

    Raises:
        ConversionError: the conversion would be refused.
    """
    source, length = args.initial_model, args.max_sequence_length
    config_dict = read_config(source, hub)
    converter.check_globals(config_dict, source)
    check_length(length, source, config_dict, args.model_kwargs)
    model_type = find_model_type(config_dict, source)
    model_class = choose_class(model_type, args.architecture, config_dict.get("architectures"))
    tokenizer = load_tokenizer(source, hub)
    original = Original(model_type, model_class, config_dict, tokenizer, lambda: read_positions(source, hub))
    config = make_converted_config(original, args.model_kwargs)
    config.max_position_embeddings = length + model_type.counted_offset(config)
    config.architectures = [model_class.__name__]
    counts, why = count_numbers(source, hub)
    config.dtype = dtype = choose_dtype(args.dtype, config, counts)
    model = make_empty_model(model_class, config)
    lines = [
        f"Would make {model_class.__name__}, {model.num_parameters() / 1e6:,.1f} million parameters, "
        f"{length:,} tokens, in {output.folder}; nothing was written",
        *describe_replaced(output),
        describe_weights(model, dtype, counts, why, is_lsg_config(config_dict)),
        f"Files: config.json, {WEIGHTS} (several if it is above 5 GB), {model_class.__module__.split('.')[-1]}.py and "
        f"the lsg_*.py files that it needs, those of the tokenizer, README.md, {FILE_LIST}"
        + (
            f", {ONNX_FILE} (in float32, as large as {4 * model.num_parameters():,} bytes of weights)"
            if args.onnx
            else ""
        ),
        *([f"position_period: {FOUND_LATER}"] if original.is_lsg and config.position_period is None else []),
        *(["The self test would be run"] if args.run_test else []),
        *([f"It would be pushed to {args.push_to_hub}"] if args.push_to_hub else []),
        f"config.json: {config.to_json_string().strip()}",
    ]
    return "\n".join(lines) + "\n"


def read_positions(source: str, hub: HubOptions) -> Tensor | None:
    """Return a local checkpoint's position table; of one on the Hub no weights are downloaded for a dry run."""
    return read_tensor(source, hub, POSITION_TABLE) if Path(source).exists() else None


def describe_replaced(output: Output) -> list[str]:
    """Return what would be replaced, and which files would be kept."""
    if output.before is None:
        return []
    kept = [f"{name} as {name}.old" for name in output.before.edited] + output.before.kept
    return [f"Would replace an earlier conversion; kept: {', '.join(kept) or 'nothing, as nothing was edited'}"]


def describe_weights(model: PreTrainedModel, dtype: torch.dtype, counts: Counter, why: str, is_lsg: bool) -> str:
    """Return the size of the weights, of positions and globals among them, and of the checkpoint's weights."""
    size = dtype.itemsize
    tables = find_tables(model)
    written = {id(x) for x in written_tensors(model).values()}  # computed tables are not, M2M100's and Marian's
    tensors = [module.weight for module in tables.positions if hasattr(module, "weight")]
    positions = sum(x.numel() for x in tensors if id(x) in written)
    globals_ = 0 if tables.globals_ is None else tables.globals_.weight.numel()
    before = sum(getattr(torch, kind, torch.uint8).itemsize * count for kind, count in counts.items())
    original = f"{before:,} bytes" if counts else f"not known ({why})"
    return (
        f"Weights: {count_bytes(model, size):,} bytes in {format_of(dtype)}, of them positions "
        f"{positions * size:,} and globals {globals_ * size:,} ({'from' if is_lsg else 'new to'} the checkpoint); "
        f"the checkpoint's weights: {original}"
    )


def count_bytes(model: PreTrainedModel, size: int) -> int:
    """Return the bytes of a model's weights, tied ones once, with `size` bytes per number."""
    unique = {id(x): x for x in written_tensors(model).values()}.values()
    return sum(x.numel() * (size if x.is_floating_point() else x.element_size()) for x in unique)


def make_empty_model(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> PreTrainedModel:
    """Return a model with shapes, but without numbers."""
    with reported_as("config: no model can be built from it"), torch.device("meta"), quiet():
        model = model_class(config)
        model.tie_weights()  # transformers 5.0 leaves them untied on this device, and would count them twice
    return model


def choose_dtype(requested: str | None, config: PreTrainedConfig, counts: Counter) -> torch.dtype:
    """Return the output's number format: the requested one, else that of config.json, else that of most weights."""
    if requested is not None:
        return getattr(torch, requested)
    if isinstance(config.dtype, torch.dtype):
        return config.dtype
    return getattr(torch, next((kind for kind, _ in counts.most_common() if kind in ALLOWED), "float32"))


def count_numbers(source: str, hub: HubOptions) -> tuple[Counter, str]:
    """Count the numbers in a checkpoint's safetensors files, by format, from the headers of the files.

    Returns:
        The counts; or none, and why.
    """
    counts: Counter = Counter()
    try:
        if not Path(source).exists():
            found = HfApi().get_safetensors_metadata(source, **hub.for_files())
            return Counter({FORMATS.get(kind, kind.lower()): n for kind, n in found.parameter_count.items()}), ""
        files = [file for file in find_weight_files(source, hub) if file.suffix == ".safetensors"]
        for file in files:
            for _, kind, shape in read_safetensors_header(file):
                counts[kind] += shape.numel()
        return counts, "" if files else f"there is neither {WEIGHTS} nor {INDEX}"
    except Exception as error:  # noqa: BLE001 (the sizes of the output are known without)
        return Counter(), one_line(error)
