"""Load models: an LSG folder, a plain checkpoint converted in memory, or a plain checkpoint as it is."""

import argparse
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.common.errors import InputError, check_range
from lsg.cli.arguments import parse_mapping
from lsg.errors import nearest, one_line

if TYPE_CHECKING:
    from peft import PeftMixedModel, PeftModel
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    AnyModel = PreTrainedModel | PeftModel | PeftMixedModel
    LoadedParts = tuple[PreTrainedModel, PreTrainedTokenizerBase, list[str]]  # with the names of random weights

SIZES = ("block_size", "sparse_block_size", "sparsity_factor", "num_global_tokens")
LSG_OPTIONS = (*SIZES, "sparsity_type", "mask_first_token")
TRAINED_HEADS = ("AutoModelForMaskedLM",)  # a random head would have to be trained from scratch
UNLIMITED = 10**9  # tokenizers without a maximum length have a larger one
MODEL_HELP = """LSG folder (needs --trust_remote_code), plain checkpoint, or the name of either on the Hub. A plain one
is converted with --convert; without, it is the baseline that reads only the beginning of a document"""
LENGTH_HELP = """tokens of a document, which is truncated to them; with --convert also the tokens that the model reads
(default: what the model reads; with --convert 4096)"""
KWARGS_HELP = """config fields to change when loading, such as '{"sparsity_type": "lsh"}'; they override the options
below"""


@dataclass
class Loaded:
    """A model with its tokenizer."""

    model: "AnyModel"
    tokenizer: "PreTrainedTokenizerBase"
    max_sequence_length: int  # tokens of a document, which is truncated to them
    max_positions: int  # tokens that the model has positions for


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose the model to fine-tune, and its attention."""
    add = parser.add_argument_group("model").add_argument
    add("--model", required=True, metavar="PATH", help=MODEL_HELP)
    add("--convert", action="store_true", help="convert the plain checkpoint in memory first")
    add("--trust_remote_code", action="store_true", help="run the code in the model's folder")
    add("--max_sequence_length", type=int, metavar="N", help=LENGTH_HELP)
    add("--model_kwargs", type=parse_mapping, default={}, metavar="JSON", help=KWARGS_HELP)
    add("--lora", action="store_true", help="train only low-rank adapters (PEFT) and the head")
    add("--lora_rank", type=int, default=16, metavar="N", help="rank of the adapters (16)")
    add = parser.add_argument_group("LSG attention", "For an LSG model, or with --convert; see README.md.").add_argument
    for name in SIZES:
        add(f"--{name}", type=int, metavar="N")
    add("--sparsity_type", metavar="TYPE")
    add("--mask_first_token", action="store_true", default=None)


def load_model(args: argparse.Namespace, auto_class: str, head_fields: dict[str, Any]) -> Loaded:
    """Load, or convert, the model for a task.

    Args:
        args: the options of `add_model_options`, and `preset_attention`: LSG fields, ignored for a plain model.
        auto_class: name of the AutoClass of the task's head.
        head_fields: config fields of the head: `num_labels` is set when loading, the others after that.

    Raises:
        InputError, ConversionError: with the reason in one line.
    """
    from lsg.loading import read_config
    from lsg.model_types import is_lsg_config

    config_dict = read_config(args.model)
    is_lsg = is_lsg_config(config_dict)
    check_combination(args, is_lsg)
    chosen = {name: getattr(args, name) for name in LSG_OPTIONS if getattr(args, name) is not None}
    attention = {**args.preset_attention, **chosen} if is_lsg or args.convert else {}
    size = {name: value for name, value in head_fields.items() if name == "num_labels"}
    load = convert_plain if args.convert else load_unchanged
    model, tokenizer, missing = load(args, auto_class, config_dict, {**size, **attention, **args.model_kwargs})
    if auto_class in TRAINED_HEADS:
        check_complete(args.model, model, missing)
    for name, value in head_fields.items():
        setattr(model.config, name, value)
    readable = tokens_read(model.config, tokenizer)
    length = args.max_sequence_length or min(4096 if args.convert else readable, readable)
    if length > readable:
        hint = "take less, or convert to more" if is_lsg else "take less, as the truncated baseline, or pass --convert"
        raise InputError(f"--max_sequence_length: {length} asked for, but {args.model} reads {readable} tokens; {hint}")
    return Loaded(add_lora(model, args.lora_rank) if args.lora else model, tokenizer, length, readable)


def check_combination(args: argparse.Namespace, is_lsg: bool) -> None:
    """Raise InputError if the options contradict the checkpoint."""
    if is_lsg and args.convert:
        raise InputError(f"--convert: {args.model} is an LSG checkpoint already; leave the option out")
    if is_lsg and not args.trust_remote_code:
        raise InputError(f"{args.model} is an LSG checkpoint, whose folder holds its code: pass --trust_remote_code")
    if not is_lsg and not args.convert:
        given = [name for name in LSG_OPTIONS if getattr(args, name) is not None]
        if given:
            raise InputError(f"--{given[0]}: {args.model} is a plain checkpoint; pass --convert, too")
    check_range(args, "max_sequence_length", "lora_rank", minimum=1)


def convert_plain(
    args: argparse.Namespace, auto_class: str, config_dict: dict[str, Any], fields: dict[str, Any]
) -> "LoadedParts":
    """Convert a plain checkpoint in memory, with the head of the task; a head that it lacks is random."""
    from lsg.converter import LSGConverter
    from lsg.hub_options import HubOptions
    from lsg.loading import make_config
    from lsg.model_types import find_model_type

    model_type = find_model_type(config_dict, args.model)
    if auto_class not in model_type.auto_classes:
        known = ", ".join(sorted(model_type.auto_classes))
        raise InputError(f"{args.model}: model type {model_type.name} has no {auto_class}, it has {known}")
    # conversion never shortens what a model reads; documents may be shorter
    length = max(tokens_read(make_config(model_type, config_dict, {})), args.max_sequence_length or 4096)
    # the weights are trained in float32; --bf16 computes in bfloat16 with them
    options = HubOptions(dtype="float32", trust_remote_code=args.trust_remote_code)
    architecture = model_type.auto_classes[auto_class].__name__
    converted = LSGConverter(length).load_and_convert(args.model, architecture, options, fields)
    return converted.model, converted.tokenizer, converted.newly_initialized


def load_unchanged(
    args: argparse.Namespace, auto_class: str, config_dict: dict[str, Any], fields: dict[str, Any]
) -> "LoadedParts":
    """Load an LSG folder or a plain checkpoint through its AutoClass."""
    import transformers

    trust = {"trust_remote_code": args.trust_remote_code}
    with load_errors(args.model):
        known = transformers.AutoConfig.from_pretrained(args.model, **trust).to_dict()
        unknown = next((name for name in fields if name not in known and name != "num_labels"), None)
        if unknown:
            hint = "pass --convert for LSG fields" if unknown in LSG_OPTIONS else nearest(unknown, known)
            raise InputError(f"--model_kwargs: {args.model} has no config field {unknown!r}; {hint}")
        config = transformers.AutoConfig.from_pretrained(args.model, **trust, **fields)
        model_class = getattr(transformers, auto_class)
        options = {"config": config, "dtype": "float32", "output_loading_info": True, **trust}
        model, info = model_class.from_pretrained(args.model, **options)
        return model, transformers.AutoTokenizer.from_pretrained(args.model, **trust), sorted(info["missing_keys"])


@contextlib.contextmanager
def load_errors(where: str) -> Iterator[None]:
    """Raise InputError for whatever transformers raises in the block, and hide its load report."""
    from lsg.loading import LOAD_ERRORS
    from lsg.quiet import quiet

    try:
        with quiet():
            yield
    except InputError:
        raise
    except LOAD_ERRORS as error:
        raise InputError(f"{where}: it cannot be loaded: {one_line(error)}") from error


def load_encoder(name_or_path: str, auto_class: Any) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Load a plain encoder in float32, and its tokenizer.

    Raises:
        ConversionError: no checkpoint, or one of a type that cannot be converted.
        InputError: an LSG checkpoint, an encoder-decoder, one that lacks this class's head, or a damaged one.
    """
    import torch
    from transformers import AutoTokenizer

    from lsg.loading import read_config
    from lsg.model_types import find_model_type, is_lsg_config

    where = f"--checkpoint {name_or_path}"
    fields = read_config(name_or_path)
    find_model_type(fields, where)
    if is_lsg_config(fields) or fields.get("is_encoder_decoder"):
        kind = "an LSG checkpoint" if is_lsg_config(fields) else "an encoder-decoder"
        raise InputError(f"{where}: a plain encoder is expected, this is {kind}")
    with load_errors(where):
        model, info = auto_class.from_pretrained(name_or_path, dtype=torch.float32, output_loading_info=True)
        tokenizer = AutoTokenizer.from_pretrained(name_or_path)
    missing = sorted(name for name in info["missing_keys"] if "pooler" not in name)
    check_complete(where, model, missing)
    return model.eval(), tokenizer


