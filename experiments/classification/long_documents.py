#!/usr/bin/env python3
"""Fine-tune classifiers of long documents in several ways, and compare them on documents that none has seen.

The class of a document is the folder it lies in. The ways: on the first tokens, as many as the original reads; on
windows of as many, with the mean of their logits; converted, then fine-tuned on whole documents; on windows, then
converted.

    python long_documents.py --initial_model PATH --text FOLDER
    python long_documents.py --draw results                  # tables and plots of earlier results
"""

import argparse
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository: lsg and experiments

from experiments.common.errors import InputError, check_range
from experiments.common.results import environment, write_json, write_report
from experiments.common.script import add_draw_option, run_script
from lsg.cli.arguments import OneLineParser

if TYPE_CHECKING:
    from experiments.classification.ways import Labelled

HERE = Path(__file__).resolve().parent
NAME = "long_documents"
REPORT = "experiments.classification.ways_report"


def make_options() -> OneLineParser:
    """Return the parser of the options."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--initial_model", required=True, metavar="PATH", help="plain encoder to start from, such as all-MiniLM-L6-v2")
    text = "folder whose folders are the classes; documents are .txt, .rst, .md, .pod and .html files, also with .gz"
    add("--text", type=Path, required=True, metavar="FOLDER", help=text)
    add("--tokens", type=int, nargs=2, default=[1024, 2048], metavar="N", help="of a document (1024 2048)")
    add("--per_class", type=int, default=10, metavar="N", help="documents of a class at most, drawn at random (10)")
    add("--least", type=int, default=12, metavar="N", help="classes with fewer documents are left out (12)")
    add("--held_out", type=float, default=0.34, metavar="X", help="part of each class that is read, not learned (0.34)")
    add("--epochs", type=int, default=2, metavar="N", help="of each fine-tuning (2)")
    add("--batch_size", type=int, default=8, metavar="N", help="documents in a step (8)")
    add("--learning_rate", type=float, default=2e-4, metavar="X", help="highest of a linear schedule (2e-4)")
    add("--seed", type=int, default=0, metavar="N", help="of all random choices (0)")
    add("--out", type=Path, default=HERE / "results", metavar="FOLDER", help="for NAME.json, .md and .png (results)")
    add("--name", default=NAME, metavar="NAME", help=f"of the result files ({NAME})")
    add_draw_option(parser, REPORT)
    return parser


def choose(args: argparse.Namespace, tokenizer: Any) -> "tuple[list[str], list[Labelled], list[Labelled]]":
    """Return the names of the classes, and the documents to learn and to read.

    Raises:
        InputError: fewer than two classes have enough documents.
    """
    from experiments.classification.ways import Labelled
    from experiments.common.documents import read_documents
    from experiments.common.tokens import AROUND, encode

    by_class: dict[str, list[str]] = {}
    for document in read_documents([args.text], args.tokens[0] // 2):
        folder = Path(document.name).relative_to(args.text).parts[0]
        if args.tokens[0] <= len(encode([document.text], tokenizer)[0]) + AROUND <= args.tokens[1]:
            by_class.setdefault(folder, []).append(document.text)
    names = sorted(name for name, texts in by_class.items() if len(texts) >= args.least)
    if len(names) < 2:
        counts = ", ".join(f"{name} {len(texts)}" for name, texts in sorted(by_class.items())[:9])
        raise InputError(
            f"--text {args.text}: two folders in it with at least {args.least} documents of {args.tokens[0]} to "
            f"{args.tokens[1]} tokens are expected; there are: {counts or 'none'}"
        )
    rng = random.Random(args.seed)
    learned, read = [], []
    for number, name in enumerate(names):
        texts = rng.sample(by_class[name], min(args.per_class, len(by_class[name])))
        cut = min(max(1, round(args.held_out * len(texts))), len(texts) - 1)
        read += [Labelled(text, number) for text in texts[:cut]]
        learned += [Labelled(text, number) for text in texts[cut:]]
    return names, learned, read


def work(args: argparse.Namespace) -> None:
    """Fine-tune in each way, read the held-out documents, and write the results."""
    check_range(args, "per_class", "least", minimum=2)
    check_range(args, "epochs", "batch_size", "tokens", minimum=1)
    check_range(args, "learning_rate", minimum=0)
    check_range(args, "held_out", minimum=0.05, maximum=0.95)
    import torch
    import transformers

    from experiments.classification import ways
    from experiments.classification.ways_report import summarize
    from experiments.common.models import tokens_read
    from experiments.question_answering.train_cloze import load

    args.out.mkdir(parents=True, exist_ok=True)
    transformers.utils.logging.disable_progress_bar()  # of loading models
    torch.set_num_threads(1)
    original, tokenizer = load(args.initial_model, transformers.AutoModelForSequenceClassification)
    unit = tokens_read(original.config, tokenizer)
    names, learned, read = choose(args, tokenizer)

    def make_model() -> Any:
        transformers.set_seed(args.seed)  # all begin with the same head
        return load(args.initial_model, transformers.AutoModelForSequenceClassification, num_labels=len(names))[0]

    answers: dict[str, dict[str, Any]] = {}
    for way in ways.make_ways(make_model, tokenizer, unit, args.tokens[1]):
        started = time.process_time()
        if way.learns:
            ways.fine_tune(way, learned, args.epochs, args.batch_size, args.learning_rate, args.seed)
        minutes = (time.process_time() - started) / 60
        answers[way.name] = {"training_minutes": round(minutes, 1), **ways.classify(way, read)}
    given = {name: value for name, value in vars(args).items() if name not in ("out", "draw")}
    given |= {"initial_model": Path(args.initial_model).name, "text": args.text.name}
    results = {**environment("cpu", "torch", "transformers"), "arguments": given, "classes": names}
    results |= {"learned": len(learned), **summarize(answers, [document.label for document in read])}
    write_json(args.out / f"{args.name}.json", results)
    write_report(results, args.out / args.name, REPORT)


def main(argv: list[str] | None = None) -> int:
    """Run the script; return the exit code."""
    return run_script(work, make_options().parse_args(argv), f"{NAME}.py")


if __name__ == "__main__":
    sys.exit(main())
