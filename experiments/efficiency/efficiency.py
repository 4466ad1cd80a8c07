#!/usr/bin/env python3
"""Measure time and memory of LSG attention against length, beside full attention, windows and other models.

All models have the size of RoBERTa-base and random weights. Each runs in a process of its own. They are measured in
turn, round by round, so that a slow moment of the machine affects all of them. Figures are medians over the rounds, and
ratios to the floor: the same model whose attention returns its values unchanged.

    python efficiency.py                # all lengths and cases, on the GPU if there is one, else on the CPU
    python efficiency.py --quick        # a fast check: two layers and short texts
    python efficiency.py --draw results # tables and plots of earlier results
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository: lsg and experiments
from experiments.common.errors import InputError, check_range
from experiments.common.results import environment, write_json, write_report
from experiments.common.script import add_draw_option, run_script
from experiments.common.workers import Worker, take_turns
from experiments.efficiency.worker import MODELS, PEER
from lsg.cli.arguments import OneLineParser

HERE = Path(__file__).resolve().parent
REPORT = "experiments.efficiency.report"
LENGTHS = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]
MIXED = [4096, 2900, 2048, 1450, 1024, 720, 512, 300]  # a batch of texts of many lengths


@dataclass(frozen=True)
class Case:
    """One thing to measure with several models."""

    title: str
    mode: str  # "infer" or "train"
    dtype: str
    dropout: float  # of the attention weights
    batches: list[list[int]]  # the lengths of the rows of each batch
    models: tuple[str, ...] = MODELS


def measure(case: Case, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure one case with all models in turn; return a row of figures for each batch and model."""
    names = [name for name in case.models if name in args.models]
    options = f"--layers {args.layers} --length {max(map(max, case.batches))} --dropout {case.dropout}".split()
    options += ["--device", args.device, "--dtype", case.dtype, "--backend", args.backend]
    # for each batch: the measurements of each model
    found: list[dict[str, list[dict[str, Any]]]] = [{name: [] for name in names} for _ in case.batches]
    for _ in range(args.processes):
        workers = [start_worker(name, args, options) for name in names]
        try:
            for lengths, of_batch in zip(case.batches, found, strict=True):
                title = f"{case.title}, {len(lengths)} x {max(lengths)}"
                take_turns(workers, {"mode": case.mode, "lengths": lengths}, args.rounds, of_batch, title)
        finally:
            for worker in workers:
                worker.close()
    batches = zip(case.batches, found, strict=True)
    return [
        summary(case, lengths, worker, of_batch[worker.name]) for lengths, of_batch in batches for worker in workers
    ]


def start_worker(name: str, args: argparse.Namespace, options: list[str]) -> Worker:
    """Start the process of a model."""
    python = args.peer_python if name == PEER else sys.executable
    return Worker(name, [python, str(HERE / "worker.py"), "--model", name, *options])


