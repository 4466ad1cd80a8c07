"""Time the layers beside full attention: `python -m block_local_attention.benchmark`.

All run in turn, round after round, so that a change of the machine's speed affects all of them. The table shows the
medians, the fastest and slowest round, and the speed relative to the first row.
"""

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from tqdm import tqdm

from block_local_attention import BlockLocalSelfAttention, LSGSelfAttention
from lsg.cli.arguments import OneLineParser
from lsg.cli.streams import open_closed_streams

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def make_attentions(length: int, block_size: int) -> dict[str, Attention]:
    """Return what is compared, by name; without dropout."""
    block = torch.arange(length) // block_size
    banded = (block[:, None] - block).abs() <= 1  # (t, t)
    return {
        "full (scaled_dot_product_attention)": scaled_dot_product_attention,
        "banded mask (scaled_dot_product_attention)": lambda q, k, v: scaled_dot_product_attention(q, k, v, banded),
        "BlockLocalSelfAttention": BlockLocalSelfAttention(block_size, attention_dropout_prob=0.0),
        "LSGSelfAttention, norm, factor 4": LSGSelfAttention(block_size, attention_dropout_prob=0.0, sparsity_factor=4),
    }


def time_once(attention: Attention, inputs: list[Tensor], backward: bool) -> float:
    """Return the seconds of one forward pass, or of forward and backward."""
    leaves = [x.detach().requires_grad_(backward) for x in inputs]
    start = time.perf_counter()
    with torch.set_grad_enabled(backward):
        output = attention(*leaves)
        if backward:
            output.backward(output.detach())
    return time.perf_counter() - start


def measure(attentions: dict[str, Attention], inputs: list[Tensor], backward: bool, rounds: int) -> dict[str, list]:
    """Run all in turn, `rounds` times after one that warms up; return the seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in attentions}
    title = "forward + backward" if backward else "forward"
    for number in tqdm(range(rounds + 1), desc=title, unit="round"):
        for name, attention in attentions.items():
            taken = time_once(attention, inputs, backward)
            if number > 0:
                seconds[name].append(taken)
    return seconds


def make_table(columns: dict[str, dict[str, list[float]]]) -> str:
    """Return the medians in Markdown: seconds (fastest to slowest) and the speed relative to the first row."""
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    names = list(next(iter(columns.values())))
    for name in names:
        cells = []
        for seconds in columns.values():
            median = statistics.median(seconds[name])
            faster = statistics.median(seconds[names[0]]) / median
            spread = f"{min(seconds[name]):.3f} to {max(seconds[name]):.3f}"
            cells.append(f"{median:.3f} s ({spread}), {faster:.1f} x")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return the exit code."""
    open_closed_streams()
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=8192, help="tokens (8192)")
    parser.add_argument("--heads", type=int, default=12, help="heads (12)")
    parser.add_argument("--head_size", type=int, default=64, help="size of a head (64)")
    parser.add_argument("--block_size", type=int, default=128, help="tokens in a block (128)")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds, after one that warms up (5)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (2)")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    generator = torch.Generator().manual_seed(0)
    shape = (1, args.heads, args.length, args.head_size)
    inputs = [torch.randn(shape, generator=generator) for _ in range(3)]
    attentions = make_attentions(args.length, args.block_size)
    columns = {
        name: measure(attentions, inputs, backward, args.rounds)
        for name, backward in (("forward", False), ("forward + backward", True))
    }
    setting = f"{args.heads} heads of {args.head_size}, {args.length} tokens, blocks of {args.block_size}, float32"
    where = f"{platform.machine()} CPU, {args.threads} threads, torch {torch.__version__}"
    head = f"{setting}; {where}; {time.strftime('%Y-%m-%d')}; median of {args.rounds}\n\n"
    parser.write(head + make_table(columns) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
