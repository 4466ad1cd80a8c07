"""Every command and snippet of README.md and docs/usage.md runs, in order, on the demo checkpoint; links are valid."""

import os
import re
import runpy
import shlex
import shutil
from pathlib import Path

import pytest
from forks import run_fork
from helpers import ROOT, bare_environment, run_bare
from test_command import rewrite_json
from transformers import AutoModelForQuestionAnswering, AutoTokenizer
from transformers.pipelines import SUPPORTED_TASKS

from lsg.model_types import MODEL_TYPES

README = (ROOT / "README.md").read_text(encoding="utf-8")
USAGE = (ROOT / "docs" / "usage.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README + USAGE, flags=re.DOTALL)
DEMO = ROOT / "experiments" / "demo" / "roberta-demo"
QUICKLY = {  # what takes long runs with other options
    "efficiency.py": "--quick --out efficiency --only 'inference, float32' --models floor 'LSG 32/32 norm'",
    "masked_loss.py": "--tokens 512 4096 --documents 1 --model_kwargs \"{'block_size': 32}\" --out loss "
    f"--text {ROOT}/docs/usage.md",
}
SET_UP = ("python3 -m venv", ".venv/bin/pip install", "pip install")  # .ci/run does this, in a new environment
FOLDERS = {".git", ".venv", ".pytest_cache", "build", "dist"}  # whose pages are not ours
PAGES = [page for page in ROOT.rglob("*.md") if not FOLDERS & set(page.relative_to(ROOT).parts)]


def as_command(line: str) -> str:
    """Leave the set-up out of a line, put the demo checkpoint in, and make experiments short."""
    parts = [part.strip() for part in line.strip().split("&&")]
    parts = [part for part in parts if not part.startswith(SET_UP)]
    parts = [re.sub("^lsg-convert ", "python -m convert_checkpoint ", part) for part in parts]
    line = " && ".join(re.sub(r"^(\.venv/bin/)?python3? ", "python ", part) for part in parts)
    for script, quick in QUICKLY.items():
        line = re.sub(f"{script}.*", f"{script} {quick}", line)
    line = line.replace("--initial_model deepset/roberta-base-squad2", "--initial_model squad-demo")
    return line.replace("--initial_model roberta-base", f"--initial_model {DEMO}")


def run(command: list[str], folder: Path) -> str:
    """Run Python with these arguments in a folder; return what it prints."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_MODULES_CACHE": str(folder / "modules")}
    process = run_fork(command, folder, env)
    assert process.returncode == 0, f"{command}\n{process.stderr}"
    return process.stdout


def run_line(line: str, folder: Path) -> None:
    """Run a line as a shell would; without set-up, all that is left of it is commands of Python, one after another."""
    assert not set("$|<>;*`\n") & set(line), f"{line}: this needs a shell"
    for part in filter(None, line.split(" && ")):
        program, *arguments = shlex.split(part)
        assert program == "python", line
        run(arguments, folder)


def test_blocks_are_found() -> None:
    kinds = [kind for kind, _ in BLOCKS]
    assert kinds.count("bash") >= 5 and kinds.count("python") >= 3
    assert set(kinds) == {"bash", "python", "text", "bibtex"}
    assert (README + USAGE).count("```") == 2 * len(BLOCKS)


def run_blocks(blocks: list[tuple[str, str]], folder: Path) -> int:
    """Run blocks in order; return how many texts were compared with what the snippet before them printed."""
    printed, compared = "", 0
    for kind, text in blocks:
        if kind == "text":
            assert printed == text
            compared += 1
        elif 'pipeline("question-answering"' in text and "question-answering" not in SUPPORTED_TASKS:
            continue
        elif kind == "python":
            printed = run(["-c", text.replace('("roberta-base"', f'("{DEMO}"')], folder)
        elif kind == "bash" and "-m pytest" not in text:  # that is this
            for line in text.splitlines():
                run_line(as_command(line), folder)
    return compared


def make_squad_demo(folder: Path) -> None:
    """A checkpoint with a head for answers, which is random."""
    for auto_class in (AutoModelForQuestionAnswering, AutoTokenizer):
        auto_class.from_pretrained(DEMO).save_pretrained(folder)


def test_everything_runs(tmp_path: Path) -> None:
    for name in ("convert_checkpoint.py", "experiments", "requirements.txt", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "docs").mkdir()
    make_squad_demo(tmp_path / "squad-demo")
    assert run_blocks(BLOCKS, tmp_path) == 2
    [snippet] = [text for kind, text in BLOCKS if "onnxruntime" in text and kind == "python"]
    process = run_bare(snippet, tmp_path, bare_environment(tmp_path / "packages"))
    assert process.stdout == "(1, 4008, 3400) 4005 file\n", process.stderr
    for folder in ("lsg-roberta-demo", "lsg-roberta-base", "my-lsg-roberta"):
        assert (tmp_path / folder / "model.safetensors").exists()
    # the picture in the repository is what the command draws
    drawn = (tmp_path / "docs" / "attention_pattern.png").stat().st_size
    assert drawn == pytest.approx((ROOT / "docs" / "attention_pattern.png").stat().st_size, rel=0.2)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_the_page_on_serving_runs(tmp_path: Path) -> None:
    source = Path(shutil.copytree(DEMO, tmp_path / "one-layer"))  # it compiles in less time
    rewrite_json(source / "config.json", num_hidden_layers=1)
    convert = f"lsg-convert --initial_model {source} --model_name lsg-roberta-base"
    blocks = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs" / "serving.md").read_text(), flags=re.DOTALL)
    assert run_blocks([("bash", convert), *blocks], tmp_path) == 3
    files = {file.name for file in (tmp_path / "lsg-roberta-base" / "onnx").iterdir()}
    assert files == {"model.onnx", "model_int8.onnx"}


def anchors_of(page: Path) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\(([^):\s]+)\)", page.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists() and file.is_relative_to(ROOT), f"{page}: {target}"
        assert not anchor or anchor in anchors_of(file), f"{page}: {target}"


def test_a_package_index_gets_absolute_links() -> None:
    text = runpy.run_path(str(ROOT / "setup.py"))["index_description"]()
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    assert len(targets) == len(re.findall(r"\]\(([^)\s]+)\)", README))
    assert all(target.startswith(("https://", "#")) for target in targets)
    assert any(target.endswith("/raw/main/docs/attention_pattern.png") for target in targets)
    assert any(target.endswith("/blob/main/docs/usage.md#limits") for target in targets)


def test_ci_runs_the_test_line_of_the_readme() -> None:
    line = next(line for line in README.splitlines() if line.endswith("-m pytest"))
    pattern = re.search(r"grep -m1 '(.*?)' README.md", (ROOT / ".ci" / "run").read_text()).group(1)
    assert re.match(pattern, line)
    assert [other for other in README.splitlines() if re.match(pattern, other)] == [line]


def test_the_diff_in_contributing_is_that_of_the_code() -> None:
    [diff] = re.findall(r"```diff\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    parts = re.findall(r"^\+\+\+ b/(\S+)\n(.*?)(?=^diff |\Z)", diff, flags=re.DOTALL | re.MULTILINE)
    assert len(parts) == 3
    for file, part in parts:
        added = "".join(re.findall(r"^\+(.*\n)", part, flags=re.MULTILINE))
        code = (ROOT / file).read_text(encoding="utf-8")
        assert added == code if file.startswith("lsg/modeling") else added in code, file


def test_every_model_type_stands_with_its_heads() -> None:
    found = {}
    for line in README.splitlines():
        cells = line.split(" | ")
        if line.startswith("| `") and len(cells) == 2 and "`" not in cells[1]:
            heads = {f"AutoModelFor{head}" for head in cells[1].removesuffix(" |").split(", ")}
            found |= {name: heads | {"AutoModel"} for name in re.findall("`(.*?)`", cells[0])}
    assert found == {name: set(row.auto_classes) for name, row in MODEL_TYPES.items()}
