"""Load a checkpoint into its LSG class, not yet extended, with its tokenizer. The checkpoint's own code is not run."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from .copying import copy_into
from .errors import ConversionError, nearest, one_line, read_json_object, reported_as
from .hub_options import HubOptions
from .model_types import ModelType, find_model_type, is_lsg_config
from .pinning import PIN_FIELD, Original, add_pinning
from .quiet import quiet
from .weights import (
    ALLOWED,
    BUFFERS,
    check_formats,
    config_format,
    read_formats,
    read_tensor,
    warn_of_format,
    weights_of,
)

logger = logging.get_logger(__name__)

# fields of config.json that conversion itself sets, so that a user cannot
OWN_FIELDS = {"max_position_embeddings", "model_type", "architectures", "auto_map", "base_model_prefix"}
POSITION_TABLE = "embeddings.position_embeddings.weight"  # of encoder types
LOAD_ERRORS = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError, EOFError)


@dataclass
class LoadedCheckpoint:
    """A checkpoint in its LSG class, with its original positions; its globals are random unless it was LSG before.

    Args:
        newly_initialized: names of a head's weights that are not in the checkpoint.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    model_type: ModelType
    is_lsg: bool
    newly_initialized: list[str]


def load_checkpoint(
    name_or_path: str,
    config_dict: dict[str, Any],
    architecture: str | None,
    hub: HubOptions,
    model_kwargs: dict[str, Any],
) -> LoadedCheckpoint:
    """Load a checkpoint into the LSG class of its architecture.

    Args:
        name_or_path: folder, or name on the Hub.
        config_dict: its config.json, from `read_config`.
        architecture: class name with or without "LSG"; None for that of config.json.
        hub: how to load it.
        model_kwargs: fields of the config to change.

    Raises:
        ConversionError: anything that is missing, damaged or contradictory.
    """
    model_type = find_model_type(config_dict, name_or_path)
    model_class = choose_class(model_type, architecture, config_dict.get("architectures"))
    tokenizer = load_tokenizer(name_or_path, hub)
    original = Original(
        model_type, model_class, config_dict, tokenizer, lambda: read_tensor(name_or_path, hub, POSITION_TABLE)
    )
    config = make_converted_config(original, model_kwargs)
    is_lsg = is_lsg_config(config_dict)
    formats = read_formats(name_or_path, hub)
    renames = find_renames(model_class, formats)
    formats = {renames.get(name, name): kind for name, kind in formats.items()}
    check_file_formats(model_class, config, formats, name_or_path)
    load = load_renamed if model_type.renames_weights and not is_lsg else load_model
    model, info = load(name_or_path, model_class, config, {**hub.for_model(), "key_mapping": renames})
    if hub.dtype in (None, "auto"):
        own = formats if load is load_renamed else weights_of(model, formats)
        warn_of_format(own.values(), config_format(config_dict), model.dtype, name_or_path)
    warn_of_unexpected(model, info["unexpected_keys"])
    missing = {name for name in info["missing_keys"] if not name.endswith(model_type.computed_weights)}
    newly_initialized = check_missing(name_or_path, model, missing, is_lsg)
    return LoadedCheckpoint(model, tokenizer, model_type, is_lsg, newly_initialized)


def read_config(name_or_path: str, hub: HubOptions | None = None) -> dict[str, Any]:
    """Return config.json as it is, without running the checkpoint's code; arguments as `load_checkpoint`.

    Raises:
        ConversionError: it is missing or damaged.
    """
    where, hub = one_line(name_or_path), hub or HubOptions()
    if not Path(name_or_path).exists():
        if name_or_path.startswith((".", "/", "~")) or name_or_path.count("/") > 1:  # cannot be a name on the Hub
            raise ConversionError(f"{where}: no such folder")
        with reported_as(f"{where}: no such folder, and not available from the Hugging Face Hub", LOAD_ERRORS):
            config_dict = PreTrainedConfig.get_config_dict(name_or_path, **hub.for_files())[0]
        return config_dict
    folder = hub.folder(name_or_path)
    if not folder.is_dir():
        raise ConversionError(f"{where}: a folder with config.json and weights is expected, this is a file")
    file = folder / "config.json"
    if not file.is_file():
        raise ConversionError(f"{where}: there is no config.json in this folder")
    return read_json_object(file)


