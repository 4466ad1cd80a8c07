#!/usr/bin/env python3
"""Measure masked-token loss at 1, 2, 4, 8 and 16 times the length that a masked language model was trained on."""

import argparse
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository: lsg and experiments

from experiments.extrapolation import common

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from experiments.extrapolation.masked_text import MaskedText

CHUNKS, FULL = "original on chunks", "full attention, tiled positions"


@dataclass(frozen=True)
class Variant:
    """One way to read a long text; `options` are the LSG fields, empty for the original."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


# beside the grid: what else may be chosen of the package's defaults (norm, b = s = 128, f = 2)
BESIDE = (
    Variant("package defaults (token 0 kept)", {"mask_first_token": False}),
    Variant("package defaults, token 0 masked", {"mask_first_token": True}),
    Variant("package defaults, 16 globals", {"mask_first_token": True, "num_global_tokens": 16}),
)


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


def make_variants(args: argparse.Namespace) -> list[Variant]:
    """List the readers, the original on chunks first.

    Raises:
        InputError: LSG options that do not go together.
    """
    from lsg.lsg_pattern import SPARSITY_TYPES, LSGPattern

    variants = []
    for block_size in args.block_sizes:
        for kind in args.sparsity_types or SPARSITY_TYPES:
            fields = {
                "sparsity_type": kind,
                "block_size": block_size,
                "sparse_block_size": block_size if args.sparse_block_size is None else args.sparse_block_size,
                "sparsity_factor": args.sparsity_factor,
            }
            try:
                LSGPattern(**fields)
            except ValueError as error:
                raise common.InputError(str(error)) from error
            variants.append(Variant(f"{kind}, b={block_size}", {**fields, "mask_first_token": True}))
    return [Variant(CHUNKS), Variant(FULL), *variants, *BESIDE]


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


def read_all(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    text: "MaskedText",
    variants: list[Variant],
    factors: list[int],
) -> dict[str, dict[int, "Tensor"]]:
    """Measure the loss of each masked token, (N,), by variant and length."""
    import torch
    from tqdm import tqdm

    from experiments.extrapolation.models import token_losses, with_tiled_positions
    from lsg_converter import LSGConverter

    lengths = sorted(factor * text.unit for factor in set(factors))
    converter = LSGConverter(max_sequence_length=lengths[-1])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    passes = 1 + (len(variants) - 1) * len(lengths)  # the chunks are the same at every length
    losses: dict[str, dict[int, Tensor]] = {}
    with tqdm(total=passes * len(text.tokens), unit="token", unit_scale=True, mininterval=2) as bar:
        for variant in variants:
            bar.set_description(f"{variant.name:34}")
            if variant.options:
                reader, _ = converter.convert(model, tokenizer, **variant.options)
            else:
                reader = with_tiled_positions(model, lengths[-1]) if variant.name == FULL else model
            reader = reader.to(device)
            if variant.name == CHUNKS:
                losses[CHUNKS] = dict.fromkeys(lengths, token_losses(reader, text, text.unit, bar.update))
            else:
                losses[variant.name] = {n: token_losses(reader, text, n, bar.update) for n in lengths}
    return losses


def measure(args: argparse.Namespace) -> None:
    """Measure, and write the results."""
    check_numbers(args)
    variants = make_variants(args)
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
