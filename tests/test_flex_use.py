"""When the backend "flex" is used: it is tried before, in whatever surroundings a model is called first."""

import sys
from inspect import getclosurevars
from types import SimpleNamespace

import pytest
import torch
from flex_reference import flex_reference
from torch.nn.attention import flex_attention as torch_flex
from torch.utils.checkpoint import checkpoint

from lsg.modeling import lsg_attention as attention
from lsg.modeling import lsg_flex
from lsg.modeling.lsg_attention import BACKENDS, MAX_FLEX_ERROR, KernelKind, flex_error, flex_works, lsg_attention
from lsg.modeling.lsg_distance import Scoring
from lsg.modeling.lsg_flex import run_flex
from lsg.modeling.lsg_flex_mask import make_mask_mod, visited_tiles
from lsg.modeling.lsg_pattern import LSGPattern

CPU = KernelKind(torch.device("cpu"), torch.float32, 64)


def test_flex_that_does_not_work_is_said_and_replaced(monkeypatch) -> None:
    def broken(*args):
        raise RuntimeError("no compiler")

    monkeypatch.setitem(BACKENDS, "flex", broken)
    said = []
    monkeypatch.setattr(sys.modules["lsg.modeling.lsg_attention"].logger, "warning", said.append)
    assert flex_works.__wrapped__(CPU) is False
    kind = "cpu (torch.float32, heads of 64)"
    assert said == [f'lsg_backend="flex" does not run on {kind}, "blocks" is used: no compiler']

    def forgetful(query, key, value, key_mask, *others):
        key_mask = torch.ones(key.shape[0], key.shape[2], dtype=torch.bool) if key_mask is None else key_mask.clone()
        key_mask[:, 257:385] = False
        return BACKENDS["blocks"](query, key, value, key_mask, *others)

    monkeypatch.setitem(BACKENDS, "flex", forgetful)
    assert flex_works.__wrapped__(CPU._replace(dtype=torch.bfloat16)) is False
    assert "is off by" in said[1]

    monkeypatch.setitem(BACKENDS, "flex", lambda query, *others: query * float("nan"))
    assert flex_works.__wrapped__(CPU) is False


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_flex_may_differ_by_rounding(dtype: torch.dtype, monkeypatch) -> None:
    monkeypatch.setitem(BACKENDS, "flex", BACKENDS["tiled"])  # which rounds elsewhere, and has gradients on a CPU
    assert flex_works.__wrapped__(CPU._replace(dtype=dtype)) is True
    for length, is_padded in ((1024, False), (1500, True)):
        assert flex_error(CPU._replace(dtype=dtype), length, is_padded) < MAX_FLEX_ERROR / 3


def test_flex_is_tried_in_any_mode_and_leaves_the_seed_alone(monkeypatch) -> None:
    monkeypatch.setitem(BACKENDS, "flex", BACKENDS["blocks"])  # which has gradients on a CPU, too
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    with torch.inference_mode():
        assert flex_works.__wrapped__(CPU) is True
        cached = [*visited_tiles.__wrapped__(1024, LSGPattern(), torch.device("cpu"))]
        is_visible = make_mask_mod.__wrapped__(1024, LSGPattern(), torch.device("cpu"))
    assert torch.equal(torch.rand(1), expected)
    cached += [x for x in getclosurevars(is_visible).nonlocals.values() if isinstance(x, torch.Tensor)]
    assert len(cached) == 5 and not any(x.is_inference() for x in cached)


def test_dropout_is_tried_too_before_it_is_used(monkeypatch) -> None:
    """The same weights are dropped as by the definition; all but its kernels is in common."""
    kind = CPU._replace(has_dropout=True, has_bias=True)
    monkeypatch.setattr(lsg_flex, "flex_kernel", lambda device_type: flex_reference)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    assert flex_works.__wrapped__(kind) is True
    assert torch.equal(torch.rand(1), expected)

    def wrong_sums(*args, **named):
        output, log_sum = flex_reference(*args, **named)
        return output, log_sum + 0.2 * (named["score_mod"] is not None)

    monkeypatch.setattr(lsg_flex, "flex_kernel", lambda device_type: wrong_sums)
    assert flex_error(kind._replace(has_bias=False), 1024, False) > MAX_FLEX_ERROR


