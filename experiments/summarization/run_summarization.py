"""Fine-tune an encoder-decoder to summarize long documents; ROUGE of what it generates."""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository: lsg and experiments

from experiments.common.data import check_texts, load_splits
from experiments.common.errors import InputError, check_range
from experiments.common.finetuning_options import check_options, make_parser, parse_options
from experiments.common.models import Loaded
from experiments.common.script import run_script
from lsg.cli.arguments import OneLineParser

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import EvalPrediction, PreTrainedTokenizerBase

    from experiments.common.finetuning import Columns, Metrics

LONG_DOCUMENTS = {
    "max_sequence_length": 4096,
    "max_target_length": 512,
    "learning_rate": 8e-5,
    "num_train_epochs": 6.0,
    "warmup": 0.1,
    "batch_size": 32,
    "attention": {"sparsity_type": "none", "sparse_block_size": 0, "block_size": 256},
}
ARTICLES = {**LONG_DOCUMENTS, "text_column": "article", "summary_column": "abstract"}
DOCUMENTS = {**LONG_DOCUMENTS, "text_column": "document", "summary_column": "summary"}
CHAPTERS = {**LONG_DOCUMENTS, "text_column": "chapter", "summary_column": "summary_text"}
PRESETS = {
    "arxiv": {**ARTICLES, "dataset": "ccdv/arxiv-summarization"},
    "pubmed": {**ARTICLES, "dataset": "ccdv/pubmed-summarization"},
    "multi_news": {**DOCUMENTS, "dataset": "alexfabbri/multi_news"},
    "mediasum": {**DOCUMENTS, "dataset": "ccdv/mediasum", "dataset_config": "roberta_prepended"},
    "booksum": {**CHAPTERS, "dataset": "kmfoda/booksum"},
}


def make_options() -> OneLineParser:
    """Return the parser of the options."""
    parser = make_parser(str(__doc__), ("document", "summary"), PRESETS)
    add = parser.add_argument_group("task").add_argument
    add("--text_column", default="text", metavar="NAME", help="column of the documents (text)")
    add("--summary_column", default="summary", metavar="NAME", help="column of the summaries (summary)")
    add("--max_target_length", type=int, default=512, metavar="N", help="tokens of a summary (512)")
    add("--num_beams", type=int, default=4, metavar="N", help="beams in evaluation (4)")
    return parser


def work(args: argparse.Namespace) -> None:
    """Fine-tune as the options say."""
    check_range(args, "max_target_length", "num_beams", minimum=1)
    check_options(args)
    splits = load_splits(args, (args.text_column, args.summary_column))
    check_texts(splits, args.text_column)
    check_texts(splits, args.summary_column)

    from experiments.common.finetuning import Task, cross_entropy, fine_tune

    generation = {"predict_with_generate": True, "generation_num_beams": args.num_beams}
    generation["generation_max_length"] = args.max_target_length
    task = Task(
        auto_class="AutoModelForSeq2SeqLM",
        make_tokenize=partial(make_tokenize, args),
        make_metrics=rouge_metrics,
        loss=cross_entropy,
        generation=generation,
    )
    fine_tune(args, splits, task)


def make_tokenize(args: argparse.Namespace, loaded: Loaded) -> "Callable[[Columns], Columns]":
    """Return the function from documents and summaries to a model's inputs.

    Raises:
        InputError: the summaries may be longer than the decoder allows.
    """
    if args.max_target_length > loaded.max_positions:
        positions = loaded.max_positions
        raise InputError(f"--max_target_length: {args.max_target_length}, but the decoder has {positions} positions")
    return partial(tokenize, loaded.tokenizer, args, loaded.max_sequence_length)


def tokenize(
    tokenizer: "PreTrainedTokenizerBase", args: argparse.Namespace, length: int, columns: "Columns"
) -> dict[str, list[Any]]:
    """Return a model's inputs for rows of documents and summaries."""
    tokens = tokenizer(columns[args.text_column], truncation=True, max_length=length)
    targets = tokenizer(text_target=columns[args.summary_column], truncation=True, max_length=args.max_target_length)
    return {**tokens, "labels": targets["input_ids"]}


def rouge_metrics(tokenizer: "PreTrainedTokenizerBase") -> "Metrics":
    """Return the function that computes ROUGE-1, -2, -L, and -Lsum (by sentences, one per line), times 100.

    It uses rouge_score directly: `evaluate` wraps the same code, but downloads a script from the Hub at run time.
    """
    import numpy as np
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=True)

    def decode(ids: np.ndarray) -> list[str]:
        texts = tokenizer.batch_decode(np.where(ids < 0, tokenizer.pad_token_id, ids), skip_special_tokens=True)
        return [text.strip() for text in texts]

    def compute(prediction: "EvalPrediction") -> dict[str, float]:
        labels, generated = np.asarray(prediction.label_ids), np.asarray(prediction.predictions)
        pairs = list(zip(decode(labels), decode(generated), strict=True))
        scores = [scorer.score(in_lines(reference), in_lines(found)) for reference, found in pairs]
        means = {name: 100 * float(np.mean([score[name].fmeasure for score in scores])) for name in scores[0]}
        lengths = np.sum(generated != tokenizer.pad_token_id, axis=1)
        return {**means, "generated_tokens": float(np.mean(lengths))}

    return compute


def in_lines(text: str) -> str:
    """Put every sentence on a line of its own, as ROUGE-Lsum expects."""
    for end in (". ", "! ", "? "):
        text = text.replace(end, end.strip() + "\n")
    return text


def main(argv: list[str] | None = None) -> int:
    """Run the script; return the exit code."""
    return run_script(work, parse_options(make_options(), PRESETS, argv), "run_summarization.py")


if __name__ == "__main__":
    sys.exit(main())
