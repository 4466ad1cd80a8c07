#!/usr/bin/env python3
"""Measure masked-token loss at 1, 2, 4, 8 and 16 times the length that a masked language model was trained on."""

import argparse
import sys
import time
from pathlib import Path
from zlib import crc32

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository: lsg and experiments

from experiments.extrapolation import common


def make_parser() -> common.OneLineParser:
    """Describe the arguments."""
    parser = common.OneLineParser(
        prog="masked_loss.py",
        description="Compare, on the same masked tokens, a masked language model on chunks of its own length, with "
        "tiled positions and full attention, and converted to LSG. Nothing is trained.",
    )
    add = parser.add_argument
    add(
        "--checkpoint",
        default=str(common.DEMO / "roberta-demo"),
        metavar="PATH",
        help="folder, or name on the Hub, of a masked language model (default: the demo checkpoint)",
    )
    add(
        "--text",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="text files in UTF-8, joined (default: the demo checkpoint's held-out text, from the installed packages)",
    )
    factors = [1, 2, 4, 8, 16]
    add("--factors", type=int, nargs="+", default=factors, metavar="N", help="lengths, in original ones (1 2 4 8 16)")
    add("--windows", type=int, default=7, metavar="N", help="windows of the longest length to read, at most (7)")
    add("--masked_share", type=float, default=0.15, metavar="SHARE", help="of the tokens, to be guessed (0.15)")
    add("--seed", type=int, default=0, metavar="N", help="of the choice of masked tokens (0)")
    add(
        "--out",
        type=Path,
        default=common.RESULTS,
        metavar="FOLDER",
        help="for the results (results, beside the script)",
    )
    lsg = parser.add_argument_group("LSG variants: each sparsity type with each block size")
    lsg.add_argument("--sparsity_types", nargs="+", metavar="TYPE", help="(default: all)")
    sizes = [32, 64, 128, 256]
    lsg.add_argument("--block_sizes", type=int, nargs="+", default=sizes, metavar="B", help="(32 64 128 256)")
    lsg.add_argument("--sparse_block_size", type=int, metavar="S", help="(default: as large as the block)")
    lsg.add_argument("--sparsity_factor", type=int, default=2, metavar="F", help="(2)")
    return parser


def check_numbers(args: argparse.Namespace) -> None:
    """Raise InputError for a number out of its bounds."""
    for factor in args.factors:
        common.check_range("factors", factor, 1)
        if max(args.factors) % factor:
            raise common.InputError(
                f"--factors {factor} is not allowed: it must divide the largest, {max(args.factors)}"
            )
    common.check_range("windows", args.windows, 1)
    common.check_range("masked_share", args.masked_share, 0.01, 0.99)
    common.check_range("seed", args.seed, 0)


def measure(args: argparse.Namespace) -> None:
    """Measure, and write the results."""
    check_numbers(args)
    from experiments.extrapolation.variants import make_variants, read_all

    variants = make_variants(args.sparsity_types, args.block_sizes, args.sparse_block_size, args.sparsity_factor)
    common.check_output(args.out)
    texts = None if args.text is None else common.read_texts(args.text)
    from experiments.extrapolation import loss_report
    from experiments.extrapolation.masked_text import mask_texts
    from experiments.extrapolation.models import load_masked_lm, original_length

    model, tokenizer = load_masked_lm(args.checkpoint)
    unit = original_length(model)
    texts = common.demo_texts()[1] if texts is None else texts
    longest = max(args.factors) * unit
    text = mask_texts(texts, tokenizer, unit, longest, args.windows, args.masked_share, args.seed)
    started = time.process_time()
    losses = read_all(model, tokenizer, text, variants, args.factors)
    results = {
        **common.about(args),
        "cpu_minutes": round((time.process_time() - started) / 60, 1),
        "text": {
            "documents": len(texts),
            "tokens": len(text.tokens),
            "masked": len(text.targets),
            "crc32": crc32("".join(texts).encode()),
        },
        "original_length": unit,
        "variants": {variant.name: variant.options for variant in variants},
        "rows": loss_report.make_rows(losses, text),
    }
    common.write_results(args.out, "masked_loss", results, loss_report.tables(results))
    loss_report.plot(results, args.out / "masked_loss.png")


def main(argv: list[str] | None = None) -> int:
    """Run the command; return the exit code."""
    return common.run_script(measure, make_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
