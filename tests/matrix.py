"""Test versions of transformers, each in a new virtual environment; print the table of docs/compatibility.md.

    python tests/matrix.py                              # the versions of the table
    python tests/matrix.py --versions 5.0.0 newest      # the oldest and the newest
    python tests/matrix.py --versions 5.0.0 installed   # what CI runs after the whole suite

Each version runs tests/test_contract.py and tests/test_golden.py, and converts every model type. The first and the last
version of the list then load what each version converted, since a checkpoint outlives the version that made it.
"installed" is the environment of this interpreter, in which these tests are not run again.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
VERSIONS = ["5.0.0", "5.4.0", "5.10.*", "5.17.*", "newest"]
NEEDED = ["sentencepiece", "pytest", "pytest-xdist", "accelerate", "matplotlib"]
TESTS = ["tests/test_contract.py", "tests/test_golden.py"]


def make_environment(folder: Path, python: str, version: str, torch: str) -> Path:
    """Make a virtual environment with one version of transformers; return its Python."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    executable = folder / "bin" / "python"
    wanted = "transformers>=5,<6" if version == "newest" else f"transformers=={version}"
    for packages in ([torch, "numpy"], [wanted, *NEEDED]):  # torch first, so that nothing else chooses its version
        subprocess.run([executable, "-m", "pip", "install", "--quiet", *packages], check=True)
    return executable


def versions_of(python: Path) -> tuple[str, str, str]:
    """Return the versions of Python, torch and transformers in an environment."""
    names = "platform.python_version(), torch.__version__, transformers.__version__"
    code = f"import platform, torch, transformers; print({names})"
    output = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout
    return tuple(output.split()[-3:])


def run(python: Path, *args: object) -> tuple[bool, str]:
    """Run a script of this repository without the network; return whether it passed, and its last line."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT / "tests")}
    process = subprocess.run([python, *map(str, args)], cwd=ROOT, env=env, capture_output=True, text=True)
    lines = (process.stdout + process.stderr).strip().splitlines()
    if process.returncode:
        sys.stderr.write("\n".join(lines[-40:]) + "\n")
    return process.returncode == 0, lines[-1] if lines else ""


def check_version(python: Path, folder: Path, run_tests: bool) -> tuple[bool, str]:
    """Run the tests, and convert every type into `folder`; return whether both passed, and the summary of the tests."""
    passed, summary = run(python, "-m", "pytest", "-q", *TESTS) if run_tests else (True, "not run again")
    made, _ = run(python, "tests/cross.py", "make", folder)
    return passed and made, summary.split(" in ")[0].strip("= ")


def main() -> int:
    """Test all versions and print the table as Markdown; return 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--versions", nargs="+", default=VERSIONS, help="of transformers, oldest first")
    parser.add_argument("--python", nargs="+", default=[sys.executable], help="interpreters (this one)")
    parser.add_argument("--torch", default="torch>=2.6,<2.14", help="what to install as torch")
    args = parser.parse_args()
    rows, failed = [], False
    with TemporaryDirectory() as root:
        environments = {}
        for number, (python, version) in enumerate((p, v) for p in args.python for v in args.versions):
            sys.stderr.write(f"transformers {version} on {python}\n")
            folder = Path(root) / str(number)
            is_installed = version == "installed"
            executable = Path(python)
            if not is_installed:
                executable = make_environment(folder / "environment", python, version, args.torch)
            environments[executable] = (folder / "made", *check_version(executable, folder / "made", not is_installed))
        ends = [list(environments)[0], list(environments)[-1]]
        for executable, (made, passed, summary) in environments.items():
            crossed = [run(end, "tests/cross.py", "check", made)[0] for end in ends]
            failed = failed or not (passed and all(crossed))
            cells = [*reversed(versions_of(executable)), summary, *("yes" if ok else "NO" for ok in crossed)]
            rows.append("| " + " | ".join(cells) + " |")
    sys.stdout.write(f"{time.strftime('%Y-%m-%d')}\n\n")
    sys.stdout.write(
        "| transformers | torch | Python | contract and golden | loads under the first | under the last |\n"
    )
    sys.stdout.write("|---|---|---|---|---|---|\n" + "\n".join(rows) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
