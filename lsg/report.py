"""--report: what a conversion did, with all figures, as JSON; whole or not at all, also where it failed."""

import argparse
import contextlib
import datetime
import json
import logging
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from .cli.arguments import versions
from .errors import ConversionError, one_line
from .output.files import LIST, checksum, read_list
from .self_test import SelfTestReport
from .text import read_json

MADE_BY = "lsg-converter"
SECRET = ("token",)  # arguments that nobody should find in a file


@dataclass
class Record:
    """What is to be reported of one run; the fields become the report's.

    Args:
        arguments: of the command.
        source: name, type and architectures of the original.
        model: class, parameters, LSG fields, ... of what was made.
        files: of the output, with size in bytes and SHA-256; none if nothing was written.
        self_test: what `SelfTestReport` says, and whether it passed.
        push: addresses of repository and commit.
        seconds: each step's, and the whole run's.
        warnings: lines that were logged.
        error: the line with which the run ended, if it failed.
    """

    arguments: dict[str, Any]
    source: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    self_test: dict[str, Any] | None = None
    push: dict[str, str] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    error: str | None = None

    @contextlib.contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Note the seconds that the block takes."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] = round(time.perf_counter() - start, 3)

    def note_model(self, config: PreTrainedConfig, **figures: Any) -> None:
        """Note what was made."""
        fields = {name: getattr(config, name) for name in sorted(config.lsg_defaults)}
        self.model = {**figures, "dtype": str(config.dtype).removeprefix("torch."), "lsg_fields": fields}

    def note_test(self, test: SelfTestReport) -> None:
        """Note what the self test found."""
        self.self_test = {"passed": not test.failed, "checks": test.checks, "fill_mask": test.fill_mask}

    def note_files(self, output: Path) -> None:
        """Note what was written to an output."""
        listed = read_list(output)
        sums = {**(listed.files if listed else {}), LIST: checksum(output / LIST)}
        self.files = {
            name: {"bytes": (output / name).stat().st_size, "sha256": sums[name]}
            for name in sorted(sums)
            if (output / name).is_file()
        }


def start_record(args: argparse.Namespace) -> Record:
    """Return an empty record of a run with these arguments; that a token was given is told, but not which."""
    given = {name: value for name, value in vars(args).items() if name not in SECRET}
    hidden = {name: "given" if getattr(args, name, None) else None for name in SECRET}
    return Record({**given, **hidden})


class Collector(logging.Handler):
    """Notes warnings, and leaves it to others to show them."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Note a line; show it if, without this handler, Python's last resort would."""
        self.lines.append(record.getMessage())
        if record.name.startswith("lsg") and not logging.getLogger().handlers and logging.lastResort:
            logging.lastResort.handle(record)


@contextlib.contextmanager
def collected(lines: list[str]) -> Iterator[None]:
    """Note the warnings of the block, ours and those of transformers."""
    handler = Collector(lines)
    loggers = [logging.getLogger(name) for name in ("lsg", "transformers")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


@contextlib.contextmanager
def reported(file: str | None, output: Path, record: Record) -> Iterator[None]:
    """Write the report of the block, whether it ends well or with an error; not if it is interrupted.

    Args:
        file: to write; None for no report.
        output: the converted checkpoint, which no report may be part of.
        record: what to write, filled by the block.

    Raises:
        ConversionError: the file cannot be written, before the block or after it.
    """
    if file is None:
        yield
        return
    path = check_report_file(Path(file), output)
    started, start = datetime.datetime.now(datetime.timezone.utc), time.perf_counter()

    def write() -> None:
        record.seconds["total"] = round(time.perf_counter() - start, 3)
        write_report(path, record, started.isoformat(timespec="seconds"))

    with collected(record.warnings):
        try:
            yield
        except Exception as error:
            record.error = one_line(error, 1000)
            try:
                write()
            except ConversionError as second:
                first = one_line(error, 1000)
                raise ConversionError(f"{first}; {second}", shown=getattr(error, "shown", "")) from error
            raise
    write()


def check_report_file(file: Path, output: Path) -> Path:
    """Return the path of a report, absolute, after a look at whether it can be written without losing anything.

    Raises:
        ConversionError: it cannot.
    """
    where, file = f"report: {one_line(file)}", file.resolve()
    if output == file or output in file.parents:
        raise ConversionError(f"{where}: a file outside of the output is expected")
    try:
        if file.exists() and not file.is_file():
            raise ConversionError(f"{where}: the name of a file is expected, this is something else")
        if file.exists() and not is_report(file):
            raise ConversionError(f"{where}: exists and is no report of an earlier conversion; choose another name")
        part = part_of(file)
        part.touch(exist_ok=False)
        part.unlink()
    except OSError as error:
        raise ConversionError(f"{where}: cannot be written: {one_line(error.strerror or error)}") from error
    return file


def is_report(file: Path) -> bool:
    """Whether a file is the report of an earlier run."""
    try:
        content = read_json(file)
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("made_by") == MADE_BY


def part_of(file: Path) -> Path:
    """Return a name beside a file, for what is to become it."""
    return file.with_name(f".{uuid.uuid4().hex[:8]}.report.part")


def write_report(file: Path, record: Record, started: str) -> None:
    """Write a record; the file is the whole report, or what it was before.

    Raises:
        ConversionError: it cannot be written.
    """
    head = {"made_by": MADE_BY, "started": started, "done": record.error is None, "written": bool(record.files)}
    part = part_of(file)
    try:
        text = json.dumps({**head, **vars(record), "versions": versions()}, indent=2, default=str)
        with contextlib.ExitStack() as undo:
            undo.callback(part.unlink, missing_ok=True)
            part.write_text(text + "\n", encoding="utf-8")
            os.replace(part, file)
    except (OSError, ValueError, RecursionError) as error:
        raise ConversionError(f"report: {one_line(file)}: cannot be written: {one_line(error)}") from error
