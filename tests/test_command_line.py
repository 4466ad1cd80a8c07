"""The command line: names, versions, streams that cannot be written, a length that is too short."""

import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from helpers import ROOT, initial, write_json
from safetensors.torch import load_file
from test_command import LENGTH, assert_refused, listing, replace_self_test, run

import lsg.converter
import lsg.loading
from block_local_attention import draw
from convert_checkpoint import main

COMMAND = [sys.executable, str(ROOT / "convert_checkpoint.py")]


def ask(*args: str, redirect: str = "", **env: str) -> subprocess.CompletedProcess:
    """Run the command in a new process, from a shell that redirects its streams."""
    line = ["sh", "-c", f'exec "$@" {redirect}', "sh", *COMMAND, *args]
    return subprocess.run(line, env={**os.environ, **env}, capture_output=True, text=True, timeout=120)


def refused(capfd, *args: str) -> str:
    """Return the line with which a usage error ends."""
    with pytest.raises(SystemExit) as error:
        main(list(args))
    assert error.value.code == 2
    stdout, stderr = capfd.readouterr()
    assert stdout == "" and len(stderr.strip().splitlines()) == 1
    return stderr


# names and versions


def test_home(source: Path, tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run(Path("~/source"), Path("~/out")) == 0
    assert (tmp_path / "out" / "config.json").exists()
    write_json(tmp_path / "arguments.json", {"initial_model": "~/source", "model_name": "~/other"})
    assert main([str(tmp_path / "arguments.json")]) == 0
    assert (tmp_path / "other" / "config.json").exists()
    capfd.readouterr()
    line = refused(capfd, "--initial_model", "~/source", "--model_name", "~nobody_of_this_name/out")
    assert "no such user's home folder" in line


def test_flags_override_the_values_of_a_file(source: Path, tmp_path: Path) -> None:
    arguments = {"initial_model": str(source), "model_name": str(tmp_path / "out"), "max_sequence_length": 700}
    write_json(tmp_path / "arguments.json", {**arguments, "overwrite": True, "model_kwargs": {"block_size": 32}})
    assert main([str(tmp_path / "arguments.json"), *LENGTH, "--model_name", str(tmp_path / "other")]) == 0
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    assert config["max_position_embeddings"] == 602 and config["block_size"] == 32
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("args", [["--version"], ["--help"]])
def test_help_and_version_do_not_import_torch(args: list[str]) -> None:
    code = "import sys; sys.modules['torch'] = sys.modules['transformers'] = None; import convert_checkpoint as c; "
    command = [sys.executable, "-c", f"{code}c.main({args})"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert answer.startswith("convert_checkpoint.py 1." if args == ["--version"] else "usage: convert_checkpoint.py")
    if args == ["--version"]:
        import torch
        import transformers

        assert f"torch {torch.__version__}" in answer and f"transformers {transformers.__version__}" in answer


def test_public_names_are_listed() -> None:
    assert set(lsg.__all__) <= set(dir(lsg))


def test_the_installed_command_calls_itself_by_its_name(tmp_path: Path) -> None:
    """As pip makes it: a script of that name."""
    script = tmp_path / "lsg-convert"
    script.write_text("import sys\nfrom convert_checkpoint import main\nsys.exit(main())\n")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}

    def call(*args: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, script, *args], env=env, capture_output=True, text=True)

    assert call("--version").stdout.startswith("lsg-convert 1.")
    text = call("--help").stdout
    assert text.startswith("usage: lsg-convert ") and "convert_checkpoint" not in text
    assert call("--bogus").stderr.startswith("lsg-convert: error: ")
    assert ask("--bogus").stderr.startswith("convert_checkpoint.py: error: ")


def test_drawing_without_matplotlib(tmp_path: Path, capfd, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert draw.main(["--out", str(tmp_path / "p.png")]) == 1
    stderr = capfd.readouterr().err
    assert len(stderr.splitlines()) == 1
    assert 'pip install -e ".[plot]"' in stderr and "lsg-converter[plot]" in stderr


# streams


def test_all_streams_are_closed(source: Path, tmp_path: Path) -> None:
    names = ["--initial_model", str(source), "--model_name", str(tmp_path / "out")]
    assert ask(*names, *LENGTH, redirect="<&- >&- 2>&-").returncode == 0
    assert run(source, tmp_path / "same") == 0
    saved, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "same"))
    assert all((saved[name] == tensor).all() for name, tensor in expected.items())


def test_what_libraries_print_is_not_written_into_files(tmp_path: Path) -> None:
    """A file gets the number of a closed stream, unless something else has it."""
    code = (
        "import os, sys; from lsg.cli.streams import open_closed_streams; open_closed_streams(); "
        "file = open(sys.argv[1], 'wb'); [os.write(number, b'noise') for number in (1, 2)]; file.write(b'data'); "
        "file.close(); os.system('echo noise >&2')"
    )
    line = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", code, str(tmp_path / "file")]
    assert subprocess.run(line, cwd=ROOT, timeout=60).returncode == 0
    assert (tmp_path / "file").read_bytes() == b"data"


def test_everything_is_full(source: Path, tmp_path: Path) -> None:
    """Neither progress bars nor the process of the self test may fail."""
    names = ["--initial_model", str(source), "--model_name", str(tmp_path / "out"), "--run_test"]
    process = ask(*names, *LENGTH, redirect="> /dev/full 2> /dev/full", HF_HUB_DISABLE_PROGRESS_BARS="0")
    assert process.returncode == 0
    assert "| AutoModel " in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("stream", ["closed", "full"])
