#!/usr/bin/env python3
"""Measure the masked-token loss on whole documents that are longer than a masked language model reads."""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository: lsg and experiments

from experiments.common.errors import InputError, check_range
from experiments.common.script import run_script
from experiments.extrapolation import inputs
from lsg.cli.arguments import OneLineParser, parse_mapping

NAME = "masked_loss"
REPORT = "experiments.extrapolation.loss_report"
DESCRIPTION = """Compare, on the same masked tokens of separate long documents, a masked language model on chunks and
on overlapping windows of its own length, with tiled positions and full attention, and converted to LSG. Nothing is
trained. One CPU thread, whose time is measured."""


def make_options() -> OneLineParser:
    """Return the parser of the options."""
    parser = inputs.make_parser(
        DESCRIPTION,
        NAME,
        REPORT,
        default=str(inputs.DEMO),
        help="folder, or name on the Hub, of a masked language model (the demo checkpoint)",
    )
    add = parser.add_argument
    text = "files and folders with documents (.txt, .rst, .md, .pod, .html, also with .gz)"
    add("--text", type=Path, nargs="+", required=True, metavar="PATH", help=text)
    add("--tokens", type=int, nargs=2, default=[1024, 8192], metavar="N", help="of a document (1024 8192)")
    add("--documents", type=int, default=100, metavar="N", help="drawn at random (100)")
    add("--masked_share", type=float, default=0.15, metavar="SHARE", help="fraction of the tokens to mask (0.15)")
    text = (
        "LSG fields of each LSG reader, such as \"{'sparsity_type': 'none', 'block_size': 256}\" (default: 16 settings)"
    )
    add("--model_kwargs", type=parse_mapping, nargs="+", metavar="JSON", help=text)
    add("--name", default=NAME, metavar="NAME", help=f"of the files of results ({NAME})")
    return parser


def work(args: argparse.Namespace) -> None:
    """Measure, and write the results."""
    check_range(args, "documents", minimum=1)
    check_range(args, "masked_share", minimum=0.01, maximum=0.99)
    check_range(args, "seed", minimum=0)
    import torch

    from experiments.common.documents import read_documents
    from experiments.common.models import tokens_read
    from experiments.extrapolation.loss_report import summarize
    from experiments.extrapolation.masked_text import choose_documents, mask_documents
    from experiments.extrapolation.variants import SETTINGS, make_readers, read_all

    model, tokenizer = inputs.load_inputs(args, "AutoModelForMaskedLM")
    unit = tokens_read(model.config, tokenizer)
    if not unit <= args.tokens[0] <= args.tokens[1]:
        least, most = args.tokens
        raise InputError(
            f"--tokens {least} {most} is not allowed: at least {unit}, which the original reads, and sorted"
        )
    torch.set_num_threads(1)
    readers = make_readers(model, tokenizer, args.model_kwargs or list(SETTINGS), args.tokens[1])
    ids = choose_documents(read_documents(args.text), tokenizer, args.tokens, args.documents, args.seed)
    documents = mask_documents(ids, tokenizer, args.masked_share, args.seed)

    def measure() -> dict[str, Any]:
        return summarize(readers, *read_all(readers, documents), documents)

    inputs.measure_and_report(args, model, measure, args.name, REPORT)


def main(argv: list[str] | None = None) -> int:
    """Run the script; return the exit code."""
    return run_script(work, make_options().parse_args(argv), f"{NAME}.py")


if __name__ == "__main__":
    sys.exit(main())
