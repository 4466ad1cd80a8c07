"""Tables and a plot of what serving.py measured."""

from typing import Any

from experiments.common.results import markdown_table
from experiments.efficiency.report import log_ticks


def make_tables(results: dict[str, Any]) -> str:
    """Return a table of times, one of memory, and one of differences: a row for each runtime."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    model = results["model"] or "RoBERTa-base's size, random weights"
    text = (
        f"{results['date']}; {results['device']}; {versions}; {model}, {results['layers']} layers, float32, one text; "
    )
    text += f"medians of {results['rounds']} rounds.\n"
    reference = results["reference"]
    lengths = sorted({row["length"] for row in results["rows"]})

    def table(title: str, make_cell: Any) -> str:
        lines = [
            [name, *(make_cell(find(results, name, length), find(results, reference, length)) for length in lengths)]
            for name in dict.fromkeys(row["runtime"] for row in results["rows"])
        ]
        return f"\n**{title}**\n\n" + markdown_table(["", *(f"{length:,} tokens" for length in lengths)], lines)

    text += table(f'Seconds (time / "{reference}"; slowest round / fastest)', time_cell)
    text += table("Peak memory of the process, GB", lambda row, _: f"{row['gb']:.2f}" if "gb" in row else "-")
    text += table("Largest difference of a number (rms of the differences / rms of the outputs)", difference_cell)
    ready = {row["runtime"]: row["ready"] for row in results["rows"]}
    text += "\nSeconds to load: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in ready.items()) + ".\n"
    errors = dict.fromkeys(f"* {r['runtime']}, {r['length']:,}: {r['error']}" for r in results["rows"] if "error" in r)
    return text + ("\nNot measured:\n\n" + "\n".join(errors) + "\n" if errors else "")


def find(results: dict[str, Any], runtime: str, length: int) -> dict[str, Any]:
    """Return the row of a runtime and a length; empty if there is none."""
    chosen = (row for row in results["rows"] if (row["runtime"], row["length"]) == (runtime, length))
    return next(chosen, {})


def time_cell(row: dict[str, Any], reference: dict[str, Any]) -> str:
    """Return seconds, their ratio to the reference, and their spread."""
    if "seconds" not in row:
        return "-"
    ratio = f"**{row['seconds'] / reference['seconds']:.2f}**; " if "seconds" in reference else ""
    return f"{row['seconds']:.2f} ({ratio}{row['slowest'] / row['fastest']:.2f})"


def difference_cell(row: dict[str, Any], _: dict[str, Any]) -> str:
    """Return the differences; a dash for a reference itself."""
    return f"{row['largest']:.1e} ({row['relative']:.1e})" if "largest" in row else "-"


def draw(results: dict[str, Any], figure: Any) -> None:
    """Draw time per token and memory against the length, a line for each runtime."""
    figure.set_size_inches(10, 4.8)
    time = figure.add_subplot(1, 2, 1, xlabel="tokens", ylabel="milliseconds per token")
    memory = figure.add_subplot(1, 2, 2, xlabel="tokens", ylabel="peak memory of the process (GB)")
    measured = [row for row in results["rows"] if "seconds" in row]
    for name in dict.fromkeys(row["runtime"] for row in measured):
        rows = sorted((row for row in measured if row["runtime"] == name), key=lambda row: row["length"])
        lengths = [row["length"] for row in rows]
        style = "s--" if name.startswith("dense") else "o-"
        time.plot(lengths, [1e3 * row["seconds"] / row["length"] for row in rows], style, label=name, markersize=4)
        memory.plot(lengths, [row["gb"] for row in rows], style, markersize=4)
    lengths = sorted({row["length"] for row in measured})
    for axis in (time, memory):
        axis.set(xscale="log", yscale="log")
        axis.set_xticks(lengths, [f"{length:,}" for length in lengths])
        ticks = log_ticks(*axis.dataLim.intervaly)
        axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
        axis.grid(alpha=0.4)
    figure.legend(*time.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    model = results["model"] or "RoBERTa-base's size"
    figure.suptitle(f"One text, {model}, {results['layers']} layers, float32")
