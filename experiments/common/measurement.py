"""A measurement on documents: its options, the checkpoint that is measured, and the results."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.common.errors import InputError
from experiments.common.models import load_encoder
from experiments.common.results import environment, write_json, write_report
from experiments.common.script import add_draw_option
from lsg.cli.arguments import OneLineParser


def make_parser(description: str, folder: Path, name: str, report: str) -> OneLineParser:
    """Return a parser with the options of a script that measures something on documents.

    Args:
        folder: for the results, unless another one is given.
        name: of the files of results, without the ending, unless another one is given.
        report: see `write_report`.
    """
    parser = OneLineParser(description=description)
    add = parser.add_argument
    text = "files and folders with documents (.txt, .rst, .md, .pod, .html, also with .gz)"
    add("--text", type=Path, nargs="+", required=True, metavar="PATH", help=text)
    add("--tokens", type=int, nargs=2, default=[1024, 8192], metavar="N", help="of a document (1024 8192)")
    add("--seed", type=int, default=0, metavar="N", help="of the random choices (0)")
    add("--out", type=Path, default=folder, metavar="FOLDER", help="for the results (results)")
    add("--name", default=name, metavar="NAME", help=f"of the files of results ({name})")
    add_draw_option(parser, report, f"{name}*.json")
    return parser


def load_inputs(args: argparse.Namespace, auto_class: str) -> tuple[Any, Any]:
    """Return the model and the tokenizer; make the folder of the results.

    Raises:
        InputError, ConversionError: with the reason in one line.
    """
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {args.out}: no folder can be made there: {error.strerror}") from error
    import transformers

    transformers.utils.logging.disable_progress_bar()  # of loading models
    return load_encoder(args.checkpoint, getattr(transformers, auto_class))


def check_tokens(args: argparse.Namespace, unit: int) -> None:
    """Raise InputError unless `--tokens` are at least the `unit` tokens that the original reads, and sorted."""
    least, most = args.tokens
    if not unit <= least <= most:
        raise InputError(
            f"--tokens {least} {most} is not allowed: at least {unit}, which the original reads, and sorted"
        )


def measure_and_report(
    args: argparse.Namespace, model: Any, measure: Callable[[], dict[str, Any]], report: str
) -> None:
    """Measure with a model, and write the results: .json, .md and .png, named `--name`, in the folder `--out`."""
    given = {name: value for name, value in vars(args).items() if name not in ("out", "draw")}
    given |= {"checkpoint": Path(args.checkpoint).name, "text": [path.name for path in args.text]}
    started = time.process_time()
    measured = measure()
    minutes = round((time.process_time() - started) / 60, 1)
    about = environment(model.device.type, "torch", "transformers")
    results = {**about, "arguments": given, "cpu_minutes": minutes, **measured}
    write_json(args.out / f"{args.name}.json", results)
    write_report(results, args.out / args.name, report)


def conditions(results: dict[str, Any]) -> str:
    """Return the device, the versions, the date and the time of a measurement, in words."""
    versions = results["versions"]
    return (
        f"{results['device']}, torch {versions['torch']}, transformers {versions['transformers']}, {results['date']}, "
        f"{results['cpu_minutes']} CPU minutes"
    )
