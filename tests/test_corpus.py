"""experiments/corpus: equal results whoever reads, a lost worker, a killed run, bad documents, bad input."""

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers import ROOT, SMALL, initial, load_tokenizer

from experiments.corpus import parts, worker
from experiments.corpus.output import MAX_ATTEMPTS, attempt
from experiments.corpus.parts import find_corpus
from experiments.corpus.reading import read_part
from experiments.corpus.run_corpus import main
from experiments.corpus.tasks import Answer, Classify, batches
from lsg import LSGConverter
from lsg.modeling.modeling_lsg_bert import (
    LSGBertConfig,
    LSGBertForQuestionAnswering,
    LSGBertForSequenceClassification,
    LSGBertModel,
)

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
    """A corpus of random texts as JSON lines, all but the first 400 of them very short; return the texts."""
    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(1, longest if i < 400 else 3))) for i in range(count)]
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

    monkeypatch.setenv("RAY_worker_niceness", "0")  # by default other tests' processes go first
    text, size = tmp_path / "corpus.jsonl", ("--bytes_per_part", 6000)
    texts = write_lines(text, 2000, 12)
    plain, two, again = tmp_path / "plain", tmp_path / "two", tmp_path / "again"
    assert main(options(models["embed"], text, plain, *size, "--workers", 0)) == 0
    expected = read(plain)
    assert expected["text"].to_pylist() == texts and expected["name"].to_pylist() == list(range(2000))
    try:
        run_on_ray, processes = worker.run_on_ray, kill_one_in_the_middle(monkeypatch, two)
        assert main(options(models["embed"], text, two, *size, "--workers", 2)) == 0
        assert len(set(processes)) > 2  # the killed one has a successor
        assert read(two).equals(expected)
        monkeypatch.setattr(worker, "run_on_ray", run_on_ray)

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


# Results


@pytest.mark.parametrize("tokens_per_batch", [1, 300, 16384])
def test_vectors_are_those_of_each_document_alone(models, tmp_path, tokens_per_batch: int) -> None:
    texts = write_lines(tmp_path / "corpus.jsonl", 12, 60)
    more = ("--workers", 0, "--max_sequence_length", 50, "--tokens_per_batch", tokens_per_batch, "--without_text")
    assert main(options(models["embed"], tmp_path / "corpus.jsonl", tmp_path / "out", *more)) == 0
    model, tokenizer = LSGBertModel.from_pretrained(models["embed"]).eval(), load_tokenizer("bert")
    found = read(tmp_path / "out")
    assert "text" not in found.column_names and "name" in found.column_names
    for text, row in zip(texts, found.to_pylist(), strict=True):
        inputs = tokenizer(text, truncation=True, max_length=50, return_tensors="pt")
        with torch.no_grad():
            expected = model(**inputs).last_hidden_state[0].mean(0)
        assert (torch.tensor(row["embedding"]) - expected / expected.norm()).abs().max() < 1e-5
        assert row["tokens"] == inputs["input_ids"].shape[1]
        assert row["truncated"] == (len(tokenizer(text)["input_ids"]) > 50)
    assert 0 < sum(found["truncated"].to_pylist()) < 12


def test_classes_and_scores(models, tmp_path) -> None:
    texts = write_lines(tmp_path / "corpus.jsonl", 5, 40)
    more = ("--task", "classify", "--workers", 0)
    assert main(options(models["classify"], tmp_path / "corpus.jsonl", tmp_path / "out", *more)) == 0
    model = LSGBertForSequenceClassification.from_pretrained(models["classify"]).eval()
    tokenizer = load_tokenizer("bert")
    for text, row in zip(texts, read(tmp_path / "out").to_pylist(), strict=True):
        with torch.no_grad():
            expected = model(**tokenizer(text, return_tensors="pt")).logits[0].softmax(0)
        assert (torch.tensor(row["scores"]) - expected).abs().max() < 1e-5
        assert row["labels"] == [f"LABEL_{expected.argmax()}"]
    assert json.loads((tmp_path / "out" / "_settings.json").read_text())["classes"] == ["LABEL_0", "LABEL_1"]