def test_a_stdout_that_takes_nothing(stream: str, source: Path, tmp_path: Path, capfd, monkeypatch) -> None:
    broken = None if stream == "closed" else open("/dev/full", "w")  # noqa: SIM115
    monkeypatch.setattr(sys, "stdout", broken)
    assert run(source, tmp_path / "out") == 0
    stderr = capfd.readouterr().err.strip().splitlines()
    assert len(stderr) == 1
    assert f"{tmp_path / 'out'} was written, but standard output cannot be written: " in stderr[0]
    assert (tmp_path / "out" / "conversion_files.json").exists()


@pytest.mark.parametrize("redirect", [">&-", "> /dev/full"])
@pytest.mark.parametrize("question", ["--help", "--version"])
def test_an_answer_that_cannot_be_printed(question: str, redirect: str) -> None:
    process = ask(question, redirect=redirect)
    assert process.returncode == 1
    assert process.stderr.startswith("convert_checkpoint.py: error: standard output cannot be written: ")
    assert len(process.stderr.splitlines()) == 1


@pytest.mark.parametrize("redirect, code", [("2>&-", 2), ("2> /dev/full", 2), (">&- 2>&-", 2)])
def test_an_error_that_cannot_be_printed(redirect: str, code: int) -> None:
    process = ask("--bogus", redirect=redirect)
    assert (process.returncode, process.stdout) == (code, "")


def test_a_conversion_that_fails_in_silence(source: Path, tmp_path: Path, capfd, monkeypatch) -> None:
    """With standard error closed, its line must not go to standard output."""
    monkeypatch.setattr(sys, "stderr", None)
    (source / "config.json").unlink()
    assert run(source, tmp_path / "out") == 1
    assert capfd.readouterr().out == ""


def test_a_failed_self_test_and_a_full_stdout(source: Path, tmp_path: Path, capfd, monkeypatch) -> None:
    replace_self_test(monkeypatch, passed=False)
    monkeypatch.setattr(sys, "stdout", open("/dev/full", "w"))  # noqa: SIM115
    before = listing(tmp_path)
    assert run(source, tmp_path / "out", "--run_test") == 1
    stderr = capfd.readouterr().err.strip().splitlines()
    assert len(stderr) == 1 and "failed its test (AutoModel) and was removed; standard output cannot be" in stderr[0]
    assert listing(tmp_path) == before


def test_an_ascii_stdout(source: Path, tmp_path: Path, monkeypatch) -> None:
    """Names and the words of the self test may have any letters."""
    table = lsg.command.SelfTestReport(fill_mask=[{"text": "é", "original": [("mot™", 0.5)], "converted": []}])
    monkeypatch.setattr(lsg.command, "run_self_test", lambda *args: table)
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stdout)
    assert run(source, tmp_path / "modèle", "--run_test") == 0
    printed = stdout.buffer.getvalue().decode("ascii")
    assert "mod\\xe8le" in printed and "mot\\u2122" in printed
    assert "mot™" in (tmp_path / "modèle" / "README.md").read_text(encoding="utf-8")


def test_a_name_that_is_no_text(source: Path, tmp_path: Path, capfd) -> None:
    """Bytes that are not UTF-8 come as surrogates."""
    line = refused(capfd, "--initial_model", str(source), "--model_name", str(tmp_path / "mod\udce8le"))
    assert "a name in UTF-8 is expected" in line and "mod\\udce8le" in line


def test_no_system_folder_for_temporary_files(source: Path, tmp_path: Path, monkeypatch) -> None:
    """It is full, or not writable: the conversion does not need it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "not_there"))
    assert run(source, tmp_path / "out", "--run_test") == 0
    names = json.loads((tmp_path / "out" / "conversion_files.json").read_text())["files"]
    assert {*names, "conversion_files.json"} == set(listing(tmp_path / "out"))


def test_no_room_for_the_self_test(source: Path, tmp_path: Path, capfd, monkeypatch) -> None:
    def full(*args, **kwargs) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    assert_refused(capfd, source, tmp_path / "out", "no room for the self test's files", "--run_test")


# the length


@pytest.mark.parametrize("model_type, readable", [("roberta", 512), ("bert", 512), ("bart", 1024), ("pegasus", 512)])
def test_a_length_that_is_too_short_is_known_from_the_config(
    model_type: str, readable: int, tmp_path: Path, capfd, monkeypatch
) -> None:
    names = ["--initial_model", str(initial(model_type)), "--model_name", str(tmp_path / "out")]
    load = lsg.loading.load_model
    monkeypatch.setattr(lsg.loading, "load_model", lambda *args: pytest.fail("weights are loaded"))
    assert main([*names, "--max_sequence_length", str(readable - 1)]) == 1
    assert f"={readable - 1} is below the {readable} tokens that" in capfd.readouterr().err
    monkeypatch.setattr(lsg.loading, "load_model", load)
    assert main([*names, "--max_sequence_length", str(readable)]) == 0


def test_the_length_is_checked_again_after_loading(source: Path, tmp_path: Path, capfd, monkeypatch) -> None:
    """As for a checkpoint whose config.json has another length."""
    monkeypatch.setattr(lsg.converter, "check_length", lambda *args: None)
    assert_refused(capfd, source, tmp_path / "out", "is below the 512 tokens", "--max_sequence_length", "511")
