"""--run_test: a new process loads and tests the output as a user would; its results become tables."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import ConversionError, one_line, read_json_object
from .hub_options import HubOptions
from .signals import signals_deferred


@dataclass
class SelfTestReport:
    """The results of the self test.

    Args:
        checks: {name, passed, detail} each; `passed` is None if something was only measured.
        fill_mask: {text, original, converted} each; the last two are lists of (word, probability).
        questions: {question, fact, tokens, place, original, converted} each; the last two are answers about a text of
            so many tokens, in which the fact stands at this place.
    """

    checks: list[dict[str, Any]] = field(default_factory=list)
    fill_mask: list[dict[str, Any]] = field(default_factory=list)
    questions: list[dict[str, Any]] = field(default_factory=list)

    @property
    def failed(self) -> list[str]:
        """The names of the checks that failed."""
        return [check["name"] for check in self.checks if check["passed"] is False]

    def to_markdown(self) -> str:
        """Return the tables, readable on a terminal and in a model card."""
        results = {True: "passed", False: "FAILED", None: "measured"}
        checks = [(check["name"], results[check["passed"]], check["detail"]) for check in self.checks]
        parts = [markdown_table(("check", "result", "detail"), checks)]
        if self.fill_mask:
            rows = [(row["text"], words(row["original"]), words(row["converted"])) for row in self.fill_mask]
            parts.append(markdown_table(("text", "original, five likeliest words", "converted"), rows))
        if self.questions:
            first = self.questions[0]
            parts.append(f'"{first["question"]}", asked of {first["tokens"]:,} tokens with "{first["fact"]}" in them:')
            rows = [(row["place"], quoted(row["original"]), quoted(row["converted"])) for row in self.questions]
            parts.append(markdown_table(("the fact is in the", "original, on windows", "converted"), rows))
        return "\n\n".join(parts)


def words(choices: list[tuple[str, float]]) -> str:
    """Return words with their probabilities, as text."""
    return ", ".join(f"{repr(word)[1:-1]} {probability:.2f}" for word, probability in choices)  # repr: no line breaks


def quoted(answer: str) -> str:
    """Return an answer as one line, in quotes."""
    return f'"{one_line(answer)}"'


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


@contextlib.contextmanager
def temporary_folder_in(folder: Path) -> Iterator[str]:
    """Create a folder for the test's own files inside the tested folder, and remove it after the block.

    The tested folder is writable, as the weights were just written; the system's temporary folder may be full, or not
    writable. After a `kill -9` it is removed with the unfinished output.
    """
    try:
        temporary = tempfile.TemporaryDirectory(dir=folder, prefix=".self_test-")
    except OSError as error:
        raise ConversionError(f"{one_line(folder)}: no room for the self test's files: {one_line(error)}") from error
    with temporary as path:
        yield path


def run_process(task: str, env: dict[str, str], folder: str) -> int:
    """Run the test's process in a folder, with its task on standard input; return its exit code.

    It is killed if anything interrupts the wait for it. Signals are deferred while it starts, as it could not be killed
    before its process id is known.
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


def needed_fields(folder: Path) -> dict[str, Any]:
    """Return fields without which a model does not run: of X-MOD, a language, the first if the config names none."""
    config = read_json_object(folder / "config.json")
    languages = config.get("languages")
    return {"default_language": languages[0]} if languages and config.get("default_language") is None else {}


def run_self_test(
    folder: Path, original: str, max_length: int, hub: HubOptions, is_lsg: bool, trained_head: str | None
) -> SelfTestReport:
    """Test a converted folder in a new process, which cannot import this package.

    Args:
        folder: the converted checkpoint.
        original: folder or Hub name of the original.
        max_length: maximum number of tokens of the converted model.
        hub: how to find the original.
        is_lsg: the original is an LSG checkpoint, which cannot be loaded for a comparison.
        trained_head: what a head of both is trained for, "masked words" or "answers"; None for anything else.

    Raises:
        ConversionError: there is no room for the test's own files.
    """
    original = str(Path(original).resolve()) if Path(original).exists() else original
    task: dict[str, Any] = {"folder": str(folder), "original": original, "max_length": max_length}
    task |= {
        "fields": needed_fields(folder),
        "hub": hub.for_files(),
        "compare": not is_lsg,
        "trained_head": trained_head,
    }
    with temporary_folder_in(folder) as temporary:
        report = Path(temporary) / "report.json"
        env = {**os.environ, "HF_MODULES_CACHE": str(Path(temporary) / "modules")}
        env.pop("PYTHONPATH", None)
        code = run_process(json.dumps({**task, "report": str(report)}), env, temporary)
        if code or not report.exists():
            detail = one_line(f"the test process ended with exit code {code}")
            return SelfTestReport([{"name": "self test", "passed": False, "detail": detail}])
        return SelfTestReport(**json.loads(report.read_text(encoding="utf-8")))
