"""--report: what was done, with all measurements; complete or absent, also if the conversion fails."""

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
import transformers
from fake_hub import TOKEN
from helpers import assert_nothing_hidden
from test_command import assert_refused, listing, replace_self_test, run
from test_publishing import hub  # noqa: F401 (a fixture)

import lsg.command
import lsg.report
from convert_checkpoint import main


def read(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))


def test_all_measurements_are_there(source: Path, tmp_path: Path, monkeypatch) -> None:
    checks = replace_self_test(monkeypatch, passed=True)
    file, out = tmp_path / "report.json", tmp_path / "out"
    args = ["--architecture", "RobertaForSequenceClassification", "--token", "hf_secret"]
    assert run(source, out, "--report", str(file), "--model_kwargs", "{'block_size': 64}", "--run_test", *args) == 0
    report = read(file)
    assert report["done"] and report["written"] and report["error"] is None
    assert report["arguments"]["max_sequence_length"] == 600 and report["arguments"]["run_test"]
    assert report["arguments"]["token"] == "given" and "hf_secret" not in file.read_text()
    assert report["source"] == {"name": str(source), "model_type": "roberta", "is_lsg": False}
    model = report["model"]
    assert model["class"] == "LSGRobertaForSequenceClassification" and model["tokens"] == 600
    assert model["lsg_fields"]["block_size"] == 64 and model["dtype"] == "float32"
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(out, trust_remote_code=True)
    assert model["parameters"] == loaded.num_parameters()
    expected = {
        name: {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()} for name, text in listing(out).items()
    }
    assert report["files"] == expected
    assert report["self_test"] == {"passed": True, "checks": checks, "fill_mask": [], "questions": []}
    assert {"load and convert", "save and compare", "self test", "total"} == set(report["seconds"])
    assert report["seconds"]["total"] >= report["seconds"]["save and compare"] > 0
    assert report["versions"]["torch"] == torch.__version__
    assert {"lsg-converter", "transformers", "Python"} <= set(report["versions"])
    assert any("newly initialized: classifier.dense.bias" in line for line in report["warnings"])
    assert_nothing_hidden(tmp_path)


def test_warnings_are_still_shown(source: Path, tmp_path: Path, capfd, monkeypatch) -> None:
    """As Python shows them if logging is not configured."""
    import logging

    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    args = ["--architecture", "RobertaForSequenceClassification", "--report", str(tmp_path / "report.json")]
    assert run(source, tmp_path / "out", *args) == 0
    assert capfd.readouterr().err.count("newly initialized: classifier.dense.bias") == 1


def test_a_failed_self_test_is_reported(source: Path, tmp_path: Path, monkeypatch) -> None:
    checks = replace_self_test(monkeypatch, passed=False)
    file = tmp_path / "report.json"
    assert run(source, tmp_path / "out", "--run_test", "--report", str(file)) == 1
    report = read(file)
    assert not report["done"] and not report["written"] and report["files"] == {}
    assert report["self_test"] == {"passed": False, "checks": checks, "fill_mask": [], "questions": []}
    assert report["error"] == "the output failed its test (AutoModel) and was removed"
    assert not (tmp_path / "out").exists()


def test_a_report_of_a_failure_replaces_an_earlier_report(source: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    assert run(source, tmp_path / "out", "--report", str(file)) == 0
    (source / "model.safetensors").write_bytes(b"")
    assert run(source, tmp_path / "out2", "--report", str(file)) == 1
    assert "the weights cannot be loaded" in read(file)["error"] and read(file)["model"] == {}


@pytest.mark.parametrize("refused", [False, True])
def test_the_push_is_reported(hub, refused: bool, source: Path, tmp_path: Path) -> None:  # noqa: F811
    hub.refusals |= {"/commit/": (403, "locked")} if refused else {}
    file, args = tmp_path / "report.json", ["--push_to_hub", "lsg-tiny", "--token", TOKEN]
    assert run(source, tmp_path / "out", "--report", str(file), *args) == refused
    report = read(file)
    assert report["written"] and report["files"]
    if refused:
        assert "not pushed to ada/lsg-tiny" in report["error"] and report["push"] is None
    else:
        assert report["push"]["repository"] == f"{hub.url}/ada/lsg-tiny" and report["error"] is None
    assert "push" in report["seconds"]


@pytest.mark.parametrize(
    "name, message",
    [
        ("missing/report.json", "cannot be written: No such file or directory"),
        ("file/report.json", "cannot be written: Not a directory"),
        ("folder", "the name of a file is expected"),
        ("/dev/full", "the name of a file is expected"),
        ("thesis.json", "exists and is no report of an earlier conversion"),
        ("deep.json", "exists and is no report of an earlier conversion"),
        ("x" * 300, "name too long"),
        ("out/report.json", "a file outside of the output is expected"),
    ],
)
def test_a_file_that_cannot_be(name: str, message: str, source: Path, tmp_path: Path, capfd, monkeypatch) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "thesis.json").write_text('{"chapters": 5}')
    (tmp_path / "deep.json").write_text("[" * 100_000)
    monkeypatch.setattr(lsg.command, "save_checkpoint", lambda *args: pytest.fail("it was converted"))
    assert_refused(capfd, source, tmp_path / "out", message, "--report", str(tmp_path / name))


def test_it_is_never_half_written(source: Path, tmp_path: Path, capfd, monkeypatch) -> None:
    """The disk is full in the end."""
    file = tmp_path / "report.json"
    assert run(source, tmp_path / "first", "--report", str(file)) == 0
    before, write = file.read_bytes(), Path.write_text

    def fill_up(path: Path, text: str, **kwargs) -> int:
        if path.name.endswith(".part"):
            write(path, text[:100])
            raise OSError(28, "No space left on device")
        return write(path, text, **kwargs)

    monkeypatch.setattr(Path, "write_text", fill_up)
    capfd.readouterr()
    assert run(source, tmp_path / "out", "--report", str(file)) == 1
    stderr = capfd.readouterr().err.strip().splitlines()
    assert len(stderr) == 1 and "report.json: cannot be written: " in stderr[0]
    assert stderr[0].endswith(f"; {tmp_path / 'out'} was written")
    assert file.read_bytes() == before
    assert_nothing_hidden(tmp_path)


def test_home_and_a_file_of_arguments(source: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    arguments = {"initial_model": "~/source", "model_name": "~/out", "max_sequence_length": 600, "report": "~/r.json"}
    (tmp_path / "arguments.json").write_text(json.dumps(arguments))
    assert main(["~/arguments.json", "--seed", "7"]) == 0
    report = read(tmp_path / "r.json")
    assert report["arguments"]["model_name"] == os.path.join(tmp_path, "out") and report["arguments"]["seed"] == 7
