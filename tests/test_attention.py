"""The attention against the dense oracle: drawn patterns, lengths, paddings; forward and gradients, in float64."""

import random
import sys

import pytest
import torch
from oracle import oracle_attention

from lsg import lsg_sparse, lsg_walk, lsg_walk_groups, lsg_walk_products
from lsg.lsg_attention import BACKENDS, choose_backend, flex_works, lsg_attention
from lsg.lsg_flex import padded_length, pattern_visible, visited_tiles
from lsg.lsg_pattern import BACKEND_NAMES, SPARSITY_TYPES, LSGPattern
from lsg.lsg_walk_products import CONVOLVED_BLOCK, BatchedProducts, ConvolvedProducts, choose_products, onednn_is_ahead
from lsg.lsg_walk_scratch import Scratch

DRAWS = 600


def draw_pattern(rng: random.Random) -> LSGPattern:
    """Draw numbers until they form an allowed pattern."""
    while True:
        b = rng.choice([1, 2, 3, 4, 5, 6, 8])
        f = rng.choice([f for f in range(1, b + 1) if b % f == 0])
        s = rng.choice([0, 1, 2, 3, 4, 6, 8, b, 2 * b])
        kind = rng.choice([*SPARSITY_TYPES, None])
        try:
            return LSGPattern(
                b, s, f, kind, rng.choice([0, 1, 1, 2, 5]), rng.random() < 0.4, rng.randrange(3), rng.randrange(99)
            )
        except ValueError:
            continue


def draw_keep(rng: random.Random, n: int, t: int) -> torch.Tensor | None:
    """Draw a padding: none, left, right, whole rows, scattered, or the first token alone."""
    kind = rng.choice(["none", "left", "right", "rows", "scattered", "first"])
    if kind == "none":
        return None
    keep = torch.ones(n, t, dtype=torch.bool)
    for row in range(n):
        length = rng.randrange(0, t + 1)
        if kind == "left":
            keep[row, :length] = False
        elif kind == "right":
            keep[row, length:] = False
        elif kind == "rows":
            keep[row] = row > 0
        elif kind == "scattered":
            keep[row] = torch.tensor([rng.random() < 0.6 for _ in range(t)])
        else:
            keep[row, 0] = False
    return keep


def draw_case(seed: int) -> tuple:
    """Draw everything that a seed stands for: query, key, value, keep, pattern, scaling, gradient of the output."""
    rng = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    pattern = draw_pattern(rng)
    n, h, d = rng.choice([1, 2]), rng.choice([1, 2, 3, 5]), rng.choice([2, 3, 8])
    t = rng.randrange(1, 9 * pattern.block_size + 2)
    shape = (n, h, pattern.num_global_tokens + t, d)
    query, key, value, gradient = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(4))
    return query, key, value, draw_keep(rng, n, shape[2]), pattern, rng.choice([0.3, d**-0.5]), gradient


