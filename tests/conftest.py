"""Nothing of the network, and code loaded from checkpoints lands in a folder of the test run's own."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_MODULES_CACHE"] = tempfile.mkdtemp(prefix="lsg-tests-modules-")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import pytest
import torch
import transformers
from forks import run_fork
from helpers import ROOT, initial

import lsg.self_test
from convert_checkpoint import main

torch.set_num_threads(1)  # the tests' tensors are tiny, and run side by side
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the tiny RoBERTa to damage."""
    return Path(shutil.copytree(initial("roberta"), tmp_path / "source"))


@pytest.fixture
def out(source: Path, tmp_path: Path, capfd) -> Path:
    """An output of the command."""
    names = ["--initial_model", str(source), "--model_name", str(tmp_path / "out")]
    assert main([*names, "--max_sequence_length", "600"]) == 0
    capfd.readouterr()
    return tmp_path / "out"


@pytest.fixture(params=["in one step", "in two steps"])
def way(request, monkeypatch) -> None:
    """With the system's call that exchanges two folders, and without."""
    if request.param == "in two steps":
        monkeypatch.setattr("lsg.output.renames.exchange_at_once", lambda first, second: False)


@pytest.fixture
def forked_self_test(monkeypatch) -> None:
    """The process of the self test is a fork, where nothing of it depends on being a new interpreter."""

    def run_process(task: str, env: dict[str, str], folder: str) -> int:
        process = run_fork([str(ROOT / "lsg" / "self_test_process.py")], folder, env, task)
        sys.stderr.write(process.stderr)
        return process.returncode

    monkeypatch.setattr(lsg.self_test, "run_process", run_process)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no process waits for another at the end."""
    longest = (
        "test_everything_runs",
        "test_the_page_on_serving_runs",
        "test_lsg_learns_what_the_truncated_original_cannot_see",
    )
    items.sort(key=lambda item: item.name not in longest)
