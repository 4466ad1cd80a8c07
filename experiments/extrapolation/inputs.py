"""What both scripts need: their common options, the checkpoint and the text to read, and the results."""

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

HERE = Path(__file__).resolve().parent
DEMO = HERE.parent / "demo" / "roberta-demo"


def make_parser(description: str, name: str, report: str, **checkpoint: Any) -> OneLineParser:
    """Return a parser with the options of both scripts.

    Args:
        name: of the files of results, without the ending.
        report: see `write_report`.
        checkpoint: argparse's settings for `--checkpoint`.
    """
    parser = OneLineParser(description=description)
    add = parser.add_argument
    add("--checkpoint", metavar="PATH", **checkpoint)
    add("--seed", type=int, default=0, metavar="N", help="of the random choices (0)")
    add("--out", type=Path, default=HERE / "results", metavar="FOLDER", help="for the results (results)")
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


def read_texts(files: list[Path]) -> list[str]:
    """Read text files.

    Raises:
        InputError: a file that is missing, empty or not UTF-8.
    """
    texts = []
    for file in files:
        try:
            texts.append(file.read_text("utf-8"))
        except OSError as error:
            raise InputError(f"--text {file}: it cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"--text {file}: a text file in UTF-8 is expected: {error.reason}") from error
        if not texts[-1].strip():
            raise InputError(f"--text {file}: the file is empty")
    return texts


def demo_texts() -> tuple[list[str], list[str]]:
    """Return the demo checkpoint's training and held-out text, from the installed packages; takes about a minute."""
    from experiments.demo.corpus import collect_documents, split_documents

    return split_documents(collect_documents())


def measure_and_report(
    args: argparse.Namespace, model: Any, measure: Callable[[], dict[str, Any]], name: str, report: str
) -> None:
    """Measure with a model, and write the results: `name`.json, .md and .png in the folder `--out`."""
    given = {name: value for name, value in vars(args).items() if name not in ("out", "draw")}
    given |= {"checkpoint": Path(args.checkpoint).name, "text": [file.name for file in args.text or []]}
    started = time.process_time()
    measured = measure()
    minutes = round((time.process_time() - started) / 60, 1)
    about = environment(model.device.type, "torch", "transformers")
    results = {**about, "arguments": given, "cpu_minutes": minutes, **measured}
    write_json(args.out / f"{name}.json", results)
    write_report(results, args.out / name, report)


def conditions(results: dict[str, Any]) -> str:
    """Return the device, the versions, the date and the time of a measurement, in words."""
    versions = results["versions"]
    return (
        f"{results['device']}, torch {versions['torch']}, transformers {versions['transformers']}, {results['date']}, "
        f"{results['cpu_minutes']} CPU minutes"
    )
