"""Very long and very deep input, on the command line and in files: one line, which echoes little of it."""

import json
from pathlib import Path

import pytest
from helpers import write_json
from test_command import assert_refused, make_sentence_encoder, run
from test_command_line import refused

from convert_checkpoint import parse_mapping

DEEP = "[" * 60_000 + "]" * 60_000
LONG = "x" * 5000


def test_deep_json(source: Path, tmp_path: Path, capfd) -> None:
    file = tmp_path / "arguments.json"
    file.write_text('{"model_kwargs": ' + DEEP + "}")
    assert "nested too deeply" in refused(capfd, str(file))
    file.unlink()
    line = refused(capfd, "--model_kwargs", '{"a": ' + DEEP + "}")
    assert "not a JSON object" in line and len(line) < 500
    for name in ("config.json", "tokenizer_config.json", "tokenizer.json"):
        before = (source / name).read_text() if (source / name).exists() else None
        (source / name).write_text(DEEP)
        assert_refused(capfd, source, tmp_path / "out", "error: ")  # one line; libraries have their own words
        (source / name).unlink() if before is None else (source / name).write_text(before)
    (source / "config.json").write_text(DEEP)
    assert_refused(capfd, source, tmp_path / "out", "not valid JSON: it is nested too deeply")


def test_deep_json_around_the_weights(source: Path, tmp_path: Path, capfd) -> None:
    make_sentence_encoder(source, "1_Pooling")
    words = {"modules.json": "not the modules.json of", "sentence_bert_config.json": "it is nested too deeply"}
    for name, message in words.items():
        before = (source / name).read_text()
        (source / name).write_text(DEEP)
        assert_refused(capfd, source, tmp_path / "out", message)
        (source / name).write_text(before)
    (source / "model.safetensors").unlink()
    (source / "model.safetensors.index.json").write_text(DEEP)
    assert_refused(capfd, source, tmp_path / "out", "the weights cannot be loaded")


def test_deep_json_at_the_output(source: Path, out: Path, capfd) -> None:
    for name, message in (("conversion_files.json", "damaged"), ("config.json", "is no LSG checkpoint")):
        (out / name).write_text(DEEP)
        assert_refused(capfd, source, out, message, "--overwrite")
        (out / name).unlink()


@pytest.mark.parametrize(
    "args",
    [
        ["--initial_model", "./" + LONG],
        ["--initial_model", LONG],
        ["--model_name", LONG],
        ["--model_name", "~" + LONG],
        ["--architecture", LONG],
        ["--max_sequence_length", LONG],
        ["--max_sequence_length", "-" + "1" * 4000],
        ["--seed", "1" * 4000],
        ["--dtype", LONG],
        ["--run_test", LONG],
        ["--model_kwargs", LONG],
        ["--model_kwargs", json.dumps([LONG])],
        ["--model_kwargs", json.dumps({LONG: 1})],
        ["--model_kwargs", json.dumps({"sparsity_type": LONG})],
        ["--model_kwargs", json.dumps({"hidden_act": LONG})],
        ["--push_to_hub", LONG],
        ["--report", LONG],
        ["--" + LONG],
    ],
)
def test_long_text_is_not_echoed(args: list[str], source: Path, tmp_path: Path, capfd) -> None:
    assert run(source, tmp_path / "out", *args) in (1, 2)
    stderr = capfd.readouterr().err
    assert len(stderr.strip().splitlines()) <= 1
    assert max(stderr.count(letter) for letter in "x1") <= 200


@pytest.mark.parametrize(
    "fields",
    [
        {"model_type": LONG},
        {"model_type": "roberta", "architectures": LONG},
        {"hidden_size": LONG},
        {"hidden_act": LONG},
        {LONG: 1, "vocab_size": 7},
    ],
)
def test_long_text_of_a_file_is_not_echoed(fields: dict, source: Path, tmp_path: Path, capfd) -> None:
    config = json.loads((source / "config.json").read_text())
    write_json(source / "config.json", {**config, **fields})
    assert run(source, tmp_path / "out", "--model_kwargs", '{"unknown": 1}' if LONG in fields else "{}") == 1
    stderr = capfd.readouterr().err
    assert len(stderr.strip().splitlines()) == 1 and stderr.count("x") <= 205


def test_a_file_of_long_arguments(tmp_path: Path, capfd) -> None:
    write_json(tmp_path / "arguments.json", {LONG: 1})
    assert refused(capfd, str(tmp_path / "arguments.json")).count("x") <= 205


def test_a_long_mapping_is_still_read() -> None:
    assert parse_mapping(json.dumps({"id2label": {str(i): f"label {i}" for i in range(5000)}}))["id2label"]
