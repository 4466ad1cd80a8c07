#!/usr/bin/env python3
"""Ask questions about whole documents: a model on windows, and the same model converted, which reads all at once.

The questions are cloze questions about documents of your folders, or those of a file in SQuAD's format.

    python long_documents.py --checkpoint PATH --text FOLDER        # a head of train_cloze.py
    python long_documents.py --checkpoint PATH --questions FILE     # a head of your own
    python long_documents.py --draw results                         # tables and plots of earlier results
"""

import argparse
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository: lsg and experiments

from experiments.common.errors import InputError, check_range
from experiments.common.results import environment, write_json, write_report
from experiments.common.script import add_draw_option, run_script
from lsg.cli.arguments import OneLineParser

if TYPE_CHECKING:
    from experiments.question_answering.readers import Reader
    from experiments.question_answering.squad import Question

HERE = Path(__file__).resolve().parent
REPORT = "experiments.question_answering.report"
SAVE_EVERY = 20  # questions
Scores = dict[str, list[dict[str, Any]]]  # of each reader, those of each question: MEASURES and seconds
SPARSITY_TYPES = ["none", "block_stride", "norm"]


def make_options() -> OneLineParser:
    """Return the parser of the options."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="PATH", help="plain encoder with a question-answering head")
    source = parser.add_mutually_exclusive_group(required=True)
    text = "files and folders with documents (.txt, .rst, .md, .pod, .html, also with .gz)"
    source.add_argument("--text", type=Path, nargs="+", metavar="PATH", help=text)
    source.add_argument("--questions", type=Path, metavar="FILE", help="questions in SQuAD's format (1 or 2)")
    text = "what of a SQuAD entry is the document: each passage, or all together (separate)"
    add("--passages", choices=("separate", "join"), default="separate", help=text)
    add("--tokens", type=int, nargs=2, default=[2000, 8000], metavar="N", help="of a document of --text (2000 8000)")
    add("--documents", type=int, default=40, metavar="N", help="of --text, drawn at random (40)")
    add("--questions_each", type=int, default=8, metavar="N", help="about a document of --text (8)")
    add("--unmarked", action="store_true", help="no mark stands where the answer was, as in the head's training")
    add("--windows", type=int, nargs="+", default=[256, 512], metavar="N", help="tokens in a window (256 512)")
    add("--overlap", type=int, default=64, metavar="N", help="tokens that two windows share (64)")
    add("--block_sizes", type=int, nargs="+", default=[32, 64, 96], metavar="N", help="of LSG (32 64 96)")
    add("--sparsity_types", nargs="+", default=SPARSITY_TYPES, metavar="TYPE", help="(none block_stride norm)")
    add("--max_sequence_length", type=int, default=8192, metavar="N", help="tokens that LSG reads at once (8192)")
    add("--max_pinned_tokens", type=int, default=128, metavar="N", help="tokens of a question (128)")
    add("--minutes", type=float, default=12.0, metavar="X", help="ask for so long, a random part of the questions (12)")
    add("--max_answer_tokens", type=int, default=30, metavar="N", help="(30)")
    add("--seed", type=int, default=0, metavar="N", help="of the choice of documents and questions (0)")
    add("--save_questions", type=Path, metavar="FILE", help="write the questions in SQuAD's format")
    add("--out", type=Path, default=HERE / "results", metavar="FOLDER", help="for NAME.json, .md and .png (results)")
    add("--name", default="long_documents", metavar="NAME", help="of the result files (long_documents)")
    add_draw_option(parser, REPORT)
    return parser


def make_questions(args: argparse.Namespace, tokenizer: Any) -> "list[Question]":
    """Return the questions of the file, or cloze questions about documents of the folders.

    Raises:
        InputError: a file that cannot be used, or too little text.
    """
    from experiments.common.documents import read_documents
    from experiments.question_answering.cloze import ask
    from experiments.question_answering.squad import read_squad

    if args.questions is not None:
        return read_squad(args.questions, args.passages)
    rng = random.Random(args.seed)
    least, most = args.tokens
    documents = read_documents(args.text, min_words=least // 2)
    rng.shuffle(documents)
    questions: list[Question] = []
    names: set[str] = set()
    for document in documents:
        if len(names) < args.documents and least <= len(tokenizer(document.text, verbose=False)["input_ids"]) <= most:
            asked = ask(document, args.questions_each, rng, not args.unmarked)
            questions += asked
            names |= {question.document for question in asked}
    if not questions:
        raise InputError(f"--text: no document of {least} to {most} tokens with sentences to ask about")
    return questions


def answer_all(
    readers: "list[Reader]", questions: "list[Question]", tokenizer: Any, args: argparse.Namespace
) -> Iterator[tuple[Scores, list[int]]]:
    """Yield, every `SAVE_EVERY` questions and at the end, the scores so far, and the tokens of each question.

    If `--minutes` end, the last questions are not asked. For each question all readers take turns, so that whatever
    slows the machine down meets all of them.
    """
    from tqdm import tqdm

    from experiments.question_answering.answers import choose_answer, encode_question, score_answer
    from experiments.question_answering.readers import LOGITS

    scores: Scores = {reader.name: [] for reader in readers}
    may_refuse, tokens, began = any(not question.answers for question in questions), list[int](), time.monotonic()
    bar = tqdm(questions, desc="asking", unit="question", mininterval=2)
    for number, question in enumerate(bar):
        if number and time.monotonic() - began > 60 * args.minutes:
            break
        ways = {(reader.size, reader.overlap) for reader in readers}
        encoded = {way: encode_question(tokenizer, question.text, question.context, *way) for way in ways}
        tokens.append(int(encoded[readers[-1].size, 0].inputs["attention_mask"].sum()))
        if number == 0:
            for reader in readers:  # what is done once, at the first call, is not measured
                reader.read(reader.select(encoded[reader.size, reader.overlap]).inputs, *LOGITS)
        turn = number % len(readers)
        for reader in readers[turn:] + readers[:turn]:
            windows = reader.select(encoded[reader.size, reader.overlap])
            started = time.process_time()
            start, end = reader.read(windows.inputs, *LOGITS)
            seconds = time.process_time() - started
            answer = choose_answer(start, end, windows, args.max_answer_tokens, may_refuse)
            scores[reader.name].append({**score_answer(answer, question), "seconds": seconds})
        bar.set_postfix_str("exact: " + " ".join(f"{fmean(s['exact'] for s in own):.2f}" for own in scores.values()))
        if number % SAVE_EVERY == SAVE_EVERY - 1:
            yield scores, tokens
    bar.close()
    yield scores, tokens


def work(args: argparse.Namespace) -> None:
    """Ask, and write the results."""
    check_range(args, "documents", "questions_each", "windows", "block_sizes", "max_answer_tokens", minimum=1)
    check_range(args, "overlap", "minutes", minimum=0)
    import torch
    import transformers

    from experiments.common.models import load_encoder
    from experiments.question_answering.readers import make_readers
    from experiments.question_answering.report import summarize
    from experiments.question_answering.squad import write_squad

    args.out.mkdir(parents=True, exist_ok=True)
    transformers.utils.logging.disable_progress_bar()  # of loading models
    torch.set_num_threads(1)
    model, tokenizer = load_encoder(args.checkpoint, transformers.AutoModelForQuestionAnswering)
    questions = make_questions(args, tokenizer)
    if args.save_questions is not None:
        write_squad(questions, args.save_questions)
    readers, variants = make_readers(model, tokenizer, args)
    random.Random(args.seed).shuffle(questions)
    given = {name: value for name, value in vars(args).items() if name not in ("out", "draw", "save_questions")}
    given |= {"checkpoint": Path(args.checkpoint).name, "text": [path.name for path in args.text or []]}
    given["questions"] = args.questions and args.questions.name
    about = {**environment("cpu", "torch", "transformers"), "arguments": given, "variants": variants}
    for scores, tokens in answer_all(readers, questions, tokenizer, args):
        figures = summarize(scores, questions[: len(tokens)], tokens, reference=readers[1].name)
        results = {**about, **figures}
        write_json(args.out / f"{args.name}.json", results)
    write_report(results, args.out / args.name, REPORT)


def main(argv: list[str] | None = None) -> int:
    """Run the script; return the exit code."""
    return run_script(work, make_options().parse_args(argv), "long_documents.py")


if __name__ == "__main__":
    sys.exit(main())
