"""The trainings that are compared, and how their models read held-out documents."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForMaskedLM, PreTrainedModel, PreTrainedTokenizerBase

from experiments.adaptation import run_adaptation
from experiments.common.documents import Document
from experiments.common.finetuning_output import SETTINGS, check_same, settings_of
from experiments.common.lsg_settings import describe, lsg_fields
from experiments.common.masked_readers import Reader, convert_reader
from experiments.common.masked_text import MaskedDocument
from experiments.common.models import load_errors, tokens_read
from experiments.common.tokens import AROUND
from lsg.errors import read_json
from lsg.modeling.lsg_config import pinned_reach

CHUNKS, LOCAL, FAR, DEFAULTS, MIXED = "chunks", "local", "far", "defaults", "mixed"  # arms


def attention_fields(unit: int) -> dict[str, dict[str, Any]]:
    """Return the LSG fields of each LSG arm, for an original that reads `unit` tokens.

    `LOCAL`, `DEFAULTS` and `MIXED` reach as far as the original's positions, `FAR` half as far again.
    """
    half, quarter = unit // 2, unit // 4
    return {
        LOCAL: lsg_fields("none", half),
        FAR: lsg_fields("norm", half, quarter, 2),
        DEFAULTS: lsg_fields("norm", quarter, quarter, 2),
        MIXED: lsg_fields("none", half),
    }


def train_arm(args: argparse.Namespace, arm: str, unit: int, minutes: float, texts: list[Document]) -> list[Path]:
    """Train one arm, unless an earlier run has; an interrupted training goes on.

    Args:
        args: the options of compare.py, with `span`, the tokens of the largest span.
        arm: `CHUNKS`, or one of `attention_fields`; `MIXED` spends half of the time on chunks, before it is converted.
        unit: tokens that the original reads.
        minutes: CPU time.
        texts: the documents to train on.

    Returns:
        The output folders of the trainings that followed each other.

    Raises:
        InputError, ConversionError: with the reason in one line.
    """
    before = train_arm(args, CHUNKS, unit, minutes / 2, texts) if arm == MIXED else []
    folder: Path = args.work / f"{arm}-{minutes:g}"
    options = ["--text", *args.text, "--model", before[-1] / "model" if before else args.checkpoint]
    options += ["--output_dir", folder, "--span", args.span, "--held_out", args.documents]
    # another seed for the second half of the time: it does not begin with the spans that the first half has read
    options += ["--minutes", minutes / (1 + len(before)), "--seed", args.seed + len(before), "--batch_size", 1]
    options += ["--learning_rate", args.learning_rate, "--warmup", 0.1, "--save_steps", 100]
    options += ["--max_steps", args.max_steps]
    if arm != CHUNKS:
        fields = json.dumps({**attention_fields(unit)[arm], "mask_first_token": True})
        options += ["--convert", "--max_sequence_length", args.span, "--model_kwargs", fields]
    own = run_adaptation.make_options().parse_args([str(option) for option in options])
    if (folder / "results.json").exists():
        check_same(read_json(folder / SETTINGS), settings_of(own), folder)
    else:
        own.resume = (folder / SETTINGS).exists()
        run_adaptation.check(own)
        run_adaptation.adapt(own, {"train": texts})
    return [*before, folder]


def load_trained(folder: Path) -> PreTrainedModel:
    """Load the model of an arm's output folder."""
    with load_errors(str(folder)):
        model: PreTrainedModel = AutoModelForMaskedLM.from_pretrained(folder / "model", trust_remote_code=True)
    return model.eval()


def plain_readers(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, span: int) -> list[Reader]:
    """Return the readers of a plain model: in chunks, in overlapping windows, and converted to `LOCAL` and `FAR`.

    Args:
        name: what the model was trained for, for the tables.
        span: tokens of the longest document.
    """
    unit = tokens_read(model.config, tokenizer)
    size = unit - AROUND
    readers = [
        Reader(f"{name}, read in chunks of {size}", model, size, size),
        Reader(f"{name}, read in windows that share 1/2", model, size, size // 2),
    ]
    for arm in (LOCAL, FAR):
        reader = convert_reader(model, tokenizer, attention_fields(unit)[arm], span)
        readers.append(dataclasses.replace(reader, name=f"{name}, then converted: {reader.name}"))
    return readers


def make_readers(
    original: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folders: dict[str, list[Path]], span: int
) -> list[Reader]:
    """Return all readers; the first two are those of the model that was trained on chunks, in chunks and in windows.

    Args:
        folders: of each arm, see `train_arm`.
        span: tokens of the longest document.
    """
    readers = plain_readers(load_trained(folders[CHUNKS][-1]), tokenizer, "trained on chunks", span)
    for arm, own in folders.items():
        if arm != CHUNKS:
            model = load_trained(own[-1])
            reach = pinned_reach(model.config.lsg_pattern())
            before = "trained half as long on chunks, " if arm == MIXED else ""
            name = f"{before}converted, then trained: LSG {describe(model.config, {})}"
            readers.append(Reader(name, model, reach=reach))
    return readers + plain_readers(original, tokenizer, "not trained", span)


def is_near_cut(document: MaskedDocument, size: int, distance: int) -> Tensor:
    """Return which chosen tokens are at most `distance` tokens from a cut between chunks, (N,) boolean.

    The beginning and the end of the document are no cuts.

    Args:
        size: of a chunk, as in `MaskedDocument.windows` with as large a step.
    """
    length = len(document.tokens)
    first = torch.tensor([*range(0, length - size, size), length - size])  # (w,)
    places = document.chosen.nonzero()[:, 0]  # (N,)
    own = first[(places - first[:, None] - (size - 1) / 2).abs().argmin(0)]  # (N,), start of each token's chunk
    before, behind = places - own, own + size - 1 - places  # (N,), tokens before and behind it in its chunk
    return ((own > 0) & (before < distance)) | ((own + size < length) & (behind < distance))
