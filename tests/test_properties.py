"""Rules that hold for all numbers: the plans, ranges and comparisons, against their definitions spelled out plainly."""

import re
from itertools import pairwise
from pathlib import Path
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from lsg import saving
from lsg.embedding_init import global_positions, tile_positions
from lsg.modeling.lsg_packing import plan_packing, unpadded_ranges
from lsg.modeling.lsg_pattern import LSGPattern, plan_tiles

settings.register_profile("lsg", derandomize=True, deadline=None, database=None, max_examples=300)
settings.load_profile("lsg")

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64]
FLOATS += [torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz]
INTEGERS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint64, torch.uint32, torch.uint16, torch.uint8]
DTYPES = [*FLOATS, *INTEGERS, torch.bool]


# ---------------------------------------------------------------------------------------------------- plan_tiles


@st.composite
def plans(draw):
    """Draw the arguments of `plan_tiles`."""
    m, f = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    b = m * f
    s = draw(st.integers(0, 2 * b + 3))
    kind = draw(st.sampled_from(["pooling", "pooling", "none", None]))  # types that allow all of these
    heads, w = draw(st.integers(1, 3)), draw(st.none() | st.integers(0, b))
    kind, is_causal = (kind, draw(st.booleans())) if w is None else ("none", False)
    pattern = LSGPattern(b, s, f, kind, draw(st.integers(0, 3)), is_causal=is_causal, max_distance=w)
    room = draw(st.integers(0, 8)) * heads * b * (pattern.num_global_tokens + 3 * b + 2 * s)
    return draw(st.integers(0, 9 * b)), heads, pattern, max(1, room + draw(st.integers(-1, 1)))


def blocks_of(tile):
    """Return (first token, queries, rows of local keys, rows of each sparse window) of the blocks of a tile, in order.

    The rows are lists of row numbers.
    """
    blocks = []
    for c in range(tile.num_blocks):
        local, *sparse = (
            list(range(w.start + c * w.step, w.start + c * w.step + w.size)) for w in (tile.local, *tile.sparse)
        )
        blocks.append((tile.first_token + c * tile.num_queries, tile.num_queries, local, sparse))
    return blocks


@given(plans())
def test_tiles_hold_each_token_once_and_in_order(plan):
    num_tokens, heads, pattern, max_scores = plan
    blocks = [block for tile in plan_tiles(*plan) for block in blocks_of(tile)]
    tokens = [first + k for first, queries, _, _ in blocks for k in range(queries)]
    assert tokens == list(range(num_tokens))
    assert all(queries == pattern.block_size for _, queries, _, _ in blocks[:-1])


@given(plans())
def test_each_block_sees_the_windows_of_its_place(plan):
    num_tokens, _, pattern, _ = plan
    b, s, m = pattern.block_size, pattern.sparse_block_size, pattern.block_size // pattern.sparsity_factor
    num_blocks = (num_tokens + b - 1) // b
    seen = [(local, sparse) for tile in plan_tiles(*plan) for _, _, local, sparse in blocks_of(tile)]
    assert len(seen) == num_blocks
    for i, (local, sparse) in enumerate(seen):
        reach = b if pattern.max_distance is None else pattern.max_distance
        stop = (i + 1) * b + (0 if pattern.is_causal else reach)
        assert local == list(range(max(0, i * b - reach), min(stop, num_tokens)))
        keys = range(num_blocks * m)
        left = [key for key in keys if (i - 1) * m - s <= key < (i - 1) * m]
        right = [key for key in keys if (i + 2) * m <= key < (i + 2) * m + s]
        if pattern.sparsity_type in (None, "none"):
            left = right = []
        assert sparse == [window for window in (left, [] if pattern.is_causal else right) if window]


def scores(block, plan):
    """Count the scores of one block."""
    _, heads, pattern, _ = plan
    _, queries, local, sparse = block
    return heads * queries * (pattern.num_global_tokens + len(local) + sum(map(len, sparse)))


@given(plans())
def test_tiles_have_no_more_scores_than_allowed(plan):
    for tile in plan_tiles(*plan):
        assert tile.num_blocks == 1 or sum(scores(block, plan) for block in blocks_of(tile)) <= plan[-1]


@given(plans())
def test_blocks_are_parted_only_by_other_windows_or_want_of_room(plan):
    """The windows of neighbours in a tile are equally large, b tokens or b/f sparse keys apart."""
    _, _, pattern, max_scores = plan
    b, m = pattern.block_size, pattern.block_size // pattern.sparsity_factor

    def fits_behind(block, last):
        first, queries, local, sparse = last
        moved = [x + b for x in local], [[x + m for x in window] for window in sparse]
        return block == (first + b, queries, *moved)

    tiles = [blocks_of(tile) for tile in plan_tiles(*plan)]
    for tile in tiles:
        assert all(fits_behind(block, last) for last, block in pairwise(tile))
    for tile, following in pairwise(tiles):
        is_full = sum(scores(block, plan) for block in [*tile, tile[0]]) > max_scores
        assert is_full or not fits_behind(following[0], tile[-1])


