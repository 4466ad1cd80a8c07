#!/usr/bin/env python3
"""Rank long documents by a classifier of pairs: on windows with the best score, and converted, which reads all at once.

A classifier is trained on cloze questions and short windows of text: does the window have the sentence? Then the
document that has it is to be found among others.

    python ranking.py --initial_model PATH --train_text FOLDER --text FOLDER
    python ranking.py --draw results/ranking                 # tables and plots of earlier results
"""

import argparse
import random
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository: lsg and experiments

from experiments.common.errors import InputError, check_range
from experiments.common.results import environment, write_json, write_report
from experiments.common.script import add_draw_option, run_script
from lsg.cli.arguments import OneLineParser

if TYPE_CHECKING:
    from experiments.common.documents import Document
    from experiments.question_answering.readers import Reader
    from experiments.question_answering.squad import Question
    from experiments.question_answering.training import Example

HERE = Path(__file__).resolve().parent
REPORT = "experiments.question_answering.ranking_report"
OVERLAP = 64  # tokens that two windows share
LENGTH = 8192  # tokens that LSG reads
Scores = dict[str, list[dict[str, float]]]  # of each reader, for each question: reciprocal rank, first, seconds


def make_options() -> OneLineParser:
    """Return the parser of the options."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--initial_model", required=True, metavar="PATH", help="plain encoder to start from, such as all-MiniLM-L6-v2")
    add("--classifier", type=Path, metavar="FOLDER", help="for the trained classifier; if it is there, it is ranked by")
    text = "files and folders with documents (.txt, .rst, .md, .pod, .html, also with .gz)"
    add("--train_text", type=Path, nargs="+", required=True, metavar="PATH", help=f"{text} to train on")
    add("--text", type=Path, nargs="+", required=True, metavar="PATH", help=f"{text} to rank")
    add("--steps", type=int, default=60, metavar="N", help="of training (60)")
    add("--batch_size", type=int, default=8, metavar="N", help="questions in a step (8)")
    add("--other_windows", type=int, default=3, metavar="N", help="wrong windows of each question, in training (3)")
    add("--learning_rate", type=float, default=2e-4, metavar="X", help="highest of a linear schedule (2e-4)")
    add("--tokens", type=int, nargs=2, default=[1000, 4000], metavar="N", help="of a document of --text (1000 4000)")
    add("--questions", type=int, default=60, metavar="N", help="each about another document, drawn at random (60)")
    add("--candidates", type=int, default=8, metavar="N", help="documents to rank, the right one included (8)")
    add("--minutes", type=float, default=4.0, metavar="X", help="rank for so long, a random part of the questions (4)")
    add("--seed", type=int, default=0, metavar="N", help="of all random choices (0)")
    add("--threads", type=int, default=2, metavar="N", help="CPU threads of the training (2)")
    add(
        "--out",
        type=Path,
        default=HERE / "results" / "ranking",
        metavar="FOLDER",
        help="for NAME.json, .md and .png (results/ranking)",
    )
    add("--name", default="ranking", metavar="NAME", help="of the result files (ranking)")
    add_draw_option(parser, REPORT)
    return parser


def ranking_loss(model: Any, tokenizer: Any, examples: "list[Example]") -> Any:
    """Return the mean cross-entropy of the windows that have the sentence, each among all windows of its question."""
    import torch

    from experiments.question_answering.training import MAX_TOKENS

    pairs = [(example.question, window) for example in examples for window in example.windows]
    questions, windows = zip(*pairs, strict=True)
    options = {"truncation": "only_second", "max_length": MAX_TOKENS, "padding": True, "return_tensors": "pt"}
    scores = model(**tokenizer(list(questions), list(windows), **options)).logits.view(len(examples), -1)  # (q, w)
    target = torch.tensor([0 if example.answer else -100 for example in examples])
    return torch.nn.functional.cross_entropy(scores, target, reduction="sum") / max(1, int((target == 0).sum()))


def train_classifier(args: argparse.Namespace) -> tuple[Any, Any]:
    """Return a trained classifier of pairs with one class, and its tokenizer: that of --classifier, if it is there."""
    import transformers

    from experiments.common.documents import read_documents
    from experiments.question_answering.train_cloze import load, save_checkpoint
    from experiments.question_answering.training import Sampler, train

    is_trained = args.classifier is not None and args.classifier.exists()
    where = str(args.classifier) if is_trained else args.initial_model
    model, tokenizer = load(where, transformers.AutoModelForSequenceClassification, num_labels=1)
    if is_trained:
        return model.eval(), tokenizer
    sampler = Sampler(read_documents(args.train_text), args.seed, args.other_windows)
    loss_of = partial(ranking_loss, model, tokenizer)
    for _ in train(model, loss_of, sampler, args.steps, args.batch_size, args.learning_rate):
        pass
    if args.classifier is not None:
        save_checkpoint(model, tokenizer, args.classifier)
    return model.eval(), tokenizer


def make_questions(args: argparse.Namespace, tokenizer: Any) -> "list[tuple[Question, list[Document]]]":
    """Return questions, each with documents of which the first has the sentence that is asked about.

    Raises:
        InputError: too few documents.
    """
    from experiments.common.documents import read_documents
    from experiments.question_answering.cloze import ask

    rng = random.Random(args.seed)
    least, most = args.tokens
    documents = read_documents(args.text, min_words=least // 2)
    rng.shuffle(documents)
    fitting = [d for d in documents if least <= len(tokenizer(d.text, verbose=False)["input_ids"]) <= most]
    if len(fitting) < args.candidates:
        raise InputError(
            f"--text: there are {len(fitting)} documents of {least} to {most} tokens; "
            f"--candidates {args.candidates} needs as many"
        )
    asked = []
    for document in fitting[: args.questions]:
        for question in rng.sample(made := ask(document, 4, rng), min(1, len(made))):
            others = rng.sample([other for other in fitting if other is not document], args.candidates - 1)
            asked.append((question, [document, *others]))
    if not asked:
        raise InputError("--text: no document has sentences to ask about")
    return asked


def make_readers(model: Any, tokenizer: Any) -> "list[Reader]":
    """Return the readers; the second is the one that the others are compared with."""
    from experiments.common.models import tokens_read
    from experiments.question_answering.readers import AS_BEFORE, Reader, sizes
    from lsg_converter import LSGConverter

    n = tokens_read(model.config, tokenizer)
    pinned = {**sizes("none", 64), "pin_first_segment": True, "separator_token_id": tokenizer.sep_token_id}
    variants = {
        "LSG norm, b = 128": AS_BEFORE,
        "LSG none, b = 256": sizes("none", 256),
        "LSG pinned, none, b = 64": {**pinned, "position_period": n},
    }
    readers = [Reader(f"first {n} tokens", model, n, only_first=True)]
    readers += [Reader(f"windows of {size}, best score", model, size, OVERLAP) for size in (256, n)]
    converter = LSGConverter(LENGTH)
    return readers + [Reader(k, converter.convert(model, tokenizer, **v)[0], LENGTH) for k, v in variants.items()]


def rank(
    readers: "list[Reader]",
    asked: "list[tuple[Question, list[Document]]]",
    tokenizer: Any,
    minutes: float,
) -> Scores:
    """Return the scores of each reader; when the minutes end, the last questions are left out.

    For each question all readers take turns, so that whatever slows the machine down meets all of them.
    """
    from tqdm import tqdm

    scores: Scores = {reader.name: [] for reader in readers}
    began = time.monotonic()
    for number, (question, documents) in enumerate(tqdm(asked, desc="ranking", unit="question", mininterval=2)):
        if number and time.monotonic() - began > 60 * minutes:
            break
        turn = number % len(readers)
        for reader in readers[turn:] + readers[:turn]:
            all_scores = [score(reader, question.text, document.text, tokenizer) for document in documents]
            found, seconds = zip(*all_scores, strict=True)
            above = sum(other > found[0] for other in found[1:]) + sum(other == found[0] for other in found[1:]) / 2
            own = {"reciprocal_rank": 1 / (1 + above), "first": float(above == 0), "seconds": sum(seconds)}
            scores[reader.name].append(own)
    return scores


def score(reader: "Reader", question: str, context: str, tokenizer: Any) -> tuple[float, float]:
    """Return the highest score of a document's windows, and the CPU seconds of the model."""
    from experiments.question_answering.answers import encode_question

    encoded = reader.select(encode_question(tokenizer, question, context, reader.size, reader.overlap))
    started = time.process_time()
    [logits] = reader.read(encoded.inputs, "logits")  # (w, 1)
    return logits.max().item(), time.process_time() - started