def test_several_classes_and_none() -> None:
    model = LSGBertForSequenceClassification(LSGBertConfig(num_labels=3, **SMALL))
    model.config.problem_type = "multi_label_classification"
    task = Classify(model, load_tokenizer("bert"), 600)
    logits = torch.tensor([[1.0, -1.0, 2.0], [-1.0, -2.0, -3.0]])
    rows = task.results(SimpleNamespace(logits=logits), [])
    assert [row["labels"] for row in rows] == [["LABEL_0", "LABEL_2"], []]
    assert torch.equal(torch.tensor(rows[0]["scores"]), logits[0].sigmoid())
    [row] = task.results(SimpleNamespace(logits=torch.tensor([[1.5]])), [])
    assert row["labels"] == [] and row["scores"].tolist() == [1.5]


def test_answers(models, tmp_path) -> None:
    texts = write_lines(tmp_path / "corpus.jsonl", 8, 60)
    more = ("--task", "answer", "--question", "where was the house", "--workers", 0, "--max_sequence_length", 60)
    assert main(options(models["answer"], tmp_path / "corpus.jsonl", tmp_path / "out", *more)) == 0
    model, tokenizer = LSGBertForQuestionAnswering.from_pretrained(models["answer"]).eval(), load_tokenizer("bert")
    found = read(tmp_path / "out").to_pylist()
    for text, row in zip(texts, found, strict=True):
        inputs = tokenizer("where was the house", text, truncation="only_second", max_length=60, return_tensors="pt")
        with torch.no_grad():
            outputs = model(**inputs)
        start, end = outputs.start_logits[0], outputs.end_logits[0]
        first = inputs.sequence_ids().index(1)
        spans = [(i, j) for i in range(first, len(start) - 1) for j in range(i, min(i + 30, len(start) - 1))]
        best = max(spans, key=lambda span: start[span[0]] + end[span[1]])
        score = (start[best[0]] + end[best[1]]).item()
        assert row["answer_score"] == pytest.approx(score, abs=1e-5)
        assert row["refused"] == ((start[0] + end[0]).item() > score)
        assert row["answer"] == text[row["answer_start"] : row["answer_end"]] != ""
        assert row["answer_start"] == inputs.token_to_chars(0, best[0]).start
        assert row["tokens"] == len(start)
    assert 0 < sum(row["truncated"] for row in found) < 8


def test_a_refusal_stands_beside_the_best_answer(models) -> None:
    model = LSGBertForQuestionAnswering.from_pretrained(models["answer"])
    task = Answer(model, load_tokenizer("bert"), 60, "where", 30)
    [row] = task.encode(["the red house"])
    for score in (0.5, -0.5):
        logits = torch.zeros(1, len(row))
        logits[0, 0] = score
        [result] = task.results(SimpleNamespace(start_logits=logits, end_logits=logits), [row])
        assert result["refused"] == (score > 0) and result["answer"] and result["answer_score"] == 0.0


def test_batches_hold_no_more_tokens_than_asked_for() -> None:
    lengths = [3, 50, 7, 7, 20, 1, 120]
    found = list(batches(lengths, 60))
    assert sorted(i for batch in found for i in batch) == list(range(7))
    assert found[0] == [6]  # longer than a batch: alone
    assert all(len(batch) * max(lengths[i] for i in batch) <= 60 for batch in found[1:])
    assert len(found) == 4


# Documents


@pytest.mark.parametrize("bytes_per_part", [1, 7, 40, 1000])
def test_each_line_is_in_one_part(tmp_path, bytes_per_part: int) -> None:
    file = tmp_path / "corpus.jsonl"
    lines = [json.dumps({"text": "x" * size}).encode() for size in (1, 30, 1, 100, 2, 3)]
    file.write_bytes(b"\n".join([lines[0], lines[1] + b"\r", b"", *lines[2:]]))  # no newline at the end
    corpus = find_corpus([file], "text", bytes_per_part)
    found = [read_part(corpus, part, "text") for part in corpus.parts]
    assert [text for documents in found for text in documents.texts] == ["x" * n for n in (1, 30, 1, 100, 2, 3)]
    for documents in found:
        for place, text in zip(documents.places, documents.texts, strict=True):
            name, _, first = place.rpartition(":")
            assert Path(name) == file and file.read_bytes()[int(first) :].startswith(b'{"text": "' + text.encode())


