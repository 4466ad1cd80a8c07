"""From a folder or a name on the Hub to an LSG model, not yet extended, and its tokenizer. Nothing is executed."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from .errors import ConversionError, nearest, one_line
from .model_types import ModelType, find_model_type, is_lsg_config
from .text import read_json
from .weight_checks import ALLOWED, check_formats, config_format, tell_format, weights_of
from .weight_files import read_formats

logger = logging.get_logger(__name__)

# config.json's entries that conversion itself writes, so that a user cannot set them
OWN_FIELDS = {"max_position_embeddings", "model_type", "architectures", "auto_map", "base_model_prefix"}
TABLES = ("position_ids", "token_type_ids")  # integers, computed anyway
LOAD_ERRORS = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError, EOFError)


@dataclass
class Source:
    """A checkpoint, loaded into its LSG class: positions as they were, globals random unless it was LSG before.

    `newly_initialized` names the weights of a head that are not in the checkpoint, newly initialized.
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
    hub: dict[str, Any],
    model_kwargs: dict[str, Any],
) -> Source:
    """Load a checkpoint into the LSG class of its architecture.

    Args:
        name_or_path: folder, or name on the Hub.
        config_dict: its config.json, as `read_config` gives it.
        architecture: class name with or without "LSG"; None for that of config.json.
        hub: `token`, `revision`, `dtype`, `trust_remote_code`, ... as from_pretrained takes them.
        model_kwargs: fields of the config to change.

    Raises:
        ConversionError: anything that is missing, damaged or contradictory.
    """
    hub = dict(hub)
    dtype, trust_remote_code = hub.pop("dtype", None) or "auto", bool(hub.pop("trust_remote_code", False))
    model_type = find_model_type(config_dict, name_or_path)
    model_class = choose_class(model_type, architecture, config_dict.get("architectures"))
    config = make_config(model_type, config_dict, model_kwargs)
    tokenizer = load_tokenizer(name_or_path, hub, trust_remote_code)
    is_lsg = is_lsg_config(config_dict)
    formats = read_formats(name_or_path, hub)
    hub.pop("force_download", None)  # done
    renames = find_renames(model_class, formats)
    formats = {renames.get(name, name): kind for name, kind in formats.items()}
    check_formats_before(model_class, config, formats, name_or_path)
    model, info = load_model(name_or_path, model_class, config, {**hub, "dtype": dtype, "key_mapping": renames})
    if dtype == "auto":
        tell_format(weights_of(model, formats).values(), config_format(config_dict), model.dtype, name_or_path)
    check_unexpected(model, info["unexpected_keys"])
    missing = {name for name in info["missing_keys"] if not name.endswith(model_type.computed_weights)}
    newly_initialized = check_missing(name_or_path, model, missing, is_lsg)
    return Source(model, tokenizer, model_type, is_lsg, newly_initialized)


def read_config(name_or_path: str, hub: dict[str, Any]) -> dict[str, Any]:
    """Read config.json as it is, without running the checkpoint's code; arguments as `load_checkpoint`."""
    hub = {name: value for name, value in hub.items() if name not in ("dtype", "trust_remote_code")}
    path = Path(name_or_path) / hub.get("subfolder", "")
    if not Path(name_or_path).exists():
        if name_or_path.startswith((".", "/", "~")) or name_or_path.count("/") > 1:  # no name on the Hub
            raise ConversionError(f"{one_line(name_or_path)}: no such folder")
        try:
            return PreTrainedConfig.get_config_dict(name_or_path, **hub)[0]
        except LOAD_ERRORS as error:
            raise ConversionError(
                f"{one_line(name_or_path)}: no such folder, and not to be had from the Hugging Face Hub: "
                f"{one_line(error)}"
            ) from error
    if not path.is_dir():
        raise ConversionError(
            f"{one_line(name_or_path)}: a folder with config.json and weights is expected, this is a file"
        )
    file = path / "config.json"
    if not file.is_file():
        raise ConversionError(f"{one_line(name_or_path)}: there is no config.json in this folder")
    try:
        config_dict = read_json(file)
    except ValueError as error:  # also of text that is not UTF-8, or nested too deeply
        raise ConversionError(f"{one_line(file)}: not valid JSON: {one_line(error)}") from error
    if not isinstance(config_dict, dict):
        raise ConversionError(f"{one_line(file)}: a JSON object is expected, this is a {type(config_dict).__name__}")
    return config_dict


