#!/usr/bin/env python3
"""Train the original on chunks and LSG on whole spans of the same documents for the same CPU time, and compare the
losses on held-out documents. One CPU thread. An interrupted run goes on where it stopped."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository: lsg and experiments

from experiments.common.errors import InputError, check_range
from experiments.common.script import add_draw_option, run_script
from lsg.cli.arguments import OneLineParser

NAME = "compare"
REPORT = "experiments.adaptation.report"
HERE = Path(__file__).resolve().parent
CHUNKS_IN_SPAN = 8
ARMS = {  # besides the original on chunks
    "local": "LSG with local attention alone",
    "far": "LSG that reaches beyond the original's positions",
    "defaults": "LSG with the default sizes",
    "mixed": "the original on chunks for half the time, then as local",
}
MIN_WORDS = 600  # of a document, as in run_adaptation.py


def make_options() -> OneLineParser:
    """Return the parser of the options."""
    parser = OneLineParser(description=__doc__)
    add = parser.add_argument
    text = "files and folders with documents (.txt, .rst, .md, .pod, .html, also with .gz)"
    add("--text", type=Path, nargs="+", required=True, metavar="PATH", help=f"{text} to train on")
    text = "documents to read instead of those that are held out of --text"
    add("--test_text", type=Path, nargs="+", default=[], metavar="PATH", help=text)
    demo = HERE.parent / "demo" / "roberta-demo"
    add("--checkpoint", default=str(demo), metavar="PATH", help="plain masked language model (the demo checkpoint)")
    add("--minutes", type=float, nargs="+", default=[2.0], metavar="X", help="CPU minutes of each training (2)")
    add("--documents", type=int, default=60, metavar="N", help="drawn at random, held out and read (60)")
    add("--learning_rate", type=float, default=5e-4, metavar="X", help="highest of each training (5e-4)")
    text = "; ".join(f"{name}: {what}" for name, what in ARMS.items())
    add("--arms", nargs="+", choices=ARMS, default=["local", "far"], help=f"{text} (local far)")
    add("--max_steps", type=int, default=-1, metavar="N", help="end each training after N steps (no limit)")
    add("--seed", type=int, default=0, metavar="N", help="of the random choices (0)")
    add("--work", type=Path, default=Path("adaptation"), metavar="FOLDER", help="for the trained models (adaptation)")
    add("--out", type=Path, default=HERE / "results", metavar="FOLDER", help="for the results (results)")
    add("--name", default=NAME, metavar="NAME", help=f"of the files of results ({NAME})")
    add_draw_option(parser, REPORT, f"{NAME}*.json")
    return parser


def work(args: argparse.Namespace) -> None:
    """Hold documents out, then train and read for each budget; write the results after each one."""
    check_range(args, "documents", minimum=1)
    check_range(args, "minutes", minimum=0.001)
    check_range(args, "seed", minimum=0)
    if args.work.exists() and not args.work.is_dir():
        raise InputError(f"--work {args.work}: a folder is expected, this is a file")
    import torch

    from experiments.adaptation import arms
    from experiments.adaptation.spans import hold_out
    from experiments.adaptation.summary import about, compare_readers, earlier_budgets
    from experiments.common.documents import read_documents
    from experiments.common.masked_readers import read_all
    from experiments.common.masked_text import mask_documents
    from experiments.common.measurement import load_inputs
    from experiments.common.models import tokens_read
    from experiments.common.results import write_json, write_report
    from experiments.common.tokens import AROUND, choose_documents, encode

    torch.set_num_threads(1)
    original, tokenizer = load_inputs(args, "AutoModelForMaskedLM")
    unit = tokens_read(original.config, tokenizer)
    args.span = CHUNKS_IN_SPAN * (unit - AROUND) + AROUND
    training, held_out = hold_out(read_documents(args.text, MIN_WORDS), args.documents, args.seed)
    texts = read_documents(args.test_text, MIN_WORDS) if args.test_text else held_out
    chosen = choose_documents(texts, tokenizer, [2 * unit, args.span], args.documents, args.seed)
    documents = mask_documents(encode([one.text for one in chosen], tokenizer), tokenizer, 0.15, args.seed)
    file = args.out / f"{args.name}.json"
    results = about(args, training, documents)
    results["budgets"] = earlier_budgets(file, results)
    for minutes in sorted(set(args.minutes) - {budget["minutes"] for budget in results["budgets"]}):
        folders = {arm: arms.train_arm(args, arm, unit, minutes, training) for arm in (arms.CHUNKS, *args.arms)}
        readers = arms.make_readers(original, tokenizer, folders, args.span)
        measured = read_all(readers, documents)
        results["budgets"].append({"minutes": minutes, **compare_readers(folders, readers, *measured, documents)})
        results["budgets"].sort(key=lambda budget: budget["minutes"])
        write_json(file, results)
    write_report(results, args.out / args.name, REPORT)


def main(argv: list[str] | None = None) -> int:
    """Run the script; return the exit code."""
    return run_script(work, make_options().parse_args(argv), f"{NAME}.py")


if __name__ == "__main__":
    sys.exit(main())
