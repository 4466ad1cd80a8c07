"""The needle test: every retrieval method, at every length and depth."""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from experiments.common.masked_lm import encode
from experiments.common.models import move_to_gpu
from experiments.extrapolation import embedding
from experiments.extrapolation.embedding import embed
from experiments.extrapolation.masked_text import AROUND
from experiments.extrapolation.needle_data import NEEDLES, hide, make_haystacks, split_chunks
from experiments.extrapolation.variants import FULL, with_tiled_positions
from lsg_converter import LSGConverter

ORIGINAL = "original"


def make_readers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, args: argparse.Namespace, unit: int
) -> dict[str, PreTrainedModel]:
    """Return the models that read a whole document, by name."""
    longest = max(*args.lengths, unit)
    converter = LSGConverter(max_sequence_length=longest)
    readers: dict[str, PreTrainedModel] = {}
    for fields in args.model_kwargs:
        name = "LSG, " + (", ".join(f"{key}={value}" for key, value in fields.items()) or "package defaults")
        readers[name], _ = converter.convert(model, tokenizer, **{"mask_first_token": True, **fields})
    return {**readers, FULL: with_tiled_positions(model, longest)}


def score_methods(
    model: PreTrainedModel,
    readers: dict[str, PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    queries: dict[str, Tensor],
    documents: list[list[int]],
    unit: int,
    on_rows: Callable[[int], Any],
) -> dict[str, Tensor]:
    """Return the similarity (N, N) of queries and documents by method, from the queries (N, D) by reader."""
    scores = {}
    for name, reader in readers.items():
        vectors = embed(reader, tokenizer, documents, on_rows)
        scores[name] = queries[name] @ vectors.T
    original = queries[ORIGINAL]
    for size in (unit, unit // 4):
        pieces = [split_chunks(document, size - AROUND) for document in documents]
        vectors = embed(model, tokenizer, [piece for own in pieces for piece in own], on_rows)
        chunks = list(vectors.split([len(own) for own in pieces]))
        averages, first = embedding.average_chunks(chunks), torch.stack([own[0] for own in chunks])
        scores |= {
            f"{ORIGINAL}, first {size} tokens": original @ first.T,
            f"{ORIGINAL}, mean of chunks of {size}": original @ averages.T,
            f"{ORIGINAL}, best chunk of {size}": embedding.best_chunk_scores(original, chunks),
        }
    return scores


def search_all(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[str],
    args: argparse.Namespace,
    unit: int,
) -> list[dict[str, Any]]:
    """Measure every method at every length and depth; return one row for each."""
    readers = make_readers(model, tokenizer, args, unit)
    haystacks = make_haystacks(texts, tokenizer, args.needles, max(args.lengths), args.seed)
    needles, questions = (encode(column, tokenizer) for column in zip(*NEEDLES[: args.needles], strict=True))
    for reader in (model, *readers.values()):
        move_to_gpu(reader)
    queries = {
        name: embed(reader, tokenizer, questions, lambda _: None)
        for name, reader in {**readers, ORIGINAL: model}.items()
    }
    rows = []
    lengths, depths = sorted(set(args.lengths)), sorted(set(args.depths))
    contents = args.needles * len(depths) * (sum(lengths) - AROUND * len(lengths))
    total = contents * (len(readers) + 2 * 4 / 3)  # about: chunks of two sizes overlap by a quarter
    with tqdm(total=total, unit="token", unit_scale=True, mininterval=2) as bar:
        for length in lengths:
            for depth in depths:
                bar.set_description(f"{length} tokens, depth {depth}")
                pairs = zip(haystacks, needles, strict=True)
                documents = [hide(haystack, needle, length - AROUND, depth) for haystack, needle in pairs]
                scores = score_methods(model, readers, tokenizer, queries, documents, unit, bar.update)
                for name, found in scores.items():
                    rows.append({"method": name, "length": length, "depth": depth, **embedding.retrieval(found)})
    return rows
