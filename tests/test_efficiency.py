"""experiments/efficiency: the report from made-up figures, bad options, and a run from end to end."""

import json
import os
import subprocess
import sys

import pytest
import torch
from helpers import ROOT
from transformers import RobertaConfig
from transformers.modeling_outputs import SequenceClassifierOutput

from experiments.common.results import write_report
from experiments.efficiency.report import log_ticks, make_tables
from experiments.efficiency.windows import OnWindows
from experiments.efficiency.worker import LSG, MODELS, WINDOWS, Measured, build

SCRIPT = ROOT / "experiments" / "efficiency" / "efficiency.py"
ROW = {"title": "inference, float32", "mode": "infer", "dtype": "float32", "dropout": 0.0, "rows": 1}


def run(*arguments: object, **env: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, timeout=300)


def made_up() -> dict:
    rows = []
    for model, seconds in (("floor", 2.0), ("LSG 32/32 norm", 2.2)):
        for length in (512, 4096):
            figures = {"seconds": seconds, "fastest": 0.9 * seconds, "slowest": 1.8 * seconds, "gb": 1.0}
            versions = {"device": "CPU", "torch": "2", "transformers": "5"}
            row = {**ROW, "model": model, "tokens": length, "length": length}
            rows.append({**row, **figures, "versions": versions})
    rows.append({**ROW, "model": "BigBird", "tokens": 512, "length": 512, "error": "RuntimeError: no room"})
    return {"date": "2026-11-22", "layers": 12, "rounds": 5, "rows": rows}


def test_the_report_says_ratios_spreads_and_failures(tmp_path) -> None:
    tables = make_tables(made_up())
    assert "| LSG 32/32 norm | 2.20 s (**1.10**; 2.00), 1.00 GB (1.00) | 2.20 s (**1.10**; 2.00)" in tables
    assert "| BigBird | - | - |" in tables
    assert "* BigBird, inference, float32: RuntimeError: no room" in tables
    one_length = made_up()
    one_length["rows"] = [row for row in one_length["rows"] if row["length"] == 512]
    for name, results in (("lengths", made_up()), ("bars", one_length)):
        write_report(results, tmp_path / name, "experiments.efficiency.report")
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


def test_ticks_enclose_the_figures() -> None:
    assert log_ticks(0.41, 6.9) == [0.2, 0.5, 1, 2, 5, 10]
    assert log_ticks(0.41, 0.45) == [0.2, 0.5, 1]  # three at least
    assert log_ticks(1, 5) == [1, 2, 5]


def test_bad_options_end_with_one_line_before_torch_is_imported(tmp_path) -> None:
    (tmp_path / "torch.py").write_text("raise AssertionError('imported')")
    for arguments, message in (
        (("--layers", 0), "--layers 0 is not allowed: it must be at least 1"),
        (("--models", MODELS[-1], "floor"), "needs --peer_python"),
        (("--models", "BigBird"), "--models must include floor, the reference"),
        (("--draw", tmp_path), "there is no *.json in this folder"),
        (("--draw", ROOT / "pyproject.toml"), "not a results file of this script"),
        (("--only", "nothing"), "no case has this in its title"),
    ):
        process = run(*arguments, PYTHONPATH=str(tmp_path))
        assert process.returncode == 2 and message in process.stderr and len(process.stderr.splitlines()) == 1


def test_a_quick_run(tmp_path) -> None:
    models = ("floor", "LSG 32/32 norm")
    process = run("--quick", "--only", "padded batch, infer", "--models", *models, "--out", tmp_path, "--device", "cpu")
    assert process.returncode == 0, process.stderr
    results = json.loads((tmp_path / "cpu.json").read_text())
    assert [row["model"] for row in results["rows"]] == list(models)
    assert all(row["seconds"] > 0 and row["gb"] > 0 and row["tokens"] < 8 * 512 for row in results["rows"])
    assert (tmp_path / "cpu.md").exists() and (tmp_path / "cpu.png").exists()


def test_windows_cover_the_text_and_their_logits_are_averaged() -> None:
    seen: list[torch.Tensor] = []

    class Classifier(torch.nn.Module):
        config = RobertaConfig(pad_token_id=1)

        def forward(self, input_ids, attention_mask):
            seen.extend([input_ids, torch.ones_like(input_ids) if attention_mask is None else attention_mask])
            return SequenceClassifierOutput(logits=input_ids.float()[:, :2])

    for length, windows in (
        (5, 1),
        (8, 1),
        (9, 2),
        (13, 2),
        (14, 3),
    ):  # of 8 tokens, each begins 5 behind the one before
        seen.clear()
        text = torch.arange(10, 10 + length)
        logits = OnWindows(Classifier(), 8, 3)(torch.stack([text, text])).logits
        ids, mask = seen
        size = min(8, length)
        assert ids.shape == mask.shape == (2 * windows, size)
        for number in range(windows):
            part = text[5 * number : 5 * number + size]
            assert torch.equal(ids[number][: len(part)], part) and int(mask[number].sum()) == len(part)
        assert torch.allclose(logits[0], torch.tensor([10.0, 11.0]) + 5 * (windows - 1) / 2)


@pytest.mark.parametrize("name", [*WINDOWS, "ModernBERT"])
def test_other_models_run(name: str) -> None:
    measured = Measured(build(name, 1, 700, 0.1, "auto"), 0.0, "cpu", "float32")
    for mode in ("infer", "train"):
        assert measured.run(mode, [700, 700])["seconds"] > 0


def test_committed_results_are_of_these_models() -> None:
    files = sorted((SCRIPT.parent / "results").glob("*.json"))
    assert files
    for file in files:
        results = json.loads(file.read_text(encoding="utf-8"))
        assert {row["model"] for row in results["rows"]} <= set(MODELS) and len(LSG) == 3
