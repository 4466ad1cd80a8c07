"""From the ranks of the right documents to tables and a picture."""

from math import nan
from typing import Any

import torch
from torch import Tensor

from experiments.common.measurement import conditions
from experiments.common.results import markdown_table
from experiments.common.statistics import paired_difference
from experiments.embedding.queries import KINDS, Query

PLACES = ("first", "second", "third", "last")  # quarter of the document
WITH_TITLE = "title in front"  # methods whose documents have their titles


def summarize(
    queries: list[Query],
    ranks: dict[str, Tensor],
    vectors: dict[str, float],
    seconds: dict[str, float],
    tokens: list[int],
) -> dict[str, Any]:
    """Return the figures of the results file: a row for each method.

    Args:
        ranks: of each method, (Q,), of the right document for each query.
        vectors: of each method, for a document, on average.
        seconds: of each method, for all documents.
        tokens: of each document.
    """
    kinds = [query.kind for query in queries]
    places = [None if query.place is None else min(int(query.place * 4), 3) for query in queries]
    references = [name for name in ranks if name.startswith(("first", "mean", "best")) and WITH_TITLE not in name]
    clusters, rows = torch.tensor([query.document for query in queries]), []
    for name, own in ranks.items():
        by_kind = {}
        for kind in KINDS:
            chosen = torch.tensor([found == kind for found in kinds])
            if chosen.any() and not (kind == "title" and WITH_TITLE in name):
                others = {reference: ranks[reference][chosen] for reference in references}
                by_kind[kind] = compare(own[chosen], others, clusters[chosen])
        by_quarter = [[1 / rank for rank, at in zip(own.tolist(), places, strict=True) if at == q] for q in range(4)]
        rows.append(
            {
                "method": name,
                "vectors": round(vectors[name], 1),
                "seconds": round(seconds[name] / len(tokens), 4),
                "kinds": by_kind,
                "by_quarter": [round(sum(part) / len(part), 4) if part else None for part in by_quarter],
            }
        )
    return {
        "documents": len(tokens),
        "tokens": {"fewest": min(tokens), "mean": round(sum(tokens) / len(tokens)), "most": max(tokens)},
        "queries": {kind: kinds.count(kind) for kind in KINDS},
        "by_quarter": [places.count(number) for number in range(4)],
        "references": references,
        "rows": rows,
    }


def compare(ranks: Tensor, others: dict[str, Tensor], clusters: Tensor) -> dict[str, Any]:
    """Return the mean reciprocal rank, top-1 accuracy, and the rank's differences from those of other methods.

    Args:
        ranks: (q,), and so are the others'.
        clusters: (q,), the number of each query's document; queries about one document are not independent.
    """
    found = {name: paired_difference(1 / ranks, 1 / other, clusters) for name, other in others.items()}
    return {
        "reciprocal_rank": round((1 / ranks.double()).mean().item(), 4),
        "accuracy": round((ranks == 1).double().mean().item(), 4),
        "less": {name: {"difference": own["difference"], "margin": own["margin"]} for name, own in found.items()},
    }


def make_tables(results: dict[str, Any]) -> str:
    """Return the tables in Markdown: all methods, the differences, and the ranks by place in the document."""
    rows, tokens, count = results["rows"], results["tokens"], results["documents"]
    kinds = [kind for kind, number in results["queries"].items() if number]
    numbered = [f"{kind} ({results['queries'][kind]})" for kind in kinds]

    def cells(row: dict[str, Any], form: Any) -> list[str]:
        return [form(row["kinds"][kind]) if kind in row["kinds"] else "-" for kind in kinds]

    table = [
        [row["method"], f"{row['vectors']:g}"]
        + cells(row, lambda found: f"{found['reciprocal_rank']:.3f} ({found['accuracy']:.2f})")
        + [f"{row['seconds']:.3f}"]
        for row in rows
    ]
    text = (
        f"Mean reciprocal rank, in brackets top-1 accuracy, among {count} documents (chance: "
        f"{sum(1 / rank for rank in range(1, count + 1)) / count:.3f}, {1 / count:.3f}) of {tokens['fewest']:,} to "
        f"{tokens['most']:,} tokens (mean {tokens['mean']:,}), by kind of query, of which there are as many as the "
        f"brackets say; {results['arguments']['checkpoint']}. Vectors and CPU seconds are those of a document. "
        f"{conditions(results)}.\n\n" + markdown_table(["method", "vectors", *numbered, "CPU seconds"], table)
    )
    for reference in results["references"]:
        others = [row for row in rows if row["method"] != reference]

        def paired(found: dict[str, Any], reference: str = reference) -> str:
            return "{difference:+.3f} ± {margin:.3f}".format(**found["less"][reference])

        text += (
            f"\nMean reciprocal rank, less that of the {reference} (paired, ± half a 95 % interval, clustered by "
            "document):\n\n" + markdown_table(["method", *kinds], [[r["method"], *cells(r, paired)] for r in others])
        )
    quarters = [f"{name} ({n})" for name, n in zip(PLACES, results["by_quarter"], strict=True)]
    places = [[r["method"], *("-" if x is None else f"{x:.3f}" for x in r["by_quarter"])] for r in rows]
    return (
        text
        + "\nMean reciprocal rank of headings and sentences, by the quarter of the document in which they stood:\n\n"
        + markdown_table(["method", *quarters], places)
    )


def draw(results: dict[str, Any], figure: Any) -> None:
    """Draw the mean reciprocal rank of each method by kind of query, and by the place of what is asked."""
    rows = results["rows"]
    figure.set_size_inches(13, 7)
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    names = [f"{row['method']} ({row['vectors']:g})" for row in rows]
    for number, kind in enumerate(kind for kind, count in results["queries"].items() if count):
        found = [row["kinds"].get(kind, {}).get("reciprocal_rank", nan) for row in rows]
        left.plot(found, range(len(rows)), "os^D"[number], markersize=7, label=f"{kind} ({results['queries'][kind]})")
    left.set_yticks(range(len(rows)), names)
    left.invert_yaxis()
    left.set(xlabel="mean reciprocal rank", title="by kind of query (vectors for a document)")
    left.legend(fontsize=8)
    for number, row in enumerate(rows):
        style = "-" if row["method"].startswith("LSG") else "--"
        ranks = [nan if x is None else x for x in row["by_quarter"]]
        look = {"marker": "os^Dv"[number // 10 % 5], "color": f"C{number % 10}"}
        right.plot(range(4), ranks, style, label=row["method"], **look)
    right.set_xticks(range(4), PLACES)
    right.set(xlabel="quarter of the document with what is asked", title="headings and sentences")
    for axis in (left, right):
        axis.grid(alpha=0.4)
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    figure.suptitle(f"{results['documents']} documents, {results['tokens']['mean']:,} tokens on average")
