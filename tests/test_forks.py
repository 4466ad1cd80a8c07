"""Forks are like new interpreters: path, modules, environment, streams and exit code are the command's own."""

import json
from pathlib import Path

from forks import run_fork

REPORT = """
import json, os, sys
from transformers.dynamic_module_utils import HF_MODULES_CACHE
found = {"argv": sys.argv, "path": sys.path[:2], "stdin": sys.stdin.read(), "folder": os.getcwd(), "name": __name__}
print(json.dumps({**found, "code": HF_MODULES_CACHE, "env": dict(os.environ)}))
known = {"helpers", "lsg", "pytest"} & set(sys.modules)
try:
    import helpers
except ImportError as error:
    raise SystemExit(f"{known or error}")
"""


def test_a_fork_has_nothing_of_the_tests(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(REPORT)
    env = {"PYTHONPATH": str(tmp_path / "more"), "HF_MODULES_CACHE": str(tmp_path / "code")}
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "script.py").symlink_to(tmp_path / "script.py")
    script = str(tmp_path / "script.py")
    starts = {script: ([script], script, str(tmp_path)), "-c": (["-c", REPORT], "-c", "")}
    starts["-m"] = (["-m", "script"], script, str(tmp_path))
    for command, program, first in starts.values():
        process = run_fork([*command, "x y"], tmp_path, env, "from outside")
        assert process.returncode == 1 and process.stderr == "No module named 'helpers'\n", process.stderr
        found = json.loads(process.stdout)
        assert found["argv"] == [program, "x y"] and found["path"] == [first, env["PYTHONPATH"]]
        assert found["stdin"] == "from outside" and found["folder"] == str(tmp_path) and found["name"] == "__main__"
        assert found["code"] == env["HF_MODULES_CACHE"] and env.items() <= found["env"].items()
        assert "HF_HUB_OFFLINE" not in found["env"]


def test_errors_of_a_fork_are_told(tmp_path: Path) -> None:
    assert "ZeroDivisionError" in run_fork(["-c", "1 / 0"], tmp_path, {}).stderr
    for code, expected in (("1 / 0", 1), ("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", -9)):
        assert run_fork(["-c", code], tmp_path, {}).returncode == expected