def choose_class(model_type: ModelType, architecture: str | None, in_config: Any) -> type[PreTrainedModel]:
    """Find the LSG class: the user's architecture, else config.json's first, else the type's usual one.

    A class in config.json that is not transformers' own (a ColBERT, a custom head) leaves the base model.
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
    """Build the LSG config, with the user's fields in place of the checkpoint's.

    Raises:
        ConversionError: an unknown field (the message names the nearest) or a value that is not allowed.
    """
    fields = {k: v for k, v in config_dict.items() if k not in {"auto_map", "architectures", "model_type"}}
    try:
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
        model_type.position_offset(config)  # raises an error where it cannot be told
        return config
    except ConversionError:
        raise
    except Exception as error:
        raise ConversionError(f"config: {one_line(error)}") from error


def load_tokenizer(name_or_path: str, hub: dict[str, Any], trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """Load the tokenizer; its own code, if it has any, only with trust_remote_code."""
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(name_or_path, trust_remote_code=trust_remote_code, **hub)
    except Exception as error:
        raise ConversionError(f"{one_line(name_or_path)}: no tokenizer could be loaded: {one_line(error)}") from error
    folder = Path(name_or_path) / hub.get("subfolder", "")
    files = {"tokenizer.json", *tokenizer.vocab_files_names.values()}
    if folder.is_dir() and not any((folder / file).is_file() for file in files):
        # transformers makes an empty tokenizer out of nothing
        raise ConversionError(
            f"{one_line(name_or_path)}: no tokenizer files; one of {', '.join(sorted(files))} is expected"
        )
    return tokenizer


def find_renames(model_class: type[PreTrainedModel], names: Iterable[str]) -> dict[str, str]:
    """Return what a decoder alone takes from a whole checkpoint under another name: its words, which both share."""
    wanted = f"{model_class.base_model_prefix}.decoder.embed_tokens.weight"
    found = [name for name in names if name in ("shared.weight", f"{model_class.base_model_prefix}.shared.weight")]
    has_words = any(wanted.endswith(name) for name in names)
    if not found or has_words or not model_class.__name__.endswith("ForCausalLM"):
        return {}
    return {found[0]: wanted}


def check_formats_before(
    model_class: type[PreTrainedModel], config: PreTrainedConfig, formats: dict[str, str], where: str
) -> None:
    """Raise ConversionError if a weight of the model is no real number in the checkpoint; loading would make it one."""
    if all(kind in ALLOWED or name.endswith(TABLES) for name, kind in formats.items()):
        return
    with torch.device("meta"):  # names and shapes, without the numbers
        model = model_class(config)
    check_formats(weights_of(model, formats), where)


def load_model(
    name_or_path: str, model_class: type[PreTrainedModel], config: PreTrainedConfig, options: dict[str, Any]
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Load the weights and see that they fit; give transformers' loading info. `options` are from_pretrained's."""
    try:
        with quiet():
            model, info = model_class.from_pretrained(
                name_or_path,
                config=config,
                weights_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # told below, in one line
                **options,
            )
    except Exception as error:
        raise ConversionError(f"{one_line(name_or_path)}: the weights cannot be loaded: {one_line(error)}") from error
    if info["mismatched_keys"]:
        name, found, expected = sorted(info["mismatched_keys"], key=str)[0]
        raise ConversionError(
            f"{one_line(name_or_path)}: weights and config.json disagree: {one_line(name)} has shape "
            f"{one_line(tuple(found))}, the config asks for {tuple(expected)}"
        )
    # saving would undo the renamings, ours among them, and transformers 5.0 to 5.4 legacy ones that were never needed
    vars(model).pop("_weight_conversions", None)
    return model.eval(), info


def check_unexpected(model: PreTrainedModel, unexpected: set[str]) -> None:
    """Tell the user of weights in the checkpoint that the model has no place for."""
    left_out = sorted(name for name in unexpected if is_reportable(name))
    if hasattr(model.base_model, "decoder") and not hasattr(model.base_model, "encoder"):  # a decoder alone
        without = [name for name in left_out if not name.removeprefix("model.").startswith("encoder.")]
        left_out = without if without == left_out else [*without, f"the encoder's {len(left_out) - len(without)}"]
    if left_out:
        logger.warning(f"not part of {type(model).__name__}, left out: {', '.join(left_out)}")


def check_missing(name_or_path: str, model: PreTrainedModel, missing: set[str], is_lsg: bool) -> list[str]:
    """Raise ConversionError if weights of the base model (poolers aside) are missing; give a head's that are."""
    prefix = "" if model.base_model is model else model.base_model_prefix + "."
    needed = {name for name in missing if name.startswith(prefix) and is_reportable(name)}
    if not is_lsg:
        needed = {name for name in needed if "global_embeddings" not in name}
    if needed:
        raise ConversionError(
            f"{one_line(name_or_path)}: {len(needed)} weights of {type(model).__name__} are missing, "
            f"{one_line(sorted(needed)[0])} among them"
        )
    fresh = sorted(name for name in missing if is_reportable(name) and "global_embeddings" not in name)
    if fresh:
        logger.warning(f"not in the checkpoint, newly initialized: {', '.join(fresh)}")
    return fresh


def is_reportable(name: str) -> bool:
    """Whether a weight's absence matters: not a pooler's, nor a table that is computed anyway."""
    return "pooler." not in name and not name.endswith(TABLES)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' own load reports back; what matters in them is told in our words."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
