"""Compare every backend with the dense oracle on drawn settings: forward and gradients, all layouts in memory.

    python tests/fuzz.py --configs 2000      # of each path and dtype; the suite runs a slice

Every fourth setting has a sliding window, and every fourth a bias by distance. The oracle computes in float64 on the
same numbers. A setting in which two keys tie, so that rounding decides which one is selected, is left out and counted.
"flex" is computed by FlexAttention's definition, as torch's own has no gradients on a CPU. Exit code 1 if any answer is
wrong.
"""

import argparse
import contextlib
import random
import sys
from collections.abc import Callable, Iterator
from functools import partial
from math import inf
from pathlib import Path
from unittest.mock import patch

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))  # lsg, when run as a script

import oracle
from draws import draw_bias, draw_bidirectional, draw_case, draw_pattern, draw_window, with_gradients
from flex_reference import with_flex_reference

from lsg.modeling import lsg_tiled
from lsg.modeling.lsg_attention import lsg_attention
from lsg.modeling.lsg_tiles import ConvolvedProducts, Products

# path: (backend, the products that "tiled" is made to use)
PATHS = {
    "blocks": ("blocks", None),
    "tiled": ("tiled", Products),
    "tiled with convolutions": ("tiled", ConvolvedProducts),
    "flex": ("flex", None),
}
# dtype: (largest error / largest number, at least 1; smallest relative difference that decides a selection)
TOLERANCES = {
    "float64": (1e-11, 1e-11),
    "float32": (5e-6, 1e-5),
    "bfloat16": (6e-2, 1e-4),
    "float16": (8e-3, 1e-4),
}
NAMES = ("output", "gradient of query", "gradient of key", "gradient of value", "gradient of bias")
KINDS = (draw_pattern, draw_window, draw_pattern, draw_bidirectional)  # the last one with a bias; by seed, in turn


@contextlib.contextmanager
def forced(path: str, tile_bytes: int = lsg_tiled.TILE_BYTES) -> Iterator[Callable[..., torch.Tensor]]:
    """Return the attention of a path, also where this processor would take another one, in tiles of any size."""
    backend, products = PATHS[path]
    choose = lsg_tiled.choose_products if products is None else lambda query, block_size: products
    with contextlib.ExitStack() as patches:
        patches.enter_context(patch.object(lsg_tiled, "choose_products", choose))
        patches.enter_context(patch.object(lsg_tiled, "TILE_BYTES", tile_bytes))
        yield partial(lsg_attention, backend=backend)


def cast(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Convert the numbers and keep the layout, NaN around a slice included."""
    if dtype == x.dtype:
        return x
    if x._base is None:
        return x.to(dtype)
    return x._base.to(dtype).as_strided(x.shape, x.stride(), x.storage_offset())


def check(seed: int, paths: list[str], dtype_name: str) -> dict[str, tuple[float, str]] | None:
    """Compare one drawn setting: largest error over what is allowed, and where it was, by path; None if it is a tie."""
    dtype = getattr(torch, dtype_name)
    allowed, smallest_margin = TOLERANCES[dtype_name]
    *tensors, key_mask, pattern, scaling, gradient = draw_case(seed, draw_pattern=KINDS[seed % len(KINDS)])
    drawn = [draw_bias(seed, tensors[0].shape[1])] if seed % len(KINDS) == 3 else []
    query, key, value, gradient, *bias = (cast(x, dtype) for x in (*tensors, gradient, *drawn))
    given = (query, key, value, key_mask, *bias)
    before = [None if x is None else x.clone() for x in given]
    exact = [x.double() for x in (query, key, value)]
    others = key_mask, pattern, scaling
    oracle.MARGINS.clear()
    theirs = with_gradients(oracle.oracle_attention, *exact, *others, gradient.double(), *(x.double() for x in bias))
    if min(oracle.MARGINS, default=1.0) < smallest_margin:
        return None
    found = {}
    for path in paths:
        sizes = random.Random(seed).choice([(), (2000,), (20000,)])
        with with_flex_reference(), forced(path, *sizes) as attend:
            ours = with_gradients(attend, query, key, value, *others, gradient, *bias)
        errors = [relative_error(a, b, dtype) / allowed for a, b in zip(ours, theirs, strict=True)]
        worst = max(range(len(errors)), key=errors.__getitem__)
        where = f"{path}, {dtype_name}, {NAMES[worst]} of seed {seed}: {pattern}, shape {tuple(query.shape)}"
        found[path] = errors[worst], where
        for x, y in zip(given, before, strict=True):
            if x is not None and not torch.equal(x, y):
                found[path] = inf, f"{where} changed its argument"
    return found


def relative_error(found: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> float:
    """Return the largest difference over the largest number (at least 1); infinity for NaN, a wrong shape or dtype."""
    if found.shape != expected.shape or found.dtype != dtype:
        return inf
    error = (found.double() - expected).abs().max() / expected.abs().max().clamp(min=1)
    return float(error.detach().nan_to_num(inf))


def fuzz(seeds: range, paths: list[str], dtype_name: str) -> tuple[dict[str, float], int, list[str]]:
    """Check the settings of some seeds: the largest error over what is allowed by path, ties, and what is wrong."""
    largest, ties, wrong = dict.fromkeys(paths, 0.0), 0, []
    for seed in tqdm(seeds, desc=dtype_name, disable=None, leave=False):
        found = check(seed, paths, dtype_name)
        ties += found is None
        for path, (error, where) in (found or {}).items():
            largest[path] = max(largest[path], error)
            if error > 1:
                wrong.append(f"{error:.3g} times what is allowed: {where}")
    return largest, ties, wrong


def main() -> int:
    """Run what the command line asks for, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=int, default=2000, help="settings of each path and dtype (2000)")
    parser.add_argument("--first", type=int, default=0, help="first seed (0)")
    parser.add_argument("--paths", nargs="+", choices=PATHS, default=list(PATHS))
    parser.add_argument("--dtypes", nargs="+", choices=TOLERANCES, default=list(TOLERANCES))
    args = parser.parse_args()
    torch.set_num_threads(1)  # the tensors are tiny
    all_wrong: list[str] = []
    print("| dtype | path | settings | ties, left out | wrong | largest error / allowed |\n|---|---|---|---|---|---|")
    for dtype_name in args.dtypes:
        seeds = range(args.first, args.first + args.configs)
        largest, ties, wrong = fuzz(seeds, args.paths, dtype_name)
        for path in args.paths:
            count = sum(f": {path}, " in line for line in wrong)
            row = f"| {dtype_name} | {path} | {args.configs - ties} | {ties} | {count} | {largest[path]:.2g} |"
            print(row, flush=True)
        all_wrong += wrong
    print("\n".join(all_wrong[:20]))
    return int(bool(all_wrong))


if __name__ == "__main__":
    sys.exit(main())
