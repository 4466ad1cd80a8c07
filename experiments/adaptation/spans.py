"""Whole documents as spans of tokens, and batches of spans with masked tokens; a model reads a span in chunks."""

import random
import zlib
from collections.abc import Callable
from typing import Any

import torch
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerBase

from experiments.common.documents import Document
from experiments.common.errors import InputError
from experiments.common.tokens import AROUND, encode, special_token

Columns = dict[str, list[Any]]


def hold_out(documents: list[Document], count: int, seed: int) -> tuple[list[Document], list[Document]]:
    """Return the documents to train on, in random order, and `count` others.

    Raises:
        InputError: none is left to train on.
    """
    if count >= len(documents):
        raise InputError(f"{count} documents cannot be held out of {len(documents)}: at least 1 is needed to train on")
    documents = random.Random(seed).sample(documents, len(documents))
    return documents[count:], documents[:count]


def split_evenly(tokens: list[int], size: int) -> list[list[int]]:
    """Cut into as few parts of at most `size` tokens as possible, all equally long (or with one token less)."""
    count = -(-len(tokens) // size)
    bounds = [len(tokens) * part // count for part in range(count + 1)] if count else []
    return [tokens[start:end] for start, end in zip(bounds, bounds[1:], strict=False)]


def make_spans(tokenizer: PreTrainedTokenizerBase, size: int) -> Callable[[Columns], Columns]:
    """Return the function from texts to spans of at most `size` tokens, two of which are the start and end token."""

    def spans(columns: Columns) -> Columns:
        documents = encode(columns["text"], tokenizer)
        return {"input_ids": [span for tokens in documents for span in split_evenly(tokens, size - AROUND)]}

    return spans


class ChunkCollator:
    """Makes a batch of rows: cuts each span into chunks, adds start and end tokens, masks tokens, and pads.

    The masks depend on the rows and on `epoch` alone, so that a resumed training has the same ones: random numbers of
    the process would be drawn for a batch ahead of the step.

    Args:
        size: of the largest chunk, with its start and end token. Models that read different sizes learn from the same
            spans, in the same steps.
        masked_share: fraction of the tokens to predict; 80 % of these are masked, 10 % are random.

    Raises:
        InputError: the tokenizer is not that of a masked language model.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, size: int, masked_share: float) -> None:
        self.start, self.end = (special_token(tokenizer, *names) for names in (("cls", "bos"), ("sep", "eos")))
        special_token(tokenizer, "mask")
        self.size, self.epoch = size, 0
        self.mask = DataCollatorForLanguageModeling(tokenizer, mlm_probability=masked_share)

    def __call__(self, rows: list[dict[str, list[int]]]) -> dict[str, Any]:
        """Return input ids, attention mask and labels, each (chunks, t)."""
        chunks = [chunk for row in rows for chunk in split_evenly(row["input_ids"], self.size - AROUND)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(zlib.crc32(repr((self.epoch, rows)).encode()))
            batch: dict[str, Any] = self.mask([{"input_ids": [self.start, *chunk, self.end]} for chunk in chunks])
        return batch