def choose_class(model_type: ModelType, architecture: str | None, in_config: Any) -> type[PreTrainedModel]:
    """Return the LSG class: of the user's architecture, else of config.json's first, else of the type's default.

    If config.json names a class that is not transformers' own (a ColBERT, a custom head), it is that of the base model.
    """
    if architecture is not None:
        return model_type.model_class(architecture)
    if not in_config:
        return model_type.model_class(model_type.default_architecture)
    if not isinstance(in_config, list) or not isinstance(in_config[0], str):
        raise ConversionError(
            f"config.json: architectures={one_line(repr(in_config))}, a list of class names is expected"
        )
    if in_config[0].removeprefix("LSG") in model_type.architectures:
        return model_type.model_class(in_config[0])
    base = model_type.auto_classes["AutoModel"]
    logger.warning(f"{in_config[0]} is not one of transformers' own classes for {model_type.name}: converting its base")
    return base


def make_config(model_type: ModelType, config_dict: dict[str, Any], model_kwargs: dict[str, Any]) -> PreTrainedConfig:
    """Return the LSG config, in which the user's fields replace those of the checkpoint.

    Raises:
        ConversionError: an unknown field (the message names the nearest) or a value that is not allowed.
    """
    fields = {k: v for k, v in config_dict.items() if k not in {"auto_map", "architectures", "model_type"}}
    with reported_as("config"):
        own = {"lsg_num_pre_rounds", "num_labels", *model_type.config_class().to_dict()} - OWN_FIELDS
        known = {*own, *fields} - OWN_FIELDS
        for name in model_kwargs:
            if name not in known:
                raise ConversionError(
                    f"model_kwargs: unknown field {one_line(repr(name))}; {nearest(name, known, own)}"
                )
        if "num_labels" in model_kwargs:
            fields = {k: v for k, v in fields.items() if k not in {"id2label", "label2id"}}
        config = model_type.config_class(**{**fields, **model_kwargs})
        model_type.position_offset(config)  # raises an error if the config lacks what it depends on
    return config


def make_converted_config(original: Original, model_kwargs: dict[str, Any]) -> PreTrainedConfig:
    """Return the LSG config with the fields of pinned tokens that conversion adds; see `make_config`, `add_pinning`."""
    model_type, config_dict = original.model_type, original.config_dict
    unpinned = make_config(model_type, config_dict, {**model_kwargs, PIN_FIELD: False})
    return make_config(model_type, config_dict, add_pinning(original, unpinned, model_kwargs))


def load_tokenizer(name_or_path: str, hub: HubOptions) -> PreTrainedTokenizerBase:
    """Load the tokenizer; arguments and errors as `load_checkpoint`."""
    where = one_line(name_or_path)
    with reported_as(f"{where}: no tokenizer could be loaded"), quiet():
        tokenizer = AutoTokenizer.from_pretrained(name_or_path, **hub.for_tokenizer())
    folder = hub.folder(name_or_path)
    files = {"tokenizer.json", *tokenizer.vocab_files_names.values()}
    if folder.is_dir() and not any((folder / file).is_file() for file in files):
        # transformers makes an empty tokenizer then
        raise ConversionError(f"{where}: no tokenizer files; one of {', '.join(sorted(files))} is expected")
    return tokenizer


def find_renames(model_class: type[PreTrainedModel], names: Iterable[str]) -> dict[str, str]:
    """Return old to new name of a decoder's word embeddings, which an encoder-decoder's checkpoint calls "shared"."""
    wanted = f"{model_class.base_model_prefix}.decoder.embed_tokens.weight"
    found = [name for name in names if name in ("shared.weight", f"{model_class.base_model_prefix}.shared.weight")]
    has_words = any(wanted.endswith(name) for name in names)
    if not found or has_words or not model_class.__name__.endswith("ForCausalLM"):
        return {}
    return {found[0]: wanted}