# ------------------------------------------------------------------------------------------------ rows and packing


@st.composite
def masks(draw):
    """Draw a mask (n, t): whole rows, and rows from somewhere to somewhere, or empty, with holes or single tokens."""
    n, t = draw(st.integers(1, 4)), draw(st.integers(1, 24))
    key_mask = torch.ones(n, t, dtype=torch.bool)
    for row in key_mask:
        if draw(st.booleans()):
            row[: draw(st.integers(0, t))] = False
            row[draw(st.integers(0, t)) :] = False
            row[draw(st.lists(st.integers(0, t - 1), max_size=2))] = draw(st.booleans())
    return key_mask


def naive_range(row, block_size):
    """Drop blocks of padding from the end, then from the front, one by one."""
    blocks = [range(i, min(i + block_size, len(row))) for i in range(0, len(row), block_size)]
    while blocks and not any(row[i] for i in blocks[-1]):
        blocks.pop()
    while blocks and not any(row[i] for i in blocks[0]):
        blocks.pop(0)
    return (blocks[0].start, blocks[-1].stop) if blocks else (0, 0)


@given(masks(), st.integers(1, 9))
def test_kept_ranges_leave_out_the_blocks_of_padding_at_either_end(key_mask, block_size):
    assert unpadded_ranges(key_mask, block_size) == [naive_range(row, block_size) for row in key_mask.tolist()]


@given(masks(), st.integers(1, 3), st.integers(1, 9), st.booleans())
def test_packing_keeps_what_is_kept_and_has_global_0_elsewhere(key_mask, g, block_size, from_start):
    n, t = key_mask.shape
    ranges = [naive_range(row, block_size) for row in key_mask.tolist()]
    if from_start:
        ranges = [(0, stop) for _, stop in ranges]
    packing = plan_packing(key_mask, key_mask, g, block_size, from_start)
    if all(stop - start == t for start, stop in ranges):
        assert packing is None
        return
    hidden = 1 + torch.arange(n * (g + t) * 2.0).view(n, g + t, 2)
    packed, unpacked = [], hidden[:, :1].expand_as(hidden).clone()
    for row, (start, stop) in enumerate(ranges):
        for place in [*range(g), *range(g + start, g + stop)]:
            packed.append(hidden[row, place].tolist())
            unpacked[row, place] = hidden[row, place]
    assert packing.lengths == [g + stop - start for start, stop in ranges]
    assert packing.shape == (len(packed),) and packing.ndim == 1
    assert packing.pack(hidden).tolist() == [packed]
    restored = packing.unpack(packing.pack(hidden))
    assert torch.equal(restored, unpacked)
    assert torch.equal(restored[:, :g], hidden[:, :g])
    assert torch.equal(restored[:, g:][key_mask], hidden[:, g:][key_mask])


@given(masks(), st.integers(1, 9), st.booleans())
def test_packing_has_a_mask_only_for_rows_that_need_one(key_mask, block_size, from_start):
    packing = plan_packing(key_mask, key_mask, 1, block_size, from_start)
    if packing is None:
        return
    for row, (start, stop), kept in zip(key_mask.tolist(), packing.ranges, packing.key_masks, strict=True):
        if False in row[start:stop]:
            assert kept.tolist() == [row[start:stop]]
        else:
            assert kept is None


# ------------------------------------------------------------------------------------------------------ positions


@given(st.integers(0, 3), st.integers(1, 12), st.integers(0, 40), st.sampled_from([torch.float32, torch.bfloat16]))
def test_tiled_positions_repeat_the_rows_from_the_start_on(start, n, length, dtype):
    table = torch.arange((start + n) * 2.0).view(-1, 2).to(dtype)
    tiled = tile_positions(table, start, length)
    assert tiled.shape == (start + length, 2) and tiled.dtype == dtype
    assert torch.equal(tiled[:start], table[:start])
    for k in range(length):
        assert torch.equal(tiled[start + k], table[start + k % n])


@given(st.integers(1, 5000), st.integers(0, 9))
def test_global_positions_go_round_in_strides_and_meet_each_once(n, power):
    factor = 1 if n < 512 else n // 512
    stride, span = factor * 2**power, 512 * factor
    rounds = [range(offset, span, stride) for offset in range(0, stride, factor)]
    positions = global_positions(n, stride).tolist()
    assert positions == [position for one in rounds for position in one]
    assert sorted(positions) == list(range(0, span, factor))
    assert max(positions) < max(n, 512)


