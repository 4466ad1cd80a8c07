"""Tables and a plot of what efficiency.py measured."""

from typing import Any

from experiments.common.results import markdown_table

Batch = tuple[int, int, int]  # rows, tokens of the longest row, tokens without padding


def make_tables(results: dict[str, Any]) -> str:
    """Return a table for each case: a row for each model, a column for each batch."""
    rows = results["rows"]
    versions: dict[str, str] = next((row["versions"] for row in rows if "versions" in row), {})
    about = f"{versions.get('device')}; torch {versions.get('torch')}, transformers {versions.get('transformers')}"
    text = f"{results['date']}; {about}; {layers_of(results)}, medians of {results['rounds']} rounds.\n"
    text += "Each figure: seconds (time / floor; slowest round / fastest), peak memory (memory / floor).\n"
    for title in dict.fromkeys(row["title"] for row in rows):
        chosen = [row for row in rows if row["title"] == title]
        batches = list(dict.fromkeys(batch_of(row) for row in chosen))
        lines = [
            [model, *(cell(find(chosen, model, batch), find(chosen, "floor", batch)) for batch in batches)]
            for model in dict.fromkeys(row["model"] for row in chosen)
        ]
        text += f"\n**{title}**\n\n" + markdown_table(["", *map(batch_name, batches)], lines)
    errors = dict.fromkeys(f"* {row['model']}, {row['title']}: {row['error']}" for row in rows if "error" in row)
    return text + ("\nNot measured:\n\n" + "\n".join(errors) + "\n" if errors else "")


def layers_of(results: dict[str, Any]) -> str:
    """Return how many layers the models had, in words."""
    return f"{results['layers']} layer{'' if results['layers'] == 1 else 's'}"


def batch_of(row: dict[str, Any]) -> Batch:
    """Return the size of a row's batch."""
    return row["rows"], row["length"], row["tokens"]


def batch_name(batch: Batch) -> str:
    """Return the name of a batch."""
    rows, length, tokens = batch
    padded = "" if rows * length == tokens else f", {tokens:,} without padding"
    return f"{rows} x {length:,}{padded}"


def find(rows: list[dict[str, Any]], model: str, batch: Batch) -> dict[str, Any] | None:
    """Return the row of a model and a batch; None if it was not measured."""
    return next((row for row in rows if row["model"] == model and batch_of(row) == batch and "error" not in row), None)


def cell(row: dict[str, Any] | None, floor: dict[str, Any] | None) -> str:
    """Return one figure of a table; a dash if there is none."""
    if row is None:
        return "-"
    if floor is None:
        return f"{row['seconds']:.2f} s, {row['gb']:.2f} GB"
    spread = row["slowest"] / row["fastest"]
    time = f"{row['seconds']:.2f} s (**{row['seconds'] / floor['seconds']:.2f}**; {spread:.2f})"
    return f"{time}, {row['gb']:.2f} GB ({row['gb'] / floor['gb']:.2f})"


def draw(results: dict[str, Any], figure: Any) -> None:
    """Draw float32 inference against the length if there are several lengths, else bars of everything."""
    measured = [row for row in results["rows"] if "error" not in row]
    by_length = [row for row in measured if row["title"] == "inference, float32"]
    figure.set_size_inches(10, 4.8)
    if len({row["tokens"] for row in by_length}) > 1:
        draw_lengths(by_length, figure)
        figure.suptitle(f"Inference, float32, {layers_of(results)} of RoBERTa-base size")
    else:
        draw_bars(measured, figure)
        figure.suptitle(f"{layers_of(results)} of RoBERTa-base size, relative to the floor")


def draw_lengths(rows: list[dict[str, Any]], figure: Any) -> None:
    """Draw time per token and memory against the length, a line for each model."""
    time = figure.add_subplot(1, 2, 1, xlabel="tokens", ylabel="milliseconds per token")
    memory = figure.add_subplot(1, 2, 2, xlabel="tokens", ylabel="peak memory (GB)")
    for model in dict.fromkeys(row["model"] for row in rows):
        points = sorted((row["tokens"], row["seconds"], row["gb"]) for row in rows if row["model"] == model)
        tokens = [point[0] for point in points]
        style = "k--" if model == "floor" else "o-"
        time.plot(tokens, [1e3 * point[1] / point[0] for point in points], style, label=model, markersize=4)
        memory.plot(tokens, [point[2] for point in points], style, markersize=4)
    lengths = sorted({row["tokens"] for row in rows})
    for axis in (time, memory):
        low, high = axis.dataLim.intervaly
        axis.set(xscale="log", yscale="log")
        axis.set_xticks(lengths, [f"{length:,}" for length in lengths], rotation=45)
        ticks = log_ticks(low, high)
        axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
        axis.grid(alpha=0.4)
    figure.legend(*time.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)


def log_ticks(low: float, high: float) -> list[float]:
    """Return at least three of the numbers ..., 0.5, 1, 2, 5, 10, ... that enclose `low` to `high`, both above 0."""
    numbers = [float(f"{digit}e{power}") for power in range(-9, 10) for digit in (1, 2, 5)]
    first = max(place for place, number in enumerate(numbers) if number <= low)
    last = min(place for place, number in enumerate(numbers) if number >= high)
    return numbers[first : max(last, first + 2) + 1]


def draw_bars(rows: list[dict[str, Any]], figure: Any) -> None:
    """Draw time and memory relative to the floor's: a group of bars for each model, a colour for each batch."""
    models = [model for model in dict.fromkeys(row["model"] for row in rows) if model != "floor"]
    batches = list(dict.fromkeys((row["title"], batch_of(row)) for row in rows))
    for column, (key, name) in enumerate((("seconds", "time / floor"), ("gb", "peak memory / floor")), start=1):
        axis = figure.add_subplot(1, 2, column, xlabel=name)
        for number, (title, batch) in enumerate(batches):
            chosen = [row for row in rows if row["title"] == title]
            floor = find(chosen, "floor", batch)
            found = [find(chosen, model, batch) for model in models]
            ratios = [0 if row is None or floor is None else row[key] / floor[key] for row in found]
            places = [place + (number + 0.5) / len(batches) * 0.8 - 0.4 for place in range(len(models))]
            bars = axis.barh(places, ratios, 0.8 / len(batches), label=f"{title}, {batch_name(batch)}")
            axis.bar_label(bars, [f"{ratio:.2f}" if ratio else "-" for ratio in ratios], padding=3, fontsize=8)
        axis.axvline(1, color="black", linestyle="--")
        axis.margins(x=0.15)
        axis.set_yticks(range(len(models)), models if column == 1 else [""] * len(models))
        axis.invert_yaxis()
        axis.grid(alpha=0.4, axis="x")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
