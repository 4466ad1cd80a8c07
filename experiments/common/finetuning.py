"""Fine-tune a model on a task with transformers' Trainer: load, tokenize, train, evaluate, save."""

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset
from transformers import EvalPrediction, PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainingArguments
from transformers.data import data_collator
from transformers.trainer_callback import PrinterCallback

from experiments.common.errors import InputError
from experiments.common.finetuning_output import collect_results, draw_curves, last_checkpoint, settings_of
from experiments.common.models import Loaded, load_model
from experiments.common.results import write_json
from lsg.errors import one_line

Columns = dict[str, list[Any]]
Metrics = Callable[[EvalPrediction], dict[str, float]]
COLLATORS = {  # of each AutoClass
    "AutoModelForSequenceClassification": "DataCollatorWithPadding",
    "AutoModelForMultipleChoice": "DataCollatorForMultipleChoice",
    "AutoModelForSeq2SeqLM": "DataCollatorForSeq2Seq",
}


@dataclasses.dataclass(frozen=True)
class Task:
    """What a script fine-tunes for.

    Args:
        auto_class: the class of the model with its head; one of `COLLATORS`, unless there is `make_collator`.
        make_tokenize: returns the function from columns to the model's inputs, `labels` included. `datasets` hashes
            that function to cache the result, so it should hold the tokenizer and not the model.
        make_metrics: returns the function that computes the metrics, for a tokenizer; None to measure the loss alone.
        loss: `cross_entropy` or `binary_cross_entropy`.
        head_fields: see `load_model`.
        generation: fields of Seq2SeqTrainingArguments; empty if the metrics are computed from logits.
        make_collator: returns the function from rows to a batch.
        trainer_class: of tasks without `generation`.
        arguments: fields of TrainingArguments, which replace those of the options.
        callbacks: of the trainer.
    """

    auto_class: str
    make_tokenize: Callable[[Loaded], Callable[[Columns], Columns]]
    make_metrics: Callable[[PreTrainedTokenizerBase], Metrics] | None
    loss: Callable[..., torch.Tensor]
    head_fields: dict[str, Any] = dataclasses.field(default_factory=dict)
    generation: dict[str, Any] = dataclasses.field(default_factory=dict)
    make_collator: Callable[[Loaded], Callable[[list[Any]], Any]] | None = None
    trainer_class: type[Trainer] = Trainer
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    callbacks: tuple[TrainerCallback, ...] = ()


def fine_tune(args: argparse.Namespace, splits: dict[str, Dataset], task: Task) -> None:
    """Fine-tune on the `train` split, evaluate on the others, and fill the output folder.

    Raises:
        InputError, ConversionError: with the reason in one line.
    """
    prefix = "Seq2Seq" if task.generation else ""
    arguments_class = getattr(transformers, f"{prefix}TrainingArguments")
    more = {**task.generation, **task.arguments}
    arguments = training_arguments(args, arguments_class, "validation" in splits, **more)
    transformers.set_seed(args.seed)
    with arguments.main_process_first():  # the other processes find its code and data in the caches
        loaded = load_model(args, task.auto_class, task.head_fields)
        tokenize = task.make_tokenize(loaded)
        inputs = {
            split: rows.map(tokenize, batched=True, remove_columns=rows.column_names, desc=f"Tokenizing {split}")
            for split, rows in splits.items()
        }
    trainer = (transformers.Seq2SeqTrainer if task.generation else task.trainer_class)(
        loaded.model,
        arguments,
        data_collator=make_collator(task, loaded),
        train_dataset=inputs["train"],
        eval_dataset=inputs.get("validation"),
        processing_class=loaded.tokenizer,
        compute_metrics=task.make_metrics(loaded.tokenizer) if task.make_metrics else None,
        compute_loss_func=task.loss,
        preprocess_logits_for_metrics=None if prefix else first_output,
        callbacks=[*task.callbacks],
    )
    trainer.remove_callback(PrinterCallback)  # prints the log where Trainer's own progress bar is off
    train_and_evaluate(trainer, args, inputs)


def make_collator(task: Task, loaded: Loaded) -> Callable[[list[Any]], Any]:
    """Return the function that makes a batch of rows."""
    if task.make_collator:
        return task.make_collator(loaded)
    collator_class = getattr(data_collator, COLLATORS[task.auto_class])
    return collator_class(loaded.tokenizer, **({"model": loaded.model} if task.generation else {}))