def check_file_formats(
    model_class: type[PreTrainedModel], config: PreTrainedConfig, formats: dict[str, str], where: str
) -> None:
    """Raise ConversionError if a checkpoint's weight is not a real number; loading it would turn it into one."""
    if all(kind in ALLOWED or name.endswith(BUFFERS) for name, kind in formats.items()):
        return
    with torch.device("meta"):  # names and shapes, without the numbers
        model = model_class(config)
    check_formats(weights_of(model, formats), where)


def load_model(
    name_or_path: str, model_class: type[PreTrainedModel], config: PreTrainedConfig, options: dict[str, Any]
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Load the weights; return the model and transformers' loading info. `options` are from_pretrained's.

    Raises:
        ConversionError: they are missing or damaged, or their shapes are not those of the config.
    """
    where = one_line(name_or_path)
    with reported_as(f"{where}: the weights cannot be loaded"), quiet():
        loaded: Any = model_class.from_pretrained(
            name_or_path,
            config=config,
            weights_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, in one line
            **options,
        )
    model, info = loaded
    if info["mismatched_keys"]:
        name, found, expected = sorted(info["mismatched_keys"], key=str)[0]
        raise ConversionError(
            f"{where}: weights and config.json disagree: {one_line(name)} has shape "
            f"{one_line(tuple(found))}, the config asks for {tuple(expected)}"
        )
    return model.eval(), info


def load_renamed(
    name_or_path: str, model_class: type[PreTrainedModel], config: Any, options: dict[str, Any]
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Return what `load_model` does, of a checkpoint whose weights transformers renames for its own class only.

    That class is loaded first, and its weights are copied.
    """
    dense_class = getattr(transformers, model_class.__name__.removeprefix("LSG"))
    ours = {*config.lsg_defaults, "auto_map", "base_model_prefix"}
    fields = {name: value for name, value in config.to_dict().items() if name not in ours}
    dense, info = load_model(name_or_path, dense_class, dense_class.config_class(**fields), options)
    return copy_into(model_class, config, dense, is_lsg=False), info


def warn_of_unexpected(model: PreTrainedModel, unexpected: set[str]) -> None:
    """Warn of weights in the checkpoint that the model does not have."""
    left_out = sorted(name for name in unexpected if is_reportable(name))
    if hasattr(model.base_model, "decoder") and not hasattr(model.base_model, "encoder"):  # a decoder alone
        without = [name for name in left_out if not name.removeprefix("model.").startswith("encoder.")]
        left_out = without if without == left_out else [*without, f"the encoder's {len(left_out) - len(without)}"]
    if left_out:
        logger.warning(f"not part of {type(model).__name__}, left out: {', '.join(left_out)}")


def check_missing(name_or_path: str, model: PreTrainedModel, missing: set[str], is_lsg: bool) -> list[str]:
    """Raise ConversionError if weights of the base model (except poolers) are missing; return those of a head."""
    prefix = "" if model.base_model is model else model.base_model_prefix + "."
    reportable = {name for name in missing if is_reportable(name)}
    without_globals = {name for name in reportable if "global_embeddings" not in name}
    needed = sorted(name for name in (reportable if is_lsg else without_globals) if name.startswith(prefix))
    if needed:
        raise ConversionError(
            f"{one_line(name_or_path)}: {len(needed)} weights of {type(model).__name__} are missing, "
            f"{one_line(needed[0])} among them"
        )
    newly_initialized = sorted(without_globals)
    if newly_initialized:
        logger.warning(f"not in the checkpoint, newly initialized: {', '.join(newly_initialized)}")
    return newly_initialized


def is_reportable(name: str) -> bool:
    """Return whether users need to know of a weight that is missing or left out: not of a pooler's, nor of a buffer."""
    return "pooler." not in name and not name.endswith(BUFFERS)
