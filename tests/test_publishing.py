"""--push_to_hub, against a small Hub on this machine."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import TOKEN, FakeHub, running_hub
from helpers import ROOT
from huggingface_hub import constants
from test_command import assert_refused, listing, replace_self_test, run

import lsg.command

PUSH = ["--push_to_hub", "ada/lsg-tiny", "--token", TOKEN]


@pytest.fixture
def hub(monkeypatch, tmp_path: Path) -> Iterator[FakeHub]:
    """The Hub of this process."""
    with running_hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        yield server


def test_the_command_pushes_all_that_it_wrote(source: Path, tmp_path: Path) -> None:
    """In a new process, with HF_ENDPOINT and a JSON file of arguments."""
    arguments = {"initial_model": str(source), "model_name": str(tmp_path / "out"), "max_sequence_length": 600}
    (tmp_path / "arguments.json").write_text(json.dumps({**arguments, "push_to_hub": "lsg-tiny", "private": True}))
    env = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    with running_hub() as hub:
        env |= {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
        command = [sys.executable, ROOT / "convert_checkpoint.py", tmp_path / "arguments.json"]
        process = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    assert f"Pushed it to {hub.url}/ada/lsg-tiny" in process.stdout
    assert hub.repos["ada/lsg-tiny"] == {"private": True, "files": listing(tmp_path / "out")}


def test_kept_files_are_not_pushed(hub: FakeHub, source: Path, out: Path) -> None:
    with (out / "README.md").open("a") as card:
        card.write("mine")
    assert run(source, out, "--overwrite", *PUSH) == 0
    assert (out / "README.md.old").exists()
    pushed = hub.repos["ada/lsg-tiny"]
    assert not pushed["private"]
    assert pushed["files"] == {name: text for name, text in listing(out).items() if name != "README.md.old"}
    assert {"README.md", "conversion_files.json", "model.safetensors"} <= set(pushed["files"])


def test_a_failed_push_leaves_the_output(hub: FakeHub, source: Path, tmp_path: Path, capfd) -> None:
    hub.refusals["/commit/"] = (403, "the repository is locked")
    assert run(source, tmp_path / "out", *PUSH) == 1
    stderr = capfd.readouterr().err.strip().splitlines()
    assert len(stderr) == 1
    assert "error: not pushed to ada/lsg-tiny: " in stderr[0] and "locked" in stderr[0]
    assert stderr[0].endswith(f"; {tmp_path / 'out'} was written")
    assert (tmp_path / "out" / "conversion_files.json").exists()
    assert hub.repos["ada/lsg-tiny"]["files"] == {}


def test_what_failed_its_test_is_not_pushed(hub: FakeHub, source: Path, tmp_path: Path, monkeypatch) -> None:
    replace_self_test(monkeypatch, passed=False)
    assert run(source, tmp_path / "out", "--run_test", *PUSH) == 1
    assert hub.repos == {}


@pytest.mark.parametrize(
    "args, message",
    [
        (["--push_to_hub", "a/b/c", "--token", TOKEN], "or 'namespace/repo_name': 'a/b/c'"),
        (["--push_to_hub", "", "--token", TOKEN], "a name, or OWNER/NAME, is expected: "),
        (["--push_to_hub", "lsg-tiny"], "there is no token: pass --token"),
        (["--push_to_hub", "lsg-tiny", "--token", "hf_bad"], "Invalid"),
        (["--private"], "private: it is for the repository that push_to_hub names"),
        (["--push_to_hub", "ada/public", "--token", TOKEN, "--private"], "ada/public exists and is public"),
    ],
)
def test_what_is_refused_in_advance(hub: FakeHub, args, message: str, source: Path, tmp_path: Path, capfd, monkeypatch):
    hub.repos["ada/public"] = {"private": False, "files": {}}
    monkeypatch.setattr(lsg.command, "save_checkpoint", lambda *args: pytest.fail("it was converted"))
    assert_refused(capfd, source, tmp_path / "out", message, *args)
    assert set(hub.repos) == {"ada/public"}


def test_a_hub_that_cannot_be_reached(hub: FakeHub, source: Path, tmp_path: Path, capfd, monkeypatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert_refused(capfd, source, tmp_path / "out", "push_to_hub: 'ada/lsg-tiny' cannot be pushed to: ", *PUSH)
