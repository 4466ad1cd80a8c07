"""Runs of the fine-tuning scripts on tiny files, made once for all tests that look at them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest
from filelock import FileLock
from helpers import ROOT, initial
from long_range import matching_documents, write_rows

from experiments.classification import run_classification, run_lexglue
from experiments.summarization import run_summarization

MODULES = {"classification": run_classification, "lexglue": run_lexglue, "summarization": run_summarization}
SCRIPTS = {name: Path(str(module.__file__)) for name, module in MODULES.items()}
MAIN = {name: module.main for name, module in MODULES.items()}
DEMO = ROOT / "experiments" / "demo" / "roberta-demo"
NO_DROPOUT = '{"hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0}'  # it differs between one process and two
ROBERTA = ["--model", initial("roberta"), "--convert", "--max_sequence_length", 600]
ROBERTA += ["--block_size", 16, "--sparse_block_size", 16, "--model_kwargs", NO_DROPOUT]
BART = ["--model", initial("bart"), "--convert", "--max_sequence_length", 1100, "--model_kwargs", '{"dropout": 0}']
BART += ["--block_size", 16, "--sparse_block_size", 16]
TRAINING = ["--batch_size", 8, "--learning_rate", 0.01, "--logging_steps", 1, "--num_train_epochs", 2]
SUMMARIES = ["--max_target_length", 30, "--num_beams", 2]
RUNS = {  # name: script, kind of rows, arguments
    "single": ("classification", "single", [*ROBERTA, "--gradient_checkpointing"]),
    "ecthr": ("lexglue", "ecthr", ["--task", "ecthr_a", *ROBERTA]),
    "case_hold": ("lexglue", "case_hold", ["--task", "case_hold", *ROBERTA, "--group_by_length"]),
    "summaries": ("summarization", "summaries", [*BART, *SUMMARIES]),
}


def rows_of(kind: str, count: int, seed: int) -> list[dict]:
    """Rows in the form that a script reads."""
    rows = matching_documents(count, (50, 60), seed)
    texts, labels = [row["text"] for row in rows], [row["label"] for row in rows]
    sets = [["3"], ["3", "6"], ["6"], []]
    made = {
        "single": lambda i: rows[i],
        "ecthr": lambda i: {"text": [texts[i][:90], texts[i]], "labels": sets[i % 4]},
        "case_hold": lambda i: {"context": texts[i], "endings": [texts[i - k][:30] for k in range(3)], "label": i % 3},
        "summaries": lambda i: {"text": texts[i], "summary": f"{texts[i][:20]}. {labels[i]}."},
    }
    return [made[kind](i) for i in range(count)]


def write_splits(folder: Path, kind: str) -> list:
    """Write the three splits; return the arguments that name them. Every batch is a full one."""
    arguments = []
    for split, count in (("train", 24), ("validation", 8), ("test", 8)):
        file = write_rows(folder / f"{kind}_{split}.jsonl", rows_of(kind, count, seed=len(split)))
        arguments += [f"--{split}_file", file]
    return arguments


def command(name: str, folder: Path, processes: int = 1) -> list[str]:
    script, kind, arguments = RUNS[name]
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes]
    parts = [*launcher, SCRIPTS[script], *write_splits(folder, kind), *arguments, *TRAINING]
    return [str(part) for part in [*parts, "--output_dir", folder / f"{name}-{processes}"]]


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(folder / "datasets")}


def results_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def losses(results: dict) -> list[float]:
    return [row["loss"] for row in results["train_loss"]]


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory) -> Iterator[None]:
    """Keep what `datasets` writes out of the home folder, and its progress bars out of stderr."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        datasets.disable_progress_bars()
        yield
        datasets.enable_progress_bars()


class Runs:
    """The runs that several tests look at, each made once, whichever test process asks first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def __getitem__(self, key: tuple[str, int]) -> Path:
        """The output folder of a run, by its name and the number of processes."""
        name, processes = key
        output = self.folder / f"{name}-{processes}"
        with FileLock(f"{output}.lock"):
            if not (output / "model" / "config.json").exists():
                make_run(name, self.folder, processes)
        return output


def make_run(name: str, folder: Path, processes: int) -> None:
    parts = command(name, folder, processes)
    if processes == 1:
        assert MAIN[RUNS[name][0]](parts[2:]) == 0
    else:
        process = subprocess.run(parts, env=environment(folder), capture_output=True, text=True, timeout=600)
        assert process.returncode == 0, process.stderr


@pytest.fixture(scope="session", name="runs")
def shared_runs(tmp_path_factory, worker_id: str) -> Runs:
    base = tmp_path_factory.getbasetemp()
    return Runs((base if worker_id == "master" else base.parent) / "finetuning")
