"""Draw which keys each query attends to: `python -m block_local_attention.draw --block_size 4 --out pattern.png`.

The picture shows what the attention computes: with equal scores and one value dimension per key, the output of a query
is positive for the keys that it attends to.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

from lsg.cli.arguments import OneLineParser
from lsg.cli.streams import open_closed_streams, write_error_line, write_stdout
from lsg.errors import one_line
from lsg.modeling.lsg_attention import lsg_attention
from lsg.modeling.lsg_pattern import SPARSITY_TYPES, LSGPattern

KINDS = ("none", "global", "local", "sparse")
COLORS = ("#ffffff", "#1f4e9c", "#8ac4e8", "#f0a202")


def attended(pattern: LSGPattern, num_tokens: int, seed: int) -> Tensor:
    """Return which keys each query attends to, boolean (g + t, g + t); a mean counts as all of its tokens."""
    length = pattern.num_global_tokens + num_tokens
    generator = torch.Generator().manual_seed(seed)
    key = torch.randn(1, 1, length, length, generator=generator)  # different keys, as "norm" and "lsh" choose by them
    value = torch.eye(length)[None, None]
    output = lsg_attention(torch.zeros_like(key), key, value, None, pattern)
    return output[0, 0] > 0


def kinds_of(pattern: LSGPattern, num_tokens: int, seed: int = 0) -> Tensor:
    """Return the kind of each pair of query and key: indices into KINDS, (g + t, g + t)."""
    g, b = pattern.num_global_tokens, pattern.block_size
    attends = attended(pattern, num_tokens, seed)
    position = torch.arange(g + num_tokens)
    is_global = (position < g)[:, None] | (position < g)
    block = torch.div(position - g, b, rounding_mode="floor")
    is_local = (block[:, None] - block).abs() <= 1
    if pattern.is_dense(num_tokens):
        is_local = torch.ones_like(is_local)
    kinds = torch.where(is_global, 1, torch.where(is_local, 2, 3))
    return kinds * attends


def draw(pattern: LSGPattern, num_tokens: int, out: str | Path, seed: int = 0) -> None:
    """Draw a pattern over `num_tokens` tokens into the file `out`.

    Raises:
        ImportError: matplotlib is missing; the message says how to install it.
    """
    try:
        import matplotlib
    except ImportError as error:
        how = '`pip install -e ".[plot]"`, or `pip install "lsg-converter[plot]"`'
        raise ImportError(f"drawing needs matplotlib; install it with {how}: {error}") from error

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    kinds = kinds_of(pattern, num_tokens, seed)
    size = len(kinds)
    figure, axes = pyplot.subplots(figsize=(7, 7.6), layout="constrained")
    axes.pcolormesh(kinds.flip(0), cmap=ListedColormap(COLORS), vmin=0, vmax=3, edgecolors="#d8d8d8", linewidth=0.4)
    g, b = pattern.num_global_tokens, pattern.block_size
    for edge in range(g, size + 1, b):
        axes.axvline(edge, color="#707070", linewidth=0.9)
        axes.axhline(size - edge, color="#707070", linewidth=0.9)
    axes.set(aspect="equal", xticks=[], yticks=[], xlabel="keys", ylabel="queries")
    sparsity = f"{pattern.sparsity_type}, factor {pattern.sparsity_factor}" if pattern.has_sparse else "none"
    causal = "causal, " if pattern.is_causal else ""
    axes.set_title(f"{g} global tokens, {num_tokens} tokens in blocks of {b}, {causal}sparsity {sparsity}")
    handles = [Patch(facecolor=c, edgecolor="#707070", label=k) for k, c in zip(KINDS[1:], COLORS[1:], strict=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=12)
    figure.savefig(out, dpi=110)
    pyplot.close(figure)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return the exit code."""
    parser = OneLineParser(
        prog="python -m block_local_attention.draw",
        description="Draw which keys each query of LSG attention attends to: global, local and sparse ones.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--tokens", type=int, default=32, help="tokens of the sequence")
    parser.add_argument("--block_size", type=int, default=4, help="tokens in a block")
    parser.add_argument("--sparse_block_size", type=int, help="sparse keys on either side (default: the block size)")
    parser.add_argument("--sparsity_factor", type=int, default=2, help="tokens per sparse key")
    parser.add_argument("--sparsity_type", choices=SPARSITY_TYPES, default="norm", help="how sparse keys are made")
    parser.add_argument("--num_global_tokens", type=int, default=1, help="global tokens in front")
    parser.add_argument("--is_causal", action="store_true", help="a token attends only to tokens up to itself")
    parser.add_argument("--seed", type=int, default=0, help="of the random keys, by which norm and lsh choose")
    parser.add_argument("--out", type=Path, required=True, help="file of the picture, such as pattern.png")
    open_closed_streams()
    args = parser.parse_args(argv)
    sparse = args.block_size if args.sparse_block_size is None else args.sparse_block_size
    try:
        pattern = LSGPattern(
            args.block_size, sparse, args.sparsity_factor, args.sparsity_type, args.num_global_tokens, args.is_causal
        )
        if not 1 <= args.tokens <= 512:
            raise ValueError(f"tokens={args.tokens} is not allowed: it must be within 1 and 512")
        draw(pattern, args.tokens, args.out, args.seed)
    except (ValueError, OSError, ImportError) as error:
        write_error_line(parser.prog, f"error: {one_line(error)}")
        return 1
    if why := write_stdout(f"Made {args.out}\n"):
        write_error_line(
            parser.prog, f"{one_line(args.out)} was written, but standard output cannot be written: {one_line(why)}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
