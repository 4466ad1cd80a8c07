"""The results of an experiment: what they were measured with, the JSON file, tables and pictures."""

import datetime
import json
import platform
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any


def environment(device: str, *packages: str) -> dict[str, Any]:
    """Return what a measurement depends on: the date, the device, the versions of Python and of these packages.

    Args:
        device: the type of the torch.device that was used, such as "cpu".
    """
    import torch

    threads = f"{device.upper()}, {torch.get_num_threads()} threads"
    return {
        "date": f"{datetime.date.today()}",
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "device": torch.cuda.get_device_name() if device == "cuda" else threads,
    }


def write_json(file: Path, value: Any) -> None:
    """Write a JSON file; an interruption leaves the earlier file as it was."""
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    part.replace(file)


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def write_report(results: dict[str, Any], path: Path, report: str) -> None:
    """Write the tables, `path`.md, which are also printed, and the picture, `path`.png.

    Args:
        report: a module with `make_tables`, from results to Markdown, and `draw`, from results and a figure to None.
    """
    from matplotlib.figure import Figure

    module = import_module(report)
    tables = module.make_tables(results)
    Path(f"{path}.md").write_text(tables, encoding="utf-8")
    print(tables)
    figure = Figure(layout="constrained", dpi=120)
    module.draw(results, figure)
    figure.savefig(f"{path}.png")
