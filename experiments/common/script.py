"""Run an experiment's script: exit codes, one line for bad input, and `--draw`."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.common.errors import InputError
from experiments.common.results import write_report
from lsg.errors import ConversionError, one_line, read_json


def run_script(work: Callable[[argparse.Namespace], None], args: argparse.Namespace, program: str) -> int:
    """Do the work; return the exit code: 1 for bad input and 130 for Ctrl-C, each with one line on stderr."""
    try:
        work(args)
    except (InputError, ConversionError) as error:
        print(f"{program}: error: {one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130
    return 0


def add_draw_option(parser: argparse.ArgumentParser, report: str, names: str = "*.json") -> None:
    """Add `--draw PATH`, which makes the tables and pictures of earlier results again, and ends.

    Args:
        report: see `write_report`.
        names: a pattern for the script's results; other files of a folder, such as another script's, are skipped.
    """

    class Draw(argparse.Action):
        """Like `--help`, it ends the script before other options are asked for."""

        def __call__(self, parser: argparse.ArgumentParser, args: Any, path: Any, option: Any = None) -> None:
            """Write the files beside each JSON file."""
            files = sorted(path.glob(names)) if path.is_dir() else [path]
            if not files:
                parser.error(f"--draw {path}: there is no {names} in this folder")
            for file in files:
                try:
                    write_report(read_json(file), file.with_suffix(""), report)
                except (OSError, ValueError, KeyError, TypeError) as error:
                    parser.error(f"--draw {file}: not a results file of this script: {error!r}")
            parser.exit()

    text = "measure nothing: draw this JSON file, or those of this folder"
    parser.add_argument("--draw", action=Draw, type=Path, metavar="PATH", help=text)
