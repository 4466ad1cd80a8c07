"""Tables and a plot of what efficiency.py measured."""

from pathlib import Path
from typing import Any


def write_report(results: dict[str, Any], path: Path) -> None:
    """Write `path`.md and `path`.png, and print the tables."""
    tables = make_tables(results)
    path.with_suffix(".md").write_text(tables, encoding="utf-8")
    print(tables)
    draw(results, path.with_suffix(".png"))


def make_tables(results: dict[str, Any]) -> str:
    """Make a table for each case: a row for each model, a column for each batch."""
    rows = results["rows"]
    versions = next((row["versions"] for row in rows if "versions" in row), {})
    about = f"{versions.get('device')}; torch {versions.get('torch')}, transformers {versions.get('transformers')}"
    text = f"{results['date']}; {about}; {layers_of(results)}, medians of {results['rounds']} rounds.\n"
    text += "Each figure: seconds (time / floor; slowest round / fastest), peak memory (memory / floor).\n"
    for title in dict.fromkeys(row["title"] for row in rows):
        chosen = [row for row in rows if row["title"] == title]
        batches = list(dict.fromkeys((row["rows"], row["length"], row["tokens"]) for row in chosen))
        header = ["", *(batch_name(*batch) for batch in batches)]
        lines = [header, ["---"] * len(header)]
        for model in dict.fromkeys(row["model"] for row in chosen):
            lines.append(
                [model, *(cell(find(chosen, model, batch), find(chosen, "floor", batch)) for batch in batches)]
            )
        text += f"\n**{title}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
    errors = dict.fromkeys(f"* {row['model']}, {row['title']}: {row['error']}" for row in rows if "error" in row)
    return text + ("\nNot measured:\n\n" + "\n".join(errors) + "\n" if errors else "")


def layers_of(results: dict[str, Any]) -> str:
    """Say how many layers the models had."""
    return f"{results['layers']} layer{'' if results['layers'] == 1 else 's'}"


def batch_name(rows: int, length: int, tokens: int) -> str:
    """Name a batch by its size."""
    padded = "" if rows * length == tokens else f", {tokens:,} of them kept"
    return f"{rows} x {length:,}{padded}"


def find(rows: list[dict[str, Any]], model: str, batch: tuple[int, int, int]) -> dict[str, Any] | None:
    """Find the row of a model and a batch."""
    for row in rows:
        if row["model"] == model and (row["rows"], row["length"], row["tokens"]) == batch:
            return row
    return None


def cell(row: dict[str, Any] | None, floor: dict[str, Any] | None) -> str:
    """Write one figure; a dash if there is none."""
    if row is None or "error" in row:
        return "-"
    if floor is None or "error" in floor:
        return f"{row['seconds']:.2f} s, {row['gb']:.2f} GB"
    spread = row["slowest"] / row["fastest"]
    time = f"{row['seconds']:.2f} s (**{row['seconds'] / floor['seconds']:.2f}**; {spread:.2f})"
    return f"{time}, {row['gb']:.2f} GB ({row['gb'] / floor['gb']:.2f})"


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw float32 inference against the length if there are several lengths, else bars of everything."""
    from matplotlib.figure import Figure

    measured = [row for row in results["rows"] if "error" not in row]
    by_length = [row for row in measured if row["title"] == "inference, float32"]
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    if len({row["tokens"] for row in by_length}) > 1:
        draw_lengths(by_length, figure)
        figure.suptitle(f"Inference, float32, {layers_of(results)} of RoBERTa-base size")
    else:
        draw_bars(measured, figure)
        figure.suptitle(f"{layers_of(results)} of RoBERTa-base size, as multiples of the floor's figures")
    figure.savefig(path, dpi=110)


def draw_lengths(rows: list[dict[str, Any]], figure: Any) -> None:
    """Draw time per token and memory against the length, a line for each model."""
    time = figure.add_subplot(1, 2, 1, xlabel="tokens", ylabel="milliseconds per token", xscale="log", yscale="log")
    memory = figure.add_subplot(1, 2, 2, xlabel="tokens", ylabel="peak memory (GB)", xscale="log", yscale="log")
    for model in dict.fromkeys(row["model"] for row in rows):
        points = sorted((row["tokens"], row["seconds"], row["gb"]) for row in rows if row["model"] == model)
        tokens = [point[0] for point in points]
        style = "k--" if model == "floor" else "o-"
        time.plot(tokens, [1e3 * point[1] / point[0] for point in points], style, label=model, markersize=4)
        memory.plot(tokens, [point[2] for point in points], style, markersize=4)
    lengths = sorted({row["tokens"] for row in rows})
    for axis in (time, memory):
        axis.set_xticks(lengths, [f"{t:,}" for t in lengths], rotation=45, minor=False)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    figure.legend(*time.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)


def draw_bars(rows: list[dict[str, Any]], figure: Any) -> None:
    """Draw time and memory over the floor's, a row for each model and a colour for each batch."""
    models = [model for model in dict.fromkeys(row["model"] for row in rows) if model != "floor"]
    batches = list(dict.fromkeys((row["title"], row["rows"], row["length"], row["tokens"]) for row in rows))
    for column, (key, name) in enumerate((("seconds", "time / floor"), ("gb", "peak memory / floor")), start=1):
        axis = figure.add_subplot(1, 2, column, xlabel=name)
        for number, (title, *batch) in enumerate(batches):
            chosen = [row for row in rows if row["title"] == title]
            floor = find(chosen, "floor", tuple(batch))
            found = [find(chosen, model, tuple(batch)) for model in models]
            ratios = [0 if row is None or floor is None else row[key] / floor[key] for row in found]
            places = [place + (number + 0.5) / len(batches) * 0.8 - 0.4 for place in range(len(models))]
            axis.barh(places, ratios, 0.8 / len(batches), label=f"{title}, {batch_name(*batch)}")
        axis.axvline(1, color="black", linestyle="--")
        axis.set_yticks(range(len(models)), models if column == 1 else [""] * len(models))
        axis.invert_yaxis()
        axis.grid(alpha=0.3, axis="x")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
