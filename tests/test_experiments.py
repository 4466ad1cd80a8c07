"""The experiments: scripts run from any folder, committed results can be drawn again, commands of the pages parse."""

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import ROOT

from experiments.common.results import environment

EXPERIMENTS = ROOT / "experiments"
PAGES = [*EXPERIMENTS.glob("*/README.md"), ROOT / "docs" / "benchmarks.md"]
SCRIPTS = [file for file in EXPERIMENTS.glob("*/*.py") if 'if __name__ == "__main__"' in file.read_text("utf-8")]


def commands() -> list[tuple[str, list[str]]]:
    """Script (folder/name) and arguments of each command in the pages."""
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    lines = re.findall(r"^ *(?:python|torchrun|accelerate) (?!tests/|.*--draw).*", text, re.M)
    lines += [
        f"experiments/efficiency/efficiency.py {row}" for row in re.findall(r"^\| .*`(--name .*)` \|$", text, re.M)
    ]
    found = [re.search(r"(?:experiments/(\w+)/)?(\w+)\.py\b(.*)", line) for line in lines]
    return [(f"{match[1] or 'demo'}/{match[2]}", shlex.split(match[3])) for match in found]


def load_script(script: str):
    return importlib.import_module(f"experiments.{script.replace('/', '.')}")


def test_commands_and_scripts_are_found() -> None:
    assert len({script for script, _ in commands()}) == 15 and len(commands()) > 20
    assert len(SCRIPTS) == 17  # and the workers of efficiency.py and serving.py


@pytest.mark.parametrize(("script", "arguments"), commands(), ids=lambda part: "" if isinstance(part, list) else part)
def test_the_options_of_the_pages_exist(script: str, arguments: list[str]) -> None:
    module = load_script(script)
    args = module.make_options().parse_args(arguments)
    if "--name" in arguments and script == "efficiency/efficiency":
        assert (EXPERIMENTS / "efficiency" / "results" / f"{args.name}.json").exists()
        assert module.make_cases(args)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_the_scripts_run_from_any_folder(script: Path, tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(script), "--help"]
    process = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0 and "--" in process.stdout, process.stderr


@pytest.mark.parametrize("file", sorted(EXPERIMENTS.glob("*/results/**/*.json")), ids=lambda file: file.stem)
def test_committed_results_are_drawn_again(file: Path, tmp_path: Path, capsys) -> None:
    copy, (folder, *inside) = tmp_path / file.name, file.relative_to(EXPERIMENTS).parts
    copy.write_bytes(file.read_bytes())
    names = {"adaptation": "compare", "embedding": "search", "extrapolation": "masked_loss"}
    names["classification"] = "long_documents"
    names["question_answering"] = "ranking" if "ranking" in inside else "long_documents"
    with pytest.raises(SystemExit) as end:
        load_script(f"{folder}/{names.get(folder, folder)}").main(["--draw", str(copy)])
    assert end.value.code == 0
    assert copy.with_suffix(".md").read_text("utf-8") == file.with_suffix(".md").read_text("utf-8")
    assert copy.with_suffix(".png").stat().st_size > 10_000


@pytest.mark.parametrize("script", ["embedding/search", "extrapolation/masked_loss"])
def test_a_folder_with_results_of_two_scripts(script: str, tmp_path: Path, capsys) -> None:
    for folder in ("embedding", "extrapolation"):
        for file in (EXPERIMENTS / folder / "results").glob("*.json"):
            shutil.copy(file, tmp_path)
    name = script.partition("/")[2]
    for path, code in ((tmp_path, 0), (tmp_path / "search.json", 0 if name == "search" else 2)):
        with pytest.raises(SystemExit) as end:
            load_script(script).main(["--draw", str(path)])
        assert end.value.code == code, capsys.readouterr().err
        drawn = [file.stem for file in tmp_path.glob("*.png")]
        assert drawn and all(own.startswith(name) for own in drawn)


def test_the_device_is_the_one_that_was_used(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    assert environment("cuda")["device"] == "a GPU"
    assert environment("cpu")["device"] == f"CPU, {torch.get_num_threads()} threads"
