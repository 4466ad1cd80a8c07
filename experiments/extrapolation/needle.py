#!/usr/bin/env python3
"""Hide a sentence at some depth of a long document, and look for the document by the similarity of embeddings."""

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository: lsg and experiments

from convert_checkpoint import parse_mapping
from experiments.extrapolation import common

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ORIGINAL = "original"
FULL = "full attention, tiled positions"
SHORTEST = 128  # tokens in a document that surely holds its needle
LSG_SETTINGS = [{"sparsity_type": "norm"}, {"sparsity_type": "none"}]


def make_parser() -> common.OneLineParser:
    """Describe the arguments."""
    parser = common.OneLineParser(
        prog="needle.py",
        description="Among documents that each hide another made-up sentence, find that which answers a query, by one "
        "embedding of the whole document (LSG, tiled full attention) or by those of the original's chunks.",
    )
    add = parser.add_argument
    add(
        "--checkpoint",
        required=True,
        metavar="PATH",
        help="folder, or name on the Hub, of a sentence encoder with mean pooling, such as "
        "sentence-transformers/all-MiniLM-L6-v2",
    )
    add(
        "--text",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="text files in UTF-8 to hide in (default: the demo checkpoint's text, from the installed packages)",
    )
    lengths, depths = [512, 1024, 2048, 4096], [0.0, 0.25, 0.5, 0.75, 1.0]
    add("--lengths", type=int, nargs="+", default=lengths, metavar="N", help="tokens in a document (512 to 4096)")
    add("--depths", type=float, nargs="+", default=depths, metavar="X", help="0: beginning, 1: end (0 .25 .5 .75 1)")
    add("--needles", type=int, default=10, metavar="N", help="documents, each with another needle (10)")
    add(
        "--model_kwargs",
        type=parse_mapping,
        nargs="+",
        default=LSG_SETTINGS,
        metavar="JSON",
        help="LSG fields of each variant to measure (\"{'sparsity_type': 'norm'}\" \"{'sparsity_type': 'none'}\")",
    )
    add("--seed", type=int, default=0, metavar="N", help="of the order of the texts (0)")
    add(
        "--out",
        type=Path,
        default=common.RESULTS,
        metavar="FOLDER",
        help="for the results (results, beside the script)",
    )
    return parser


def check_numbers(args: argparse.Namespace) -> None:
    """Raise InputError for a number out of its bounds."""
    from experiments.extrapolation.needle_data import NEEDLES

    for length in args.lengths:
        common.check_range("lengths", length, SHORTEST)
    for depth in args.depths:
        common.check_range("depths", depth, 0, 1)
    common.check_range("needles", args.needles, 2, len(NEEDLES))


def make_readers(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", args: argparse.Namespace, unit: int
) -> dict[str, "PreTrainedModel"]:
    """Make the models that read a document as a whole, by name."""
    from experiments.extrapolation.models import with_tiled_positions
    from lsg_converter import LSGConverter

    longest = max(*args.lengths, unit)
    converter = LSGConverter(max_sequence_length=longest)
    readers = {}
    for fields in args.model_kwargs:
        name = "LSG, " + (", ".join(f"{key}={value}" for key, value in fields.items()) or "package defaults")
        readers[name], _ = converter.convert(model, tokenizer, **{"mask_first_token": True, **fields})
    return {**readers, FULL: with_tiled_positions(model, longest)}


def score_methods(
    model: "PreTrainedModel",
    readers: dict[str, "PreTrainedModel"],
    tokenizer: "PreTrainedTokenizerBase",
    queries: dict[str, "Tensor"],
    documents: list[list[int]],
    unit: int,
    on_rows: "Callable[[int], Any]",
) -> dict[str, "Tensor"]:
    """Give the similarity (N, N) of queries and documents by each method; `queries` (N, D) by the reader's name."""
    import torch

    from experiments.extrapolation import embedding
    from experiments.extrapolation.needle_data import split_chunks

    scores = {}
    for name, reader in readers.items():
        vectors = embedding.embed(reader, tokenizer, documents, on_rows)
        scores[name] = embedding.one_vector_scores(queries[name], vectors)
    original = queries[ORIGINAL]
    for size in (unit, unit // 4):
        pieces = [split_chunks(document, size - embedding.AROUND) for document in documents]
        vectors = embedding.embed(model, tokenizer, [piece for own in pieces for piece in own], on_rows)
        chunks = list(vectors.split([len(own) for own in pieces]))
        averages, first = embedding.average_chunks(chunks), torch.stack([own[0] for own in chunks])
        scores |= {
            f"{ORIGINAL}, first {size} tokens": embedding.one_vector_scores(original, first),
            f"{ORIGINAL}, mean of chunks of {size}": embedding.one_vector_scores(original, averages),
            f"{ORIGINAL}, best chunk of {size}": embedding.best_chunk_scores(original, chunks),
        }
    return scores


def search_all(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    texts: list[str],
    args: argparse.Namespace,
    unit: int,
) -> list[dict[str, Any]]:
    """Measure every method at every length and depth; one row each."""
    import torch
    from tqdm import tqdm

    from experiments.extrapolation.embedding import AROUND, embed, retrieval
    from experiments.extrapolation.needle_data import NEEDLES, hide, make_haystacks

    readers = make_readers(model, tokenizer, args, unit)
    haystacks = make_haystacks(texts, tokenizer, args.needles, max(args.lengths), args.seed)
    needles, questions = (
        [tokenizer(text, add_special_tokens=False)["input_ids"] for text in column]
        for column in zip(*NEEDLES[: args.needles], strict=True)
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for reader in (model, *readers.values()):
        reader.to(device)
    queries = {
        name: embed(reader, tokenizer, questions, lambda _: None)
        for name, reader in {**readers, ORIGINAL: model}.items()
    }
    rows = []
    lengths, depths = sorted(set(args.lengths)), sorted(set(args.depths))
    contents = args.needles * len(depths) * (sum(lengths) - AROUND * len(lengths))
    total = contents * (len(readers) + 2 * 4 / 3)  # chunks of two sizes, which overlap by a quarter: about
    with tqdm(total=total, unit="token", unit_scale=True, mininterval=2) as bar:
        for length in lengths:
            for depth in depths:
                bar.set_description(f"{length} tokens, depth {depth}")
                pairs = zip(haystacks, needles, strict=True)
                documents = [hide(haystack, needle, length - AROUND, depth) for haystack, needle in pairs]
                scores = score_methods(model, readers, tokenizer, queries, documents, unit, bar.update)
                for name, found in scores.items():
                    rows.append({"method": name, "length": length, "depth": depth, **retrieval(found)})
    return rows


def measure(args: argparse.Namespace) -> None:
    """Measure, and write the results."""
    check_numbers(args)
    common.check_output(args.out)
    texts = None if args.text is None else common.read_texts(args.text)
    from transformers import AutoModel

    from experiments.extrapolation import needle_report
    from experiments.extrapolation.models import load_plain, original_length

    model, tokenizer = load_plain(args.checkpoint, AutoModel)
    unit = original_length(model)
    if texts is None:
        training, held_out = common.demo_texts()
        texts = training + held_out
    started = time.process_time()
    rows = search_all(model, tokenizer, texts, args, unit)
    results = {
        **common.about(args),
        "cpu_minutes": round((time.process_time() - started) / 60, 1),
        "original_length": unit,
        "rows": rows,
    }
    common.write_results(args.out, "needle", results, needle_report.tables(results))
    needle_report.plot(results, args.out / "needle.png")


def main(argv: list[str] | None = None) -> int:
    """Run the command; return the exit code."""
    return common.run_script(measure, make_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
