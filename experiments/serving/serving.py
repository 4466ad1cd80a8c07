#!/usr/bin/env python3
"""Measure what runs a converted encoder: torch, torch.compile, AOTInductor and ONNX Runtime, beside the dense model.

Each runtime has a process of its own. They are measured in turn, round by round. Figures are medians over the rounds;
the outputs are compared with those of torch.

    python serving.py                                 # RoBERTa-base's size, random weights, a CPU
    python serving.py --initial_model PATH            # a checkpoint, on English text
    python serving.py --draw results                  # tables and plots of earlier results
"""

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository: lsg and experiments
from experiments.common.errors import InputError, check_range
from experiments.common.results import environment, write_json, write_report
from experiments.common.script import add_draw_option, run_script
from experiments.common.workers import Worker, take_turns
from experiments.serving.worker import DENSE, REFERENCE, RUNTIMES
from lsg.cli.arguments import OneLineParser

HERE = Path(__file__).resolve().parent
REPORT = "experiments.serving.report"


def measure(folder: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure all runtimes in turn; return a row of figures for each runtime and length."""
    command = [sys.executable, str(HERE / "worker.py"), "--folder", str(folder), "--runtime"]
    workers = [Worker(name, [*command, name]) for name in args.runtimes]
    rows = []
    try:
        for length in args.lengths:
            found: dict[str, list[dict[str, Any]]] = {name: [] for name in args.runtimes}
            take_turns(workers, {"length": length}, args.rounds, found, f"{length} tokens")
            rows += [summary(folder, worker, length, found[worker.name]) for worker in workers]
    finally:
        for worker in workers:
            worker.close()
    return rows


def summary(folder: Path, worker: Worker, length: int, found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one row of the results."""
    row: dict[str, Any] = {"runtime": worker.name, "length": length, "ready": worker.about.get("seconds", 0.0)}
    errors = [one["error"] for one in [worker.about, *found] if "error" in one]
    if errors:
        return {**row, "error": errors[0]}
    seconds = sorted(one["seconds"] for one in found)
    row |= {"seconds": median(seconds), "fastest": seconds[0], "slowest": seconds[-1]}
    return {**row, "gb": median(one["gb"] for one in found), **differences(folder, worker.name, length)}


def differences(folder: Path, runtime: str, length: int) -> dict[str, float]:
    """Return how far the outputs are from those of torch; nothing if they were not saved."""
    import numpy

    reference = DENSE if runtime.startswith("dense") else REFERENCE
    names = [f"{name.replace(' ', '_')}-{length}.npy" for name in (runtime, reference)]
    if runtime == reference or not all((folder / name).exists() for name in names):
        return {}
    found, expected = (numpy.load(folder / name) for name in names)
    off = found - expected
    relative = float(numpy.linalg.norm(off) / numpy.linalg.norm(expected))
    return {"largest": float(abs(off).max()), "relative": relative}


def make_options() -> OneLineParser:
    """Return the parser of the options."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--initial_model", metavar="PATH", help="plain checkpoint of an encoder (random weights)")
    add("--layers", type=int, default=12, metavar="N", help="of the model with random weights (12)")
    add("--lengths", type=int, nargs="+", default=[512, 4096, 16384], metavar="T", help="(512 4096 16384)")
    add("--rounds", type=int, default=5, metavar="N", help="measured rounds, after one that warms up (5)")
    add("--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES), metavar="NAME", help="(all)")
    add("--out", type=Path, default=HERE / "results", metavar="FOLDER", help="for NAME.json, .md and .png (results)")
    add("--name", default="cpu", metavar="NAME", help="of the result files (cpu)")
    add_draw_option(parser, REPORT)
    return parser


def work(args: argparse.Namespace) -> None:
    """Prepare and measure all runtimes, and write the results."""
    from experiments.serving.prepare import prepare

    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        about = prepare(folder, args.initial_model, max(args.lengths), args.layers, args.runtimes)
        about |= {"rounds": args.rounds, "reference": REFERENCE}
        results = {**environment("cpu", "torch", "transformers", "onnxruntime"), **about, "rows": measure(folder, args)}
    write_json(args.out / f"{args.name}.json", results)
    write_report(results, args.out / args.name, REPORT)


def main(argv: list[str] | None = None) -> int:
    """Run the script; return the exit code."""
    parser = make_options()
    args = parser.parse_args(argv)
    try:
        check_range(args, "layers", "rounds", "lengths", minimum=1)
    except InputError as error:
        parser.error(str(error))
    return run_script(work, args, "serving.py")


if __name__ == "__main__":
    sys.exit(main())
