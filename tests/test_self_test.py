"""--run_test, for real: the table of every type, a check that must be exact, and one that must fail."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from helpers import NEW_INTERPRETER, NO_BOS, TYPES, initial

from convert_checkpoint import main
from lsg.hub_options import HubOptions
from lsg.model_types import MODEL_TYPES
from lsg.self_test import run_process, run_self_test


@pytest.mark.parametrize("model_type", TYPES)
def test_every_type_passes_its_own_test(model_type: str, tmp_path: Path, capfd, request) -> None:
    if model_type not in NEW_INTERPRETER:
        request.getfixturevalue("forked_self_test")
    # three classes must not disturb question answering
    fields = "{'mask_first_token': true, 'num_labels': 3}" if model_type == "roberta" else "{'mask_first_token': true}"
    command = ["--initial_model", str(initial(model_type)), "--model_name", str(tmp_path / "out"), "--run_test"]
    assert main([*command, "--max_sequence_length", "1100", "--model_kwargs", fields]) == 0
    table = capfd.readouterr().out
    for auto_class in MODEL_TYPES[model_type].auto_classes:
        assert f"| {auto_class} " in table
    if model_type != "barthez":  # whose tokenizer here does put BOS in front
        assert ("| same as the original " in table) == (model_type not in NO_BOS)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert table.split("\n\nMade ")[0] in card and "trust_remote_code=True" in card
    assert "| FAILED |" not in table


def test_a_difference_where_there_must_be_none_fails(tmp_path: Path, forked_self_test) -> None:
    """The original is another checkpoint, so that the states cannot be the same."""
    assert main(
        ["--initial_model", str(initial("bert")), "--model_name", str(tmp_path / "out"), "--max_sequence_length", "600"]
        + ["--model_kwargs", "{'mask_first_token': true}"]
    ) == 0  # fmt: skip
    other = str(initial("electra"))
    report = run_self_test(tmp_path / "out", other, 600, HubOptions(), is_lsg=False, trained_head=None)
    assert report.failed == ["same as the original"]


def test_a_signal_while_the_process_starts_leaves_none_behind(tmp_path: Path, monkeypatch) -> None:
    """It takes effect as soon as there is a process that can be killed."""
    started = []

    class Interrupted(subprocess.Popen):
        def __init__(self, *args, **kwargs) -> None:
            super().__init__(*args, **kwargs)
            started.append(self)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_process("{}", dict(os.environ), str(tmp_path))
    assert len(started) == 1 and started[0].returncode == -signal.SIGKILL
