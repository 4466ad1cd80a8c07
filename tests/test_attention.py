"""The attention against the dense oracle: drawn patterns, lengths, paddings; forward and gradients, in float64."""

import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from inspect import getclosurevars
from itertools import product

import pytest
import torch
from draws import draw_case, with_gradients
from fuzz import PATHS, fuzz
from test_tiled import convolve_all
from torch._dynamo.utils import counters

from lsg.modeling import lsg_sparse
from lsg.modeling.lsg_attention import BACKENDS, MAX_FLEX_ERROR, choose_backend, flex_error, flex_works, lsg_attention
from lsg.modeling.lsg_distance import Scoring
from lsg.modeling.lsg_flex import compile_flex, make_mask_mod, padded_length, visited_tiles
from lsg.modeling.lsg_pattern import BACKEND_NAMES, SPARSITY_TYPES, LSGPattern

DRAWS = 600  # of the settings in tests/fuzz.py


@pytest.mark.parametrize("dtype", [*["float64", "float32"] * 6, "bfloat16", "float16"])
def test_agrees_with_the_oracle(dtype: str, request: pytest.FixtureRequest) -> None:
    """A slice of what tests/fuzz.py draws: every path, layouts of all kinds, forward and gradients."""
    part = request.node.callspec.indices["dtype"]
    warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
    largest, ties, wrong = fuzz(range(24 * part, 24 * part + 24), list(PATHS), dtype)
    assert not wrong
    assert ties < 5 and all(error > 0 for error in largest.values())


def test_norms_of_half_precision_keys_are_those_of_the_whole(monkeypatch) -> None:
    """They are computed chunk by chunk, in single precision."""
    key = torch.randn(2, 3, 50, 8).bfloat16()
    monkeypatch.setattr(lsg_sparse, "NORM_CHUNK", 7)
    assert (lsg_sparse.norms_of(key) - key.float().norm(dim=-1)).abs().max().item() < 1e-5