def test_lines_that_cannot_be_read(models, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(parts, "SAMPLE", 1)  # the first line has the columns
    lines = [
        b'{"text": "the red house", "n": 1, "x": 0.5, "tags": ["a"]}',
        b'{"text": 3, "n": 2}',
        b"not JSON",
        b"[1]",
        b'{"text": "  ", "n": "four"}',
        b'{"text": "\\ud800"}',
        b'{"text": "\xff"}',
        b'{"n": 123456789012345678901234567890, "x": 9007199254740993}',
        b'{"text": "a town", "x": 2}',
    ]
    (tmp_path / "corpus.jsonl").write_bytes(b"\n".join(lines))
    assert main(options(models["embed"], tmp_path / "corpus.jsonl", tmp_path / "out", "--workers", 0)) == 0
    rows = read(tmp_path / "out").to_pylist()
    reasons = [None, "a number (3)", "not JSON", "an object", "empty", "not a text", "not JSON", "missing", None]
    for row, reason in zip(rows, reasons, strict=True):
        assert (row["error"] is None) == (row["embedding"] is not None) == (reason is None)
        assert reason is None or reason in row["error"]
    assert [row["n"] for row in rows] == [1, 2, *[None] * 7] and [row["x"] for row in rows] == [0.5, *[None] * 7, 2.0]
    # what has no column, or does not fit it, is kept
    assert json.loads(rows[0]["other_fields"]) == {"tags": ["a"]}
    assert json.loads(rows[1]["other_fields"]) == {"text": 3}
    assert json.loads(rows[4]["other_fields"]) == {"n": "four"}
    assert json.loads(rows[7]["other_fields"]) == {"n": 123456789012345678901234567890, "x": 2**53 + 1}
    assert rows[8]["other_fields"] is None


def test_rows_of_parquet(models, tmp_path) -> None:
    texts = [None if i == 7 else f"the house {i}" for i in range(23)]
    table = pa.table({"id": [f"d{i}" for i in range(23)], "body": texts, "tags": [[i, i] for i in range(23)]})
    pq.write_table(table, tmp_path / "corpus.parquet", row_group_size=10)
    more = ("--workers", 0, "--text_column", "body", "--bytes_per_part", 60)
    assert main(options(models["embed"], tmp_path / "corpus.parquet", tmp_path / "out", *more)) == 0
    found = read(tmp_path / "out")
    assert len(list((tmp_path / "out").glob("part-*"))) > 3
    assert found.select(table.column_names).equals(table)
    assert found["place"].to_pylist() == [f"{tmp_path}/corpus.parquet:{i}" for i in range(23)]
    assert [i for i, error in enumerate(found["error"].to_pylist()) if error] == [7]
    assert pq.read_table(tmp_path / "out").num_rows == 23  # a folder that other programs can read


def test_text_files(models, tmp_path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("the house\n\n    code")
    (folder / "b.html").write_text("<title>Red</title><p>The house was in a town near the sea.</p><pre>code</pre>")
    (folder / "c.txt.gz").write_bytes(b"no archive")
    (folder / "d.md").write_text("```\ncode\n```\n")
    (folder / "e.txt").write_bytes(b"\xff\xfe")
    corpus = find_corpus([folder], "text", 100)
    found = [read_part(corpus, part, "text") for part in corpus.parts]
    texts = [text for documents in found for text in documents.texts]
    assert texts == ["the house\n\n    code", "Red\nThe house was in a town near the sea.", "", "", ""]
    errors = [error for documents in found for error in documents.errors]
    assert errors[:2] == [None, None] and "no prose" in errors[3]
    assert all(error.startswith("it cannot be read") for error in (errors[2], errors[4]))
    assert main(options(models["embed"], folder, tmp_path / "out", "--workers", 0)) == 0
    assert read(tmp_path / "out")["place"].to_pylist() == [str(file) for file in sorted(folder.iterdir())]


def test_a_file_that_is_gone_is_reported(models, tmp_path) -> None:
    write_lines(tmp_path / "corpus.jsonl", 3, 3)
    corpus = find_corpus([tmp_path / "corpus.jsonl"], "text", 1000)
    (tmp_path / "corpus.jsonl").unlink()
    documents = read_part(corpus, corpus.parts[0], "text")
    assert len(documents.places) == 1 and documents.errors[0].startswith("it cannot be read")
    assert documents.columns.schema.equals(corpus.schema) and documents.columns.num_rows == 1


# Runs that fail, and bad input


def test_a_part_that_fails_is_read_by_the_next_run(models, tmp_path, monkeypatch, capfd) -> None:
    write_lines(tmp_path / "corpus.jsonl", 9, 3)
    command = options(models["embed"], tmp_path / "corpus.jsonl", tmp_path / "out", "--workers", 0)
    command += ["--bytes_per_part", "100"]
    read_texts, calls = worker.read_texts, []

    def fail_once(*args):
        calls.append(args)
        if len(calls) == 2:
            raise RuntimeError("no memory is left")
        return read_texts(*args)

    monkeypatch.setattr(worker, "read_texts", fail_once)
    assert main(command) == 1
    captured = capfd.readouterr().err.splitlines()[-1]
    assert "1 of" in captured and "number 1: no memory is left" in captured
    assert main(command) == 0
    assert read(tmp_path / "out")["name"].to_pylist() == list(range(9))


def test_a_part_that_ends_its_worker_again_and_again(tmp_path) -> None:
    for _ in range(MAX_ATTEMPTS):
        with pytest.raises(KeyboardInterrupt), attempt(tmp_path, 3):  # in place of a lost worker
            raise KeyboardInterrupt
    with pytest.raises(RuntimeError, match="lost 4 times"), attempt(tmp_path, 3):
        pass
    with attempt(tmp_path, 4):
        assert (tmp_path / ".attempts-000004").read_text() == f"{os.getpid()}\n"
    assert [file.name for file in tmp_path.iterdir()] == [".attempts-000003"]


def test_one_folder_is_for_one_run_at_a_time_and_for_the_same_settings(models, tmp_path, capfd) -> None:
    text, out = tmp_path / "corpus.jsonl", tmp_path / "out"
    write_lines(text, 3, 3)
    command = options(models["embed"], text, out, "--workers", 0)
    assert main(command) == 0
    with (out / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)  # not even beside a reader
        assert main(command) == 1 and "another run writes" in capfd.readouterr().err
    assert main([*command, "--max_sequence_length", "20"]) == 1
    assert "another max_sequence_length: None then, 20 now" in capfd.readouterr().err
    assert main([*command, "--tokens_per_batch", "20"]) == 0  # nothing depends on it
    write_lines(text, 4, 3)
    assert main(command) == 1 and "another corpus" in capfd.readouterr().err
    torch.manual_seed(1)
    for part in LSGConverter(600).convert_from_pretrained(initial("bert"), "BertModel", block_size=16):
        part.save_pretrained(tmp_path / "other")
    write_lines(text, 3, 3)
    assert main(options(tmp_path / "other", text, out, "--workers", 0)) == 1
    assert "another model" in capfd.readouterr().err
    (out / "_settings.json").unlink()
    assert main(command) == 1 and "of something else" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--task", "answer"), "--question"),
        (("--workers", 0, "--address", "auto"), "--workers 0"),
        (("--tokens_per_batch", 0), "--tokens_per_batch 0"),
        (("--text_column", "body"), "no column 'body'; there are"),
        (("--text", "missing.jsonl"), "no such file"),
        (("--model", initial("bert")), "an LSG checkpoint is expected"),
        (("--model", "/no/folder"), "no such folder"),
        (("--task", "classify"), "as it lacks classifier"),
        (("--max_sequence_length", 601), "reads 600 tokens"),
        (("--without_text", "--text", "clash"), "column 'tokens' of their own"),
        (("--text", "mixed"), "files of one kind"),
        (("--text", "damaged"), "not readable as Parquet"),
    ],
)
def test_bad_input_ends_with_one_line(models, tmp_path, capfd, arguments: tuple, message: str) -> None:
    write_lines(tmp_path / "corpus.jsonl", 3, 3)
    made = {"clash": "a.jsonl", "mixed": "a.txt", "damaged": "a.parquet"}
    for name, file in made.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text('{"text": "a", "tokens": 3}')
    (tmp_path / "mixed" / "b.jsonl").write_text('{"text": "a"}')
    arguments = tuple(tmp_path / argument if argument in made else argument for argument in arguments)
    command = options(models["embed"], tmp_path / "corpus.jsonl", tmp_path / "out", *arguments)
    capfd.readouterr()
    assert main(command) == 1
    error = capfd.readouterr().err
    assert error.startswith("run_corpus.py: error: ") and message in error and len(error.splitlines()) == 1
    assert not list(tmp_path.glob("out/part-*"))


def test_without_ray(models, tmp_path, monkeypatch, capfd) -> None:
    write_lines(tmp_path / "corpus.jsonl", 3, 3)
    monkeypatch.setattr(worker, "find_spec", lambda name: None)
    assert main(options(models["embed"], tmp_path / "corpus.jsonl", tmp_path / "out")) == 1
    assert "pip install 'ray[data]', or pass --workers 0" in capfd.readouterr().err
