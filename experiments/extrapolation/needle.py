#!/usr/bin/env python3
"""Hide a sentence at some depth of a long document, and look for the document by the similarity of embeddings."""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository: lsg and experiments

from convert_checkpoint import parse_mapping
from experiments.extrapolation import common

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


def measure(args: argparse.Namespace) -> None:
    """Measure, and write the results."""
    check_numbers(args)
    common.check_output(args.out)
    texts = None if args.text is None else common.read_texts(args.text)
    from transformers import AutoModel

    from experiments.extrapolation import needle_report
    from experiments.extrapolation.models import load_plain, original_length
    from experiments.extrapolation.needle_search import search_all

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