def work(args: argparse.Namespace) -> None:
    """Train, rank, and write the results."""
    check_range(args, "steps", "batch_size", "other_windows", "questions", "threads", minimum=1)
    check_range(args, "candidates", minimum=2)
    check_range(args, "minutes", minimum=0)
    import torch
    import transformers

    from experiments.question_answering.ranking_report import summarize

    args.out.mkdir(parents=True, exist_ok=True)
    transformers.utils.logging.disable_progress_bar()  # of loading models
    transformers.set_seed(args.seed)
    torch.set_num_threads(args.threads)
    model, tokenizer = train_classifier(args)
    torch.set_num_threads(1)
    asked = make_questions(args, tokenizer)
    scores = rank(make_readers(model, tokenizer), asked, tokenizer, args.minutes)
    given = {name: value for name, value in vars(args).items() if name not in ("out", "draw")}
    for name in ("train_text", "text"):
        given[name] = [path.name for path in given[name]]
    for name in ("initial_model", "classifier"):
        given[name] = given[name] and Path(given[name]).name
    results = {**environment("cpu", "torch", "transformers"), "arguments": given, **summarize(scores)}
    write_json(args.out / f"{args.name}.json", results)
    write_report(results, args.out / args.name, REPORT)


def main(argv: list[str] | None = None) -> int:
    """Run the script; return the exit code."""
    return run_script(work, make_options().parse_args(argv), "ranking.py")


if __name__ == "__main__":
    sys.exit(main())