def with_gradients(function, query, key, value, keep, pattern, scaling, gradient):
    """Run the function; give output and gradients."""
    leaves = [x.clone().requires_grad_() for x in (query, key, value)]
    output = function(*leaves, keep, pattern, scaling)
    return [output, *torch.autograd.grad(output, leaves, gradient, allow_unused=True, materialize_grads=True)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("group", range(20))
def test_agrees_with_the_oracle(group: int, backend: str) -> None:
    size = DRAWS // 20
    for seed in range(group * size, (group + 1) * size):
        *case, gradient = draw_case(seed)
        keep, pattern = case[3], case[4]
        has_gradient = backend != "flex"  # FlexAttention has none on a CPU
        before = [x.clone() for x in case[:3]] + [None if keep is None else keep.clone()]
        if has_gradient:
            ours = with_gradients(lambda *args: lsg_attention(*args, backend=backend), *case, gradient)
            theirs = with_gradients(oracle_attention, *case, gradient)
        else:
            ours, theirs = [lsg_attention(*case, backend=backend)], [oracle_attention(*case)]
        where = f"seed {seed}: {pattern}, shape {tuple(case[0].shape)}"
        for name, a, b in zip(("output", "query", "key", "value"), ours, theirs, strict=False):
            assert (a - b).abs().max().item() < 1e-9, f"{name} of {where}"
        for x, y in zip([*case[:3], keep], before, strict=True):
            assert x is None or torch.equal(x, y), f"changed its argument: {where}"


@pytest.mark.parametrize("group_scores", [1, 500, 3000])
def test_walk_in_groups_of_any_size(group_scores: int, monkeypatch) -> None:
    """Groups of one block, of two or three, and chunks that a row does not fit into."""
    monkeypatch.setattr(lsg_walk_groups, "GROUP_BYTES", group_scores * torch.float64.itemsize)
    monkeypatch.setattr(lsg_walk, "CHUNK", 7)
    for seed in range(150):
        *case, gradient = draw_case(seed)
        ours = with_gradients(lambda *args: lsg_attention(*args, backend="walk"), *case, gradient)
        theirs = with_gradients(oracle_attention, *case, gradient)
        for name, a, b in zip(("output", "query", "key", "value"), ours, theirs, strict=True):
            assert (a - b).abs().max().item() < 1e-9, f"{name} of seed {seed}"


def convolve_all(monkeypatch) -> None:
    """Let "walk" use convolutions for blocks of any size and for any dtype."""
    monkeypatch.setattr(lsg_walk, "choose_products", lambda query, block_size, scratch: ConvolvedProducts(scratch))


@pytest.mark.parametrize("dtype, allowed", [(torch.float64, 1e-9), (torch.float32, 1e-3)], ids=str)
def test_walk_with_convolutions(dtype: torch.dtype, allowed: float, monkeypatch) -> None:
    """In float64 they are torch's own, in float32 those that are used (oneDNN's, where it is)."""
    convolve_all(monkeypatch)
    for seed in range(150):
        *tensors, keep, pattern, scaling, gradient = draw_case(seed)
        case = (*(x.to(dtype) for x in tensors), keep, pattern, scaling, gradient.to(dtype))
        ours = with_gradients(lambda *args: lsg_attention(*args, backend="walk"), *case)
        theirs = with_gradients(oracle_attention, *case)
        for name, a, b in zip(("output", "query", "key", "value"), ours, theirs, strict=True):
            assert (a - b).abs().max().item() < allowed, f"{name} of seed {seed}"


def test_large_blocks_of_float32_are_convolved(monkeypatch) -> None:
    def kind(dtype: torch.dtype, block_size: int) -> type:
        query = torch.empty(1, 1, 1, 1, dtype=dtype)
        return type(choose_products(query, block_size, Scratch(query)))

    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(lsg_walk_products, "onednn_is_ahead", lambda: True)
    assert kind(torch.float32, CONVOLVED_BLOCK) is ConvolvedProducts
    assert kind(torch.float32, CONVOLVED_BLOCK - 1) is BatchedProducts
    assert kind(torch.float64, 512) is kind(torch.bfloat16, 512) is BatchedProducts
    monkeypatch.setattr(lsg_walk_products, "onednn_is_ahead", lambda: False)
    assert kind(torch.float32, 512) is BatchedProducts
    monkeypatch.setattr(lsg_walk_products, "onednn_is_ahead", lambda: True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert kind(torch.float32, 512) is BatchedProducts


@pytest.mark.parametrize(
    "processor, is_ahead",
    [
        ({"avx512_f": True, "cpu_name": "AMD EPYC 9554"}, True),
        ({"avx512_f": True, "cpu_name": "Intel(R) Xeon(R) Platinum 8480C"}, False),
        ({"avx512_f": False, "cpu_name": "AMD EPYC 7763"}, False),
        ({"avx512_f": True}, False),
        (None, False),
    ],
)
def test_onednn_is_ahead_on_amd_alone(processor: dict | None, is_ahead: bool, monkeypatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    if processor is not None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor, raising=False)
    assert onednn_is_ahead.__wrapped__() is is_ahead


@pytest.mark.parametrize("mode", ["eager", "autocast"])
def test_convolutions_leave_memory_as_the_layers_want_it(mode: str, monkeypatch) -> None:
    """Whatever the layout of the queries, and without autocast's rounding in between (but for the global's)."""
    convolve_all(monkeypatch)
    pattern = LSGPattern(CONVOLVED_BLOCK, CONVOLVED_BLOCK, 2)
    rows = torch.randn(3, 1, 1 + 700, 2, 16, generator=torch.Generator().manual_seed(0))
    expected = lsg_attention(*rows.double().transpose(2, 3), None, pattern, backend="blocks")
    for tensors in (rows.transpose(2, 3), rows.transpose(2, 3).contiguous()):
        with torch.autocast("cpu", torch.bfloat16, enabled=mode == "autocast"):
            output = lsg_attention(*tensors, None, pattern, backend="walk")
        assert output.dtype == torch.float32 and output.transpose(1, 2).is_contiguous()
        assert (output - expected)[:, :, pattern.num_global_tokens :].abs().max().item() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("far", [-2000.0, -80.0, 80.0, 2000.0])
def test_walk_with_scores_far_from_zero(far: float, dtype: torch.dtype) -> None:
    *tensors, gradient = torch.randn(4, 1, 3, 1 + 40, 8, generator=torch.Generator().manual_seed(0), dtype=dtype)
    query, key, value = tensors
    query[:, :, ::2, 0], key[..., 0] = far, 1.0  # every second query's scores are about `far`
    case = (query, key, value, None, LSGPattern(4, 8, 2), 1.0, gradient)
    expected = with_gradients(oracle_attention, *case)
    found = with_gradients(lambda *args: lsg_attention(*args, backend="walk"), *case)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).abs().max() <= theirs.abs().max() * (1e-9 if dtype == torch.float64 else 1e-3)


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
@pytest.mark.parametrize("backend", ["blocks", "walk"])
def test_half_precision_has_no_nan(backend: str, kind: str, dtype: torch.dtype) -> None:
    pattern = LSGPattern(4, 4, 2, kind, 1)
    query, key, value = (torch.randn(2, 2, 38, 8).to(dtype).requires_grad_() for _ in range(3))
    keep = torch.ones(2, 38, dtype=torch.bool)
    keep[0] = False
    output = lsg_attention(query, key, value, keep, pattern, backend=backend)
    output.sum().backward()
    assert output.isfinite().all() and output.dtype == dtype
    assert all(x.grad.isfinite().all() for x in (query, key, value))


@pytest.mark.parametrize("backend", ["blocks", "walk"])
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


@pytest.mark.parametrize("backend", ["blocks", "walk", "walk with convolutions"])
@pytest.mark.parametrize("seed", range(0, 60, 3))
def test_dropout_is_reproduced_by_its_seed(seed: int, backend: str, monkeypatch) -> None:
    """Also by backward: gradients agree with differences of a function whose seed is fixed."""
    backend, *is_convolved = backend.split(" with ")
    if is_convolved:
        convolve_all(monkeypatch)
    query, key, value, keep, pattern, scaling, _ = draw_case(seed)

    def attend(*tensors):
        torch.manual_seed(seed)
        return lsg_attention(*tensors, keep, pattern, scaling, dropout=0.4, backend=backend)

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


def test_walk_has_no_dropout_of_nothing_and_nothing_left_of_all() -> None:
    query, key, value = (torch.randn(1, 2, 41, 8) for _ in range(3))
    plain = lsg_attention(query, key, value, None, LSGPattern(4, 4, 2), backend="walk")
    tiny = lsg_attention(query, key, value, None, LSGPattern(4, 4, 2), dropout=1e-9, backend="walk")
    assert torch.equal(plain, tiny)
    assert not lsg_attention(query, key, value, None, LSGPattern(4, 4, 2), dropout=1.0, backend="walk").any()


def test_the_backend_is_chosen_by_device_and_can_be_named() -> None:
    query = torch.randn(1, 2, 41, 16)
    assert choose_backend(query, 0.0) == choose_backend(query, 0.1) == "walk"
    assert choose_backend(query.to("meta"), 0.0) == "blocks"
    assert set(BACKEND_NAMES) == {"auto", *BACKENDS}
    with pytest.raises(ValueError, match="dropout=0.1 is not allowed with the backend 'flex'"):
        lsg_attention(query, query, query, None, LSGPattern(4, 4, 2), dropout=0.1, backend="flex")


def test_flex_that_does_not_work_is_said_and_replaced(monkeypatch) -> None:
    def broken(*args):
        raise RuntimeError("no compiler")

    monkeypatch.setitem(BACKENDS, "flex", broken)
    warnings = []
    monkeypatch.setattr(sys.modules["lsg.lsg_attention"].logger, "warning", warnings.append)
    assert flex_works.__wrapped__(torch.device("cpu")) is False
    assert warnings == ['lsg_backend="flex" does not run on cpu, "blocks" is used: no compiler']


def test_flex_is_tried_in_any_mode_and_leaves_the_seed_alone(monkeypatch) -> None:
    monkeypatch.setitem(BACKENDS, "flex", BACKENDS["blocks"])  # which has gradients on a CPU, too
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    with torch.inference_mode():
        assert flex_works.__wrapped__(torch.device("cpu")) is True
        visited, full = visited_tiles.__wrapped__(1024, LSGPattern(), torch.device("cpu"))
    assert torch.equal(torch.rand(1), expected)
    assert not visited.is_inference() and not full.is_inference()


def test_tiles_of_flex_are_those_with_visible_keys() -> None:
    for seed in range(0, DRAWS, 5):
        pattern = draw_case(seed)[4]
        length = padded_length(700 + seed, pattern.block_size)
        visited, full = visited_tiles(length, pattern, torch.device("cpu"))
        queries, keys = torch.arange(length)[:, None], torch.arange(visited.shape[1] * 128)[None]
        visible = pattern_visible(length, pattern)(None, None, queries, keys)
        visible = visible.view(length // 128, 128, -1, 128)
        some, all_ = visible.any(3).any(1), visible.all(3).all(1)  # (query tiles, key tiles)
        assert not (some & ~visited).any() and not (full & ~all_).any(), pattern
        if pattern.sparse_block_size >= pattern.sparse_per_block:  # else the windows leave gaps, which are visited, too
            assert torch.equal(visited, some), pattern
    visited, full = visited_tiles(4096, LSGPattern(), torch.device("cpu"))
    assert full.sum() > 0.5 * visited.sum()


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
        keep = torch.ones(2, 2 + length, dtype=torch.bool)
        keep[1, 300:] = False
        gradient = torch.randn(2, 4, 2 + length, 32)
        for mask in (None, keep):
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
