"""--report: what a conversion did, with all measurements, as a complete JSON file, even if the conversion failed."""

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

from .cli.arguments import versions
from .errors import ConversionError, one_line, read_json, reported_as
from .onnx_check import OnnxReport
from .output.contents import FILE_LIST, checksum, read_list
from .saving import SavedModel
from .self_test import SelfTestReport
from .weights import format_of

MADE_BY = "lsg-converter"
SECRETS = ("token",)  # arguments whose values must not be written


@dataclass
class Record:
    """The report of one run; its fields are those of the JSON file.

    Args:
        arguments: of the command.
        source: name and type of the original.
        model: class, parameters, LSG fields, ... of the converted model.
        files: size in bytes and SHA-256 of each file of the output; empty if nothing was written.
        self_test: the content of a `SelfTestReport`, and whether it passed.
        onnx: what was exported, and how far it is from the model.
        push: addresses of repository and commit.
        seconds: of each step, and of the whole run.
        warnings: lines that were logged.
        error: the last line, if the run failed.
    """

    arguments: dict[str, Any]
    source: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    self_test: dict[str, Any] | None = None
    onnx: dict[str, Any] | None = None
    push: dict[str, str] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    error: str | None = None

    @contextlib.contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Record how many seconds the block takes."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] = round(time.perf_counter() - start, 3)

    def add_model(self, saved: SavedModel) -> None:
        """Record a converted model and its original."""
        self.source = {"name": saved.source, "model_type": saved.model_type, "is_lsg": saved.is_lsg}
        self.model = {
            "class": saved.class_name,
            "auto_class": saved.auto_class,
            "parameters": saved.num_parameters,
            "tokens": saved.max_length,
            "dtype": format_of(saved.config.dtype),
            "lsg_fields": saved.lsg_fields,
        }

    def add_test(self, test: SelfTestReport) -> None:
        """Record the result of the self test."""
        self.self_test = {"passed": not test.failed, **vars(test)}

    def add_onnx(self, onnx: OnnxReport) -> None:
        """Record what was exported."""
        self.onnx = {**vars(onnx), "largest_difference": onnx.largest_difference}

    def add_files(self, output: Path) -> None:
        """Record the files that were written to an output."""
        listed = read_list(output)
        sums = {**(listed.files if listed else {}), FILE_LIST: checksum(output / FILE_LIST)}
        self.files = {
            name: {"bytes": (output / name).stat().st_size, "sha256": sums[name]}
            for name in sorted(sums)
            if (output / name).is_file()
        }


def start_record(args: argparse.Namespace) -> Record:
    """Return an empty record of a run with these arguments; it says that a token was given, but not which."""
    hidden = {name: "given" if getattr(args, name, None) else None for name in SECRETS}
    return Record({**vars(args), **hidden})


class WarningCollector(logging.Handler):
    """Collects warnings; it does not change whether they are shown."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Collect a warning; show it if Python's last resort would do so without this handler."""
        self.lines.append(record.getMessage())
        if record.name.startswith("lsg") and not logging.getLogger().handlers and logging.lastResort:
            logging.lastResort.handle(record)


@contextlib.contextmanager
def warnings_collected(lines: list[str]) -> Iterator[None]:
    """Collect the warnings of the block, those of this package and of transformers."""
    handler = WarningCollector(lines)
    loggers = [logging.getLogger(name) for name in ("lsg", "transformers")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


@contextlib.contextmanager
def report_written(file: str | None, output: Path, record: Record) -> Iterator[None]:
    """Write a report when the block ends, whether it succeeds or fails; none if it is interrupted.

    Args:
        file: the report; None for no report.
        output: the converted checkpoint, of which the report must not be part.
        record: the content, filled by the block.

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

    with warnings_collected(record.warnings):
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
    """Return the absolute path of a report, after checking that it can be written and replaces nothing else.

    Raises:
        ConversionError: it cannot, or it would.
    """
    where, file = f"report: {one_line(file)}", file.resolve()
    if output == file or output in file.parents:
        raise ConversionError(f"{where}: a file outside of the output is expected")
    try:
        if file.exists() and not file.is_file():
            raise ConversionError(f"{where}: the name of a file is expected, this is something else")
        if file.exists() and not is_report(file):
            raise ConversionError(f"{where}: exists and is no report of an earlier conversion; choose another name")
        part = temporary_name(file)
        part.touch(exist_ok=False)
        part.unlink()
    except OSError as error:
        raise ConversionError(f"{where}: cannot be written: {one_line(error.strerror or error)}") from error
    return file


def is_report(file: Path) -> bool:
    """Return whether a file is the report of an earlier run."""
    try:
        content = read_json(file)
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("made_by") == MADE_BY


def temporary_name(file: Path) -> Path:
    """Return an unused name beside a file, under which it is written before it is renamed."""
    return file.with_name(f".{uuid.uuid4().hex[:8]}.report.part")


def write_report(file: Path, record: Record, started: str) -> None:
    """Write a record to a file, which is either complete or unchanged.

    Raises:
        ConversionError: it cannot be written.
    """
    head = {"made_by": MADE_BY, "started": started, "done": record.error is None, "written": bool(record.files)}
    part = temporary_name(file)
    with reported_as(f"report: {one_line(file)}: cannot be written", (OSError, ValueError, RecursionError)):
        text = json.dumps({**head, **vars(record), "versions": versions()}, indent=2, default=str)
        with contextlib.ExitStack() as undo:
            undo.callback(part.unlink, missing_ok=True)
            part.write_text(text + "\n", encoding="utf-8")
            os.replace(part, file)
