"""The output folder of a fine-tuning run: its settings, its results as JSON, and its curves."""

import argparse
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.common.errors import InputError
from experiments.common.results import environment, write_json

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import Trainer

SETTINGS = "settings.json"
# options that a resumed run may change; all others affect what is learnt
FREE_ON_RESUME = {"resume", "overwrite", "per_device_batch_size", "per_device_eval_batch_size"}
PACKAGES = ("torch", "transformers", "datasets", "accelerate", "scikit-learn")
DRAWN = ("accuracy", "f1", "rouge1", "rouge2", "rougeL", "rougeLsum")  # ends of the metrics' names
SPEEDS = ("runtime", "per_second", "model_preparation_time")  # ends of the names of Trainer's own figures


def prepare_output(args: argparse.Namespace) -> None:
    """Make the output folder, and write the settings into it; never delete or mix an earlier run unasked.

    Raises:
        InputError: the folder is not empty, and neither --resume nor --overwrite says what to do.
    """
    folder, file = args.output_dir, args.output_dir / SETTINGS
    settings = settings_of(args)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output_dir: {folder}: a folder is expected, this is a file")
    inside = {item.name for item in folder.iterdir()} if folder.exists() else set()
    if inside and SETTINGS not in inside:
        raise InputError(f"--output_dir: {folder}: not empty, and not the output of these scripts; choose another name")
    if args.resume:
        if not inside:
            raise InputError(f"--resume: there is no run in {folder}")
        check_same(json.loads(file.read_text(encoding="utf-8")), settings, folder)
    elif args.overwrite and inside:
        shutil.rmtree(folder)
    elif inside > {SETTINGS}:  # a run that ended before its first step leaves only the settings
        raise InputError(f"--output_dir: {folder}: holds an earlier run; pass --resume or --overwrite")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(file, settings)


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return all options in the form of JSON."""
    settings: dict[str, Any] = json.loads(json.dumps(vars(args), default=str, sort_keys=True))
    return settings


def check_same(before: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Raise InputError if a run would be resumed with other options."""
    for name in now:
        if name not in FREE_ON_RESUME and before.get(name) != now[name]:
            was, wanted = json.dumps(before.get(name)), json.dumps(now[name])
            raise InputError(f"--resume: the run in {folder} has {name}={was}, this command line {wanted}")


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint; trainer_state.json is written last."""
    complete = [file.parent for file in folder.glob("checkpoint-*/trainer_state.json")]
    return max(complete, key=lambda checkpoint: int(checkpoint.name.split("-")[1]), default=None)


def collect_results(
    trainer: "Trainer",
    settings: dict[str, Any],
    splits: "dict[str, Dataset]",
    final: dict[str, dict[str, float]],
    seconds: float,
) -> dict[str, Any]:
    """Return all figures of a run: `final` are each split's metrics at the end, `seconds` the time of the training."""
    model, log = trainer.accelerator.unwrap_model(trainer.model), trainer.state.log_history
    trained = [p.numel() for p in model.parameters() if p.requires_grad]
    model = model.get_base_model() if hasattr(model, "get_base_model") else model  # inside the adapters
    at_once, rounds = trainer.args.train_batch_size, trainer.args.gradient_accumulation_steps
    return {
        "settings": settings,
        **environment(trainer.args.device.type, *PACKAGES),
        "processes": trainer.args.world_size,
        "rows_per_step": at_once * rounds * trainer.args.world_size,
        "model": {
            "class": type(model).__name__,
            "parameters": sum(p.numel() for p in model.parameters()),
            "trained_parameters": sum(trained),
        },
        "rows": {split: len(rows) for split, rows in splits.items()},
        "steps": trainer.state.global_step,
        "seconds": round(seconds, 1),
        "tokens": trainer.state.num_input_tokens_seen or None,
        "cpu_seconds": log[-1].get("cpu_seconds") if log else None,
        "train_loss": [{"step": row["step"], "loss": row["loss"]} for row in log if "loss" in row],
        "evaluations": [without_speeds(row) for row in log if "eval_loss" in row],
        "final": {split: without_speeds(metrics) for split, metrics in final.items()},
    }


def without_speeds(metrics: dict[str, float]) -> dict[str, float]:
    """Return the metrics without the speeds, which depend on the machine."""
    return {name: value for name, value in metrics.items() if not name.endswith(SPEEDS)}


def draw_curves(results: dict[str, Any], path: Path) -> None:
    """Draw the losses, and beside them the metrics of the validation split, against the step."""
    from matplotlib.figure import Figure

    train, evaluations = results["train_loss"], results["evaluations"]
    metrics = [name for name in evaluations[0] if name.endswith(DRAWN)] if evaluations else []
    figure = Figure(figsize=(9, 4) if metrics else (5, 4), layout="tight")
    losses = figure.add_subplot(1, 2 if metrics else 1, 1, xlabel="step", ylabel="loss")
    losses.plot([row["step"] for row in train], [row["loss"] for row in train], label="training")
    if metrics:
        steps = [row["step"] for row in evaluations]
        losses.plot(steps, [row["eval_loss"] for row in evaluations], "o-", label="validation")
        axis = figure.add_subplot(1, 2, 2, xlabel="step", ylabel="validation metrics")
        for name in metrics:
            axis.plot(steps, [row[name] for row in evaluations], "o-", label=name.removeprefix("eval_"))
        axis.legend()
    losses.legend()
    figure.savefig(path, dpi=110)
