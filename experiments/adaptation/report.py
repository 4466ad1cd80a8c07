"""The tables and the picture of the comparison."""

from typing import Any

from experiments.common.results import markdown_table

HEADER = ["reader", "reach", "loss", "less that in chunks", "less that in windows", "CPU time to read (ratio)"]
TICKS = [-0.2, -0.1, -0.05, 0, 0.05, 0.1, 0.2, 0.5, 1, 2, 5]  # of the loss, which is linear up to 0.1, then logarithmic


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
    """Draw each trained reader's difference from the loss in chunks against the time of the training."""
    figure.set_size_inches(10, 6)
    budgets = results["budgets"]
    axis = figure.add_subplot(1, 1, 1, xlabel="CPU minutes of training", ylabel="loss, less that in chunks (nats)")
    names = [row["reader"] for row in is_trained(budgets[0]["rows"])]
    for number, name in enumerate(names[1:]):
        places = [budget["minutes"] * 1.02 ** (number - 2) for budget in budgets]  # side by side
        figures = [next(row["chunks"] for row in own["rows"] if row["reader"] == name) for own in budgets]
        values, margins = zip(*figures, strict=True)
        axis.errorbar(places, values, margins, marker="so^Dv"[number % 5], capsize=3, label=name)
    minutes = [budget["minutes"] for budget in budgets]
    axis.set_xscale("log")
    axis.set_xticks(minutes, [f"{own:g}" for own in minutes], minor=False)
    axis.minorticks_off()
    axis.set_yscale("symlog", linthresh=0.1, linscale=2)
    axis.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
    axis.axhline(0, color="gray", lw=1)
    axis.grid(alpha=0.4)
    figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    figure.suptitle("The reference is trained as long on chunks of the same text, and read in chunks")
