"""Fine-tune a model to classify long documents, with one label or any number of labels each."""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository: lsg and experiments

from experiments.finetuning import make_parser, parse_options, run_script
from experiments.text_data import check_texts, find_labels, load_splits, split_cells

LONG_DOCUMENTS = {
    "max_sequence_length": 4096,
    "learning_rate": 2e-5,
    "num_train_epochs": 3.0,
    "batch_size": 32,
    "attention": {"sparsity_type": "norm", "sparsity_factor": 4, "block_size": 32, "sparse_block_size": 32},
}
PRESETS = {
    "imdb": {**LONG_DOCUMENTS, "dataset": "stanfordnlp/imdb"},
    "arxiv": {**LONG_DOCUMENTS, "dataset": "ccdv/arxiv-classification", "dataset_config": "no_ref"},
    "patent": {**LONG_DOCUMENTS, "dataset": "ccdv/patent-classification", "dataset_config": "patent"},
}


def make_options() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = make_parser(__doc__, ("label", "text"), PRESETS)
    group = parser.add_argument_group("task")
    group.add_argument("--text_column", default="text", metavar="NAME", help="column of the documents (text)")
    group.add_argument("--label_column", default="label", metavar="NAME", help="column of the labels (label)")
    group.add_argument("--multi_label", action="store_true", help="a row has any number of labels, in a list")
    group.add_argument(
        "--label_separator", default=";", metavar="TEXT", help="divides the labels where files have no lists (;)"
    )
    return parser


def work(args: argparse.Namespace) -> None:
    """Fine-tune as the options say."""
    splits = load_splits(args, (args.label_column, args.text_column))
    check_texts(splits, args.text_column)
    if args.multi_label:
        splits = split_cells(splits, args.label_column, args.label_separator)
    labels = find_labels(splits, args.label_column, args.multi_label)

    def tokenize(tokenizer: Any, length: int, columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        tokens = tokenizer(columns[args.text_column], truncation=True, max_length=length)
        return {**tokens, "labels": [labels.encode(value) for value in columns[args.label_column]]}

    from experiments.classification.classifier import classification_metrics, fine_tune_classifier

    head_fields = {"num_labels": len(labels.names), **labels.config_fields}
    metrics = classification_metrics(args.multi_label)
    fine_tune_classifier(args, splits, tokenize, "AutoModelForSequenceClassification", head_fields, metrics)


def main(argv: list[str] | None = None) -> int:
    """Run the script; return the exit code."""
    return run_script(work, parse_options(make_options(), PRESETS, argv), "run_classification.py")


if __name__ == "__main__":
    sys.exit(main())