def summary(case: Case, lengths: list[int], worker: Worker, found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one row of the results."""
    row = {"title": case.title, "mode": case.mode, "dtype": case.dtype, "dropout": case.dropout}
    row |= {"model": worker.name, "rows": len(lengths), "tokens": sum(lengths), "length": max(lengths)}
    errors = [one["error"] for one in [worker.about, *found] if "error" in one]
    if errors:
        return {**row, "error": errors[0]}
    seconds = sorted(one["seconds"] for one in found)
    row |= {"seconds": median(seconds), "fastest": seconds[0], "slowest": seconds[-1]}
    return {**row, "gb": median(one["gb"] for one in found), "versions": worker.about}


def make_cases(args: argparse.Namespace) -> list[Case]:
    """Return what is measured."""
    ours = tuple(name for name in MODELS if name == "floor" or name.startswith("LSG"))
    dtypes = ["float32", "bfloat16"] if args.device != "cuda" else ["bfloat16", "float32"]
    short = [[length] for length in args.lengths if length <= args.peers_up_to]
    long = [[length] for length in args.lengths if length > args.peers_up_to]
    cases = []
    for dtype in dtypes:
        for batches, models in ((short, MODELS), (long, ours)):
            if batches:
                cases.append(Case(f"inference, {dtype}", "infer", dtype, 0.0, batches, models))
    for dtype in dtypes:
        for dropout in (0.1, 0.0):
            title = f"training, {dtype}, {'with' if dropout else 'without'} attention dropout"
            # a case for each length: models with a table of positions have as many as it needs
            cases += [Case(title, "train", dtype, dropout, [batch]) for batch in train_batches(args)]
    first = train_lengths(args)[0]
    scale = first / max(MIXED)
    mixed = [max(8, int(length * scale)) for length in MIXED]
    for mode, dropout in (("infer", 0.0), ("train", 0.1)):
        for batch, title in ((mixed, "padded batch"), ([first] * 4, "batch of four")):
            cases.append(Case(f"{title}, {mode}, float32", mode, "float32", dropout, [batch], ours))
    return [one for one in cases if args.only in one.title]


def train_batches(args: argparse.Namespace) -> list[list[int]]:
    """Return the rows of a training step for each length: as many tokens as `train_rows` rows of the first length."""
    lengths = train_lengths(args)
    return [[length] * max(1, args.train_rows * lengths[0] // length) for length in lengths]


def train_lengths(args: argparse.Namespace) -> list[int]:
    """Return the tokens in a row of a training step; on a GPU also those of a long text."""
    return args.train_lengths or ([4096, 16384] if args.device == "cuda" else [4096])


def make_options() -> OneLineParser:
    """Return the parser of the options."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, default=HERE / "results", metavar="FOLDER", help="for NAME.json, .md and .png (results)")
    add("--name", metavar="NAME", help="of the result files (cpu or gpu)")
    add("--device", choices=["cpu", "cuda"], help="(cuda if there is one)")
    add("--layers", type=int, default=12, metavar="N", help="layers of every model (12); fewer are quicker")
    add("--rounds", type=int, default=5, metavar="N", help="measured rounds, after one that warms up (5)")
    add("--processes", type=int, default=1, metavar="N", help="start all processes N times, for N times the rounds (1)")
    add("--lengths", type=int, nargs="+", default=LENGTHS, metavar="T", help="for inference (512 to 65536)")
    add("--peers_up_to", type=int, default=16384, metavar="T", help="above it, only LSG and the floor (16384)")
    lengths = "tokens in a row of a training step (4096; on a GPU 16384, too)"
    add("--train_lengths", type=int, nargs="+", metavar="T", help=lengths)
    add("--train_rows", type=int, default=4, metavar="N", help="rows of the first length; fewer of longer ones (4)")
    add("--models", nargs="+", choices=MODELS, metavar="MODEL", help=f"of: {', '.join(MODELS)}")
    add("--backend", default="auto", choices=["auto", "blocks", "tiled", "flex"], help="of LSG attention (auto)")
    add("--only", default="", metavar="TEXT", help="only the cases whose title contains TEXT")
    add("--peer_python", metavar="PATH", help="a Python that has lsg-converter 0.1.9 and transformers below 4.45")
    add("--quick", action="store_true", help="two layers, short texts, one round")
    add_draw_option(parser, REPORT)
    return parser


def complete(args: argparse.Namespace) -> None:
    """Check the options, and set those that were left out, without torch.

    Raises:
        InputError: with the reason in one line.
    """
    if args.quick:
        args.layers, args.rounds, args.lengths, args.train_lengths, args.train_rows = 2, 1, [128, 512], [512], 1
    check_range(args, "layers", "rounds", "processes", "train_lengths", "train_rows", "lengths", minimum=1)
    if args.models is None:
        args.models = [name for name in MODELS if name != PEER or args.peer_python]
    if PEER in args.models and not args.peer_python:
        raise InputError(f"--models {PEER!r} needs --peer_python")
    if not make_cases(args):
        raise InputError(f"--only {args.only!r}: no case has this in its title")
    if "floor" not in args.models:
        raise InputError("--models must include floor, the reference")


def work(args: argparse.Namespace) -> None:
    """Measure all cases, and write the results."""
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no GPU here")
    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    args.name = args.name or ("gpu" if args.device == "cuda" else "cpu")
    args.out.mkdir(parents=True, exist_ok=True)
    about = {"layers": args.layers, "rounds": args.rounds * args.processes, "backend": args.backend}
    results: dict[str, Any] = {**environment(args.device, "torch", "transformers"), **about, "rows": []}
    for case in make_cases(args):
        results["rows"] += measure(case, args)
        write_json(args.out / f"{args.name}.json", results)  # after each case, so that an interruption loses only one
    write_report(results, args.out / args.name, REPORT)


def main(argv: list[str] | None = None) -> int:
    """Run the script; return the exit code."""
    parser = make_options()
    args = parser.parse_args(argv)
    try:
        complete(args)
    except InputError as error:
        parser.error(str(error))
    return run_script(work, args, "efficiency.py")


if __name__ == "__main__":
    sys.exit(main())
