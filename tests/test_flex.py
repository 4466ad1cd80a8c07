"""Backend "flex", as far as a CPU goes: torch's operator and its backward, what is compiled, and when it is used.

Against the oracle it is tested with the other backends, and in test_flex_dropout.
"""

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator
from inspect import getclosurevars, isfunction
from itertools import product
from unittest.mock import patch

import pytest
import torch
from draws import draw_bias, draw_bidirectional, draw_case, draw_window, with_gradients
from flex_reference import flex_reference
from test_attention import DRAWS
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import flex_attention as torch_flex

from lsg.modeling import lsg_flex, lsg_flex_mask
from lsg.modeling.lsg_attention import MAX_FLEX_ERROR, KernelKind, flex_error, lsg_attention
from lsg.modeling.lsg_distance import Scoring
from lsg.modeling.lsg_flex import attend_with, compile_flex, dense_flex, run_flex
from lsg.modeling.lsg_flex_mask import make_mask_mod, padded_length, visited_tiles
from lsg.modeling.lsg_pattern import SPARSITY_TYPES, LSGPattern

CPU = KernelKind(torch.device("cpu"), torch.float32, 64)


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


@contextlib.contextmanager
def gradients_on_a_cpu() -> Iterator[None]:
    """Have torch compute gradients by the dense reference of its operator, which it refuses to run on a CPU."""
    with patch.object(torch_flex, "_validate_device", lambda *tensors: None), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
        yield


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("seed", [33, 37, 48])  # heads of 8, as older torch wants powers of 2
def test_the_definition_is_that_of_torch(seed: int, dropout: float) -> None:
    """Output and gradients of its operator, with a bias each, of a window, sparse keys and pinned tokens."""
    case = draw_case(seed, 5 * (seed % 4 == 0), draw_window if seed % 8 == 1 else draw_bidirectional)
    case = *case, draw_bias(seed, case[0].shape[1])

    def attend(*others, **named):
        torch.manual_seed(seed)
        return lsg_attention(*others, **named, dropout=dropout, backend="flex")

    outputs = []
    for kernel in (run_flex, dense_flex, flex_reference):
        with gradients_on_a_cpu(), patch.object(lsg_flex, "flex_kernel", lambda device_type, kernel=kernel: kernel):
            outputs.append(with_gradients(attend, *case))
    for theirs, *ours in zip(*outputs, strict=True):
        assert all((x - theirs).abs().max().item() < 1e-9 for x in ours)


@pytest.fixture
def compiled_flex(monkeypatch) -> Iterator[Counter]:
    """Have "flex" traced as on a GPU, where the result then goes to a compiler; return torch's counts of that."""
    torch._dynamo.reset()
    counters.clear()
    kernel = compile_flex("eager")
    monkeypatch.setattr(lsg_flex, "flex_kernel", lambda device_type: kernel)
    with gradients_on_a_cpu():
        yield counters["stats"]
    torch._dynamo.reset()


def check_compiled_flex(
    batch: int,
    length: int,
    pattern: LSGPattern,
    is_padded: bool = False,
    scoring: Scoring = Scoring(0.25),  # noqa: B008 (it is immutable)
    dtype: torch.dtype = torch.float32,
    trains: bool = False,
) -> None:
    """Compare with the definition; with a gradient if the model trains."""
    front = pattern.num_front_tokens
    case = torch.randn(3, batch, 2, front + length, 16).to(dtype).unbind()
    key_mask = torch.ones(batch, front + length, dtype=torch.bool)
    key_mask[-1, 150:] = False
    results = []
    for kernel in (lsg_flex.flex_kernel("cpu"), dense_flex):
        leaves = [x.clone().requires_grad_(trains) for x in case]
        torch.manual_seed(0)
        with torch.set_grad_enabled(trains), warnings.catch_warnings():
            warnings.filterwarnings("error", message="flex_attention called without torch.compile")
            output = attend_with(kernel, leaves, key_mask if is_padded else None, pattern, scoring)
        results.append([output, *torch.autograd.grad(output.float().square().sum(), leaves)] if trains else [output])
    for ours, theirs in zip(*results, strict=True):
        assert (ours.float() - theirs.float()).norm() < MAX_FLEX_ERROR / 3 * theirs.float().norm()


@pytest.mark.parametrize("is_padded, bias", [(False, None), (True, None), (False, torch.randn(2, 257))])
def test_flex_has_two_kernels_for_all_lengths(
    is_padded: bool, bias: torch.Tensor | None, compiled_flex: Counter
) -> None:
    for length in range(256, 1400, 128 if bias is None else 384):
        check_compiled_flex(2, length, LSGPattern(16, 16, 2), is_padded, Scoring(0.25, 0.0, bias))
    assert compiled_flex["unique_graphs"] == 2  # one for the first length, one for all others


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("trains", [True, False])
def test_kernels_serve_all_lengths_batches_and_questions(trains: bool, dropout: float, compiled_flex: Counter) -> None:
    """Once sizes have changed, nothing is compiled any more: with dropout two kernels a call, in training and else."""
    sizes = [(2, 300, 3), (3, 500, 4), (4, 600, 7), (2, 1100, 9), (5, 260, 30)]
    compiled = []
    for batch, length, question in sizes:
        pattern = LSGPattern(16, 16, 2, num_pinned_tokens=question)
        check_compiled_flex(batch, length, pattern, True, Scoring(0.25, dropout), trains=trains)
        compiled.append(compiled_flex["unique_graphs"])
    assert compiled[-1] == compiled[1] == (4 if dropout else 2)


