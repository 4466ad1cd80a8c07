"""The tables and the picture of the comparison."""

from typing import Any

from experiments.common.results import markdown_table

HEADER = ["reader", "reach", "loss", "less that in chunks", "less that in windows", "CPU time to read (ratio)"]


def paired(figures: list[float]) -> str:
    """Return a difference with half of its interval."""
    return f"{figures[0]:+.3f} ± {figures[1]:.3f}"


def make_tables(results: dict[str, Any]) -> str:
    """Return the tables in Markdown: of each budget the trainings, the readers, and where they differ."""
    tokens, versions, arguments = results["tokens"], results["versions"], results["arguments"]
    parts = [
        f"Masked-token loss in nats on {results['documents']} documents of {tokens['fewest']:,} to {tokens['most']:,} "
        f"tokens, {tokens['all']:,} in all, {tokens['masked']:,} of them masked, the same ones for every reader; "
        f"{arguments['checkpoint']}, trained on {results['training_documents']} other documents in spans of at most "
        f"{arguments['span']:,} tokens, learning rate {arguments['learning_rate']:g}. Differences are paired, ± half a "
        f"95 % interval, clustered by document. {results['device']}, torch {versions['torch']}, transformers "
        f"{versions['transformers']}, {results['date']}.\n"
    ]
    for budget in results["budgets"]:
        parts += [f"## {budget['minutes']:g} CPU minutes of training\n", arms_table(budget), readers_table(budget)]
        parts += [cuts_table(budget)]
    return "\n".join(parts)


def arms_table(budget: dict[str, Any]) -> str:
    """Return what each training did."""
    rows = [
        [own["arm"], f"{own['steps']:,}", f"{own['tokens']:,}", f"{own['cpu_seconds']:.0f}"] for own in budget["arms"]
    ]
    return markdown_table(["trained", "steps", "tokens", "CPU seconds"], rows)


def readers_table(budget: dict[str, Any]) -> str:
    """Return the losses, and their differences from those of the two readers that the first training has."""
    rows = []
    for number, row in enumerate(budget["rows"]):
        cells = [row["reader"], "" if row["reach"] is None else f"{row['reach']}", f"{row['loss']:.3f}"]
        differences = ["" if number == 0 else paired(row["chunks"]), "" if number == 1 else paired(row["windows"])]
        rows.append([*cells, *differences, f"{row['cost']:.2f}"])
    return markdown_table(HEADER, rows)


def cuts_table(budget: dict[str, Any]) -> str:
    """Return the differences near the cuts between chunks, and elsewhere."""
    rows = [[row["reader"], paired(row["near"]), paired(row["far"])] for row in is_trained(budget["rows"][1:])]
    share = f"{100 * budget['near_share']:.0f} %"
    header = ["less the loss in chunks", f"within 64 tokens of a cut ({share})", "elsewhere"]
    return markdown_table(header, rows)


def is_trained(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of trained models."""
    return [row for row in rows if not row["reader"].startswith("not trained")]


def draw(results: dict[str, Any], figure: Any) -> None:
    """Draw each trained reader's difference from the loss in chunks for each time of training, side by side."""
    figure.set_size_inches(12, 6)
    budgets = results["budgets"]
    left = figure.add_subplot(1, 2, 1, ylabel="loss, less that in chunks (nats)", title="reach within the positions")
    right = figure.add_subplot(1, 2, 2, title="reach beyond the positions")
    least = min(row["reach"] for row in budgets[0]["rows"] if row["reach"])  # as far as the original's positions
    names = dict.fromkeys(row["reader"] for budget in budgets for row in is_trained(budget["rows"][1:]))
    for number, name in enumerate(names):
        found = [(place, row) for place, own in enumerate(budgets) for row in own["rows"] if row["reader"] == name]
        places = [place + 0.07 * (number - 2) for place, _ in found]
        values, margins = zip(*(row["chunks"] for _, row in found), strict=True)
        style = {"marker": "so^Dv"[number % 5], "color": f"C{number}", "capsize": 3, "lw": 1}
        axis = right if (found[0][1]["reach"] or 0) > least else left
        axis.errorbar(places, values, margins, label=name, **style)
    for axis in (left, right):
        axis.set_xlabel("CPU minutes of training")
        axis.set_xticks(range(len(budgets)), [f"{own['minutes']:g}" for own in budgets])
        axis.set_xlim(-0.5, len(budgets) - 0.5)
        axis.axhline(0, color="gray", lw=1)
        axis.grid(alpha=0.4)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    figure.suptitle("The reference is the original, trained as long on chunks of the same text, and read in chunks")
