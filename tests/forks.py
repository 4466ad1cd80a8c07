"""Python commands in processes that need not import torch and transformers again: forks of one process that has.

A fork has the modules of that process and nothing of the tests': `sys.path`, environment, folder and streams are those
that the command would have in a new interpreter. Elsewhere than on Linux each is a new interpreter.
"""

import json
import multiprocessing
import os
import runpy
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

TIMEOUT = 600  # seconds
IMPORTED = ["torch", "transformers.models.auto.tokenization_auto", "transformers.models.bert.modeling_bert"]
context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
context.set_forkserver_preload(IMPORTED)


@cache
def new_path() -> list[str]:
    """Return `sys.path` of a new interpreter, without the folder of what it runs."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", "import json, sys; print(json.dumps(sys.path[1:]))"]
    return json.loads(subprocess.run(command, env=env, capture_output=True, check=True).stdout)


def run_fork(
    command: list[str], folder: Path | str, env: dict[str, str], stdin: str = ""
) -> subprocess.CompletedProcess:
    """Run what would follow `python` on a command line; return exit code and output.

    Args:
        command: -c and code, -m and a module, or a file; then the command's arguments.
        folder: the current folder.
        env: all environment variables. What torch and transformers read of them at their import is as in the tests,
            except HF_MODULES_CACHE.
        stdin: the standard input.
    """
    with TemporaryDirectory(prefix="lsg-tests-fork-") as temporary:
        streams = [Path(temporary) / name for name in ("stdin", "stdout", "stderr")]
        for stream, content in zip(streams, (stdin, "", ""), strict=True):
            stream.write_text(content, encoding="utf-8")
        arguments = (command, str(folder), env, [str(stream) for stream in streams], new_path())
        process = context.Process(target=run_here, args=arguments)
        process.start()
        process.join(TIMEOUT)
        if process.exitcode is None:
            process.kill()
            process.join()
        output = [stream.read_text(encoding="utf-8") for stream in streams[1:]]
        return subprocess.CompletedProcess(command, process.exitcode, *output)


def run_here(command: list[str], folder: str, env: dict[str, str], streams: list[str], path: list[str]) -> None:
    """Make this process like a new interpreter, and run the command in it."""
    for number, stream in enumerate(streams):
        os.dup2(os.open(stream, os.O_RDWR | os.O_APPEND), number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 (multiprocessing has closed it)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    kind, *arguments = command
    first = {"-c": "", "-m": folder}.get(kind, str(Path(kind).resolve().parent))
    sys.path[:] = [first, *filter(None, env.get("PYTHONPATH", "").split(os.pathsep)), *path]
    if "HF_MODULES_CACHE" in env:
        from transformers import dynamic_module_utils

        dynamic_module_utils.HF_MODULES_CACHE = env["HF_MODULES_CACHE"]
    sys.argv[:] = [kind, *arguments[1:]] if kind in ("-c", "-m") else command
    if kind == "-c":
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(arguments[0], "<string>", "exec"), vars(main))
    elif kind == "-m":
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(kind, run_name="__main__")
