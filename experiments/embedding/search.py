#!/usr/bin/env python3
"""Find long documents by natural queries: with one vector for each document, or with one for each chunk."""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository: lsg and experiments

from experiments.common.errors import InputError, check_range
from experiments.common.measurement import check_tokens, load_inputs, make_parser, measure_and_report
from experiments.common.script import run_script
from lsg.cli.arguments import OneLineParser, parse_mapping

NAME = "search"
REPORT = "experiments.embedding.report"
DESCRIPTION = """Find each of many long documents by its title, its first paragraph, its headings and sentences taken
out of it. A sentence encoder is converted and reads whole documents, or it reads their beginning or their chunks.
Nothing is trained. One CPU thread, whose time is measured."""
LSG_SETTINGS = [{"sparsity_type": "norm"}, {"sparsity_type": "none", "block_size": 256}]
LONGEST_QUERY = 256  # tokens with start and end token, which a converted model reads as the original does


def make_options() -> OneLineParser:
    """Return the parser of the options."""
    parser = make_parser(DESCRIPTION, Path(__file__).resolve().parent / "results", NAME, REPORT)
    add = parser.add_argument
    text = "folder, or name on the Hub, of a sentence encoder with mean pooling"
    add("--checkpoint", required=True, metavar="PATH", help=text)
    add("--documents", type=int, default=120, metavar="N", help="drawn at random (120)")
    add("--chunks", type=int, nargs="+", default=[128, 256], metavar="N", help="tokens in a chunk (128 256)")
    text = "LSG fields of each converted model (default: \"{'sparsity_type': 'norm'}\" and local attention, b = 256)"
    add("--model_kwargs", type=parse_mapping, nargs="+", default=LSG_SETTINGS, metavar="JSON", help=text)
    return parser


def measure(model: Any, tokenizer: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of the results file.

    Raises:
        InputError, ConversionError: with the reason in one line.
    """
    import torch

    from experiments.common.documents import read_documents
    from experiments.common.tokens import AROUND, choose_documents, encode
    from experiments.embedding.queries import has_title, make_queries
    from experiments.embedding.report import summarize
    from experiments.embedding.vectors import make_encoder, make_readers, read_all, right_ranks

    readers = make_readers(model, tokenizer, args.model_kwargs, args.tokens[1], args.chunks)
    titled = [document for document in read_documents(args.text) if has_title(document)]
    chosen = choose_documents(titled, tokenizer, args.tokens, args.documents, args.seed)
    pages, queries = make_queries(chosen, args.seed)
    encoded = zip(queries, encode([query.text for query in queries], tokenizer), strict=True)
    asked = [(query, torch.tensor(ids)) for query, ids in encoded if len(ids) + AROUND <= LONGEST_QUERY]
    if len(pages) < 2 or not asked:
        raise InputError(f"--text: there is nothing to search among {len(pages)} documents")
    vectors = make_encoder(model, tokenizer).vectors([ids for _, ids in asked])  # (Q, D)
    titles, texts = (
        [torch.tensor(ids) for ids in encode(column, tokenizer)]
        for column in ([page.title for page in pages], [page.text for page in pages])
    )
    found, seconds = read_all(readers, titles, texts)
    right = torch.tensor([query.document for query, _ in asked])
    ranks = {name: right_ranks(vectors, own, right) for name, own in found.items()}
    counts = {name: sum(map(len, own)) / len(own) for name, own in found.items()}
    return summarize([query for query, _ in asked], ranks, counts, seconds, [len(ids) + AROUND for ids in texts])


def work(args: argparse.Namespace) -> None:
    """Measure, and write the results."""
    check_range(args, "documents", minimum=2)
    check_range(args, "seed", minimum=0)
    import torch

    from experiments.common.models import tokens_read
    from experiments.embedding.vectors import check_pooling

    model, tokenizer = load_inputs(args, "AutoModel")
    check_pooling(args.checkpoint)
    unit = tokens_read(model.config, tokenizer)
    check_tokens(args, unit)
    check_range(args, "chunks", minimum=16, maximum=unit // 2)  # so that there is room for a title
    torch.set_num_threads(1)
    measure_and_report(args, model, lambda: measure(model, tokenizer, args), REPORT)


def main(argv: list[str] | None = None) -> int:
    """Run the script; return the exit code."""
    return run_script(work, make_options().parse_args(argv), f"{NAME}.py")


if __name__ == "__main__":
    sys.exit(main())