def check_complete(where: str, model: "PreTrainedModel", missing: list[str]) -> None:
    """Raise InputError if a checkpoint lacks weights of its model, which would be random."""
    if missing:
        raise InputError(f"{where}: not a checkpoint for {type(model).__name__}, as it lacks {missing[0]}")


def tokens_read(config: "PreTrainedConfig", tokenizer: "PreTrainedTokenizerBase | None" = None) -> int:
    """Return the number of tokens that a model has positions for; the tokenizer's limit for other model types."""
    from lsg.model_types import MODEL_TYPES

    positions = getattr(config, "max_position_embeddings", None)
    model_type = MODEL_TYPES.get(config.model_type)
    if positions and model_type:
        return model_type.tokens_read(config)
    limits = (positions, getattr(tokenizer, "model_max_length", None))
    return min((limit for limit in limits if limit and limit < UNLIMITED), default=UNLIMITED)


def add_lora(model: "PreTrainedModel", rank: int) -> "AnyModel":
    """Add a low-rank adapter to every linear layer of the encoder (and decoder); a classification head is trained."""
    from peft import LoraConfig, get_peft_model
    from torch.nn import Linear

    base = model.base_model
    base_name = next(name for name, child in model.named_children() if child is base)
    layers = [f"{base_name}.{name}" for name, layer in base.named_modules() if isinstance(layer, Linear)]
    heads = [name for name, child in model.named_children() if child is not base and list(child.parameters())]
    # a head that predicts tokens ends in the word embedding, which is not trained
    modules_to_save = None if model.get_output_embeddings() is not None else heads
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=layers, modules_to_save=modules_to_save
    )
    return get_peft_model(model, config)
