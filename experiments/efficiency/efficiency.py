#!/usr/bin/env python3
"""Measure what the attention costs: time and memory against length, beside full attention, Longformer and BigBird.

All models have the size of RoBERTa-base and random weights. Each lives in a process of its own; they are measured in
turn, round by round, so that a slow moment of the machine meets all of them. Figures are medians over the rounds, and
ratios to the floor: the same model whose attention returns its values unchanged.

    python efficiency.py                # the published table and the lengths, on the GPU if there is one, else the CPU
    python efficiency.py --quick        # two layers and short texts, to see it run
    python efficiency.py --draw results # table and plot of earlier results once more
"""

import argparse
import datetime
import json
import platform
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository: lsg and experiments
from experiments.efficiency.report import write_report
from experiments.efficiency.worker import MODELS, PEER
from lsg.cli.arguments import OneLineParser
from lsg.errors import one_line

HERE = Path(__file__).resolve().parent
MIXED = [4096, 2900, 2048, 1450, 1024, 720, 512, 300]  # a batch of texts of many lengths


class Worker:
    """A process that holds one model."""

    def __init__(self, name: str, python: str, options: list[str]) -> None:
        command = [python, str(HERE / "worker.py"), "--model", name, *options]
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = self.read()

    def read(self) -> dict[str, Any]:
        """Wait for its next line; a process that ended says no more."""
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": "the process ended, for want of memory perhaps"}

    def ask(self, mode: str, lengths: list[int]) -> dict[str, Any]:
        """Have it make one measurement."""
        if self.process.poll() is not None:
            return {"error": "the process has ended"}
        self.process.stdin.write(json.dumps({"mode": mode, "lengths": lengths}) + "\n")
        self.process.stdin.flush()
        return self.read()

    def close(self) -> None:
        """End it."""
        self.process.stdin.close()
        self.process.terminate()
        self.process.wait()


