#!/usr/bin/env python3
"""Measure the masked-token loss on whole documents that are longer than a masked language model reads."""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository: lsg and experiments

from experiments.common.errors import check_range
from experiments.common.measurement import check_tokens, load_inputs, make_parser, measure_and_report
from experiments.common.script import run_script
from lsg.cli.arguments import OneLineParser, parse_mapping

HERE = Path(__file__).resolve().parent
DEMO = HERE.parent / "demo" / "roberta-demo"
NAME = "masked_loss"
REPORT = "experiments.extrapolation.loss_report"
DESCRIPTION = """Compare, on the same masked tokens of separate long documents, a masked language model on chunks and
on overlapping windows of its own length, with tiled positions and full attention, and converted to LSG. Nothing is
trained. One CPU thread, whose time is measured."""


def make_options() -> OneLineParser:
    """Return the parser of the options."""
    parser = make_parser(DESCRIPTION, HERE / "results", NAME, REPORT)
    add = parser.add_argument
    text = "folder, or name on the Hub, of a masked language model (the demo checkpoint)"
    add("--checkpoint", default=str(DEMO), metavar="PATH", help=text)
    add("--documents", type=int, default=100, metavar="N", help="drawn at random (100)")
    add("--masked_share", type=float, default=0.15, metavar="SHARE", help="fraction of the tokens to mask (0.15)")
    text = (
        "LSG fields of each LSG reader, such as \"{'sparsity_type': 'none', 'block_size': 256}\" (default: 16 settings)"
    )
    add("--model_kwargs", type=parse_mapping, nargs="+", metavar="JSON", help=text)
    return parser


def work(args: argparse.Namespace) -> None:
    """Measure, and write the results."""
    check_range(args, "documents", minimum=1)
    check_range(args, "masked_share", minimum=0.01, maximum=0.99)
    check_range(args, "seed", minimum=0)
    import torch

    from experiments.common.documents import read_documents
    from experiments.common.masked_readers import read_all
    from experiments.common.masked_text import mask_documents
    from experiments.common.models import tokens_read
    from experiments.common.tokens import choose_documents, encode
    from experiments.extrapolation.loss_report import summarize
    from experiments.extrapolation.variants import SETTINGS, make_readers

    model, tokenizer = load_inputs(args, "AutoModelForMaskedLM")
    unit = tokens_read(model.config, tokenizer)
    check_tokens(args, unit)
    torch.set_num_threads(1)
    readers = make_readers(model, tokenizer, args.model_kwargs or list(SETTINGS), args.tokens[1])
    chosen = choose_documents(read_documents(args.text), tokenizer, args.tokens, args.documents, args.seed)
    documents = mask_documents(encode([d.text for d in chosen], tokenizer), tokenizer, args.masked_share, args.seed)

    def measure() -> dict[str, Any]:
        return summarize(readers, *read_all(readers, documents), documents)

    measure_and_report(args, model, measure, REPORT)


def main(argv: list[str] | None = None) -> int:
    """Run the script; return the exit code."""
    return run_script(work, make_options().parse_args(argv), f"{NAME}.py")


if __name__ == "__main__":
    sys.exit(main())
