"""Fine-tune a model to classify long documents, with one label or any number of labels each."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository: lsg and experiments

from experiments.common.data import check_texts, load_splits
from experiments.common.finetuning_options import check_options, make_parser, parse_options
from experiments.common.labels import find_labels, split_cells
from experiments.common.script import run_script
from lsg.cli.arguments import OneLineParser

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


def make_options() -> OneLineParser:
    """Return the parser of the options."""
    parser = make_parser(str(__doc__), ("label", "text"), PRESETS)
    add = parser.add_argument_group("task").add_argument
    add("--text_column", default="text", metavar="NAME", help="column of the documents (text)")
    add("--label_column", default="label", metavar="NAME", help="column of the labels (label)")
    add("--multi_label", action="store_true", help="a row has any number of labels, in a list")
    add("--label_separator", default=";", metavar="TEXT", help="separates the labels in files without lists (;)")
    return parser


def work(args: argparse.Namespace) -> None:
    """Fine-tune as the options say."""
    check_options(args)
    splits = load_splits(args, (args.label_column, args.text_column))
    check_texts(splits, args.text_column)
    if args.multi_label:
        splits = split_cells(splits, args.label_column, args.label_separator)
    labels = find_labels(splits, args.label_column, args.multi_label)

    from experiments.classification.classifier import fine_tune_classifier

    fine_tune_classifier(args, splits, args.text_column, args.label_column, labels)


def main(argv: list[str] | None = None) -> int:
    """Run the script; return the exit code."""
    return run_script(work, parse_options(make_options(), PRESETS, argv), "run_classification.py")


if __name__ == "__main__":
    sys.exit(main())
