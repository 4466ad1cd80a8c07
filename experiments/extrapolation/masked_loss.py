#!/usr/bin/env python3
"""Measure masked-token loss at 1, 2, 4, 8 and 16 times the length that a masked language model was trained on."""

import argparse
import sys
from pathlib import Path
from typing import Any
from zlib import crc32

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository: lsg and experiments

from experiments.common.errors import InputError, check_range
from experiments.common.script import run_script
from experiments.extrapolation import inputs
from lsg.cli.arguments import OneLineParser

REPORT = "experiments.extrapolation.loss_report"
DESCRIPTION = """Compare, on the same masked tokens, a masked language model on chunks of its own length, with tiled
positions and full attention, and converted to LSG. Nothing is trained."""


def make_options() -> OneLineParser:
    """Return the parser of the options."""
    parser = inputs.make_parser(
        DESCRIPTION,
        "masked_loss",
        REPORT,
        default=str(inputs.DEMO),
        help="folder, or name on the Hub, of a masked language model (the demo checkpoint)",
    )
    add, factors, sizes = parser.add_argument, [1, 2, 4, 8, 16], [32, 64, 128, 256]
    add("--factors", type=int, nargs="+", default=factors, metavar="N", help="multiples of its length (1 2 4 8 16)")
    add("--windows", type=int, default=7, metavar="N", help="at most N windows of the longest length (7)")
    add("--masked_share", type=float, default=0.15, metavar="SHARE", help="fraction of the tokens to mask (0.15)")
    add = parser.add_argument_group("LSG variants: each sparsity type with each block size").add_argument
    add("--sparsity_types", nargs="+", metavar="TYPE", help="(default: all)")
    add("--block_sizes", type=int, nargs="+", default=sizes, metavar="B", help="(32 64 128 256)")
    add("--sparse_block_size", type=int, metavar="S", help="(default: the block size)")
    add("--sparsity_factor", type=int, default=2, metavar="F", help="(2)")
    return parser


def work(args: argparse.Namespace) -> None:
    """Measure, and write the results."""
    check_range(args, "factors", "windows", minimum=1)
    check_range(args, "masked_share", minimum=0.01, maximum=0.99)
    check_range(args, "seed", minimum=0)
    for factor in args.factors:
        if max(args.factors) % factor:
            raise InputError(f"--factors {factor} is not allowed: it must divide the largest, {max(args.factors)}")
    from experiments.common.models import tokens_read
    from experiments.extrapolation.loss_report import make_rows
    from experiments.extrapolation.masked_text import mask_tokens, whole_windows
    from experiments.extrapolation.variants import make_variants, read_all

    variants = make_variants(args.sparsity_types, args.block_sizes, args.sparse_block_size, args.sparsity_factor)
    model, tokenizer, given = inputs.load_inputs(args, "AutoModelForMaskedLM")
    texts = inputs.demo_texts()[1] if given is None else given
    unit = tokens_read(model.config)
    tokens = whole_windows(texts, tokenizer, max(args.factors) * unit, args.windows)
    text = mask_tokens(tokens, tokenizer, unit, args.masked_share, args.seed)

    def measure() -> dict[str, Any]:
        losses = read_all(model, tokenizer, text, variants, args.factors)
        return {
            "text": {
                "documents": len(texts),
                "tokens": len(text.tokens),
                "masked": len(text.targets),
                "crc32": crc32("".join(texts).encode()),
            },
            "original_length": unit,
            "variants": {variant.name: variant.options for variant in variants},
            "rows": make_rows(losses, text),
        }

    inputs.measure_and_report(args, model, measure, "masked_loss", REPORT)


def main(argv: list[str] | None = None) -> int:
    """Run the script; return the exit code."""
    return run_script(work, make_options().parse_args(argv), "masked_loss.py")


if __name__ == "__main__":
    sys.exit(main())
