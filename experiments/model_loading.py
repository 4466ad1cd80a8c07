"""The model of a fine-tuning run: an LSG folder, a plain checkpoint converted in memory, or a plain one as it is."""

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convert_checkpoint import parse_mapping
from experiments.input_error import InputError
from lsg.errors import nearest, one_line

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

LSG_OPTIONS = (
    "block_size",
    "sparse_block_size",
    "sparsity_factor",
    "sparsity_type",
    "num_global_tokens",
    "mask_first_token",
)
UNLIMITED = 10**9  # tokenizers without a length say more than this


@dataclass
class Loaded:
    """A model with its tokenizer, and how many tokens of a document it is given."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    max_sequence_length: int


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which model is fine-tuned, and with which attention."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        required=True,
        metavar="PATH",
        help="""LSG folder (needs --trust_remote_code), or plain checkpoint, or the name of either on the Hub. A plain
        one is converted with --convert; without, it is the baseline that reads the beginning of a document only""",
    )
    group.add_argument("--convert", action="store_true", help="convert the plain checkpoint in memory first")
    group.add_argument("--trust_remote_code", action="store_true", help="run the code in the model's folder")
    group.add_argument(
        "--max_sequence_length",
        type=int,
        metavar="N",
        help="""tokens of a document, which is cut off there, and with --convert also those that the model is made to
        read (default: what the model reads; with --convert 4096)""",
    )
    group.add_argument(
        "--model_kwargs",
        type=parse_mapping,
        default={},
        metavar="JSON",
        help="""fields of the config to change when loading, such as '{"sparsity_type": "lsh"}'; they come before the
        options below""",
    )
    group.add_argument("--lora", action="store_true", help="train low-rank adapters (PEFT) and the head only")
    group.add_argument("--lora_rank", type=int, default=16, metavar="N", help="rank of the adapters (16)")
    attention = parser.add_argument_group("LSG attention", "Of an LSG model or with --convert; see README.md.")
    for name in LSG_OPTIONS[:3]:
        attention.add_argument(f"--{name}", type=int, metavar="N")
    attention.add_argument("--sparsity_type", metavar="TYPE")
    attention.add_argument("--num_global_tokens", type=int, metavar="N")
    attention.add_argument("--mask_first_token", action="store_true", default=None)


def load_model(args: argparse.Namespace, auto_class: str, head_fields: dict[str, Any]) -> Loaded:
    """Load, or convert, the model for a task.

    Args:
        args: with the options of `add_model_options`, and `preset_attention`, the LSG fields of a preset, which only
            an LSG model takes.
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
    fields = {**size, **attention, **args.model_kwargs}
    if args.convert:
        model, tokenizer = convert(args, auto_class, config_dict, fields)
    else:
        model, tokenizer = load_as_it_is(args, auto_class, fields)
    for name, value in head_fields.items():
        setattr(model.config, name, value)
    readable = tokens_read(model.config, tokenizer)
    length = args.max_sequence_length or min(4096 if args.convert else readable, readable)
    if length > readable:
        hint = "take less, or convert to more" if is_lsg else "take less, as the truncated baseline, or pass --convert"
        raise InputError(f"--max_sequence_length: {length} asked for, but {args.model} reads {readable} tokens; {hint}")
    return Loaded(add_lora(model, args.lora_rank) if args.lora else model, tokenizer, length)


