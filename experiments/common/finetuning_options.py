"""The options of the fine-tuning scripts: presets, the training options, and their checks."""

import argparse
import os
from pathlib import Path
from typing import Any

from experiments.common.data import add_data_options, check_sources, local_files
from experiments.common.errors import InputError, check_range
from experiments.common.finetuning_output import prepare_output
from experiments.common.models import add_model_options
from lsg.cli.arguments import OneLineParser

Presets = dict[str, dict[str, Any]]


def make_parser(description: str, fields: tuple[str, ...], presets: Presets) -> OneLineParser:
    """Return a parser with the options of all scripts; `fields` as in `add_data_options`."""
    parser = OneLineParser(description=description, allow_abbrev=False)
    if presets:
        parser.add_argument("--preset", choices=sorted(presets), help="options of a known task; yours override them")
    add_data_options(parser, fields)
    add_model_options(parser)
    add_training_options(parser)
    return parser


def parse_options(
    parser: argparse.ArgumentParser, presets: Presets, argv: list[str] | None, option: str = "--preset"
) -> argparse.Namespace:
    """Return the parsed command line: its options override those of the preset, which override the defaults.

    Args:
        presets: name to options; `attention` holds LSG fields; `dataset` and `dataset_config` are ignored if the
            command line names data.
        option: the option whose value names the preset.
    """
    first = OneLineParser(prog=parser.prog, add_help=False, allow_abbrev=False)
    first.add_argument(option, dest="preset")
    preset = dict(presets.get(first.parse_known_args(argv)[0].preset, {}))
    hub = {key: preset.pop(key, None) for key in ("dataset", "dataset_config")}
    parser.set_defaults(preset_attention=preset.pop("attention", {}), **preset)
    args = parser.parse_args(argv)
    if not args.dataset and not local_files(args):
        args.dataset, args.dataset_config = hub["dataset"], args.dataset_config or hub["dataset_config"]
    return args


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the training itself."""
    add = parser.add_argument_group("training").add_argument
    add("--output_dir", type=Path, required=True, metavar="FOLDER", help="for results, curves and the model")
    add("--resume", action="store_true", help="continue from the last checkpoint in --output_dir")
    add("--overwrite", action="store_true", help="delete the earlier run in --output_dir")
    add("--learning_rate", type=float, default=2e-5, metavar="X", help="(2e-5)")
    add("--num_train_epochs", type=float, default=3.0, metavar="X", help="(3)")
    add("--max_steps", type=int, default=-1, metavar="N", help="stop after N steps, regardless of the epochs")
    add("--warmup", type=float, default=0.0, metavar="X", help="fraction of the steps with a rising learning rate (0)")
    add("--weight_decay", type=float, default=0.0, metavar="X", help="(0)")
    add("--batch_size", type=int, default=32, metavar="N", help="rows per step, of all devices together (32)")
    add("--per_device_batch_size", type=int, metavar="N", help="rows that a device processes at once (4 or fewer)")
    add("--per_device_eval_batch_size", type=int, default=4, metavar="N", help="the same in evaluation (4)")
    add("--save_steps", type=int, metavar="N", help="evaluate and save a checkpoint every N steps (every epoch)")
    add("--logging_steps", type=int, default=10, metavar="N", help="log the loss every N steps (10)")
    add("--seed", type=int, default=123, metavar="N", help="of a new head, the rows' order and dropout (123)")
    add("--bf16", action="store_true", help="compute in bfloat16, with float32 weights")
    add("--gradient_checkpointing", action="store_true", help="less memory, a third more time")
    add("--group_by_length", action="store_true", help="put documents of similar length into a batch")


def check_options(args: argparse.Namespace) -> None:
    """Raise InputError for errors that show without the data and the model; prepare the output folder."""
    check_sources(args)
    check_training(args)


def check_training(args: argparse.Namespace) -> None:
    """Do the same for the options of `add_training_options`."""
    check_range(args, "batch_size", "per_device_eval_batch_size", "per_device_batch_size", "save_steps", minimum=1)
    if not 0 <= args.warmup < 1:
        raise InputError(f"--warmup {args.warmup} is not allowed: it must be at least 0 and below 1")
    if args.resume and args.overwrite:
        raise InputError("--resume and --overwrite exclude each other")
    if args.lora and os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        raise InputError("--lora: not with FSDP, as the adapters are merged into the whole model at the end")
    if os.environ.get("RANK", "0") == "0":  # the only process, or the first of several
        prepare_output(args)
