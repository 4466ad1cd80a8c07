"""Signals and killed conversions: the last line says what was written, and the next run cleans up."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ROOT, assert_nothing_hidden, meanwhile
from test_command import LENGTH, assert_refused, listing, run
from test_overwrite import OVERWRITE, without_list

import lsg.command

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ENDS = [("SIGTERM", 143, "ended by SIGTERM"), ("SIGHUP", 129, "ended by SIGHUP"), ("SIGINT", 130, "interrupted")]


@pytest.fixture(autouse=True)
def signals_as_usual() -> Iterator[None]:
    """Signals do what they do in a terminal, wherever the tests run (nohup, a script's background)."""
    before = [signal.getsignal(number) for number in NUMBERS]
    for number in NUMBERS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in zip(NUMBERS, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("name, code, how", ENDS)
def test_being_ended_from_outside_leaves_nothing(name: str, code: int, how: str, source: Path, tmp_path: Path) -> None:
    """As by `timeout`, a batch system, a closed terminal: while the output is written or tested."""
    before = listing(tmp_path)
    names = ["--initial_model", source, "--model_name", tmp_path / "out", "--run_test"]
    process = subprocess.Popen(
        [sys.executable, ROOT / "convert_checkpoint.py", *names, *LENGTH], stderr=subprocess.PIPE, text=True
    )
    while not list(tmp_path.glob(".out.*/model.safetensors")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(getattr(signal, name))
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    assert stderr.strip().splitlines()[-1] == f"convert_checkpoint.py: {how}; nothing was written"
    assert listing(tmp_path) == before


@pytest.mark.parametrize("name, code, how", ENDS)
@pytest.mark.parametrize("moment", ["os.rename", "shutil.rmtree", "lsg.command.summarize", "sys.stdout.flush"])
def test_an_end_after_the_output_was_written_says_so(
    way, moment: str, name: str, code: int, how: str, source: Path, out: Path, capfd, monkeypatch
) -> None:
    """Ctrl-C during the last clean-up, say."""

    def interrupt() -> None:
        where, function = moment.rsplit(".", 1)
        module = {"sys.stdout": sys.stdout, "lsg.command": lsg.command}.get(where) or sys.modules[where]
        real = getattr(module, function)

        def interrupted(*args, **kwargs):
            monkeypatch.setattr(module, function, real)
            signal.raise_signal(getattr(signal, name))
            return real(*args, **kwargs)

        monkeypatch.setattr(module, function, interrupted)

    before = listing(out)["model.safetensors"]
    meanwhile(monkeypatch, interrupt)
    assert run(source, out, *OVERWRITE) == code
    assert capfd.readouterr().err.strip().splitlines()[-1] == f"convert_checkpoint.py: {how}; {out} was written"
    assert listing(out)["model.safetensors"] != before
    assert_nothing_hidden(out.parent)


@pytest.mark.parametrize("name, code, how", ENDS)
def test_an_exception_of_a_signal_that_was_replaced(
    name: str, code: int, how: str, source: Path, tmp_path: Path, capfd, monkeypatch
) -> None:
    """Native code, of torch for example, raises another one in its place."""

    def replace() -> None:
        try:
            signal.raise_signal(getattr(signal, name))
        except BaseException as error:
            raise ValueError("could not determine the shape") from error

    meanwhile(monkeypatch, replace)
    assert run(source, tmp_path / "out") == code
    assert capfd.readouterr().err.strip().splitlines()[-1] == f"convert_checkpoint.py: {how}; nothing was written"
    assert_nothing_hidden(tmp_path)


def test_a_signal_that_is_ignored_stays_ignored(source: Path, tmp_path: Path, monkeypatch) -> None:
    """As under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    meanwhile(monkeypatch, lambda: signal.raise_signal(signal.SIGHUP))
    assert run(source, tmp_path / "out") == 0
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_the_callers_signal_handlers_are_put_back(source: Path, tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in NUMBERS]
    assert run(source, tmp_path / "out") == 0
    assert [signal.getsignal(number) for number in NUMBERS] == before


def leave(folder: Path, name: str) -> Path:
    """Create a folder as a killed conversion leaves it."""
    (folder / name).mkdir()
    (folder / name / "model.safetensors").write_bytes(b"half")
    return folder / name


def test_a_half_built_folder_is_removed_and_reported(source: Path, tmp_path: Path, caplog) -> None:
    leave(tmp_path, ".out.0123abcd.new")
    for other in (".out.0123abcd.new2", ".other.0123abcd.new", ".out.x.new"):
        leave(tmp_path, other)
    assert run(source, tmp_path / "out") == 0
    assert not (tmp_path / ".out.0123abcd.new").exists()
    assert "out: removed what a conversion that was cut off had left" in caplog.text
    assert {f.name for f in tmp_path.glob(".*")} == {".out.0123abcd.new2", ".other.0123abcd.new", ".out.x.new"}


def test_a_refused_run_cleans_up_too(source: Path, out: Path) -> None:
    leave(out.parent, ".out.0123abcd.new")
    assert run(source, out) == 1
    assert_nothing_hidden(out.parent)


def test_an_earlier_versions_only_copy_is_put_back(source: Path, out: Path, capfd, caplog) -> None:
    """Killed between its two renames, it left no output at all."""
    before = listing(without_list(out))
    out.rename(out.parent / ".out.0123abcd.old")
    leave(out.parent, ".out.0123abcd.new")
    assert run(source, out) == 1
    assert "exists and is not empty" in capfd.readouterr().err
    assert "out: put back what was here" in caplog.text
    assert listing(out) == before
    assert_nothing_hidden(out.parent)


@pytest.mark.parametrize("name", ["config.json", "thesis.txt"])
def test_what_an_earlier_version_had_replaced(name: str, source: Path, out: Path, caplog) -> None:
    """Its own files are removed, a user's are moved aside."""
    before = listing(out)
    old = out.parent / ".out.0123abcd.old"
    old.mkdir()
    (old / name).write_text("x")
    assert run(source, out) == 1
    assert listing(out) == before
    assert_nothing_hidden(out.parent)
    aside = out.with_name("out.old")
    assert aside.exists() == (name == "thesis.txt")
    if aside.exists():
        assert listing(aside) == {"thesis.txt": b"x"} and str(aside) in caplog.text


@pytest.mark.parametrize("content", ["", "[]", '{"mine": 1}'])
def test_damaged_snapshots_of_a_killed_conversion_are_named(content: str, source: Path, tmp_path: Path, capfd) -> None:
    """Nothing is removed then."""
    (tmp_path / ".out.12345678.json").write_text(content)
    (tmp_path / ".out.12345678.done").mkdir()
    assert_refused(
        capfd, source, tmp_path / "out", ".out.12345678.json: damaged; it describes what a conversion that was cut off"
    )


def test_without_locks_leftovers_are_kept_and_named(source: Path, tmp_path: Path, caplog, monkeypatch) -> None:
    """It is unknown then whether a running conversion uses them."""
    monkeypatch.setattr("lsg.output.leftovers.fcntl", None)
    leave(tmp_path, ".out.0123abcd.new")
    assert run(source, tmp_path / "out") == 0
    assert [f.name for f in tmp_path.glob(".*")] == [".out.0123abcd.new"]
    assert ".out.0123abcd.*: left there" in caplog.text


def test_the_files_of_a_running_conversion_are_not_touched(source: Path, out: Path, capfd) -> None:
    """Of another process."""
    fcntl = pytest.importorskip("fcntl")
    folder = leave(out.parent, ".out.0123abcd.new")
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert_refused(capfd, source, out, "another conversion to this output is running", "--overwrite")
    finally:
        os.close(descriptor)
    assert run(source, out, "--overwrite") == 0
    assert_nothing_hidden(out.parent)


def test_the_last_replaced_of_several_is_put_back(source: Path, out: Path) -> None:
    """An earlier version, killed twice between its renames."""
    first, second = (out.parent / f".out.{mark}.old" for mark in ("aaaaaaaa", "00000000"))
    without_list(out).rename(first)
    assert run(source, out.with_name("other"), "--seed", "9", "--random_global_init") == 0
    youngest = listing(without_list(out.with_name("other")))
    out.with_name("other").rename(second)
    assert run(source, out) == 1
    assert listing(out) == youngest
    assert_nothing_hidden(out.parent)