def check_combination(args: argparse.Namespace, is_lsg: bool) -> None:
    """Raise InputError if the options do not go with the checkpoint."""
    if is_lsg and args.convert:
        raise InputError(f"--convert: {args.model} is an LSG checkpoint already; leave the option out")
    if is_lsg and not args.trust_remote_code:
        raise InputError(f"{args.model} is an LSG checkpoint, whose folder holds its code: pass --trust_remote_code")
    if not is_lsg and not args.convert:
        given = [name for name in LSG_OPTIONS if getattr(args, name) is not None]
        if given:
            raise InputError(f"--{given[0]}: {args.model} is a plain checkpoint; pass --convert, too")
    for name in ("max_sequence_length", "lora_rank"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise InputError(f"--{name}: 1 or more is expected, got {getattr(args, name)}")


def convert(
    args: argparse.Namespace, auto_class: str, config_dict: dict[str, Any], fields: dict[str, Any]
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Convert a plain checkpoint in memory, to the class of the task; a head that it lacks is drawn at random."""
    from lsg.converter import LSGConverter
    from lsg.hub_options import HubOptions
    from lsg.loading import load_tokenizer, make_config
    from lsg.model_types import find_model_type

    model_type = find_model_type(config_dict, args.model)
    if auto_class not in model_type.auto_classes:
        known = ", ".join(sorted(model_type.auto_classes))
        raise InputError(f"{args.model}: model type {model_type.name} has no {auto_class}, it has {known}")
    trust = {"trust_remote_code": args.trust_remote_code}
    tokenizer = load_tokenizer(args.model, HubOptions(**trust))
    before = tokens_read(make_config(model_type, config_dict, {}), tokenizer)
    length = max(before, args.max_sequence_length or 4096)  # conversion lengthens, documents may be shorter
    architecture = model_type.auto_classes[auto_class].__name__
    # the weights are trained in float32; --bf16 computes in bfloat16 with them
    return LSGConverter(length).convert_from_pretrained(args.model, architecture, dtype="float32", **trust, **fields)


def load_as_it_is(
    args: argparse.Namespace, auto_class: str, fields: dict[str, Any]
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Load an LSG folder or a plain checkpoint through its AutoClass."""
    import transformers

    from lsg.loading import LOAD_ERRORS, quiet

    trust = {"trust_remote_code": args.trust_remote_code}
    try:
        known = transformers.AutoConfig.from_pretrained(args.model, **trust).to_dict()
        unknown = next((name for name in fields if name not in known and name != "num_labels"), None)
        if unknown:
            hint = "pass --convert for LSG fields" if unknown in LSG_OPTIONS else nearest(unknown, known)
            raise InputError(f"--model_kwargs: {args.model} has no config field {unknown!r}; {hint}")
        config = transformers.AutoConfig.from_pretrained(args.model, **trust, **fields)
        with quiet():
            model = getattr(transformers, auto_class).from_pretrained(
                args.model, config=config, dtype="float32", **trust
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(args.model, **trust)
    except InputError:
        raise
    except LOAD_ERRORS as error:
        raise InputError(f"{args.model}: cannot be loaded: {one_line(error)}") from error
    return model, tokenizer


def tokens_read(config: "PreTrainedConfig", tokenizer: "PreTrainedTokenizerBase") -> int:
    """Count the tokens that a model has positions for."""
    from lsg.model_types import MODEL_TYPES

    positions = getattr(config, "max_position_embeddings", None)
    model_type = MODEL_TYPES.get(config.model_type)
    if positions and model_type:
        return positions - (model_type.position_offset(config) if model_type.max_positions_includes_offset else 0)
    limits = [limit for limit in (positions, tokenizer.model_max_length) if limit and limit < UNLIMITED]
    return min(limits) if limits else UNLIMITED


def add_lora(model: "PreTrainedModel", rank: int) -> "PreTrainedModel":
    """Put a low-rank adapter on every linear layer of the encoder (and decoder); a classification head is trained."""
    from peft import LoraConfig, get_peft_model
    from torch.nn import Linear

    base = model.base_model
    base_name = next(name for name, child in model.named_children() if child is base)
    layers = [f"{base_name}.{name}" for name, layer in base.named_modules() if isinstance(layer, Linear)]
    heads = [name for name, child in model.named_children() if child is not base and list(child.parameters())]
    is_seq2seq = model.can_generate()  # whose head is the word embedding's, and stays as it is
    options = {"r": rank, "lora_alpha": 2 * rank, "lora_dropout": 0.0, "target_modules": layers}
    return get_peft_model(model, LoraConfig(**options, modules_to_save=None if is_seq2seq else heads))
