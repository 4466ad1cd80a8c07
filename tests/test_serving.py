"""experiments/serving: the report from made-up figures, bad options, and a run from end to end."""

import json
import subprocess
import sys

from helpers import ROOT

from experiments.common.results import write_report
from experiments.serving.report import make_tables
from experiments.serving.worker import DENSE, REFERENCE, RUNTIMES

SCRIPT = ROOT / "experiments" / "serving" / "serving.py"
ABOUT = {"date": "2026-11-24", "device": "CPU, 2 threads", "versions": {"torch": "2"}, "model": None, "layers": 12}


def run(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_the_report_says_ratios_differences_and_failures(tmp_path) -> None:
    rows = [
        {"runtime": name, "length": length, "ready": 1.0, "seconds": s, "fastest": s, "slowest": 2 * s, "gb": 1.5}
        for name, s in ((REFERENCE, 2.0), ("ONNX Runtime", 1.0))
        for length in (512, 4096)
    ]
    rows[2] |= {"largest": 1.234e-6, "relative": 5e-7}
    rows.append({"runtime": DENSE, "length": 4096, "ready": 0.5, "error": "MemoryError: no room"})
    results = {**ABOUT, "rounds": 5, "reference": REFERENCE, "rows": rows}
    tables = make_tables(results)
    assert "| ONNX Runtime | 1.00 (**0.50**; 2.00) | 1.00 (**0.50**; 2.00) |" in tables
    assert "| ONNX Runtime | 1.2e-06 (5.0e-07) | - |" in tables
    assert f"| {DENSE} | - | - |" in tables and f"* {DENSE}, 4,096: MemoryError: no room" in tables
    write_report(results, tmp_path / "drawn", "experiments.serving.report")
    assert (tmp_path / "drawn.png").stat().st_size > 10_000


def test_bad_options_end_with_one_line() -> None:
    for arguments in (("--rounds", 0), ("--runtimes", "steam"), ("--draw", ROOT / "pyproject.toml")):
        process = run(*arguments)
        assert process.returncode == 2 and len(process.stderr.splitlines()) == 1


def test_a_quick_run(tmp_path) -> None:
    names = [REFERENCE, "ONNX Runtime"]
    process = run("--layers", 1, "--lengths", 300, "--rounds", 1, "--runtimes", *names, "--out", tmp_path)
    assert process.returncode == 0, process.stderr
    rows = json.loads((tmp_path / "cpu.json").read_text())["rows"]
    assert [row["runtime"] for row in rows] == names
    assert all(row["seconds"] > 0 and row["gb"] > 0 for row in rows) and rows[1]["largest"] < 1e-4
    assert (tmp_path / "cpu.png").exists()


def test_committed_results_are_of_these_runtimes() -> None:
    for file in (SCRIPT.parent / "results").glob("*.json"):
        assert {row["runtime"] for row in json.loads(file.read_text(encoding="utf-8"))["rows"]} <= set(RUNTIMES)
