#!/usr/bin/env python3
"""Continue the masked-LM training of a model on long documents: an LSG folder, a plain checkpoint that is converted
first (--convert), or a plain checkpoint as it is, which reads the same spans in chunks of its own length."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository: lsg and experiments

from experiments.common.errors import InputError, check_range
from experiments.common.finetuning_options import add_training_options, check_training
from experiments.common.models import add_model_options
from experiments.common.script import run_script
from lsg.cli.arguments import OneLineParser

if TYPE_CHECKING:
    from experiments.common.documents import Document
    from experiments.common.models import Loaded


def make_options() -> OneLineParser:
    """Return the parser of the options."""
    parser = OneLineParser(description=__doc__, allow_abbrev=False)
    add = parser.add_argument_group("data").add_argument
    text = "files and folders with documents (.txt, .rst, .md, .pod, .html, also with .gz)"
    add("--text", type=Path, nargs="+", required=True, metavar="PATH", help=text)
    add("--min_words", type=int, default=600, metavar="N", help="leave out documents with fewer words (600)")
    add("--held_out", type=int, default=0, metavar="N", help="documents, drawn at random, to evaluate on (0)")
    text = """tokens into which documents are cut; a span longer than --max_sequence_length is read in chunks (4096)"""
    add("--span", type=int, default=4096, metavar="N", help=text)
    add("--masked_share", type=float, default=0.15, metavar="SHARE", help="fraction of the tokens to predict (0.15)")
    add_model_options(parser)
    add_training_options(parser)
    text = "CPU minutes of this process to train for, instead of epochs"
    parser.add_argument("--minutes", type=float, metavar="X", help=text)
    parser.set_defaults(preset_attention={})
    return parser


def check(args: argparse.Namespace) -> None:
    """Raise InputError for errors that show without the data and the model; prepare the output folder."""
    check_range(args, "min_words", "held_out", minimum=0)
    check_range(args, "span", minimum=8)
    check_range(args, "minutes", minimum=0.001)
    check_range(args, "masked_share", minimum=0.01, maximum=0.99)
    check_training(args)


def adapt(args: argparse.Namespace, splits: "dict[str, list[Document]]") -> None:
    """Train on the documents of `train`, and evaluate on those of `validation`, if there are any.

    Raises:
        InputError, ConversionError: with the reason in one line.
    """
    from datasets import Dataset

    from experiments.adaptation.masked_training import EpochMasks, MaskedLMTrainer, TimeBudget
    from experiments.adaptation.spans import ChunkCollator, make_spans
    from experiments.common.finetuning import Task, cross_entropy, fine_tune

    def make_collator(loaded: "Loaded") -> ChunkCollator:
        if getattr(loaded.model.config, "is_encoder_decoder", False):
            raise InputError(f"{args.model}: an encoder is expected, this is an encoder-decoder")
        return ChunkCollator(loaded.tokenizer, min(loaded.max_sequence_length, args.span), args.masked_share)

    arguments: dict[str, Any] = {"include_num_input_tokens_seen": "non_padding"}
    if args.minutes:
        arguments |= TimeBudget.FIELDS
    task = Task(
        "AutoModelForMaskedLM",
        lambda loaded: make_spans(loaded.tokenizer, args.span),
        make_metrics=None,
        loss=cross_entropy,
        make_collator=make_collator,
        trainer_class=MaskedLMTrainer,
        arguments=arguments,
        callbacks=(EpochMasks(), *([TimeBudget(args.minutes, args.warmup)] if args.minutes else [])),
    )
    rows = {name: Dataset.from_dict({"text": [one.text for one in own]}) for name, own in splits.items() if own}
    fine_tune(args, rows, task)


def work(args: argparse.Namespace) -> None:
    """Train as the options say."""
    check(args)
    from experiments.adaptation.spans import hold_out
    from experiments.common.documents import read_documents

    training, held_out = hold_out(read_documents(args.text, args.min_words), args.held_out, args.seed)
    adapt(args, {"train": training, "validation": held_out})


def main(argv: list[str] | None = None) -> int:
    """Run the script; return the exit code."""
    return run_script(work, make_options().parse_args(argv), "run_adaptation.py")


if __name__ == "__main__":
    sys.exit(main())
