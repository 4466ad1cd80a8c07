"""Kill conversions with SIGKILL, at random and at the worst moments, and report what each leaves.

    python tests/kill_runs.py FOLDER SEED

Prints one JSON object for each kill. Everything is imported once, and each conversion is a fork of this process.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

import lsg.command
from convert_checkpoint import main

SOURCE = Path(__file__).parent / "golden" / "roberta" / "initial"
RANDOM_KILLS = 8  # of each mode
MODES = {"new": False, "overwrite": True, "overwrite, two steps": True}  # whether there is an old output
# function, which of its calls, before or after it; only calls that concern the hidden folders count
MOMENTS = {
    "new": [("os.rename", 1, "before"), ("os.rename", 1, "after")],
    "overwrite": [
        ("os.replace", 1, "before"),
        ("os.replace", 1, "after"),
        ("lsg.output.renames.exchange_at_once", 1, "after"),
        ("os.rename", 1, "after"),  # to .done
        ("os.unlink", 3, "after"),  # in the middle of the deletion
        ("shutil.rmtree", 1, "after"),
    ],
    "overwrite, two steps": [
        ("os.replace", 1, "after"),
        ("os.rename", 1, "before"),
        ("os.rename", 1, "after"),  # no output at all
        ("os.rename", 2, "after"),
        ("os.rename", 3, "before"),
        ("os.rename", 3, "after"),
        ("os.unlink", 3, "after"),
        ("shutil.rmtree", 1, "after"),
    ],
}
Files = dict[str, bytes]


def patch(name: str, make: Callable[[Callable], Callable]) -> None:
    """Replace a function of a module, in this process."""
    module_name, function = name.rsplit(".", 1)
    module = sys.modules[module_name]
    setattr(module, function, make(getattr(module, function)))


def die_at(name: str, number: int, when: str) -> None:
    """Have this process kill itself at a call of a function."""
    calls = 0

    def make(real: Callable) -> Callable:
        def dying(*args, **kwargs):
            nonlocal calls
            calls += ".out." in str(args) or kwargs.get("dir_fd") is not None
            if calls == number and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*args, **kwargs)
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return dying

    patch(name, make)


def start(out: Path, mode: str, args: list[str], moment: tuple | None = None) -> int:
    """Convert in a fork; return its process id."""
    process = os.fork()
    if process:
        return process
    code = 99
    try:
        log = os.open(out.parent / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if mode == "overwrite, two steps":
            patch("lsg.output.renames.exchange_at_once", lambda real: lambda first, second: False)
        if moment:
            die_at(*moment)
        code = main(["--initial_model", str(SOURCE), "--model_name", str(out), "--max_sequence_length", "600", *args])
    finally:
        os._exit(code)


def finish(process: int) -> int:
    """Wait for a fork; return its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def files(folder: Path) -> Files:
    """All that is in a folder, two levels deep."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def state_of(out: Path, old: Files | None, new: Files) -> str:
    """Return the state of an output: absent, old, new or half."""
    if not out.exists():
        return "absent"
    found = files(out)
    return "old" if found == old else "new" if found == new else "half"


def hidden(folder: Path) -> list[str]:
    """The hidden files of a folder."""
    return sorted(f.name for f in folder.iterdir() if f.name.startswith("."))


class Mode:
    """One way to convert, with the output before and after."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.args = ["--overwrite", "--random_global_init"] if MODES[name] else ["--random_global_init"]
        self.template = folder / "old" if MODES[name] else None
        if self.template and not self.template.exists():
            assert finish(start(self.template, name, [])) == 0
            (self.template / "README.md").write_text("my own words")
        self.old = files(self.template) if self.template else None
        out = self.make_ready(folder / "reference")
        begin = time.perf_counter()
        assert finish(start(out, name, self.args)) == 0
        self.seconds = time.perf_counter() - begin
        self.new = files(out)
        assert self.new != self.old and hidden(out.parent) == []
        assert self.old is None or self.new["README.md.old"] == b"my own words"
        shutil.rmtree(out.parent)

    def make_ready(self, folder: Path) -> Path:
        """Return the output in a new folder, as it is before the conversion."""
        folder.mkdir()
        if self.template:
            shutil.copytree(self.template, folder / "out")
        return folder / "out"

    def kill(self, out: Path, after: float | None, moment: tuple | None) -> bool:
        """Convert and kill the process; return whether it was killed, as it may have ended before."""
        process = start(out, self.name, self.args, moment)
        if after is not None:
            time.sleep(after)
            os.kill(process, signal.SIGKILL)
        return finish(process) == -signal.SIGKILL

    def kill_and_rerun(self, folder: Path, after: float | None, moment: tuple | None, again: bool) -> dict | None:
        """Kill a conversion, run another, and return what each left; None if the first had ended before.

        Args:
            again: the next run is the same; otherwise it has no --overwrite, and is refused if there is an output.
        """
        out = self.make_ready(folder)
        if not self.kill(out, after, moment):
            return None
        left, state = hidden(folder), state_of(out, self.old, self.new)
        code = finish(start(out, self.name, self.args if again else self.args[-1:]))
        later = state_of(out, self.old, self.new)
        found = {"mode": self.name, "after": after, "moment": moment, "again": again, "left": left, "killed": state}
        return {**found, "code": code, "next": later, "still left": hidden(folder)}


def kills(modes: list[Mode], seed: int) -> Iterator[tuple[Mode, float | None, tuple | None]]:
    """Yield mode, seconds and moment of each kill."""
    generator = random.Random(seed)
    for mode in modes:
        for moment in MOMENTS[mode.name]:
            yield mode, None, moment
    for mode in modes:
        for _ in range(RANDOM_KILLS):
            yield mode, generator.uniform(0, 1), None


def main_of_kills(folder: Path, seed: int) -> None:
    """Kill, and print what was found."""
    torch.set_num_threads(1)
    assert lsg.command.convert
    modes = [Mode(name, folder) for name in MODES]
    for number, (mode, share, moment) in enumerate(kills(modes, seed)):
        found = None
        while found is None:  # a run may be quicker than the one that was measured
            after = None if share is None else share * mode.seconds
            place = folder / f"kill{number}"
            found = mode.kill_and_rerun(place, after, moment, again=number % 2 == 0)
            shutil.rmtree(place)
            assert found or moment is None, f"{mode.name}: never came to {moment}"
            share = share and share * 0.9
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main_of_kills(Path(sys.argv[1]), int(sys.argv[2]))
