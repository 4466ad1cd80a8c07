#!/usr/bin/env python3
"""Hide a sentence in a long document, and look for the document by the similarity of embeddings."""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository: lsg and experiments

from experiments.common.errors import check_range
from experiments.common.script import run_script
from experiments.extrapolation import inputs
from lsg.cli.arguments import OneLineParser, parse_mapping

REPORT = "experiments.extrapolation.needle_report"
DESCRIPTION = """Find the document that answers a query, among documents that each hide a different made-up sentence, by
one embedding of the whole document (LSG, full attention with tiled positions) or by those of the original's chunks."""
SHORTEST = 128  # tokens in a document: room for every needle
LSG_SETTINGS = [{"sparsity_type": "norm"}, {"sparsity_type": "none"}]


def make_options() -> OneLineParser:
    """Return the parser of the options."""
    parser = inputs.make_parser(
        DESCRIPTION,
        "needle",
        REPORT,
        required=True,
        help="folder, or name on the Hub, of a sentence encoder with mean pooling, such as "
        "sentence-transformers/all-MiniLM-L6-v2",
    )
    text = "text files in UTF-8 (default: the demo checkpoint's text, from the installed packages)"
    parser.add_argument("--text", type=Path, nargs="+", metavar="FILE", help=text)
    add, lengths, depths = parser.add_argument, [512, 1024, 2048, 4096], [0.0, 0.25, 0.5, 0.75, 1.0]
    add("--lengths", type=int, nargs="+", default=lengths, metavar="N", help="tokens in a document (512 to 4096)")
    add("--depths", type=float, nargs="+", default=depths, metavar="X", help="0: beginning, 1: end (0 .25 .5 .75 1)")
    add("--needles", type=int, default=10, metavar="N", help="documents, each with another needle (10)")
    text = "LSG fields of each variant (\"{'sparsity_type': 'norm'}\" \"{'sparsity_type': 'none'}\")"
    add("--model_kwargs", type=parse_mapping, nargs="+", default=LSG_SETTINGS, metavar="JSON", help=text)
    return parser


def work(args: argparse.Namespace) -> None:
    """Measure, and write the results."""
    from experiments.extrapolation.needle_data import NEEDLES

    check_range(args, "lengths", minimum=SHORTEST)
    check_range(args, "depths", minimum=0, maximum=1)
    check_range(args, "needles", minimum=2, maximum=len(NEEDLES))
    from experiments.common.models import tokens_read
    from experiments.extrapolation.needle_search import search_all

    model, tokenizer = inputs.load_inputs(args, "AutoModel")
    texts = sum(inputs.demo_texts(), []) if args.text is None else inputs.read_texts(args.text)
    unit = tokens_read(model.config)

    def measure() -> dict[str, Any]:
        return {"original_length": unit, "rows": search_all(model, tokenizer, texts, args, unit)}

    inputs.measure_and_report(args, model, measure, "needle", REPORT)


def main(argv: list[str] | None = None) -> int:
    """Run the script; return the exit code."""
    return run_script(work, make_options().parse_args(argv), "needle.py")


if __name__ == "__main__":
    sys.exit(main())