def split_batch(batch_size: int, per_device: int | None, devices: int) -> tuple[int, int]:
    """Divide a step's rows; return the rows that a device processes at once, and how many times it does.

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
    args: argparse.Namespace, arguments_class: type[TrainingArguments], has_validation: bool, **more: Any
) -> TrainingArguments:
    """Return the options as transformers' TrainingArguments (or those for sequence-to-sequence models)."""
    # with several devices in one process, Trainer spreads the batch over all of them
    devices = int(os.environ.get("WORLD_SIZE", "0")) or max(1, torch.cuda.device_count())
    at_once, rounds = split_batch(args.batch_size, args.per_device_batch_size, devices)
    if args.group_by_length:
        known = {field.name for field in dataclasses.fields(arguments_class)}
        old = "group_by_length" in known  # transformers 5.0 has a switch of this name
        more |= {"group_by_length": True} if old else {"train_sampling_strategy": "group_by_length"}
    same = "learning_rate num_train_epochs max_steps weight_decay per_device_eval_batch_size logging_steps seed bf16"
    more = {name: getattr(args, name) for name in (*same.split(), "gradient_checkpointing")} | more
    # evaluation draws random numbers: a checkpoint follows each one, so that a resumed run draws the same numbers
    interval = "steps" if args.save_steps else "epoch"
    try:
        return arguments_class(
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
            use_cpu=not torch.accelerator.is_available(),  # otherwise several processes on CPUs would not join
            **more,
        )
    except ValueError as error:  # such as bf16 on a device that has none
        raise InputError(one_line(error)) from error


def first_output(outputs: torch.Tensor | tuple[torch.Tensor, ...], labels: torch.Tensor) -> torch.Tensor:
    """Return only the logits: encoder-decoders also return their hidden states, which would fill the memory."""
    return outputs[0] if isinstance(outputs, tuple) else outputs


def cross_entropy(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
    """Return the mean cross-entropy over all labels of a step, however it is divided among devices and rounds.

    (A model's own loss is the mean over its part of the step, and parts may hold different numbers of labels.)
    """
    logits = outputs.logits.flatten(0, -2).float()  # (labels, classes)
    total = torch.nn.functional.cross_entropy(logits, labels.flatten(), ignore_index=-100, reduction="sum")
    return total / (labels.ne(-100).sum() if num_items_in_batch is None else num_items_in_batch)


def binary_cross_entropy(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
    """Return the same for rows with any number of classes: the mean over rows and classes."""
    total = torch.nn.functional.binary_cross_entropy_with_logits(outputs.logits.float(), labels, reduction="sum")
    return total / (labels.numel() if num_items_in_batch is None else num_items_in_batch)


def train_and_evaluate(trainer: Trainer, args: argparse.Namespace, splits: dict[str, Dataset]) -> None:
    """Train, evaluate, and write the model, the results and the curves into the output folder."""
    checkpoint = last_checkpoint(args.output_dir) if args.resume else None
    if args.resume and checkpoint is None:
        print("--resume: no checkpoint was saved yet, starting from the beginning", file=sys.stderr)
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.perf_counter() - started
    evaluations = [row for row in trainer.state.log_history if "eval_loss" in row]
    final: dict[str, dict[str, float]] = {}
    if "validation" in splits:
        is_current = evaluations and evaluations[-1]["step"] == trainer.state.global_step
        final["validation"] = evaluations[-1] if is_current else trainer.evaluate()
    if "test" in splits:
        final["test"] = trainer.evaluate(splits["test"], metric_key_prefix="test")
    if trainer.is_world_process_zero():
        results = collect_results(trainer, settings_of(args), splits, final, seconds)
        results["resumed_from"] = checkpoint.name if checkpoint else None
    save_model(trainer, args.output_dir / "model")
    trainer.accelerator.end_training()  # processes that end while they are connected may abort
    if trainer.is_world_process_zero():
        draw_curves(results, args.output_dir / "curves.png")
        write_json(args.output_dir / "results.json", results)  # the last file: the run is complete
        print(json.dumps(results["final"], indent=2))


def save_model(trainer: Trainer, folder: Path) -> None:
    """Write the model as a complete folder, with the adapters merged into it."""
    model, tokenizer = trainer.accelerator.unwrap_model(trainer.model), trainer.processing_class
    if not hasattr(model, "merge_and_unload"):
        trainer.save_model(str(folder))
    elif trainer.is_world_process_zero() and tokenizer is not None:
        model.merge_and_unload().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