def measure(case: dict[str, Any], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure one case with every model, in turn; give a row of figures for each model and batch."""
    names = [name for name in case["models"] if name in args.models]
    options = ["--layers", str(args.layers), "--length", str(max(map(max, case["batches"])))]
    options += ["--dropout", str(case["dropout"]), "--device", args.device, "--dtype", case["dtype"]]
    options += ["--backend", args.backend]
    # for each batch: the measurements of each model
    found: list[dict[str, list[dict[str, Any]]]] = [{name: [] for name in names} for _ in case["batches"]]
    for _ in range(args.processes):
        workers = [Worker(name, args.peer_python if name == PEER else sys.executable, options) for name in names]
        try:
            for lengths, of_batch in zip(case["batches"], found, strict=True):
                measure_batch(
                    f"{case['title']}, {len(lengths)} x {max(lengths)}",
                    case["mode"],
                    lengths,
                    workers,
                    of_batch,
                    args.rounds,
                )
        finally:
            for worker in workers:
                worker.close()
    batches = zip(case["batches"], found, strict=True)
    return [
        summary(case, lengths, worker, of_batch[worker.name]) for lengths, of_batch in batches for worker in workers
    ]


def measure_batch(
    title: str,
    mode: str,
    lengths: list[int],
    workers: list[Worker],
    found: dict[str, list[dict[str, Any]]],
    rounds: int,
) -> None:
    """Measure one batch with every model, in turn; put the measurements into `found`."""
    from tqdm import tqdm

    for number in tqdm(range(1 + rounds), title, unit="round"):  # the first one warms up
        for worker in workers:
            if any("error" in one for one in found[worker.name]):
                continue
            given = worker.ask(mode, lengths)
            if number > 0 or "error" in given:
                found[worker.name].append(given)


def summary(case: dict[str, Any], lengths: list[int], worker: Worker, found: list[dict[str, Any]]) -> dict[str, Any]:
    """Give one row of the results."""
    row = {key: case[key] for key in ("title", "mode", "dtype", "dropout")}
    row |= {"model": worker.name, "rows": len(lengths), "tokens": sum(lengths), "length": max(lengths)}
    errors = [one["error"] for one in [worker.about, *found] if "error" in one]
    if errors:
        return {**row, "error": errors[0]}
    seconds = sorted(one["seconds"] for one in found)
    return {
        **row,
        "seconds": median(seconds),
        "fastest": seconds[0],
        "slowest": seconds[-1],
        "gb": median(one["gb"] for one in found),
        "versions": worker.about,
    }


def make_cases(args: argparse.Namespace) -> list[dict[str, Any]]:
    """List what is measured."""

    def case(title: str, mode: str, dtype: str, dropout: float, batches: list[list[int]], models: Any = MODELS) -> dict:
        return {"title": title, "mode": mode, "dtype": dtype, "dropout": dropout, "batches": batches, "models": models}

    ours = [name for name in MODELS if name == "floor" or name.startswith("LSG")]
    dtypes = ["float32", "bfloat16"]
    cases = []
    for dtype in dtypes:
        short = [[length] for length in args.lengths if length <= args.peers_up_to]
        long = [[length] for length in args.lengths if length > args.peers_up_to]
        cases.append(case(f"inference, {dtype}", "infer", dtype, 0.0, short))
        if long:
            cases.append(case(f"inference, {dtype}", "infer", dtype, 0.0, long, ours))
    for dtype in dtypes:
        for dropout in (0.1, 0.0):
            title = f"training, {dtype}, {'with' if dropout else 'without'} attention dropout"
            cases.append(case(title, "train", dtype, dropout, [[args.train_length] * args.train_rows]))
    scale = args.train_length / max(MIXED)
    mixed = [max(8, int(length * scale)) for length in MIXED]
    for mode, dropout in (("infer", 0.0), ("train", 0.1)):
        for batch, title in ((mixed, "padded batch"), ([args.train_length] * 4, "batch of four")):
            cases.append(case(f"{title}, {mode}, float32", mode, "float32", dropout, [batch], ours))
    return [one for one in cases if args.only in one["title"]]


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, default=HERE / "results", metavar="FOLDER", help="for <device>.json, .md and .png")
    add("--name", metavar="NAME", help="of the result files (cpu or gpu)")
    add("--device", choices=["cpu", "cuda"], help="(cuda if there is one)")
    add("--layers", type=int, default=12, metavar="N", help="layers of every model (12); fewer are quicker")
    add("--rounds", type=int, default=5, metavar="N", help="measured rounds; one more warms up (5)")
    add("--processes", type=int, default=1, metavar="N", help="start all processes N times, for N times the rounds (1)")
    add("--lengths", type=int, nargs="+", default=[512, 1024, 2048, 4096, 8192, 16384, 32768, 65536], metavar="T")
    add("--peers_up_to", type=int, default=16384, metavar="T", help="beyond it, LSG and the floor alone (16384)")
    add("--train_length", type=int, default=4096, metavar="T", help="tokens in a row (4096)")
    add("--train_rows", type=int, default=4, metavar="N", help="rows in a training step (4)")
    add("--models", nargs="+", choices=MODELS, metavar="MODEL", help=f"of: {', '.join(MODELS)}")
    add("--backend", default="auto", choices=["auto", "blocks", "tiled", "flex"], help="of LSG attention (auto)")
    add("--only", default="", metavar="TEXT", help="cases whose title holds this")
    add("--peer_python", metavar="PATH", help="a Python that has lsg-converter 0.1.9 and transformers below 4.45")
    add("--quick", action="store_true", help="two layers, short texts, one round")
    add("--draw", type=Path, metavar="FOLDER", help="measure nothing: make tables and plots of the JSON files there")
    args = parser.parse_args(argv)
    for name in ("layers", "rounds", "processes", "train_length", "train_rows"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} {getattr(args, name)} is not allowed: it must be at least 1")
    if min(args.lengths) < 1:
        parser.error(f"--lengths {min(args.lengths)} is not allowed: it must be at least 1")
    if args.quick:
        args.layers, args.rounds, args.lengths, args.train_length, args.train_rows = 2, 1, [128, 512], 512, 1
    if args.models is None:
        args.models = [name for name in MODELS if name != PEER or args.peer_python]
    if PEER in args.models and not args.peer_python:
        parser.error(f"--models {PEER!r} needs --peer_python")
    if not make_cases(args):
        parser.error(f"--only {args.only!r}: no case has this in its title")
    if "floor" not in args.models:
        parser.error("--models: the floor, which all is compared with, must be among them")
    return args


def main(argv: list[str] | None = None) -> int:
    """Measure, write, draw."""
    args = parse_args(argv)
    if args.draw is not None:
        files = sorted(args.draw.glob("*.json"))
        if not files:
            print(f"efficiency.py: error: --draw {one_line(args.draw)}: there are no JSON files", file=sys.stderr)
            return 1
        for file in files:
            write_report(json.loads(file.read_text(encoding="utf-8")), file.with_suffix(""))
        return 0
    import torch

    if args.device is None:
        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    if args.device == "cuda" and not torch.cuda.is_available():
        print("efficiency.py: error: --device cuda: torch sees no GPU here", file=sys.stderr)
        return 1
    name = args.name or ("gpu" if args.device == "cuda" else "cpu")
    args.out.mkdir(parents=True, exist_ok=True)
    results = {
        "date": f"{datetime.date.today()}",
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "layers": args.layers,
        "rounds": args.rounds * args.processes,
        "backend": args.backend,
        "rows": [],
    }
    for case in make_cases(args):
        results["rows"] += measure(case, args)
        # after every case, so that nothing measured is lost
        (args.out / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    write_report(results, args.out / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
