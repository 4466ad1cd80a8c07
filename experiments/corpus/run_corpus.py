#!/usr/bin/env python3
"""Embed, classify, or ask one question of, every document of a corpus, on one machine or on many."""

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository: lsg and experiments

from experiments.common.errors import InputError, check_range
from experiments.common.script import run_script
from lsg.cli.arguments import OneLineParser

if TYPE_CHECKING:
    from experiments.corpus.parts import Corpus

NAME = "run_corpus.py"
# what the results depend on, besides the model and the corpus
SETTINGS = ["task", "question", "max_answer_tokens", "max_sequence_length", "dtype"]
SETTINGS += ["text_column", "without_text", "bytes_per_part"]


def make_options() -> OneLineParser:
    """Return the parser of the options."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", required=True, metavar="PATH", help="LSG folder, or the name of one on the Hub")
    add("--trust_remote_code", action="store_true", help="run the code in the model's folder instead of lsg's")
    text = "files and folders: .jsonl, or .parquet, or text (.txt, .rst, .md, .pod, .html, also with .gz)"
    add("--text", type=Path, nargs="+", required=True, metavar="PATH", help=text)
    add("--out", type=Path, required=True, metavar="FOLDER", help="for the results; an interrupted run goes on there")
    add("--task", choices=("embed", "classify", "answer"), default="embed", help="(embed)")
    add("--question", metavar="TEXT", help="of --task answer")
    add("--max_answer_tokens", type=int, default=30, metavar="N", help="of --task answer (30)")
    add("--text_column", default="text", metavar="NAME", help="of JSON lines and Parquet, the documents (text)")
    add("--without_text", action="store_true", help="leave the documents out of the results")
    add(
        "--max_sequence_length", type=int, metavar="N", help="tokens of a document that are read (what the model reads)"
    )
    add("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="of the model (float32)")
    add("--tokens_per_batch", type=int, default=16384, metavar="N", help="read together, padding included (16384)")
    text = "documents that are read, written, and repeated after a loss, together (2000000)"
    add("--bytes_per_part", type=int, default=2_000_000, metavar="N", help=text)
    text = "processes with a model each (as many as GPUs, or, if there are none, CPUs / --threads); 0: without Ray"
    add("--workers", type=int, metavar="N", help=text)
    add("--threads", type=int, default=1, metavar="N", help="CPU threads of a worker (1)")
    add("--address", metavar="HOST:PORT", help="of a Ray cluster, or auto (default: this machine alone)")
    return parser


def check(args: argparse.Namespace) -> None:
    """Raise InputError for options that contradict each other."""
    check_range(args, "max_answer_tokens", "max_sequence_length", "tokens_per_batch", "threads", minimum=1)
    check_range(args, "bytes_per_part", minimum=1)
    check_range(args, "workers", minimum=0)
    if (args.task == "answer") != bool(args.question):
        raise InputError("--task answer and --question go together")
    if args.address and args.workers == 0:
        raise InputError("--workers 0 is this process alone; leave --address out")


def check_columns(corpus: "Corpus", task: Any) -> None:
    """Raise InputError if the input has columns of the names that the results have."""
    from experiments.corpus.worker import COUNTS, PLACE

    clash = {PLACE, *COUNTS, *task.columns} & set(corpus.schema.names)
    if clash:
        raise InputError(f"--text: the results have a column {min(clash)!r} of their own; rename that of the input")


def follow(found: "Iterable[dict[str, Any]]", total: int, done: int) -> tuple[dict[str, int], list[str]]:
    """Return the sums of all figures, and which parts failed, and why; show the progress meanwhile.

    Args:
        total: parts of the corpus.
        done: those that an earlier run has written.
    """
    from tqdm import tqdm

    sums, failures = dict.fromkeys(("documents", "errors", "truncated", "tokens"), 0), list[str]()
    began = time.monotonic()
    with tqdm(total=total, initial=done, desc="reading", unit="part", mininterval=2) as bar:
        for figures in found:
            if figures["failure"]:
                failures.append(f"number {figures['number']}: {figures['failure']}")
                continue
            for name in sums:
                sums[name] += figures[name]
            speed = sums["tokens"] / (time.monotonic() - began)
            bar.set_postfix_str(f"{sums['documents']:,} documents, {speed:,.0f} tokens/s", refresh=False)
            bar.update()
    return sums, failures


def work(args: argparse.Namespace) -> None:
    """Read the corpus."""
    check(args)
    from experiments.corpus.loading import checksum, load_task
    from experiments.corpus.output import file_of, open_output
    from experiments.corpus.parts import find_corpus
    from experiments.corpus.worker import run_here, run_on_ray

    args.out = args.out.resolve()  # for workers elsewhere
    if Path(args.model).exists():
        args.model = str(Path(args.model).resolve())
    corpus = find_corpus(args.text, args.text_column, args.bytes_per_part)
    task = load_task(args, "cpu")  # whatever is wrong with it is said before workers start
    check_columns(corpus, task)
    settings = {name: getattr(args, name) for name in SETTINGS}
    settings |= {"model": checksum(task.model), "corpus": corpus.checksum, **task.about()}
    del task
    with open_output(args.out, settings):
        todo = [part for part in corpus.parts if not file_of(args.out, part.number).exists()]
        total, done, began = len(corpus.parts), len(corpus.parts) - len(todo), time.monotonic()
        run = run_here if args.workers == 0 else run_on_ray
        sums, failures = follow(run(args, corpus, todo) if todo else (), total, done)
        seconds = time.monotonic() - began
    print(
        f"{sums['documents']:,} documents ({sums['errors']:,} with an error, {sums['truncated']:,} truncated), "
        f"{sums['tokens']:,} tokens in {seconds:.1f} s, {sums['tokens'] / max(seconds, 1e-9):,.0f} tokens/s; "
        f"{done:,} of {total:,} parts were there before: {args.out}"
    )
    if failures:
        raise InputError(f"{len(failures)} of {total} parts failed; run it again; {failures[0]}")


def main(argv: list[str] | None = None) -> int:
    """Run the script; return the exit code."""
    return run_script(work, make_options().parse_args(argv), NAME)


if __name__ == "__main__":
    sys.exit(main())
