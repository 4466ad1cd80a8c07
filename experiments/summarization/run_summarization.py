"""Fine-tune an encoder-decoder to summarize long documents; ROUGE of what it generates."""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository: lsg and experiments

from experiments.finetuning import cross_entropy, fine_tune, make_parser, parse_options, run_script, training_arguments
from experiments.input_error import InputError
from experiments.model_loading import load_model, tokens_read
from experiments.text_data import check_texts, load_splits

if TYPE_CHECKING:
    from transformers import EvalPrediction, PreTrainedTokenizerBase

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
IGNORED = -100  # label of what is no target


def make_options() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = make_parser(__doc__, ("document", "summary"), PRESETS)
    group = parser.add_argument_group("task")
    group.add_argument("--text_column", default="text", metavar="NAME", help="column of the documents (text)")
    group.add_argument("--summary_column", default="summary", metavar="NAME", help="column of the summaries (summary)")
    group.add_argument("--max_target_length", type=int, default=512, metavar="N", help="tokens of a summary (512)")
    group.add_argument("--num_beams", type=int, default=4, metavar="N", help="beams when measuring (4)")
    return parser


def work(args: argparse.Namespace) -> None:
    """Fine-tune as the options say."""
    for name in ("max_target_length", "num_beams"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name}: 1 or more is expected, got {getattr(args, name)}")
    splits = load_splits(args, (args.text_column, args.summary_column))
    check_texts(splits, args.text_column)
    check_texts(splits, args.summary_column)

    from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments, set_seed

    generation = {"predict_with_generate": True, "generation_num_beams": args.num_beams}
    generation["generation_max_length"] = args.max_target_length
    arguments = training_arguments(args, Seq2SeqTrainingArguments, "validation" in splits, **generation)
    set_seed(args.seed)
    with arguments.main_process_first():  # the others take what it left in the caches of code and data
        loaded = load_model(args, "AutoModelForSeq2SeqLM", {})
        readable = tokens_read(loaded.model.config, loaded.tokenizer)
        if args.max_target_length > readable:
            raise InputError(f"--max_target_length: {args.max_target_length}, but the decoder has {readable} positions")
        convert = partial(tokenize, loaded.tokenizer, args, loaded.max_sequence_length)
        inputs = {
            split: rows.map(convert, batched=True, remove_columns=rows.column_names, desc=f"Tokenizing {split}")
            for split, rows in splits.items()
        }
    trainer = Seq2SeqTrainer(
        loaded.model,
        arguments,
        data_collator=DataCollatorForSeq2Seq(loaded.tokenizer, loaded.model, label_pad_token_id=IGNORED),
        train_dataset=inputs["train"],
        eval_dataset=inputs.get("validation"),
        processing_class=loaded.tokenizer,
        compute_metrics=rouge_metrics(loaded.tokenizer),
        compute_loss_func=cross_entropy,
    )
    fine_tune(trainer, args, inputs)


def tokenize(
    tokenizer: "PreTrainedTokenizerBase", args: argparse.Namespace, length: int, columns: dict[str, list[Any]]
) -> dict[str, list[Any]]:
    """Make a model's inputs of documents and summaries."""
    tokens = tokenizer(columns[args.text_column], truncation=True, max_length=length)
    targets = tokenizer(text_target=columns[args.summary_column], truncation=True, max_length=args.max_target_length)
    return {**tokens, "labels": targets["input_ids"]}


def rouge_metrics(tokenizer: "PreTrainedTokenizerBase") -> "Callable[[EvalPrediction], dict[str, float]]":
    """Give the function that computes ROUGE-1, -2, -L, and -Lsum (by sentences, one per line), times 100.

    It takes rouge_score itself, not the `evaluate` around it, which would fetch code from the Hub at run time.
    """
    import numpy as np
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=True)

    def decode(ids: np.ndarray) -> list[str]:
        texts = tokenizer.batch_decode(np.where(ids < 0, tokenizer.pad_token_id, ids), skip_special_tokens=True)
        return [text.strip() for text in texts]

    def compute(prediction: "EvalPrediction") -> dict[str, float]:
        pairs = list(zip(decode(prediction.label_ids), decode(prediction.predictions), strict=True))
        scores = [scorer.score(in_lines(reference), in_lines(found)) for reference, found in pairs]
        means = {name: 100 * float(np.mean([score[name].fmeasure for score in scores])) for name in scores[0]}
        lengths = np.sum(prediction.predictions != tokenizer.pad_token_id, axis=1)
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
