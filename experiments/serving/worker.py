"""One runtime in a process of its own: it reads one request from each line of stdin, and answers in one line of JSON.

What runs ONNX files imports neither torch nor transformers.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from experiments.efficiency.worker import peak_memory, release_memory  # noqa: E402

MAX_MEMORY = 0.6  # of the machine's
Inputs = dict[str, numpy.ndarray]
Run = Callable[[Inputs], Any]


def run_torch(folder: Path, folder_of_model: str, backend: str | None = None, is_compiled: bool = False) -> Run:
    """Return a function that runs a model of transformers: the LSG one, or the dense one of the same weights."""
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    fields = {"lsg_backend": backend, "trust_remote_code": True} if backend else {}
    model: Any = transformers.AutoModel.from_pretrained(folder / folder_of_model, dtype=torch.float32, **fields).eval()
    if is_compiled:
        model = torch.compile(model, dynamic=True)

    def run(inputs: Inputs) -> Any:
        with torch.no_grad():
            return model(**{name: torch.from_numpy(x) for name, x in inputs.items()}).last_hidden_state.numpy()

    return run


def run_aotinductor(folder: Path) -> Run:
    """Return a function that runs the package of AOTInductor."""
    import torch
    from torch._inductor import aoti_load_package

    package = aoti_load_package(str(folder / "lsg.pt2"))

    def run(inputs: Inputs) -> Any:
        with torch.no_grad():
            return package(**{name: torch.from_numpy(x) for name, x in inputs.items()})[0].numpy()

    return run


def run_onnx(folder: Path, name: str) -> Run:
    """Return a function that runs an ONNX file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    session = onnxruntime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(["last_hidden_state"], inputs)[0]


REFERENCE, DENSE = "torch, tiled", "dense, torch"
RUNTIMES: dict[str, Callable[[Path], Run]] = {
    REFERENCE: lambda folder: run_torch(folder, "lsg", "tiled"),
    "torch, blocks": lambda folder: run_torch(folder, "lsg", "blocks"),
    "torch.compile": lambda folder: run_torch(folder, "lsg", "blocks", is_compiled=True),
    "AOTInductor": run_aotinductor,
    "ONNX Runtime": lambda folder: run_onnx(folder, "lsg.onnx"),
    "ONNX Runtime, int8": lambda folder: run_onnx(folder, "lsg-int8.onnx"),
    DENSE: lambda folder: run_torch(folder, "dense"),
    "dense, ONNX Runtime": lambda folder: run_onnx(folder, "dense.onnx"),
}


def measure(run: Run, folder: Path, name: str, length: int) -> dict[str, Any]:
    """Run once; return the seconds and the peak memory of the process in GB. The output is saved once."""
    ids = numpy.load(folder / "ids.npy")[None, :length]
    inputs = {"input_ids": ids, "attention_mask": numpy.ones_like(ids)}
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    start = time.perf_counter()
    output = run(inputs)
    seconds = time.perf_counter() - start
    file = folder / f"{name.replace(' ', '_')}-{length}.npy"
    if not file.exists():
        numpy.save(file, output)
    peak = peak_memory()
    release_memory()
    return {"seconds": seconds, "gb": peak}


def limit_memory() -> None:
    """Have a runtime fail that needs most of the machine's memory, instead of having the system end a process."""
    if sys.platform == "linux":
        import resource

        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        resource.setrlimit(resource.RLIMIT_DATA, (int(MAX_MEMORY * total), int(MAX_MEMORY * total)))


def main() -> None:
    """Load the runtime, write how long that took, and answer line by line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", choices=RUNTIMES, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    args = parser.parse_args()
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries may print
    limit_memory()
    start = time.perf_counter()
    run = RUNTIMES[args.runtime](args.folder)
    print(json.dumps({"seconds": time.perf_counter() - start}), file=answers, flush=True)
    for line in sys.stdin:
        try:
            answer = measure(run, args.folder, args.runtime, **json.loads(line))
        except Exception as error:  # noqa: BLE001 (an error of any library is a line of the report)
            answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
