"""A worker: it holds the model, and reads one part after the other. In this process, or as actors of Ray Data."""

import argparse
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from experiments.common.errors import InputError
from experiments.corpus.loading import load_task
from experiments.corpus.output import attempt, file_of, write_part
from experiments.corpus.parts import Corpus, Part
from experiments.corpus.reading import read_part
from experiments.corpus.tasks import read_texts
from lsg.errors import one_line

ROOT = Path(__file__).resolve().parents[2]
PLACE, COUNTS = "place", {"tokens": pa.int64(), "truncated": pa.bool_(), "error": pa.string()}
STORE = 100_000_000  # bytes: no documents go through Ray, which reserves a third of the memory unless it is told
PART_ERRORS = (RuntimeError, OSError, ValueError, MemoryError)  # such as a GPU that lacks memory
Summary = dict[str, Any]  # of a part: its number, documents, errors, truncated, tokens, process; or a failure


class Worker:
    """A model, and what it does with a part.

    Args:
        args: the script's options.
        corpus: what is read.
    """

    def __init__(self, args: argparse.Namespace, corpus: Corpus) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "true" if args.threads > 1 else "false"
        os.environ["RAYON_NUM_THREADS"] = str(args.threads)
        torch.set_num_threads(args.threads)
        self.args, self.corpus = args, corpus
        self.task = load_task(args, "cuda" if torch.cuda.is_available() else "cpu")

    def __call__(self, row: dict[str, Any]) -> Summary:
        """Read a part, and write its file; return the figures, or why it failed.

        Args:
            row: of Ray Data, with the part as JSON.
        """
        part, folder = Part(**json.loads(row["part"])), Path(self.args.out)
        figures = {"number": part.number, "process": os.getpid()}
        try:
            with attempt(folder, part.number):
                table = self.read(part)
                write_part(table, file_of(folder, part.number))
        except PART_ERRORS as error:
            return {**figures, "failure": one_line(error)}
        sums = {name: sum(filter(None, table[name].to_pylist())) for name in ("tokens", "truncated")}
        errors = table.num_rows - table["error"].null_count
        return {**figures, "documents": table.num_rows, "errors": errors, **sums, "failure": ""}

    def read(self, part: Part) -> pa.Table:
        """Return a part's output: the place, the input's columns, the results."""
        documents = read_part(self.corpus, part, self.args.text_column)
        good = [i for i, error in enumerate(documents.errors) if error is None]
        found = read_texts(self.task, [documents.texts[i] for i in good], self.args.tokens_per_batch)
        results: list[dict[str, Any]] = [{"error": error} for error in documents.errors]
        for i, result in zip(good, found, strict=True):
            results[i] |= result
        columns = {PLACE: pa.array(documents.places, pa.string())}
        columns |= dict(zip(documents.columns.column_names, documents.columns.columns, strict=True))
        if self.args.without_text:
            columns.pop(self.args.text_column, None)
        for name, kind in {**self.task.columns, **COUNTS}.items():
            columns[name] = pa.array([result.get(name) for result in results], kind)
        return pa.table(columns)


def run_here(args: argparse.Namespace, corpus: Corpus, parts: list[Part]) -> Iterator[Summary]:
    """Yield the figures of each part, read by this process."""
    worker = Worker(args, corpus)
    for part in parts:
        yield worker({"part": json.dumps(asdict(part))})


def start_ray(args: argparse.Namespace) -> Any:
    """Start Ray on this machine, or join the cluster at --address; return the module.

    Raises:
        InputError: Ray is not installed, or there is no such cluster.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # the loss of a worker is not an error here
    if find_spec("ray") is None:
        raise InputError("Ray is missing; install it with: pip install 'ray[data]', or pass --workers 0")
    import ray

    if ray.is_initialized():
        return ray
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if args.address is None:
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        quiet["runtime_env"] = {"env_vars": {"PYTHONPATH": paths}}
        cpus = max((args.workers or 1) * args.threads, os.cpu_count() or 1)
        ray.init(num_cpus=cpus, include_dashboard=False, object_store_memory=STORE, **quiet)
        return ray
    modules = [str(ROOT / "lsg"), str(ROOT / "experiments")]  # which other machines get
    quiet["runtime_env"] = {"py_modules": modules, "excludes": ["results", "*.safetensors", "*.png"]}
    try:
        ray.init(args.address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"--address {args.address}: no Ray cluster can be joined there: {one_line(error)}") from error
    return ray


def run_on_ray(args: argparse.Namespace, corpus: Corpus, parts: list[Part]) -> Iterator[Summary]:
    """Yield the figures of each part, in any order, read by actors of Ray Data.

    An actor that is lost is started again, and reads the parts that it had again.

    Raises:
        InputError: Ray cannot go on, for instance because no actor can load the model.
    """
    ray = start_ray(args)
    data = import_module("ray.data")
    gpus = int(ray.cluster_resources().get("GPU", 0))
    count = args.workers or gpus or max(int(ray.cluster_resources()["CPU"]) // args.threads, 1)
    data.DataContext.get_current().enable_progress_bars = False  # the script has one
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    rows = data.from_items([{"part": json.dumps(asdict(part))} for part in parts], override_num_blocks=len(parts))
    found = rows.map(
        Worker,
        fn_constructor_args=(args, corpus),
        compute=data.ActorPoolStrategy(size=min(count, len(parts)), max_tasks_in_flight_per_actor=2),
        num_cpus=args.threads,
        num_gpus=1 if gpus else 0,
    )
    try:
        yield from found.iter_rows()
    except ray.exceptions.RayError as error:
        raise InputError(f"Ray cannot go on: {one_line(error)}") from error
