"""`kill -9` at any moment: no half output, no old output lost, and the next run leaves nothing of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = 40


def test_forty_kills(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("forks, and counts on the one-step exchange of Linux")
    script = Path(__file__).with_name("kill_runs.py")
    process = subprocess.run(
        [sys.executable, script, tmp_path, "20261124"], capture_output=True, text=True, timeout=600
    )
    assert process.returncode == 0, process.stderr
    found = [json.loads(line) for line in process.stdout.splitlines()]
    assert len(found) == KILLS
    for kill in found:
        allowed = {"new": {"absent", "new"}, "overwrite": {"old", "new"}}.get(kill["mode"], {"absent", "old", "new"})
        assert kill["killed"] in allowed, kill
        refused = not kill["again"] and kill["mode"] != "new"
        assert kill["next"] == "new" if not refused else kill["next"] in {"old", "new"}, kill
        if refused and kill["killed"] != "absent":
            assert kill["next"] == kill["killed"], kill
        assert kill["code"] == int(kill["mode"] == "new" and kill["killed"] == "new" or refused), kill
        assert kill["still left"] == [], kill
    assert any(kill["left"] for kill in found)
    assert {kill["killed"] for kill in found} == {"absent", "old", "new"}
