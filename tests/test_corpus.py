"""experiments/corpus: equal results whoever reads, a lost worker, a killed run, bad documents, bad input."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers import ROOT, initial

from experiments.corpus import worker
from experiments.corpus.run_corpus import main
from lsg import LSGConverter

SCRIPT = ROOT / "experiments" / "corpus" / "run_corpus.py"
WORDS = "the red house was in a town near the sea".split()
HEADS = {"embed": "BertModel", "classify": "BertForSequenceClassification", "answer": "BertForQuestionAnswering"}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """A tiny LSG folder for each task."""
    folder = tmp_path_factory.mktemp("corpus")
    for task, head in HEADS.items():
        torch.manual_seed(0)
        model, tokenizer = LSGConverter(600).convert_from_pretrained(initial("bert"), head, block_size=8)
        for part in (model, tokenizer):
            part.save_pretrained(folder / task)
    return {task: folder / task for task in HEADS}


def write_lines(file: Path, count: int, longest: int) -> list[str]:
    """A corpus of random texts as JSON lines; return the texts."""
    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(1, longest))) for _ in range(count)]
    file.write_text("".join(json.dumps({"name": i, "text": text}) + "\n" for i, text in enumerate(texts)))
    return texts


def options(model: Path, text: Path, out: Path, *more: object) -> list[str]:
    return list(map(str, ("--model", model, "--text", text, "--out", out, *more)))


def read(out: Path) -> pa.Table:
    """The results, in the order of the corpus."""
    return pa.concat_tables(pq.read_table(file) for file in sorted(out.glob("part-*.parquet")))


def kill_one_in_the_middle(monkeypatch, out: Path) -> list[int]:
    """Have a worker killed that reads a part, after the first part; return the list that gets all process ids."""
    run, processes = worker.run_on_ray, []

    def run_and_kill(*args):
        for number, figures in enumerate(run(*args)):
            processes.append(figures["process"])
            deadline = time.monotonic() + 60
            while number == 0 and time.monotonic() < deadline:
                lines = [file.read_text() for file in out.glob(".attempts-*") if file.exists()]
                if reading := next((int(line) for line in lines if line.endswith("\n")), None):
                    os.kill(reading, signal.SIGKILL)
                    processes.append(reading)
                    break
            yield figures

    monkeypatch.setattr(worker, "run_on_ray", run_and_kill)
    return processes


def run_until_killed(arguments: list[str], out: Path) -> None:
    """Run the script in a process of its own, and kill it once it has written three parts."""
    process = subprocess.Popen([sys.executable, str(SCRIPT), *arguments], stderr=subprocess.DEVNULL)
    while len(list(out.glob("part-*"))) < 3 and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL


def test_2000_documents_with_a_lost_worker_and_a_killed_run(models, tmp_path, monkeypatch, capfd) -> None:
    if find_spec("ray") is None:
        pytest.skip("needs Ray")
    import ray

    text, size = tmp_path / "corpus.jsonl", ("--bytes_per_part", 8000)
    texts = write_lines(text, 2000, 12)
    plain, two, again = tmp_path / "plain", tmp_path / "two", tmp_path / "again"
    assert main(options(models["embed"], text, plain, *size, "--workers", 0)) == 0
    expected = read(plain)
    assert expected["text"].to_pylist() == texts and expected["name"].to_pylist() == list(range(2000))
    try:
        processes = kill_one_in_the_middle(monkeypatch, two)
        assert main(options(models["embed"], text, two, *size, "--workers", 2)) == 0
        assert len(set(processes)) > 2  # the killed one has a successor
        assert read(two).equals(expected)
        monkeypatch.undo()

        run_until_killed(options(models["embed"], text, again, *size, "--workers", 0), again)
        (again / ".unfinished-x").touch()
        before = {file: file.stat().st_mtime_ns for file in again.glob("part-*")}
        capfd.readouterr()
        assert main(options(models["embed"], text, again, *size, "--workers", 1)) == 0
        assert f"{len(before)} of {len(list(plain.glob('part-*')))} parts were there before" in capfd.readouterr().out
        assert {file: file.stat().st_mtime_ns for file in before} == before
        assert read(again).equals(expected)
        assert {file.name for file in again.iterdir()} == {file.name for file in plain.iterdir()}
    finally:
        ray.shutdown()
