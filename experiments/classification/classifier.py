"""What the two classification scripts share: the task, and its metrics."""

import argparse
from collections.abc import Callable

import numpy as np
from datasets import Dataset
from sklearn.metrics import accuracy_score, f1_score
from transformers import EvalPrediction

from experiments.common.finetuning import Columns, Metrics, Task, binary_cross_entropy, cross_entropy, fine_tune
from experiments.common.labels import Labels
from experiments.common.models import Loaded


def classification_metrics(is_multi: bool, counts_no_label: bool = False) -> Metrics:
    """Return the function that computes accuracy (of whole rows), micro-F1 and macro-F1.

    Args:
        is_multi: rows have any number of classes; those with a logit above 0 are predicted.
        counts_no_label: in F1, count "no class at all" as one more class, as LexGLUE does.
    """

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        logits, labels = np.asarray(prediction.predictions), np.asarray(prediction.label_ids).astype(int)
        predicted = (logits > 0).astype(int) if is_multi else logits.argmax(-1)  # (rows[, classes]), as labels
        scores = {"accuracy": accuracy_score(labels, predicted)}
        if counts_no_label:
            labels, predicted = with_no_label(labels), with_no_label(predicted)
        for kind in ("micro", "macro"):
            scores[f"{kind}_f1"] = f1_score(labels, predicted, average=kind, zero_division=0)
        return {name: float(value) for name, value in scores.items()}

    return compute


def with_no_label(rows: np.ndarray) -> np.ndarray:
    """Append a column that is 1 where all others are 0: (rows, classes) to (rows, classes + 1)."""
    return np.concatenate([rows, 1 - rows.max(1, keepdims=True)], axis=1)


def fine_tune_classifier(
    args: argparse.Namespace,
    splits: dict[str, Dataset],
    text_column: str,
    label_column: str,
    labels: Labels,
    counts_no_label: bool = False,
) -> None:
    """Fine-tune a sequence classifier.

    Args:
        splits: the checked rows.
        text_column: of strings, or of lists of paragraphs, which are joined by the separator token.
        label_column: of what `labels` encodes.
        counts_no_label: see `classification_metrics`.
    """

    def make_tokenize(loaded: Loaded) -> Callable[[Columns], Columns]:
        tokenizer, length = loaded.tokenizer, loaded.max_sequence_length

        def tokenize(columns: Columns) -> Columns:
            separator = f" {tokenizer.sep_token} "
            texts = [separator.join(text) if isinstance(text, list) else text for text in columns[text_column]]
            tokens = tokenizer(texts, truncation=True, max_length=length)
            return {**tokens, "labels": [labels.encode(value) for value in columns[label_column]]}

        return tokenize

    task = Task(
        "AutoModelForSequenceClassification",
        make_tokenize,
        make_metrics=lambda tokenizer: classification_metrics(labels.is_multi, counts_no_label),
        loss=binary_cross_entropy if labels.is_multi else cross_entropy,
        head_fields=labels.config_fields,
    )
    fine_tune(args, splits, task)