def test_draws_cover_every_kind() -> None:
    patterns = [draw_case(seed)[4] for seed in range(DRAWS)]
    long = [c[4] for c in map(draw_case, range(DRAWS)) if not c[4].is_dense(c[0].shape[2] - c[4].num_global_tokens)]
    assert len(long) > 300
    for kind in SPARSITY_TYPES[:-1]:
        for is_causal in (False, True):
            assert sum(p.sparsity_type == kind and p.is_causal == is_causal and p.has_sparse for p in long) >= 5
    assert any(p.block_size // p.sparsity_factor % 2 == 1 and p.has_sparse for p in patterns)


@pytest.mark.parametrize("kind", SPARSITY_TYPES)
def test_causal_attention_leaks_nothing_of_the_future(kind: str) -> None:
    pattern = LSGPattern(4, 4, 2, kind, 2, is_causal=True)
    query, key, value = (torch.randn(1, 3, 31, 8, dtype=torch.float64) for _ in range(3))
    output = lsg_attention(query, key, value, None, pattern)
    for position in range(3, 31):
        changed = [x.clone() for x in (query, key, value)]
        for x in changed:
            x[:, :, position:] = torch.randn(1, 3, 31 - position, 8, dtype=torch.float64)
        assert torch.equal(lsg_attention(*changed, None, pattern)[:, :, :position], output[:, :, :position])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", SPARSITY_TYPES)
@pytest.mark.parametrize("backend", ["blocks", "tiled"])
def test_half_precision_has_no_nan(backend: str, kind: str, dtype: torch.dtype) -> None:
    pattern = LSGPattern(4, 4, 2, kind, 1)
    query, key, value = (torch.randn(2, 2, 38, 8).to(dtype).requires_grad_() for _ in range(3))
    key_mask = torch.ones(2, 38, dtype=torch.bool)
    key_mask[0] = False
    output = lsg_attention(query, key, value, key_mask, pattern, backend=backend)
    output.sum().backward()
    assert output.isfinite().all() and output.dtype == dtype
    assert all(x.grad.isfinite().all() for x in (query, key, value))


@pytest.mark.parametrize("backend", ["blocks", "tiled"])
def test_dropout_keeps_the_mean_and_drops_something(backend: str) -> None:
    pattern = LSGPattern(4, 4, 2, "norm", 1)
    query, key, value = (torch.randn(1, 1, 33, 4) for _ in range(3))
    plain = lsg_attention(query, key, value, None, pattern)
    torch.manual_seed(0)
    dropped = torch.stack(
        [lsg_attention(query, key, value, None, pattern, dropout=0.2, backend=backend) for _ in range(2000)]
    )
    assert not torch.equal(dropped[0], dropped[1])
    assert (dropped.mean(0) - plain).abs().max() < 0.1


@pytest.mark.parametrize("backend", ["blocks", "tiled", "tiled with convolutions"])
@pytest.mark.parametrize("seed", range(0, 60, 3))
def test_dropout_is_reproduced_by_its_seed(seed: int, backend: str, monkeypatch) -> None:
    """Also by backward: gradients agree with differences of a function whose seed is fixed."""
    backend, *is_convolved = backend.split(" with ")
    if is_convolved:
        convolve_all(monkeypatch)
    query, key, value, key_mask, pattern, scaling, _ = draw_case(seed)

    def attend(*tensors):
        torch.manual_seed(seed)
        return lsg_attention(*tensors, key_mask, pattern, scaling, dropout=0.4, backend=backend)

    assert torch.equal(attend(query, key, value), attend(query, key, value))
    leaves = [x.clone().requires_grad_() for x in (query, key, value)]
    generator = torch.Generator().manual_seed(seed)
    direction = [torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in leaves]
    weights = torch.randn(query.shape, generator=generator, dtype=query.dtype)
    gradients = torch.autograd.grad(
        (attend(*leaves) * weights).sum(), leaves, allow_unused=True, materialize_grads=True
    )
    slope = sum((g * v).sum() for g, v in zip(gradients, direction, strict=True))
    step = 1e-6
    ends = [
        attend(*(x + sign * step * v for x, v in zip((query, key, value), direction, strict=True))) for sign in (1, -1)
    ]
    difference = ((ends[0] - ends[1]) * weights).sum() / (2 * step)
    assert abs(slope - difference) < 1e-5 * max(1, abs(difference))


def test_the_backend_is_chosen_by_device_and_can_be_named() -> None:
    query = torch.randn(1, 2, 41, 16)
    assert choose_backend(query, Scoring(1.0)) == choose_backend(query, Scoring(1.0, 0.1)) == "tiled"
    assert choose_backend(query.to("meta"), Scoring(1.0)) == "blocks"
    assert set(BACKEND_NAMES) == {"auto", *BACKENDS}
    with pytest.raises(ValueError, match="dropout=0.1 is not allowed with the backend 'flex'"):
        lsg_attention(query, query, query, None, LSGPattern(4, 4, 2), dropout=0.1, backend="flex")


def test_flex_that_does_not_work_is_said_and_replaced(monkeypatch) -> None:
    def broken(*args):
        raise RuntimeError("no compiler")

    monkeypatch.setitem(BACKENDS, "flex", broken)
    said = []
    monkeypatch.setattr(sys.modules["lsg.modeling.lsg_attention"].logger, "warning", said.append)
    assert flex_works.__wrapped__(torch.device("cpu"), torch.float32, 64) is False
    assert said == ['lsg_backend="flex" does not run on cpu, "blocks" is used: no compiler']

    def forgetful(query, key, value, key_mask, *others):
        key_mask = torch.ones(key.shape[0], key.shape[2], dtype=torch.bool) if key_mask is None else key_mask.clone()
        key_mask[:, 257:385] = False
        return BACKENDS["blocks"](query, key, value, key_mask, *others)

    monkeypatch.setitem(BACKENDS, "flex", forgetful)
    assert flex_works.__wrapped__(torch.device("cpu"), torch.bfloat16, 64) is False
    assert "is off by" in said[1]

    monkeypatch.setitem(BACKENDS, "flex", lambda query, *others: query * float("nan"))
    assert flex_works.__wrapped__(torch.device("cpu"), torch.float32, 64) is False


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_flex_may_differ_by_rounding(dtype: torch.dtype, monkeypatch) -> None:
    monkeypatch.setitem(BACKENDS, "flex", BACKENDS["tiled"])  # which rounds elsewhere, and has gradients on a CPU
    assert flex_works.__wrapped__(torch.device("cpu"), dtype, 64) is True
    for length, is_padded in ((1024, False), (1500, True)):
        assert flex_error(torch.device("cpu"), dtype, 64, length, is_padded) < MAX_FLEX_ERROR / 3


def test_flex_is_tried_in_any_mode_and_leaves_the_seed_alone(monkeypatch) -> None:
    monkeypatch.setitem(BACKENDS, "flex", BACKENDS["blocks"])  # which has gradients on a CPU, too
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    with torch.inference_mode():
        assert flex_works.__wrapped__(torch.device("cpu"), torch.float32, 64) is True
        cached = [*visited_tiles.__wrapped__(1024, LSGPattern(), torch.device("cpu"))]
        is_visible = make_mask_mod.__wrapped__(1024, LSGPattern(), torch.device("cpu"))
    assert torch.equal(torch.rand(1), expected)
    cached += [x for x in getclosurevars(is_visible).nonlocals.values() if isinstance(x, torch.Tensor)]
    assert len(cached) == 4 and not any(x.is_inference() for x in cached)


def test_tiles_of_flex_are_those_with_visible_keys() -> None:
    windows = [LSGPattern(b, 0, 1, "none", g, max_distance=w) for b, g, w in ((64, 1, 0), (96, 3, 64), (256, 1, 254))]
    for seed, pattern in enumerate([draw_case(seed)[4] for seed in range(0, DRAWS, 5)] + windows):
        length = padded_length(700 + 5 * seed, pattern.block_size)
        visited, full = visited_tiles(length, pattern, torch.device("cpu"))
        queries, keys = torch.arange(length)[:, None], torch.arange(visited.shape[1] * 128)[None]
        visible = make_mask_mod(length, pattern, torch.device("cpu"))(None, None, queries, keys)
        visible = visible.view(length // 128, 128, -1, 128)
        some, all_ = visible.any(3).any(1), visible.all(3).all(1)  # (query tiles, key tiles)
        assert not (some & ~visited).any() and not (full & ~all_).any(), pattern
        if pattern.sparse_block_size >= pattern.sparse_per_block:  # else the windows leave gaps, which are visited, too
            assert torch.equal(visited, some), pattern
    visited, full = visited_tiles(4096, LSGPattern(), torch.device("cpu"))
    assert full.sum() > 0.5 * visited.sum()


@pytest.fixture
def compiled_flex(monkeypatch) -> Iterator[Counter]:
    """Have "flex" traced as on a GPU, where the result then goes to a compiler; return torch's counts of that."""
    torch._dynamo.reset()
    counters.clear()
    kernel = compile_flex("eager")
    monkeypatch.setattr(sys.modules["lsg.modeling.lsg_flex"], "flex_kernel", lambda device_type: kernel)
    yield counters["stats"]
    torch._dynamo.reset()


def check_compiled_flex(
    batch: int, length: int, is_padded: bool, dtype: torch.dtype, pattern: LSGPattern, bias: torch.Tensor | None = None
) -> None:
    case = torch.randn(3, batch, 2, 1 + length, 16).to(dtype).unbind()
    key_mask = torch.ones(batch, 1 + length, dtype=torch.bool)
    key_mask[-1, 150:] = False
    others = key_mask if is_padded else None, pattern, Scoring(0.25, 0.0, bias)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns when it runs FlexAttention as it is
        ours, theirs = (BACKENDS[name](*case, *others).float() for name in ("flex", "blocks"))
    assert (ours - theirs).norm() < MAX_FLEX_ERROR / 3 * theirs.norm()


@pytest.mark.parametrize("is_padded, bias", [(False, None), (True, None), (False, torch.randn(2, 257))])
def test_flex_has_two_kernels_for_all_lengths(
    is_padded: bool, bias: torch.Tensor | None, compiled_flex: Counter
) -> None:
    for length in range(256, 1400, 128 if bias is None else 384):
        check_compiled_flex(2, length, is_padded, torch.float32, LSGPattern(16, 16, 2), bias)
    assert compiled_flex["unique_graphs"] == 2  # one for the first length, one for all others


def test_flex_stays_compiled(compiled_flex: Counter) -> None:
    for kind, dtype in product(("norm", "none"), (torch.float32, torch.bfloat16, torch.float16)):
        for batch, length, is_padded in ((1, 200, False), (1, 300, False), (2, 500, True), (3, 400, False)):
            check_compiled_flex(batch, length, is_padded, dtype, LSGPattern(16, 16, 2, kind))
    assert compiled_flex["unique_graphs"] > 8  # after which torch would stop to compile


def test_flex_pads_to_few_lengths() -> None:
    lengths = range(513, 65537)
    padded = [padded_length(t, 128) for t in lengths]
    assert all(t <= p <= 1.13 * t + 127 and p % 128 == 0 for t, p in zip(lengths, padded, strict=True))
    assert len(set(padded)) < 64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="FlexAttention has gradients on a GPU only")
@pytest.mark.parametrize("kind", SPARSITY_TYPES)
def test_flex_on_a_gpu(kind: str) -> None:
    pattern = LSGPattern(32, 32, 4, kind, 2)
    for length in (500, 900, 1000):
        case = [torch.randn(2, 4, 2 + length, 32) for _ in range(3)]
        key_mask = torch.ones(2, 2 + length, dtype=torch.bool)
        key_mask[1, 300:] = False
        gradient = torch.randn(2, 4, 2 + length, 32)
        for mask in (None, key_mask):
            theirs = with_gradients(lsg_attention, *case, mask, pattern, 0.2, gradient)
            on_gpu = [x.cuda() for x in case]

            def flex(*args):
                return lsg_attention(*args, backend="flex")

            gpu_mask = None if mask is None else mask.cuda()
            ours = with_gradients(flex, *on_gpu, gpu_mask, pattern, 0.2, gradient.cuda())
            for a, b in zip(ours, theirs, strict=True):
                assert (a.cpu() - b).abs().max() < 2e-2


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"block_size": 0}, "block_size=0 is not allowed: it must be a whole number, at least 1"),
        ({"block_size": True}, "block_size=True"),
        ({"block_size": 12.0}, "block_size=12.0"),
        ({"sparse_block_size": -1}, "sparse_block_size=-1"),
        ({"sparsity_factor": 3}, "sparsity_factor=3 is not allowed: it must divide block_size (128)"),
        ({"sparsity_factor": 0}, "sparsity_factor=0"),
        ({"sparsity_type": "best"}, "choose one of norm, pooling, stride, block_stride, lsh, bos_pooling, none"),
        ({"num_global_tokens": 513}, "at most 512"),
        ({"sparse_block_size": 96}, "a multiple or a divisor of block_size (128)"),
        ({"sparse_block_size": 96, "sparsity_type": "lsh"}, "a multiple or a divisor of block_size (128)"),
        ({"sparse_block_size": 32, "sparsity_factor": 64}, "it must divide sparse_block_size (32)"),
        ({"lsh_num_pre_rounds": -1}, "lsh_num_pre_rounds=-1"),
        ({"lsh_seed": "a"}, "lsh_seed='a'"),
    ],
)
def test_wrong_numbers_are_named(fields: dict, message: str) -> None:
    with pytest.raises(ValueError) as error:
        LSGPattern(**fields)
    assert message in str(error.value)


def test_flex_with_lsh_where_nothing_is_padded() -> None:
    """Empty clusters are masked although no token is."""
    pattern = LSGPattern(128, 128, 4, "lsh")
    case = torch.randn(3, 1, 2, 1 + 384, 16, generator=torch.Generator().manual_seed(0))
    flex, blocks = (lsg_attention(*case, None, pattern, backend=name) for name in ("flex", "blocks"))
    assert (flex - blocks).abs().max() < 1e-5
