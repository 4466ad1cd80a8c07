"""--run_test: a fresh process reads the output as a stranger would, and its findings become tables."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import ConversionError, one_line
from .output.deferral import signals_deferred


@dataclass
class SelfTestReport:
    """What the self test found.

    Args:
        checks: {name, passed, detail} each; `passed` is None where something was only measured.
        fill_mask: {text, original, converted} each, the last two lists of (word, probability).
    """

    checks: list[dict[str, Any]] = field(default_factory=list)
    fill_mask: list[dict[str, Any]] = field(default_factory=list)

    @property
    def failed(self) -> list[str]:
        """The names of the checks that failed."""
        return [check["name"] for check in self.checks if check["passed"] is False]

    def to_markdown(self) -> str:
        """Give the tables, readable on a terminal and in a model card."""
        results = {True: "passed", False: "FAILED", None: "measured"}
        rows = [(c["name"], results[c["passed"]], c["detail"]) for c in self.checks]
        parts = [markdown_table(("check", "result", "detail"), rows)]
        if self.fill_mask:
            rows = [(row["text"], words(row["original"]), words(row["converted"])) for row in self.fill_mask]
            parts.append(markdown_table(("text", "original, five likeliest words", "converted"), rows))
        return "\n\n".join(parts)


def words(choices: list[tuple[str, float]]) -> str:
    """Write words with their probabilities."""
    return ", ".join(f"{repr(word)[1:-1]} {probability:.2f}" for word, probability in choices)  # repr: no line breaks


def markdown_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Lay rows out as a Markdown table with aligned columns."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


@contextlib.contextmanager
def scratch_in(folder: Path) -> Iterator[str]:
    """Make a folder for the test's own files inside the one that is tested, and remove it.

    That is where weights were written a moment ago; the system's folder for such files may be full, or not writable.
    After a `kill -9` it goes with the unfinished output.
    """
    try:
        scratch = tempfile.TemporaryDirectory(dir=folder, prefix=".self_test-")
    except OSError as error:
        raise ConversionError(f"{one_line(folder)}: no room for the self test's files: {one_line(error)}") from error
    with scratch as path:
        yield path


def run_process(task: str, env: dict[str, str], folder: str) -> int:
    """Run the test's process in a folder, with its task on standard input; return its exit code.

    It does not outlive this one, whatever ends the wait for it. A signal in the middle of its start has to wait, as
    nobody would know of it then.
    """
    process = None
    try:
        with signals_deferred():
            process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("self_test_process.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=None,  # its progress bar
                env=env,
                cwd=folder,
                text=True,
            )
        process.communicate(task)
        return process.returncode
    except BaseException:
        if process is not None:
            process.kill()
            process.wait()
        raise


def run_self_test(
    folder: Path, original: str, max_length: int, hub: dict[str, Any], is_lsg: bool, has_mlm_head: bool
) -> SelfTestReport:
    """Test a converted folder in a process of its own, which cannot import this package.

    Args:
        folder: the converted checkpoint.
        original: folder or Hub name it was made of.
        max_length: tokens that the converted model reads.
        hub: `token` and `revision` of the original.
        is_lsg: the original is an LSG checkpoint, which transformers cannot load to compare with.
        has_mlm_head: both have a trained masked-language-modeling head.

    Raises:
        ConversionError: there is no room for the test's own files.
    """
    original = str(Path(original).resolve()) if Path(original).exists() else original
    task = {"folder": str(folder), "original": original, "max_length": max_length, "hub": hub}
    task |= {"compare": not is_lsg, "has_mlm_head": has_mlm_head}
    with scratch_in(folder) as scratch:
        report = Path(scratch) / "report.json"
        env = {**os.environ, "HF_MODULES_CACHE": str(Path(scratch) / "modules")}
        env.pop("PYTHONPATH", None)
        code = run_process(json.dumps({**task, "report": str(report)}), env, scratch)
        if code or not report.exists():
            detail = one_line(f"the test process ended with exit code {code}")
            return SelfTestReport([{"name": "self test", "passed": False, "detail": detail}])
        return SelfTestReport(**json.loads(report.read_text(encoding="utf-8")))
