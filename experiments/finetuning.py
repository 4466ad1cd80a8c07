"""What the fine-tuning scripts share: options, output folder, training, measuring, and the form of their errors."""

import argparse
import dataclasses
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.input_error import InputError
from experiments.model_loading import add_model_options
from experiments.text_data import add_data_options, check_sources, given_files
from lsg.cli.arguments import OneLineParser
from lsg.errors import ConversionError, one_line

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import Trainer, TrainingArguments

SETTINGS = "settings.json"
RESULTS = "results.json"
# what a resumed run may change; all else decides what is learnt
FREE_ON_RESUME = {"resume", "overwrite", "per_device_batch_size", "per_device_eval_batch_size"}


def parse_options(
    parser: argparse.ArgumentParser, presets: dict[str, dict[str, Any]], argv: list[str] | None
) -> argparse.Namespace:
    """Parse the command line: an option given there comes before that of the preset, which comes before the default.

    Args:
        presets: name to options; `attention` holds LSG fields, `dataset` and `dataset_config` are for want of files.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset")
    name = first.parse_known_args(argv)[0].preset
    preset = dict(presets.get(name, {}))
    hub = {key: preset.pop(key, None) for key in ("dataset", "dataset_config")}
    parser.set_defaults(preset_attention=preset.pop("attention", {}), **preset)
    args = parser.parse_args(argv)
    if not args.dataset and not given_files(args):
        args.dataset, args.dataset_config = hub["dataset"], args.dataset_config or hub["dataset_config"]
    return args


def make_parser(description: str, fields: tuple[str, ...], presets: dict[str, dict[str, Any]]) -> OneLineParser:
    """Make a parser with the options that all scripts have; `fields` as in `add_data_options`."""
    parser = OneLineParser(description=description, allow_abbrev=False)
    if presets:
        parser.add_argument("--preset", choices=sorted(presets), help="options of a known task; yours come before them")
    add_data_options(parser, fields)
    add_model_options(parser)
    add_training_options(parser)
    return parser


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the training itself."""
    group = parser.add_argument_group("training")
    add = group.add_argument
    add("--output_dir", type=Path, required=True, metavar="FOLDER", help="where results, curves and the model go")
    add("--resume", action="store_true", help="go on from the last checkpoint in --output_dir")
    add("--overwrite", action="store_true", help="delete the earlier run in --output_dir")
    add("--learning_rate", type=float, default=2e-5, metavar="X", help="(2e-5)")
    add("--num_train_epochs", type=float, default=3.0, metavar="X", help="(3)")
    add("--max_steps", type=int, default=-1, metavar="N", help="stop after so many steps, whatever the epochs")
    add("--warmup", type=float, default=0.0, metavar="X", help="share of the steps with a rising learning rate (0)")
    add("--weight_decay", type=float, default=0.0, metavar="X", help="(0)")
    add("--batch_size", type=int, default=32, metavar="N", help="rows per step, of all devices together (32)")
    add(
        "--per_device_batch_size",
        type=int,
        metavar="N",
        help="rows that a device takes at once (4, or fewer if it must)",
    )
    add("--per_device_eval_batch_size", type=int, default=4, metavar="N", help="the same when measuring (4)")
    add(
        "--save_steps",
        type=int,
        metavar="N",
        help="measure, then save a checkpoint, every N steps (default: every epoch)",
    )
    add("--logging_steps", type=int, default=10, metavar="N", help="log the loss every N steps (10)")
    add("--seed", type=int, default=123, metavar="N", help="of a new head, the rows' order and dropout (123)")
    add("--bf16", action="store_true", help="compute in bfloat16, with float32 weights")
    add("--gradient_checkpointing", action="store_true", help="less memory, a third more time")
    add("--group_by_length", action="store_true", help="put documents of similar length into a batch")


