"""What masked-LM training adds to Trainer: logits of the masked tokens alone, and a budget of CPU time."""

import time
from typing import Any

import torch
from tqdm import tqdm
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from experiments.common.masked_lm import only_chosen


class MaskedLMTrainer(Trainer):
    """Computes the logits of the tokens to predict alone, and evaluates on the same ones each time."""

    def compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **more: Any) -> Any:
        """Return the loss; see `Trainer.compute_loss`."""
        # the output layer, as wide as the vocabulary, takes a quarter of a small model's time
        chosen = inputs["labels"] != -100  # (n, t)
        inputs = {**inputs, "labels": inputs["labels"][chosen]}  # (N,)
        with only_chosen(self.accelerator.unwrap_model(model), chosen):
            return super().compute_loss(model, inputs, *args, **more)

    def evaluate(self, *args: Any, **more: Any) -> dict[str, float]:
        """Return the metrics; see `Trainer.evaluate`."""
        collator: Any = self.data_collator
        epoch, collator.epoch = collator.epoch, 0
        metrics = super().evaluate(*args, **more)
        collator.epoch = epoch
        return metrics


class EpochMasks(TrainerCallback):
    """Tells the collator the epoch, each of which has other masks."""

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **objects: Any
    ) -> None:
        """Begin an epoch, or go on in it."""
        objects["train_dataloader"].collate_fn.epoch = int(state.epoch or 0)


class TimeBudget(TrainerCallback):
    """Ends a training after some CPU time of this process; the learning rate rises, then falls to zero at its end.

    Evaluation and saving do not count. A checkpoint keeps the time that was spent, in the entries of the log.

    Args:
        minutes: CPU time to spend.
        warmup: fraction of it with a rising learning rate.
    """

    FIELDS = {"lr_scheduler_type": "constant", "num_train_epochs": 1_000_000, "disable_tqdm": True}  # of the arguments

    def __init__(self, minutes: float, warmup: float) -> None:
        self.seconds, self.warmup = 60 * minutes, warmup
        self.spent = self.since = 0.0
        self.bar: tqdm[Any] | None = None

    def rate(self) -> float:
        """Return the learning rate at this time, as a fraction of the highest one."""
        share = min(self.spent / self.seconds, 1.0)
        return share / self.warmup if share < self.warmup else (1 - share) / (1 - self.warmup)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Take up the time that a resumed run has spent."""
        self.spent = max((row.get("cpu_seconds", 0.0) for row in state.log_history), default=0.0)
        self.bar = tqdm(
            total=round(self.seconds), initial=round(self.spent), desc="training", unit="CPU s", mininterval=2
        )
        self.since = time.process_time()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **objects: Any
    ) -> None:
        """Set the learning rate of the step."""
        for group in objects["optimizer"].param_groups:
            group["lr"] = args.learning_rate * self.rate()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Count the time; stop if it is over."""
        now = time.process_time()
        self.spent, self.since = self.spent + now - self.since, now
        control.should_training_stop |= self.spent >= self.seconds
        if self.bar is not None:
            self.bar.update(min(round(self.spent), self.bar.total) - self.bar.n)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Add the time to the newest entry of the log."""
        state.log_history[-1]["cpu_seconds"] = round(self.spent, 2)
        if self.bar is not None and "loss" in state.log_history[-1]:
            self.bar.set_postfix(step=state.global_step, loss=f"{state.log_history[-1]['loss']:.3f}", refresh=False)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Leave out the time of saving."""
        self.since = time.process_time()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Leave out the time of an evaluation."""
        self.since = time.process_time()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Close the progress bar."""
        if self.bar is not None:
            self.bar.close()
