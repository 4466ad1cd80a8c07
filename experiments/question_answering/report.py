"""From the scores of single questions to tables and a picture."""

from math import nan
from statistics import fmean
from typing import Any

import torch

from experiments.common.results import markdown_table
from experiments.common.statistics import paired_difference
from experiments.question_answering.squad import Question

PLACES = ("first", "second", "third", "last")  # quarter of the document
MEASURES = ("exact", "overlap", "sentence")


def summarize(
    scores: dict[str, list[dict[str, Any]]], questions: list[Question], tokens: list[int], reference: str
) -> dict[str, Any]:
    """Return the figures of the results file: a row for each reader.

    Args:
        scores: of each reader, one for each question: `MEASURES` and seconds.
        tokens: of the question and its document.
        reference: the reader that the others are compared with.
    """
    names = [question.document for question in questions]
    documents = torch.tensor([names.index(name) for name in names])  # questions about one are not independent
    quarters = [quarter(question) for question in questions]
    rows = []
    for name, own in scores.items():
        row: dict[str, Any] = {"reader": name}
        for measure in MEASURES:
            values, others = (torch.tensor([score[measure] for score in part]) for part in (own, scores[reference]))
            row[measure] = paired_difference(values, others, documents)
        row["seconds"] = fmean(score["seconds"] for score in own)
        row["by_quarter"] = [
            fmean([s["exact"] for s, q in zip(own, quarters, strict=True) if q == number] or [nan])
            for number in range(4)
        ]
        impossible = [s["exact"] for s, question in zip(own, questions, strict=True) if not question.answers]
        row["without_answer"] = fmean(impossible) if impossible else None
        rows.append(rounded(row))
    return {
        "reference": reference,
        "questions": len(questions),
        "without_answer": sum(not question.answers for question in questions),
        "documents": len(set(names)),
        "tokens": {"fewest": min(tokens), "mean": round(fmean(tokens)), "most": max(tokens)},
        "by_quarter": [quarters.count(number) for number in range(4)],
        "rows": rows,
    }


def rounded(value: Any) -> Any:
    """Return a value with all its numbers rounded to four digits; None stands for one that is not there."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return (round(value, 4) if value == value else None) if isinstance(value, float) else value


def quarter(question: Question) -> int | None:
    """Return in which quarter of the document the first accepted answer begins, 0 to 3; None without an answer."""
    return question.answers[0][1] * 4 // len(question.context) if question.answers else None


def make_tables(results: dict[str, Any]) -> str:
    """Return the tables in Markdown: all readers, and exact match by the place of the answer."""
    rows, versions, tokens = results["rows"], results["versions"], results["tokens"]
    reference = next(row for row in rows if row["reader"] == results["reference"])
    has_none = results["without_answer"] > 0
    header = ["reader", "exact match", f"less that of {results['reference']}", "overlap (F1)", "right sentence"]
    header += ["CPU seconds (ratio)", *(["right without an answer"] if has_none else [])]
    table = []
    for row in rows:
        exact, ratio = row["exact"], row["seconds"] / reference["seconds"]
        paired = "" if row is reference else f"{exact['difference']:+.3f} ± {exact['margin']:.3f}"
        cells = [row["reader"], f"{exact['mean']:.3f}", paired]
        cells += [f"{row[name]['mean']:.3f}" for name in MEASURES[1:]] + [f"{row['seconds']:.3f} ({ratio:.2f})"]
        table.append(cells + ([f"{row['without_answer']:.3f}"] if has_none else []))
    quarters = [f"{name} ({n})" for name, n in zip(PLACES, results["by_quarter"], strict=True)]
    places = [[r["reader"], *("-" if x is None else f"{x:.3f}" for x in r["by_quarter"])] for r in rows]
    none = f", {results['without_answer']} of them without an answer" if has_none else ""
    return (
        f"{results['questions']} questions{none} about {results['documents']} documents of {tokens['fewest']:,} to "
        f"{tokens['most']:,} tokens (mean {tokens['mean']:,}); {results['arguments']['checkpoint']}. Differences are "
        "paired, ± half a 95 % interval, clustered by document. CPU seconds are those of a question, without "
        f"tokenization; {results['device']}, torch {versions['torch']}, transformers {versions['transformers']}, "
        f"{results['date']}.\n\n"
        + markdown_table(header, table)
        + "\nExact match by the quarter of the document that has the answer (in brackets the number of questions):\n\n"
        + markdown_table(["reader", *quarters], places)
    )


def draw(results: dict[str, Any], figure: Any) -> None:
    """Draw exact match against CPU seconds, and by the quarter of the document that has the answer."""
    figure.set_size_inches(12, 6.4)
    left = figure.add_subplot(1, 2, 1, xlabel="CPU seconds a question", ylabel="exact match")
    right = figure.add_subplot(1, 2, 2, xlabel="quarter of the document with the answer", ylabel="exact match")
    for number, row in enumerate(results["rows"]):
        is_lsg = row["reader"].startswith("LSG")
        style = {"color": f"C{number % 10}", "marker": ("o" if number < 10 else "D") if is_lsg else "s"}
        left.plot(row["seconds"], row["exact"]["mean"], linestyle="", label=row["reader"], markersize=8, **style)
        right.plot(range(4), [nan if x is None else x for x in row["by_quarter"]], "-" if is_lsg else "--", **style)
    for axis in (left, right):
        axis.set_ylim(0, 1)
        axis.grid(alpha=0.4)
    left.set_xlim(left=0)
    right.set_xticks(range(4), PLACES)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    count = f"{results['questions']} questions about {results['documents']} documents"
    figure.suptitle(f"{count}, {results['tokens']['mean']:,} tokens on average")
