"""What the two classification scripts share: tokens, metrics, and the run."""

import argparse
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.finetuning import binary_cross_entropy, cross_entropy, fine_tune, training_arguments
from experiments.model_loading import load_model

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import EvalPrediction, PreTrainedTokenizerBase

    Tokenize = Callable[[PreTrainedTokenizerBase, int, dict[str, list[Any]]], dict[str, list[Any]]]


def classification_metrics(
    is_multi: bool, counts_no_label: bool = False
) -> "Callable[[EvalPrediction], dict[str, float]]":
    """Give the function that computes accuracy (of whole rows), micro- and macro-F1.

    Args:
        is_multi: rows have any number of classes; those with a logit above 0 are the predicted ones.
        counts_no_label: in F1, count "no class at all" as one more class, as LexGLUE does.
    """
    from sklearn.metrics import accuracy_score, f1_score

    def compute(prediction: "EvalPrediction") -> dict[str, float]:
        logits, labels = prediction.predictions, prediction.label_ids  # (rows, classes), (rows[, classes])
        predicted = (logits > 0).astype(int) if is_multi else logits.argmax(-1)
        labels = labels.astype(int)
        accuracy = accuracy_score(labels, predicted)
        if counts_no_label:
            labels, predicted = with_no_label(labels), with_no_label(predicted)
        scores = {
            f"{kind}_f1": f1_score(labels, predicted, average=kind, zero_division=0) for kind in ("micro", "macro")
        }
        return {name: float(value) for name, value in {"accuracy": accuracy, **scores}.items()}

    return compute


def with_no_label(rows: np.ndarray) -> np.ndarray:
    """Add a column that is 1 where all others are 0: (rows, classes) to (rows, classes + 1)."""
    return np.concatenate([rows, 1 - rows.max(1, keepdims=True)], axis=1)


def first_output(outputs: "torch.Tensor | tuple[torch.Tensor, ...]", labels: "torch.Tensor") -> "torch.Tensor":
    """Keep the logits alone: encoder-decoders give their hidden states, too, which would fill the memory."""
    return outputs[0] if isinstance(outputs, tuple) else outputs


def fine_tune_classifier(
    args: argparse.Namespace,
    splits: "dict[str, Dataset]",
    tokenize: "Tokenize",
    auto_class: str,
    head_fields: dict[str, Any],
    metrics: "Callable[[EvalPrediction], dict[str, float]]",
) -> None:
    """Load the model, turn the rows into tokens, train and measure.

    Args:
        args: the options.
        splits: the rows, checked.
        tokenize: makes a model's inputs, `labels` included, of columns, with a tokenizer, up to a length.
        auto_class: name of the AutoClass of the head.
        head_fields: see `load_model`.
        metrics: for Trainer.
    """
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments, set_seed
    from transformers.data.data_collator import DataCollatorForMultipleChoice

    arguments = training_arguments(args, TrainingArguments, "validation" in splits)
    set_seed(args.seed)
    with arguments.main_process_first():  # the others take what it left in the caches of code and data
        loaded = load_model(args, auto_class, head_fields)
        convert = partial(tokenize, loaded.tokenizer, loaded.max_sequence_length)
        inputs = {
            split: rows.map(convert, batched=True, remove_columns=rows.column_names, desc=f"Tokenizing {split}")
            for split, rows in splits.items()
        }
    is_multi = head_fields.get("problem_type") == "multi_label_classification"
    is_choice = auto_class == "AutoModelForMultipleChoice"
    collate = (DataCollatorForMultipleChoice if is_choice else DataCollatorWithPadding)(loaded.tokenizer)
    trainer = Trainer(
        loaded.model,
        arguments,
        data_collator=collate,
        train_dataset=inputs["train"],
        eval_dataset=inputs.get("validation"),
        processing_class=loaded.tokenizer,
        compute_metrics=metrics,
        compute_loss_func=binary_cross_entropy if is_multi else cross_entropy,
        preprocess_logits_for_metrics=first_output,
    )
    fine_tune(trainer, args, inputs)
