"""Every command and snippet of README.md runs, in order, in a new folder, with the demo checkpoint as roberta-base."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", README, flags=re.DOTALL)
DEMO = ROOT / "experiments" / "demo" / "roberta-demo"
QUICKLY = {  # what takes long runs with other options
    "efficiency.py": "--quick --out efficiency --only 'inference, float32' --models floor 'LSG 32/32 norm'",
    "masked_loss.py": "--factors 1 2 --windows 1 --block_sizes 32 --sparsity_types none --out loss "
    f"--text {ROOT}/README.md",
}
SET_UP = ("python3 -m venv", ".venv/bin/pip install")  # .ci/run does this, in a new environment


def as_command(line: str) -> str:
    """Leave the set-up out of a line, put this Python and the demo checkpoint in, and make experiments short."""
    parts = [part.strip() for part in line.strip().split("&&")]
    parts = [part for part in parts if not part.startswith(SET_UP)]
    line = " && ".join(re.sub(r"^(\.venv/bin/)?python3? ", f"{sys.executable} ", part) for part in parts)
    for script, quick in QUICKLY.items():
        line = re.sub(f"{script}.*", f"{script} {quick}", line)
    return line.replace("--initial_model roberta-base", f"--initial_model {DEMO}")


def test_blocks_are_found() -> None:
    assert [kind for kind, _ in BLOCKS].count("bash") >= 4 and [kind for kind, _ in BLOCKS].count("python") >= 2
    assert README.count("```") == 2 * len(BLOCKS)


def test_everything_runs(tmp_path: Path) -> None:
    for name in ("convert_checkpoint.py", "experiments", "requirements.txt", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "docs").mkdir()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    for kind, text in BLOCKS:
        if "-m pytest" in text:
            continue  # this is it
        if kind == "python":
            snippet = text.replace('("roberta-base"', f'("{DEMO}"')
            command = [sys.executable, "-c", snippet]
        else:
            assert len(text.strip().splitlines()) == 1, "a command is one line"
            command = ["bash", "-c", as_command(text)]
        process = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)
        assert process.returncode == 0, f"{text}\n{process.stderr}"
    for folder in ("lsg-roberta-demo", "lsg-roberta-base", "my-lsg-roberta"):
        assert (tmp_path / folder / "model.safetensors").exists()
    # the picture in the repository is what the command draws
    if (tmp_path / "docs" / "attention_pattern.png").exists():
        drawn = (tmp_path / "docs" / "attention_pattern.png").stat().st_size
        assert drawn == pytest.approx((ROOT / "docs" / "attention_pattern.png").stat().st_size, rel=0.2)


def test_links_and_pictures_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_ci_runs_the_test_line_of_the_readme() -> None:
    line = next(line for line in README.splitlines() if line.endswith("-m pytest"))
    pattern = re.search(r"grep -m1 '(.*?)' README.md", (ROOT / ".ci" / "run").read_text()).group(1)
    assert re.match(pattern, line)
    assert [other for other in README.splitlines() if re.match(pattern, other)] == [line]
