"""What both experiments need: one-line errors, the text to read, and where results go."""

import argparse
import datetime
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.input_error import InputError
from lsg.cli.arguments import OneLineParser

HERE = Path(__file__).resolve().parent
DEMO = HERE.parent / "demo"
RESULTS = HERE / "results"


def run_script(measure: Callable[[argparse.Namespace], None], parser: OneLineParser, argv: list[str] | None) -> int:
    """Parse the arguments and measure; return the exit code, 1 with one line on stderr for bad input."""
    args = parser.parse_args(argv)
    from transformers.utils import logging

    from lsg.errors import ConversionError, one_line

    logging.disable_progress_bar()  # of every model that is loaded; ours stays
    try:
        measure(args)
    except (InputError, ConversionError) as error:
        print(f"{parser.prog}: error: {one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


def check_range(name: str, value: float, minimum: float, maximum: float = float("inf")) -> None:
    """Raise InputError unless the value lies within its bounds."""
    if not minimum <= value <= maximum:
        allowed = f"at least {minimum}" + ("" if maximum == float("inf") else f" and at most {maximum}")
        raise InputError(f"--{name} {value} is not allowed: it must be {allowed}")


def check_output(folder: Path) -> None:
    """Make the folder of the results before anything is measured; raise InputError if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {folder}: no folder can be made there: {error.strerror}") from error


def read_texts(files: list[Path]) -> list[str]:
    """Read text files as they are.

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
    """Collect the demo checkpoint's (training, held-out) text from the installed packages; takes about a minute."""
    from experiments.demo.corpus import collect_documents, split_documents

    return split_documents(collect_documents())


def about(args: argparse.Namespace) -> dict[str, Any]:
    """Tell what a measurement depends on: the date, the versions and the arguments."""
    import torch
    import transformers

    given = {name: value for name, value in vars(args).items() if name != "out"}
    given |= {"checkpoint": Path(args.checkpoint).name, "text": [file.name for file in args.text or []]}
    return {
        "date": f"{datetime.date.today()}",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"CPU, {torch.get_num_threads()} threads",
        "arguments": given,
    }


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """Make a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def write_results(folder: Path, name: str, results: dict[str, Any], tables: str) -> None:
    """Write `name`.json and `name`.md, whose tables are also printed."""
    (folder / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    (folder / f"{name}.md").write_text(tables, "utf-8")
    print(tables)
