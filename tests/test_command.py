"""The command: its output, and that every bad input ends in one clear line and leaves no files."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import ROOT, write_json
from safetensors.torch import load_file, save_file

import lsg.command
from convert_checkpoint import main, parse_mapping
from lsg.converter import LSGConverter

LENGTH = ["--max_sequence_length", "600"]


def run(source: Path, output: Path, *args: str) -> int:
    """Run the command in this process; return the exit code."""
    try:
        return main(["--initial_model", str(source), "--model_name", str(output), *LENGTH, *args])
    except SystemExit as error:
        return error.code


def listing(folder: Path) -> dict[str, bytes]:
    """Return the content of all files below a folder, by path; of folders, nothing."""
    return {str(f.relative_to(folder)): f.read_bytes() if f.is_file() else b"" for f in sorted(folder.rglob("*"))}


def rewrite_json(file: Path, **fields) -> None:
    """Change fields of a JSON file; those that are None are removed."""
    content = {**json.loads(file.read_text(encoding="utf-8")), **fields}
    write_json(file, {name: value for name, value in content.items() if value is not None})


def assert_refused(capfd, source: Path, output: Path, message: str, *args: str, code: int = 1) -> None:
    """Run it; check the exit code, one line on stderr with the message, and that no file beside the output changed."""
    around = source.parent
    before = listing(around)
    assert run(source, output, *args) == code
    stdout, stderr = capfd.readouterr()
    assert stdout == ""
    assert len(stderr.strip().splitlines()) == 1, stderr
    assert message in stderr
    assert listing(around) == before


def replace_self_test(monkeypatch, passed: bool) -> list[dict]:
    """Replace the self test by one of a single check with this result; return its checks."""
    checks = [{"name": "AutoModel", "passed": passed, "detail": "it broke"}]
    monkeypatch.setattr(lsg.command, "run_self_test", lambda *args: lsg.command.SelfTestReport(checks))
    return checks


def test_a_conversion(source: Path, tmp_path: Path, capfd) -> None:
    assert run(source, tmp_path / "out", "--model_kwargs", "{'block_size': 32, 'sparse_block_size': 32}") == 0
    stdout, _ = capfd.readouterr()
    assert "Made LSGRobertaForMaskedLM" in stdout and str(tmp_path / "out") in stdout
    assert 'AutoModelForMaskedLM.from_pretrained("' in stdout
    files = {f.name for f in (tmp_path / "out").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"} <= files
    code = {f.name for f in (ROOT / "lsg" / "modeling").glob("lsg_*.py")} - {"lsg_rotary.py", "lsg_seq2seq.py"}
    assert {name for name in files if name.endswith(".py")} == code | {"modeling_lsg_roberta.py"}
    for file in (tmp_path / "out").glob("*.py"):
        assert file.read_bytes() == (ROOT / "lsg" / "modeling" / file.name).read_bytes()
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["block_size"] == 32 and config["max_position_embeddings"] == 602
    assert config["architectures"] == ["LSGRobertaForMaskedLM"]
    assert [f.name for f in tmp_path.iterdir() if f.name.startswith(".")] == []


def test_the_command_and_the_converter_make_the_same(source: Path, tmp_path: Path) -> None:
    assert run(source, tmp_path / "out", "--random_global_init", "--use_token_ids", "False", "--seed", "7") == 0
    converter = LSGConverter(600, random_global_init=True, use_token_ids=False, seed=7)
    model, _ = converter.convert_from_pretrained(source)
    saved = load_file(tmp_path / "out" / "model.safetensors")
    for name, tensor in saved.items():
        assert torch.equal(model.state_dict()[name], tensor)


def test_dtype_is_the_checkpoints_or_as_asked(source: Path, tmp_path: Path) -> None:
    tensors = {name: x.half() for name, x in load_file(source / "model.safetensors").items()}
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    rewrite_json(source / "config.json", torch_dtype=None)
    for args, dtype in (([], torch.float16), (["--dtype", "bfloat16"], torch.bfloat16)):
        assert run(source, tmp_path / "out", "--overwrite", *args) == 0
        saved = load_file(tmp_path / "out" / "model.safetensors")
        assert {x.dtype for x in saved.values()} == {dtype}
        assert saved["roberta.embeddings.global_embeddings.weight"].abs().sum() > 0
        assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == str(dtype).split(".")[1]


def test_a_file_of_arguments(source: Path, tmp_path: Path) -> None:
    arguments = {"initial_model": str(source), "model_name": str(tmp_path / "out"), "max_sequence_length": 700}
    arguments |= {"model_kwargs": {"sparsity_type": "stride"}, "use_token_ids": False, "token": None}
    write_json(tmp_path / "arguments.json", arguments)
    assert main([str(tmp_path / "arguments.json")]) == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["sparsity_type"] == "stride" and config["max_position_embeddings"] == 702


@pytest.mark.parametrize("content", ['{"initial_modle": 1}', "[1]", "{", None])
def test_a_wrong_file_of_arguments(content: str | None, tmp_path: Path, capfd) -> None:
    file = tmp_path / "arguments.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SystemExit) as error:
        main([str(file)])
    assert error.value.code == 2
    stderr = capfd.readouterr().err
    assert len(stderr.strip().splitlines()) == 1 and "arguments.json" in stderr
    if content and "modle" in content:
        assert "did you mean initial_model" in stderr


@pytest.mark.parametrize(
    "text",
    [
        '{"a": true, "b": null, "c": [1, -2.5]}',
        "{'a': true, 'b': null, 'c': [1, -2.5]}",
        "{'a': True, 'b': None, 'c': [1, -2.5]}",
    ],
)
def test_both_forms_of_a_mapping(text: str) -> None:
    assert parse_mapping(text) == {"a": True, "b": None, "c": [1, -2.5]}
    assert parse_mapping("{'x': 'it is true'}") == {"x": "it is true"}


def test_an_output_that_cannot_be(source: Path, tmp_path: Path, capfd) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    assert_refused(capfd, source, tmp_path / "full", "exists and is not empty")
    assert_refused(capfd, source, tmp_path / "full", "this folder is no LSG checkpoint", "--overwrite")
    assert_refused(capfd, source, tmp_path / "file", "this is a file", "--overwrite")
    assert_refused(capfd, source, source, "cannot be the input", "--overwrite")
    assert_refused(capfd, source, Path.cwd(), "cannot be the current folder or one around it", "--overwrite")
    assert_refused(capfd, source, Path("/proc"), "a mount point cannot be replaced", "--overwrite")
    (tmp_path / "run" / "checkpoint-500").mkdir(parents=True)
    write_json(tmp_path / "run" / "config.json", {"base_model_prefix": "lsg"})
    assert_refused(capfd, source, tmp_path / "run", "but this folder also contains checkpoint-500/;", "--overwrite")
    assert_refused(capfd, source, tmp_path, "cannot be the input or a folder around it", "--overwrite")
    assert_refused(capfd, source, tmp_path / "file" / "deep" / "out", "cannot be written")


def test_an_empty_output_folder_is_used_and_parents_are_made(source: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert run(source, tmp_path / "empty") == 0
    assert run(source, tmp_path / "a" / "b" / "out") == 0
    assert (tmp_path / "a" / "b" / "out" / "config.json").exists()


def test_overwrite_replaces_a_checkpoint(source: Path, tmp_path: Path, capfd) -> None:
    assert run(source, tmp_path / "out") == 0
    capfd.readouterr()
    assert_refused(capfd, source, tmp_path / "out", "must divide", "--overwrite", "--global_positional_stride", "63")
    assert run(source, tmp_path / "out", "--overwrite", "--model_kwargs", '{"block_size": 64}') == 0
    assert json.loads((tmp_path / "out" / "config.json").read_text())["block_size"] == 64


@pytest.mark.parametrize("error, code", [(KeyboardInterrupt(), 130), (OSError(28, "No space left on device"), 1)])
def test_nothing_is_left_when_it_is_cut_off(error, code, source: Path, tmp_path: Path, capfd, monkeypatch) -> None:
    def cut_off(model, tokenizer, folder: Path) -> None:
        (folder / "half").write_text("x")
        raise error

    monkeypatch.setattr(lsg.command, "save_checkpoint", cut_off)
    assert_refused(capfd, source, tmp_path / "deep" / "out", "convert_checkpoint.py: ", code=code)
    (tmp_path / "old").mkdir()
    write_json(tmp_path / "old" / "config.json", {"base_model_prefix": "lsg"})
    assert_refused(capfd, source, tmp_path / "old", "convert_checkpoint.py: ", "--overwrite", code=code)


def test_a_full_disk(source: Path, tmp_path: Path) -> None:
    """Every file that grows beyond 50 kB fails, as on a full disk."""
    before = listing(tmp_path)
    names = ["--initial_model", source, "--model_name", tmp_path / "out"]
    process = subprocess.run(
        [sys.executable, ROOT / "convert_checkpoint.py", *names, *LENGTH],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 1
    assert "error: cannot write the checkpoint" in process.stderr.strip().splitlines()[-1]
    assert listing(tmp_path) == before


def test_a_failed_self_test_leaves_nothing(source: Path, tmp_path: Path, capfd, monkeypatch) -> None:
    replace_self_test(monkeypatch, passed=False)
    before = listing(tmp_path)
    assert run(source, tmp_path / "out", "--run_test") == 1
    stdout, stderr = capfd.readouterr()
    assert "it broke" in stdout and stderr.strip().endswith("failed its test (AutoModel) and was removed")
    assert listing(tmp_path) == before


def test_tensors_that_were_not_written_are_noticed(source: Path, tmp_path: Path, capfd, monkeypatch) -> None:
    from transformers import PreTrainedModel

    save = PreTrainedModel.save_pretrained

    def save_wrongly(self, folder, **kwargs) -> None:
        save(self, folder, **kwargs)
        tensors = load_file(Path(folder) / "model.safetensors")
        tensors["lm_head.bias"][3] += 1
        save_file(tensors, Path(folder) / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", save_wrongly)
    assert_refused(capfd, source, tmp_path / "out", "lm_head.bias was not written as it is in memory")


def test_missing_heads_and_left_out_weights_are_reported(source: Path, tmp_path: Path, caplog) -> None:
    assert run(source, tmp_path / "out", "--architecture", "LSGRobertaForSequenceClassification") == 0
    assert "newly initialized: classifier.dense.bias" in caplog.text
    assert "not part of LSGRobertaForSequenceClassification, left out: lm_head.bias" in caplog.text


def make_sentence_encoder(source: Path, path: str) -> None:
    write_json(source / "modules.json", [{"path": "", "type": "Transformer"}, {"path": path, "type": "Pooling"}])
    write_json(source / "sentence_bert_config.json", {"max_seq_length": 256, "do_lower_case": False})
    (source / "1_Pooling").mkdir()
    write_json(source / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True})
    (source / "1_Pooling" / "evil.py").write_text("")


def test_a_sentence_encoder_stays_one(source: Path, tmp_path: Path) -> None:
    make_sentence_encoder(source, "1_Pooling")
    for overwrite in ("False", "True"):
        assert run(source, tmp_path / "out", "--overwrite", overwrite) == 0
    for name in ("modules.json", "1_Pooling/config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()
    settings = json.loads((tmp_path / "out" / "sentence_bert_config.json").read_text())
    assert settings == {"max_seq_length": 600, "do_lower_case": False}
    assert [file.name for file in (tmp_path / "out" / "1_Pooling").iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    "path, message", [("../elsewhere", "points outside of the checkpoint"), (3, "not the modules.json")]
)
def test_a_damaged_sentence_encoder(path, message: str, source: Path, tmp_path: Path, capfd) -> None:
    make_sentence_encoder(source, path)
    assert_refused(capfd, source, tmp_path / "out", message)