def test_a_gpu_trains_by_flex_where_that_works(monkeypatch) -> None:
    tried = []
    monkeypatch.setattr(attention, "flex_works", lambda kind: tried.append(kind) or kind.dtype == torch.bfloat16)
    query = SimpleNamespace(device=torch.device("cuda", 0), dtype=torch.bfloat16, shape=(1, 2, 5000, 64))
    assert attention.choose_backend(query, Scoring(1.0, 0.1)) == "flex"
    query.dtype = torch.float32
    assert attention.choose_backend(query, Scoring(1.0)) == "blocks"
    assert [(kind.has_dropout, kind.has_bias, kind.head_size) for kind in tried] == [
        (True, False, 64),
        (False, False, 64),
    ]
    query.shape = (1, 2, 5000, 8)
    assert attention.choose_backend(query, Scoring(1.0)) == "blocks" and len(tried) == 2


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_flex_is_tried_in_the_first_checkpointed_layer(use_reentrant: bool, monkeypatch) -> None:
    """Which counts the tensors that are saved for backward, and runs the layer again."""
    monkeypatch.setattr(lsg_flex, "flex_kernel", lambda device_type: flex_reference)
    flex_works.cache_clear()
    kind = KernelKind(torch.device("cpu"), torch.float32, 16, has_dropout=True)

    def layer(x: torch.Tensor) -> torch.Tensor:
        return x.sin() * flex_works(kind)

    leaf = torch.randn(3, requires_grad=True)
    checkpoint(layer, leaf, use_reentrant=use_reentrant).sum().backward()
    assert torch.equal(leaf.grad, leaf.detach().cos())
    flex_works.cache_clear()


def test_flex_is_tried_without_autocast(monkeypatch) -> None:
    monkeypatch.setattr(lsg_flex, "flex_kernel", lambda device_type: flex_reference)
    with torch.autocast("cpu", torch.bfloat16):
        assert flex_error(CPU._replace(has_dropout=True, has_bias=True), 1500, True) < 1e-4


@pytest.mark.parametrize("backend", ["blocks", "tiled", "flex", "auto"])
def test_autocast_makes_dtypes_alike(backend: str, monkeypatch) -> None:
    """Types with rotary positions hand on queries and keys in single precision, and values in half."""
    monkeypatch.setattr(lsg_flex, "flex_kernel", lambda device_type: flex_reference)
    query, key, value = torch.randn(3, 2, 2, 1 + 60, 8, generator=torch.Generator().manual_seed(0))
    expected = lsg_attention(query, key, value, None, LSGPattern(8, 8, 2), backend="blocks")
    with torch.autocast("cpu", torch.bfloat16):
        for length in (61, 15):  # and in full
            parts = query[:, :, :length], key[:, :, :length], value[:, :, :length].bfloat16()
            output = lsg_attention(*parts, None, LSGPattern(8, 8, 2), backend=backend)
            assert output.dtype == torch.bfloat16 and output.shape[2] == length
            if length == 61:
                assert (output - expected).abs().max() < 0.05


def test_the_sum_is_asked_for_in_the_way_of_each_torch(monkeypatch) -> None:
    asked = []

    def attend(*args, **named):
        asked.append(named)
        return "output", SimpleNamespace(lse="sum") if "return_aux" in named else "sum"

    monkeypatch.setattr(torch_flex, "flex_attention", attend)
    monkeypatch.setattr(torch_flex, "AuxRequest", SimpleNamespace, raising=False)
    assert run_flex(*"qkvms", with_log_sum=True) == ("output", "sum") and asked.pop()["return_aux"].lse
    monkeypatch.delattr(torch_flex, "AuxRequest")
    assert run_flex(*"qkvms", with_log_sum=True) == ("output", "sum") and asked.pop() == {"return_lse": True}
