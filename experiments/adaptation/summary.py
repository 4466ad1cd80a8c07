"""The figures of the results file: what was trained and read, and paired differences between readers."""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.adaptation.arms import is_near_cut
from experiments.common.documents import Document
from experiments.common.masked_readers import Reader
from experiments.common.masked_text import MaskedDocument
from experiments.common.results import environment
from experiments.common.statistics import paired_difference
from experiments.common.tokens import AROUND
from lsg.errors import read_json

NEAR = 64  # tokens between a token and a cut


def about(args: argparse.Namespace, training: list[Document], documents: list[MaskedDocument]) -> dict[str, Any]:
    """Return what was measured with, and on which documents."""
    lengths = [len(document.tokens) + AROUND for document in documents]
    masked = sum(len(document.targets) for document in documents)
    return {
        **environment("cpu", "torch", "transformers"),
        "arguments": {
            "checkpoint": Path(args.checkpoint).name,
            "text": [file.name for file in args.text],
            "test_text": [file.name for file in args.test_text],
            "learning_rate": args.learning_rate,
            "max_steps": args.max_steps,
            "seed": args.seed,
            "span": args.span,
        },
        "training_documents": len(training),
        "documents": len(documents),
        "tokens": {"fewest": min(lengths), "most": max(lengths), "all": sum(lengths), "masked": masked},
        "budgets": [],
    }


def earlier_budgets(file: Path, results: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the budgets that an earlier run has measured with the same options, documents and packages."""
    earlier = read_json(file) if file.exists() else {}
    is_same = all(earlier.get(name) == value for name, value in results.items() if name not in ("date", "budgets"))
    return earlier["budgets"] if is_same else []


def compare_readers(
    folders: dict[str, list[Path]],
    readers: list[Reader],
    losses: list[Tensor],
    seconds: list[float],
    documents: list[MaskedDocument],
) -> dict[str, Any]:
    """Return the figures of a budget: each arm's training, and a row for each reader.

    Args:
        folders: of each arm, see `train_arm`.
        readers: as in `make_readers`: the first reads in chunks, the second in overlapping windows.
        losses: (N,) of each reader, of the chosen tokens of all documents.
        seconds: of each reader, for all documents.
    """
    cluster = torch.arange(len(documents)).repeat_interleave(torch.tensor([len(d.targets) for d in documents]))
    near = torch.cat([is_near_cut(document, readers[0].size or 0, NEAR) for document in documents])  # (N,)
    rows = []
    for reader, loss, own in zip(readers, losses, seconds, strict=True):
        rows.append(
            {
                "reader": reader.name,
                "reach": reader.reach,
                "loss": round(loss.double().mean().item(), 4),
                "chunks": difference(loss, losses[0], cluster),
                "windows": difference(loss, losses[1], cluster),
                "near": difference(loss[near], losses[0][near], cluster[near]),
                "far": difference(loss[~near], losses[0][~near], cluster[~near]),
                "cost": round(own / seconds[0], 3),
            }
        )
    arms = [{"arm": arm, **totals(own)} for arm, own in folders.items()]
    return {"arms": arms, "near_share": round(near.double().mean().item(), 4), "rows": rows}


def totals(folders: list[Path]) -> dict[str, float]:
    """Return the steps, tokens and CPU seconds of trainings that followed each other."""
    trained = [read_json(folder / "results.json") for folder in folders]
    return {name: round(sum(own[name] for own in trained), 1) for name in ("steps", "tokens", "cpu_seconds")}


def difference(loss: Tensor, reference: Tensor, cluster: Tensor) -> list[float]:
    """Return the mean paired difference of the losses of N tokens, and half of its 95 % interval."""
    paired = paired_difference(loss, reference, cluster)
    return [paired["difference"], paired["margin"]]