@given(st.integers(1, 5000), st.integers(-3, 6000) | st.integers(0, 12).map(lambda power: 2**power), st.booleans())
def test_global_positions_refuse_uneven_strides_and_name_the_even_ones(n, stride, times_factor):
    factor = 1 if n < 512 else n // 512
    stride *= factor if times_factor else 1
    even = [factor * 2**power for power in range(10)]  # the multiples of factor that divide 512 factor
    if stride in even:
        assert len(global_positions(n, stride)) == 512
        return
    with pytest.raises(ValueError, match=f"global_positional_stride={stride} is not allowed") as error:
        global_positions(n, stride)
    named = re.search("choose one of (.*)", str(error.value))[1]
    assert [int(word) for word in named.split(", ")] == even


# ----------------------------------------------------------------------------------------------------- is_written


def twice(x):
    return x, x


ANY_DTYPE = st.sampled_from(DTYPES)
SIDE = st.integers(0, 4)
SHAPE = st.lists(SIDE, max_size=3).map(tuple)
OTHER_ROWS = st.tuples(SIDE, SIDE, SHAPE).map(lambda drawn: ((drawn[0], *drawn[2]), (drawn[1], *drawn[2])))
PAIRS_OF_SHAPES = st.tuples(SHAPE, SHAPE) | SHAPE.map(twice) | OTHER_ROWS


@st.composite
def tensors(draw, min_side=0):
    """Draw a tensor of any dtype and random bits, NaN more often than these alone give it."""
    dtype = draw(ANY_DTYPE)
    shape = draw(st.lists(st.integers(min_side, 4), max_size=3))
    tensor = torch.zeros(shape, dtype=dtype)
    as_bytes = tensor.view(-1).view(torch.uint8)
    as_bytes[:] = torch.tensor(list(draw(st.binary(min_size=len(as_bytes), max_size=len(as_bytes)))))
    if dtype == torch.bool:
        as_bytes &= 1
    elif dtype in FLOATS and tensor.numel() and draw(st.booleans()):
        tensor.view(-1)[draw(st.integers(0, tensor.numel() - 1))] = float("nan")
    return tensor


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("written") / "model.safetensors"


def is_written(file, written, meant, at_once):
    """Write one tensor, and ask whether the file holds the other."""
    save_file({"before": torch.ones(3), "x": written}, file)
    with mock.patch.object(saving, "COMPARED_AT_ONCE", at_once):
        return saving.is_written(file, "x", meant)


@given(tensor=tensors(), at_once=st.integers(1, 40), is_spread=st.booleans())
def test_a_tensor_equals_what_was_written_of_it(file, tensor, at_once, is_spread):
    meant = torch.stack([tensor, tensor], -1)[..., 0] if is_spread else tensor
    assert is_written(file, tensor, meant, at_once)


@given(tensor=tensors(min_side=1), at_once=st.integers(1, 40), data=st.data())
def test_a_single_bit_is_noticed(file, tensor, at_once, data):
    """That of any number: the sign of a zero and the bits of a NaN, too."""
    changed = tensor.clone()
    place = data.draw(st.integers(0, tensor.numel() * tensor.element_size() - 1))
    bit = 0 if tensor.dtype == torch.bool else data.draw(st.integers(0, 7))
    changed.view(-1).view(torch.uint8)[place] ^= 1 << bit
    assert not is_written(file, changed, tensor, at_once)


@pytest.mark.parametrize("dtype", FLOATS[:4])
def test_neither_minus_zero_nor_another_nan_passes(file, dtype):
    nan = torch.tensor([1.0, float("nan")], dtype=dtype)
    other = nan.clone()
    other.view(torch.uint8)[dtype.itemsize] ^= 1
    assert other.isnan().tolist() == [False, True]
    assert is_written(file, nan, nan, 1) and not is_written(file, other, nan, 1)
    zeros = torch.zeros(2, dtype=dtype)
    assert not is_written(file, zeros, -zeros, 1)


@given(
    shapes=PAIRS_OF_SHAPES, dtypes=st.tuples(ANY_DTYPE, ANY_DTYPE) | ANY_DTYPE.map(twice), at_once=st.integers(1, 40)
)
def test_another_shape_or_dtype_is_noticed(file, shapes, dtypes, at_once):
    """Even if the numbers are the same, or there are none."""
    written, meant = (torch.zeros(shape, dtype=dtype) for shape, dtype in zip(shapes, dtypes, strict=True))
    is_same = shapes[0] == shapes[1] and dtypes[0] == dtypes[1]
    assert is_written(file, written, meant, at_once) == is_same
