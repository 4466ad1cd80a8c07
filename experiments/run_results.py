"""The record of a fine-tuning run: a JSON file and a plot."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import Trainer

PACKAGES = ("torch", "transformers", "datasets", "accelerate", "scikit-learn")
DRAWN = ("accuracy", "f1", "rouge1", "rouge2", "rougeL", "rougeLsum")  # ends of metrics' names
TIMES = ("runtime", "per_second")  # ends of what Trainer measures besides


def collect_results(
    trainer: "Trainer",
    settings: dict[str, Any],
    splits: "dict[str, Dataset]",
    final: dict[str, dict[str, float]],
    seconds: float,
) -> dict[str, Any]:
    """Gather what was asked for, on what it ran, and what came out.

    Args:
        trainer: after training.
        settings: the options.
        splits: the rows, for their number.
        final: split to its metrics after training.
        seconds: of the training, since it was started or resumed.
    """
    model, log = trainer.accelerator.unwrap_model(trainer.model), trainer.state.log_history
    trained = [p.numel() for p in model.parameters() if p.requires_grad]
    model = model.get_base_model() if hasattr(model, "get_base_model") else model  # inside the adapters
    return {
        "settings": settings,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "device": str(trainer.args.device),
        "processes": trainer.args.world_size,
        "rows_per_step": trainer.args.train_batch_size
        * trainer.args.gradient_accumulation_steps
        * trainer.args.world_size,
        "model": {
            "class": type(model).__name__,
            "parameters": sum(p.numel() for p in model.parameters()),
            "trained_parameters": sum(trained),
        },
        "rows": {split: len(rows) for split, rows in splits.items()},
        "steps": trainer.state.global_step,
        "seconds": round(seconds, 1),
        "train_loss": [{"step": row["step"], "loss": row["loss"]} for row in log if "loss" in row],
        "evaluations": [without_times(row) for row in log if "eval_loss" in row],
        "final": {split: without_times(metrics) for split, metrics in final.items()},
    }


def without_times(metrics: dict[str, float]) -> dict[str, float]:
    """Leave out the speeds, which tell about the machine."""
    return {name: value for name, value in metrics.items() if not name.endswith((*TIMES, "model_preparation_time"))}


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