def check_options(args: argparse.Namespace) -> None:
    """Raise InputError for what can be seen to be wrong without reading the data or the model."""
    check_sources(args)
    for name in ("batch_size", "per_device_eval_batch_size", "per_device_batch_size", "save_steps"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise InputError(f"--{name}: 1 or more is expected, got {getattr(args, name)}")
    if not 0 <= args.warmup < 1:
        raise InputError(f"--warmup: a share, at least 0 and below 1, is expected, got {args.warmup}")
    if args.resume and args.overwrite:
        raise InputError("--resume and --overwrite exclude each other")
    if args.lora and os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        raise InputError("--lora: not with FSDP, as the adapters are merged into the whole model at the end")
    if is_main_process():
        prepare_output(args)


def is_main_process() -> bool:
    """Whether this process is the only one, or the first of all."""
    return os.environ.get("RANK", "0") == "0"


def prepare_output(args: argparse.Namespace) -> None:
    """Make the output folder, write the settings into it, and never lose or mix an earlier run unasked.

    Raises:
        InputError: the folder holds something, and neither --resume nor --overwrite says what to do.
    """
    folder, file = args.output_dir, args.output_dir / SETTINGS
    settings = settings_of(args)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output_dir: {folder}: a folder is expected, this is a file")
    inside = {item.name for item in folder.iterdir()} if folder.exists() else set()
    if inside and SETTINGS not in inside:
        raise InputError(f"--output_dir: {folder}: not empty, and no run of these scripts; choose another name")
    if args.resume:
        if not inside:
            raise InputError(f"--resume: there is no run in {folder}")
        check_same(json.loads(file.read_text(encoding="utf-8")), settings, folder)
    elif args.overwrite and inside:
        shutil.rmtree(folder)
    elif inside > {SETTINGS}:  # the settings alone are left of a run that ended before its first step
        raise InputError(f"--output_dir: {folder}: holds an earlier run; pass --resume or --overwrite")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(file, settings)


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """Give all options as JSON can hold them."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in sorted(vars(args).items())}


def check_same(before: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Raise InputError if a run would be resumed with other options."""
    for name in now:
        if name not in FREE_ON_RESUME and before.get(name) != now[name]:
            was, wanted = json.dumps(before.get(name)), json.dumps(now[name])
            raise InputError(f"--resume: the run in {folder} has {name}={was}, this command line {wanted}")


def write_json(file: Path, value: Any) -> None:
    """Write a file whole or not at all."""
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    part.replace(file)


def last_checkpoint(folder: Path) -> Path | None:
    """Find the newest checkpoint that was written to its end, which trainer_state.json marks."""
    whole = [file.parent for file in folder.glob("checkpoint-*/trainer_state.json")]
    return max(whole, key=lambda checkpoint: int(checkpoint.name.split("-")[1]), default=None)


def split_batch(batch_size: int, per_device: int | None, devices: int) -> tuple[int, int]:
    """Divide a step's rows: give the rows that a device takes at once, and how often it does.

    Raises:
        InputError: they cannot be divided evenly.
    """
    if batch_size % devices:
        raise InputError(f"--batch_size: {batch_size} rows cannot be divided evenly among {devices} devices")
    share = batch_size // devices
    at_once = per_device or next(size for size in (4, 3, 2, 1) if share % size == 0)
    if share % at_once:
        raise InputError(
            f"--per_device_batch_size: {at_once} does not divide the {share} rows of a device "
            f"(--batch_size {batch_size}, {devices} devices)"
        )
    return at_once, share // at_once


def training_arguments(
    args: argparse.Namespace, kind: "type[TrainingArguments]", has_validation: bool, **more: Any
) -> "TrainingArguments":
    """Turn the options into transformers' TrainingArguments (or those for sequence-to-sequence models)."""
    import torch

    # several devices and one process: Trainer spreads the batch over all of them
    devices = int(os.environ.get("WORLD_SIZE", "0")) or max(1, torch.cuda.device_count())
    at_once, rounds = split_batch(args.batch_size, args.per_device_batch_size, devices)
    known = {field.name for field in dataclasses.fields(kind)}
    if args.group_by_length:  # transformers 5.0 has a switch of this name
        more |= (
            {"group_by_length": True} if "group_by_length" in known else {"train_sampling_strategy": "group_by_length"}
        )
    same = ("learning_rate", "num_train_epochs", "max_steps", "weight_decay", "per_device_eval_batch_size")
    same += ("logging_steps", "seed", "bf16", "gradient_checkpointing")
    more |= {name: getattr(args, name) for name in same}
    # measuring draws random numbers: a checkpoint comes right after it, so that a resumed run draws the same again
    interval = "steps" if args.save_steps else "epoch"
    try:
        return kind(
            output_dir=str(args.output_dir),
            per_device_train_batch_size=at_once,
            gradient_accumulation_steps=rounds,
            warmup_steps=args.warmup,
            eval_strategy=interval if has_validation else "no",
            eval_steps=args.save_steps,
            save_strategy=interval,
            save_steps=args.save_steps or 500,
            save_total_limit=2,
            logging_first_step=True,
            label_names=["labels"],
            report_to="none",
            use_cpu=not torch.accelerator.is_available(),  # without it, several processes on CPUs would not join
            **more,
        )
    except ValueError as error:  # such as bf16 on a device that has none
        raise InputError(one_line(error)) from error


def cross_entropy(outputs: Any, labels: "torch.Tensor", num_items_in_batch: Any = None) -> "torch.Tensor":
    """Mean cross-entropy over all labels of a step, however it is divided among devices and rounds.

    (A model's own loss is the mean over its part of the step, and parts need not hold as many labels.)
    """
    import torch

    logits = outputs.logits.flatten(0, -2).float()  # (labels, classes)
    total = torch.nn.functional.cross_entropy(logits, labels.flatten(), ignore_index=-100, reduction="sum")
    return total / (labels.ne(-100).sum() if num_items_in_batch is None else num_items_in_batch)


def binary_cross_entropy(outputs: Any, labels: "torch.Tensor", num_items_in_batch: Any = None) -> "torch.Tensor":
    """The same for any number of classes per row: mean over rows and classes."""
    import torch

    total = torch.nn.functional.binary_cross_entropy_with_logits(outputs.logits.float(), labels, reduction="sum")
    return total / (labels.numel() if num_items_in_batch is None else num_items_in_batch)


def fine_tune(trainer: "Trainer", args: argparse.Namespace, splits: "dict[str, Dataset]") -> None:
    """Train, measure, and write the model, the results and the curves into the output folder."""
    from experiments.run_results import collect_results, draw_curves

    checkpoint = last_checkpoint(args.output_dir) if args.resume else None
    if args.resume and checkpoint is None:
        print("--resume: no checkpoint was saved yet, starting from the beginning", file=sys.stderr)
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.perf_counter() - started
    measured = [row for row in trainer.state.log_history if "eval_loss" in row]
    final = {}
    if "validation" in splits:
        is_fresh = measured and measured[-1]["step"] == trainer.state.global_step
        final["validation"] = measured[-1] if is_fresh else trainer.evaluate()
    if "test" in splits:
        final["test"] = trainer.evaluate(splits["test"], metric_key_prefix="test")
    if trainer.is_world_process_zero():
        results = collect_results(trainer, settings_of(args), splits, final, seconds)
        results["resumed_from"] = checkpoint.name if checkpoint else None
        write_json(args.output_dir / RESULTS, results)
        draw_curves(results, args.output_dir / "curves.png")
        print(json.dumps(results["final"], indent=2))
    save_model(trainer, args.output_dir / "model")


def save_model(trainer: "Trainer", folder: Path) -> None:
    """Write the model as a folder that loads by itself; adapters are merged into it."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if not hasattr(model, "merge_and_unload"):
        trainer.save_model(str(folder))
    elif trainer.is_world_process_zero():
        model.merge_and_unload().save_pretrained(folder)
        trainer.processing_class.save_pretrained(folder)


def run_script(work: Callable[[argparse.Namespace], None], args: argparse.Namespace, name: str) -> int:
    """Check the options, do the work, and tell what is wrong with the input in one line; return the exit code."""
    try:
        check_options(args)
        work(args)
    except (InputError, ConversionError) as error:
        print(f"{name}: error: {one_line(error)}", file=sys.stderr)
        return 1
    return 0
