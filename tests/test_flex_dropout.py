"""Dropout in "flex": its mask, and the attention with it against the dense oracle, forward and gradients."""

import random
from functools import partial
from unittest.mock import patch

import numpy
import pytest
import torch
from draws import draw_bias, draw_bidirectional, draw_case, draw_pattern, draw_window, with_gradients
from flex_reference import with_flex_reference
from oracle import oracle_attention

from lsg.modeling import lsg_flex
from lsg.modeling.lsg_attention import lsg_attention
from lsg.modeling.lsg_flex import DROPOUT_BITS, make_keep, mix
from lsg.modeling.lsg_flex_mask import padded_length
from lsg.modeling.lsg_pattern import LSGPattern


def keep_bits(seed: int, dropout: float, *places: torch.Tensor) -> torch.Tensor:
    """Which weights are kept, for numbers of batch, head, query and key that go together."""
    steps = round(dropout * 2**DROPOUT_BITS)
    return make_keep(torch.tensor(seed, dtype=torch.int32), torch.tensor(steps, dtype=torch.int32))(*places)


def all_places(*sizes: int) -> list[torch.Tensor]:
    return list(torch.meshgrid(*map(torch.arange, sizes), indexing="ij"))


def test_the_hash_is_that_of_unsigned_numbers() -> None:
    """In int32 its products overflow and its shifts would copy the sign: numpy has numbers without one."""
    numbers = torch.randint(-(2**31), 2**31, (10000,), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    numbers[:4] = torch.tensor([0, -1, 2**31 - 1, -(2**31)])
    x = numbers.numpy().view(numpy.uint32)
    x = (x ^ (x >> numpy.uint32(16))) * numpy.uint32(0x7FEB352D)
    x = (x ^ (x >> numpy.uint32(15))) * numpy.uint32(0x846CA68B)
    x = x ^ (x >> numpy.uint32(16))
    assert mix(numbers).dtype == torch.int32
    assert numpy.array_equal(mix(numbers).numpy().view(numpy.uint32), x)


@pytest.mark.parametrize("dropout", [0.1, 0.5, 0.9])
def test_masks_look_drawn(dropout: float) -> None:
    """As many bits as asked for, in all rows and columns, and none that tells of another, within 5 deviations."""
    bits = torch.stack([keep_bits(seed, dropout, *all_places(2, 3, 128, 256)) for seed in (-7, 0, 1, 2**30)]).double()
    share = 1 - dropout
    assert_mean(bits, share)
    for dim in range(5):
        kept = bits.mean([other for other in range(5) if other != dim])
        deviation = (share * dropout * bits.shape[dim] / bits.numel()) ** 0.5
        assert (kept - share).abs().max() < 5 * deviation
        for step in (1, 2, 16, 64, 128):
            if step < bits.shape[dim]:
                both = bits.narrow(dim, step, bits.shape[dim] - step) * bits.narrow(dim, 0, bits.shape[dim] - step)
                assert_mean(both, share**2)
    assert_mean(bits[:, :, :, :, :128] * bits[:, :, :, :, :128].transpose(3, 4), share**2, 2)  # query and key changed


def assert_mean(bits: torch.Tensor, share: float, repeats: int = 1) -> None:
    assert abs(bits.mean() - share) < 5 * (share * (1 - share) * repeats / bits.numel()) ** 0.5


def test_probabilities_are_exact_to_24_bits() -> None:
    places = all_places(1, 1, 64, 64)
    assert keep_bits(0, 0.0, *places).all() and not keep_bits(0, 1.0, *places).any()
    few, more = keep_bits(3, 0.3, *places), keep_bits(3, 0.2, *places)
    assert (more | ~few).all()  # what a higher probability keeps, a lower one keeps, too


def draw_long_case(seed: int) -> tuple:
    """Draw a case that is not attended to in full: a pattern of any kind, some with a window or pinned tokens."""
    while True:
        kind = (draw_pattern, draw_bidirectional, draw_bidirectional, draw_window)[seed % 4]
        case = draw_case(seed, 5 * (seed % 4 == 2), kind)
        if not case[4].is_dense(case[0].shape[2] - case[4].num_front_tokens):
            return case
        seed += 1000


def key_numbers(pattern: LSGPattern, t: int) -> torch.Tensor:
    """The numbers in "flex" of the oracle's keys, globals, pinned, tokens and sparse ones."""
    padded, per_block = padded_length(t, pattern.block_size), pattern.block_size // pattern.sparsity_factor
    num_sparse = padded // pattern.block_size * per_block if pattern.has_sparse else 0
    m = -(-t // pattern.block_size) * per_block if pattern.has_sparse else 0
    front = torch.arange(pattern.num_front_tokens) + padded + num_sparse
    return torch.cat([front, torch.arange(t), padded + torch.arange(m)])


@pytest.mark.parametrize("first", range(0, 240, 40))
def test_attention_with_dropout_is_that_of_the_oracle(first: int) -> None:
    """Drawn masks; outputs and gradients of tokens, as globals and pinned tokens are left to torch's own dropout."""
    for seed in range(first, first + 40):
        *case, gradient = draw_long_case(seed)
        query, pattern = case[0], case[4]
        bias = [draw_bias(seed, query.shape[1])] if seed % 4 in (1, 2) else []
        gradient = gradient.clone()
        gradient[:, :, : (g := pattern.num_front_tokens)] = 0
        dropout, number = random.Random(seed).choice([0.1, 0.3, 0.5, 0.9, 0.99]), 10007 * seed - 2**20
        with with_flex_reference():
            n, h, t = *query.shape[:2], query.shape[2] - g
            places = torch.meshgrid(*map(torch.arange, (n, h, g + t)), key_numbers(pattern, t), indexing="ij")
            factors = keep_bits(number, dropout, places[0], places[1], places[2] - g, places[3]) / (1 - dropout)
            with patch.object(lsg_flex, "draw_seed", lambda device, number=number: torch.tensor(number).int()):
                attend = partial(lsg_attention, backend="flex", dropout=dropout)
                ours = with_gradients(attend, *case, gradient, *bias)
        theirs = with_gradients(partial(oracle_attention, factors=factors), *case, gradient, *bias)
        for name, a, b in zip(("output", "query", "key", "value", "bias"), ours, theirs, strict=False):
            a, b = (x[:, :, g:] if name == "output" else x for x in (a, b))
            assert (a - b).abs().max().item() < 1e-5 * max(1, b.abs().max().item()), (seed, name, dropout, pattern)


def test_the_mean_over_masks_is_attention_without_dropout() -> None:
    """20,000 masks, those of the rows of one batch; with a bias and pinned tokens, whose outputs are drawn by torch."""
    pattern = LSGPattern(4, 4, 2, "norm", 1, num_pinned_tokens=3)
    case = torch.randn(3, 1, 2, 1 + 3 + 25, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bias = torch.randn(2, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plain = lsg_attention(*case, None, pattern, distance_bias=bias)
    torch.manual_seed(0)
    with with_flex_reference():
        rows = (x.expand(20000, -1, -1, -1) for x in case)
        dropped = lsg_attention(*rows, None, pattern, dropout=0.3, backend="flex", distance_bias=bias)
    deviation = dropped.std(0) / len(dropped) ** 0.5
    assert ((dropped.mean(0) - plain[0]).abs() < 5 * deviation + 1e-12).all()
    assert (dropped.std(0) > 0.01).all()


@pytest.mark.parametrize("dropout", [1.0, 0.97])
def test_rows_without_a_kept_key_are_zero_with_finite_gradients(dropout: float) -> None:
    pattern = LSGPattern(2, 2, 2, "norm", 1)
    leaves = [torch.randn(2, 2, 41, 4, requires_grad=True) for _ in range(3)]
    key_mask = torch.ones(2, 41, dtype=torch.bool)
    key_mask[0] = False
    torch.manual_seed(0)
    with with_flex_reference():
        output = lsg_attention(*leaves, key_mask, pattern, dropout=dropout, backend="flex")
        output.square().sum().backward()
    empty = (output == 0).all(-1)
    assert empty[0].all() and empty[1, :, 1:].any() and empty.all() == (dropout == 1)
    assert output.isfinite().all() and all(x.grad.isfinite().all() for x in leaves)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_half_precision_keeps_the_same_weights(dtype: torch.dtype) -> None:
    case = torch.randn(3, 2, 2, 1 + 60, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    pattern = LSGPattern(8, 8, 2)
    outputs = []
    for tensors in (case, case.double()):
        torch.manual_seed(4)
        with with_flex_reference():
            outputs.append(lsg_attention(*tensors, None, pattern, dropout=0.4, backend="flex"))
    assert outputs[0].dtype == dtype
    assert (outputs[0] - outputs[1])[:, :, 1:].abs().max() < {torch.float32: 1e-5}.get(dtype, 0.05)


def test_each_call_drops_others_and_a_seed_repeats_them() -> None:
    case = torch.randn(3, 1, 2, 1 + 60, 8, generator=torch.Generator().manual_seed(0))
    with with_flex_reference():
        torch.manual_seed(4)
        first, second = (lsg_attention(*case, None, LSGPattern(8, 8, 2), dropout=0.4, backend="flex") for _ in range(2))
        torch.manual_seed(4)
        again = lsg_attention(*case, None, LSGPattern(8, 8, 2), dropout=0.4, backend="flex")
    assert torch.equal(first, again) and (first - second).abs().amax((1, 3))[0, 1:].min() > 1e-3