def test_flex_stays_compiled(compiled_flex: Counter) -> None:
    for kind, dtype in product(("norm", "none"), (torch.float32, torch.bfloat16, torch.float16)):
        for batch, length, is_padded in ((1, 200, False), (1, 300, False), (2, 500, True), (3, 400, False)):
            check_compiled_flex(batch, length, LSGPattern(16, 16, 2, kind), is_padded, dtype=dtype)
    assert compiled_flex["unique_graphs"] > 8  # after which torch would stop to compile


def test_flex_pads_to_few_lengths() -> None:
    lengths = range(513, 65537)
    padded = [padded_length(t, 128) for t in lengths]
    assert all(t <= p <= 1.13 * t + 127 and p % 128 == 0 for t, p in zip(lengths, padded, strict=True))
    assert len(set(padded)) < 64


@pytest.mark.parametrize("kind", SPARSITY_TYPES)
def test_all_tensors_are_on_one_device(kind: str) -> None:
    """On "meta", where torch refuses to mix them; with dropout, a bias, padding and pinned tokens."""
    pattern = LSGPattern(16, 16, 4, kind, 2, num_pinned_tokens=3)
    leaves = [torch.randn(2, 2, 5 + 300, 16, device="meta", requires_grad=True) for _ in range(3)]
    table = torch.randn(2, 9, device="meta", requires_grad=True)
    key_mask = torch.ones(2, 5 + 300, dtype=torch.bool, device="meta")
    devices = set()

    def kernel(*args, **named):
        closures = [named["block_mask"].mask_mod, named["score_mod"]]
        for function in closures:  # what they use, at any depth; torch lets numbers of another device pass
            variables = [] if function is None else getclosurevars(function).nonlocals.values()
            devices.update(x.device.type for x in variables if isinstance(x, torch.Tensor))
            closures += [x for x in variables if isfunction(x)]
        return dense_flex(*args, **named)

    output = attend_with(kernel, leaves, key_mask, pattern, Scoring(0.25, 0.1, table))
    torch.autograd.grad(output.sum(), [*leaves, table])
    assert devices == {"meta"}


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="this torch is built for CPUs only")
@pytest.mark.skipif(
    not hasattr(torch._C, "_ensureCUDADeviceGuardSet"), reason="this torch needs a GPU to trace for one"
)
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_graphs_are_traced_for_a_gpu(dropout: float, monkeypatch) -> None:
    """Without one, and so without gradients, for which torch asks its driver."""
    graphs = []

    def keep_graph(graph, inputs):
        graphs.append(graph)
        return graph.forward

    kernel = compile_flex(aot_autograd(fw_compiler=keep_graph))
    for name in ("pattern_mask", "make_mask_mod", "visited_tiles"):  # which would keep tensors without numbers
        monkeypatch.setattr(lsg_flex_mask, name, getattr(lsg_flex_mask, name).__wrapped__)
    with torch.no_grad(), FakeTensorMode():
        case = [torch.randn(2, 2, 5 + 300, 16, device="cuda", dtype=torch.bfloat16) for _ in range(3)]
        scoring = Scoring(0.25, dropout, torch.randn(2, 9, device="cuda"))
        key_mask = torch.ones(2, 5 + 300, dtype=torch.bool, device="cuda")
        output = attend_with(kernel, case, key_mask, LSGPattern(16, 16, 2, num_pinned_tokens=4), scoring)
    assert output.device.type == "cuda" and len(graphs) == (2 if dropout else 1)
    assert not any("cpu" in str(node.kwargs) for graph in graphs for node in graph.graph.nodes)


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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="FlexAttention has gradients on a GPU only")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("has_dropout", [False, True])
def test_flex_works_on_a_gpu(has_dropout: bool, has_bias: bool, dtype: torch.dtype) -> None:
    kind = KernelKind(torch.device("cuda", 0), dtype, 64, has_bias, has_dropout)
    assert all(flex_error(kind, *case) < MAX_FLEX_ERROR for case in ((1024, False), (1280, False), (1500, True)))


def test_flex_with_lsh_where_nothing_is_padded() -> None:
    """Empty clusters are masked although no token is."""
    pattern = LSGPattern(128, 128, 4, "lsh")
    case = torch.randn(3, 1, 2, 1 + 384, 16, generator=torch.Generator().manual_seed(0))
    flex, blocks = (lsg_attention(*case, None, pattern, backend=name) for name in ("flex", "blocks"))
    assert (flex - blocks).abs().max() < 1e-5
