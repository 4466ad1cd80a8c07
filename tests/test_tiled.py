"""What the backend "tiled" has of its own: groups of any size, two kinds of products, softmax taken apart."""

import pytest
import torch
from draws import draw_case, with_gradients
from fuzz import forced
from oracle import oracle_attention

from lsg.modeling import lsg_tiled, lsg_tiles
from lsg.modeling.lsg_attention import lsg_attention
from lsg.modeling.lsg_pattern import SPARSITY_TYPES, LSGPattern
from lsg.modeling.lsg_tiles import (
    CONVOLVED_BLOCK,
    ConvolvedProducts,
    Products,
    choose_products,
    onednn_is_ahead,
)


@pytest.mark.parametrize("tile_scores", [1, 500, 3000])
def test_tiles_of_any_size(tile_scores: int, monkeypatch) -> None:
    """Tiles of one block, of two or three."""
    monkeypatch.setattr(lsg_tiled, "TILE_BYTES", tile_scores * torch.float64.itemsize)
    for seed in range(150):
        *case, gradient = draw_case(seed)
        ours = with_gradients(lambda *args: lsg_attention(*args, backend="tiled"), *case, gradient)
        theirs = with_gradients(oracle_attention, *case, gradient)
        for name, a, b in zip(("output", "query", "key", "value"), ours, theirs, strict=True):
            assert (a - b).abs().max().item() < 1e-9, f"{name} of seed {seed}"


def convolve_all(monkeypatch) -> None:
    """Let "tiled" use convolutions for blocks of any size and for any dtype."""
    monkeypatch.setattr(lsg_tiled, "choose_products", lambda query, block_size: ConvolvedProducts)


@pytest.mark.parametrize("layout", ["(n, h, d, t)", "(h, n, t, d)", "expanded"])
@pytest.mark.parametrize("head_size", [1, 16])
@pytest.mark.parametrize("path", ["tiled", "tiled with convolutions"])
def test_gradients_of_any_layout(path: str, head_size: int, layout: str) -> None:
    """Large blocks in float32, as a convolution, a transposed product or a sum behind the attention sends them."""
    pattern = LSGPattern(CONVOLVED_BLOCK, CONVOLVED_BLOCK, 2, num_global_tokens=0)
    *case, gradient = torch.randn(4, 1, 2, 700, head_size, generator=torch.Generator().manual_seed(0))
    gradient = {
        "(n, h, d, t)": gradient.mT.contiguous().mT,
        "(h, n, t, d)": gradient.transpose(0, 1).contiguous().transpose(0, 1),
        "expanded": gradient[:, :, :1].expand_as(gradient),
    }[layout]
    others = None, pattern, head_size**-0.5
    with forced(path) as attend:
        ours = with_gradients(attend, *case, *others, gradient)
    exact = (x.double() for x in case)
    theirs = with_gradients(lambda *args: lsg_attention(*args, backend="blocks"), *exact, *others, gradient.double())
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() < 1e-5 * b.abs().max()


def test_large_blocks_of_float32_are_convolved(monkeypatch) -> None:
    def kind(dtype: torch.dtype, block_size: int) -> type:
        query = torch.empty(1, 1, 1, 1, dtype=dtype)
        return choose_products(query, block_size)

    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(lsg_tiles, "onednn_is_ahead", lambda: True)
    assert kind(torch.float32, CONVOLVED_BLOCK) is ConvolvedProducts
    assert kind(torch.float32, CONVOLVED_BLOCK - 1) is Products
    assert kind(torch.float64, 512) is kind(torch.bfloat16, 512) is Products
    monkeypatch.setattr(lsg_tiles, "onednn_is_ahead", lambda: False)
    assert kind(torch.float32, 512) is Products
    monkeypatch.setattr(lsg_tiles, "onednn_is_ahead", lambda: True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert kind(torch.float32, 512) is Products


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
    """Whatever the layout of the queries, and without autocast's rounding in between."""
    convolve_all(monkeypatch)
    pattern = LSGPattern(CONVOLVED_BLOCK, CONVOLVED_BLOCK, 2)
    rows = torch.randn(3, 1, 1 + 700, 2, 16, generator=torch.Generator().manual_seed(0))
    expected = lsg_attention(*rows.double().transpose(2, 3), None, pattern, backend="blocks")
    for tensors in (rows.transpose(2, 3), rows.transpose(2, 3).contiguous()):
        with torch.autocast("cpu", torch.bfloat16, enabled=mode == "autocast"):
            output = lsg_attention(*tensors, None, pattern, backend="tiled")
        assert output.dtype == torch.float32 and output.transpose(1, 2).is_contiguous()
        assert (output - expected).abs().max().item() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("far", [-2000.0, -80.0, 80.0, 2000.0])
def test_tiled_with_scores_far_from_zero(far: float, dtype: torch.dtype) -> None:
    *tensors, gradient = torch.randn(4, 1, 3, 1 + 40, 8, generator=torch.Generator().manual_seed(0), dtype=dtype)
    query, key, value = tensors
    query[:, :, ::2, 0], key[..., 0] = far, 1.0  # every second query's scores are about `far`
    case = (query, key, value, None, LSGPattern(4, 8, 2), 1.0, gradient)
    expected = with_gradients(oracle_attention, *case)
    found = with_gradients(lambda *args: lsg_attention(*args, backend="tiled"), *case)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).abs().max() <= theirs.abs().max() * (1e-9 if dtype == torch.float64 else 1e-3)


def test_tiled_has_no_dropout_of_nothing_and_nothing_left_of_all() -> None:
    query, key, value = (torch.randn(1, 2, 41, 8) for _ in range(3))
    plain = lsg_attention(query, key, value, None, LSGPattern(4, 4, 2), backend="tiled")
    tiny = lsg_attention(query, key, value, None, LSGPattern(4, 4, 2), dropout=1e-9, backend="tiled")
    assert torch.equal(plain, tiny)
    assert not lsg_attention(query, key, value, None, LSGPattern(4, 4, 2), dropout=1.0, backend="tiled").any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("path", ["tiled", "tiled with convolutions"])
@pytest.mark.parametrize("scaling, dropout", [(0.0, 0.0), (0.3, 1.0), (0.0, 1.0)])
def test_a_factor_of_zero_leaves_nothing_of_what_was_there(
    scaling: float, dropout: float, path: str, dtype: torch.dtype, monkeypatch
) -> None:
    """Products with a factor of 0 are 0, not what the buffers held before."""
    monkeypatch.setattr(torch, "empty", lambda *size, dtype=None, device=None: torch.full(size, torch.nan).to(dtype))
    *case, gradient = torch.randn(4, 1, 2, 41, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    others = None, LSGPattern(4, 4, 2), scaling
    with forced(path) as attend:
        found = with_gradients(lambda *a: attend(*a, dropout=dropout), *case, *others, gradient)
    if dropout == 1:
        assert not any(x.any() for x in found)
        return
    exact = (x.double() for x in case)
    expected = with_gradients(lambda *a: lsg_attention(*a, backend="blocks"), *exact, *others, gradient.double())
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() < 0.02 * b.abs().max().clamp(min=1)


@pytest.mark.parametrize("backend", ["blocks", "tiled"])
@pytest.mark.parametrize("kind", SPARSITY_TYPES)
@pytest.mark.parametrize("mode", ["eager", "autocast"])
def test_float16_with_large_values(mode: str, kind: str, backend: str) -> None:
    """Scores beyond float16's range, which scaled_dot_product_attention takes, too."""
    *case, gradient = torch.randn(4, 1, 2, 1 + 64, 64, generator=torch.Generator().manual_seed(0)).half()
    query, key, value = (100 * x for x in case)
    others = None, LSGPattern(8, 8, 2, kind), 64**-0.5

    def attend(*args):
        with torch.autocast("cpu", torch.float16, enabled=mode == "autocast"):
            return lsg_attention(*args, backend=backend)

    output, *gradients = with_gradients(attend, query, key, value, *others, gradient)
    exact = (x.double() for x in (query, key, value))
    expected = with_gradients(lambda *a: lsg_attention(*a, backend="blocks"), *exact, *others, gradient.double())
    assert (output - expected[0]).norm() < 0.02 * expected[0].norm()
    assert (gradients[2] - expected[3]).norm() < 0.02 * expected[3].norm()
    assert all(x.isfinite().all() for x in gradients)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_nothing_of_the_size_of_the_scores_is_saved(dropout: float) -> None:
    """Neither those of the tokens nor those of many globals."""
    case = [x.requires_grad_() for x in torch.randn(3, 1, 2, 64 + 512, 8)]
    saved = []

    def pack(x: torch.Tensor) -> torch.Tensor:
        saved.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        output = lsg_attention(*case, None, LSGPattern(32, 32, 2, num_global_tokens=64), None, dropout, "tiled")
    assert saved and max(saved) <= case[0].numel()
    output.sum().backward()


def test_gradients_of_gradients_are_refused() -> None:
    """They would be wrong in silence: the tokens' part counts as constant."""
    case = [x.requires_grad_() for x in torch.randn(3, 1, 2, 1 + 64, 8)]
    output = lsg_attention(*case, None, LSGPattern(8, 8, 2), backend="tiled")
    with pytest.raises(RuntimeError, match='differentiated once; choose lsg_backend="blocks"'):
        torch.autograd.grad(output.sum(), case, create_graph=True)


@pytest.mark.parametrize("kind", SPARSITY_TYPES)
@pytest.mark.parametrize("backend", ["blocks", "tiled"])
def test_a_mask_of_one_row_is_that_of_all(backend: str, kind: str) -> None:
    case = torch.randn(3, 3, 2, 1 + 43, 8)
    key_mask = torch.rand(1, 44) < 0.7
    pattern = LSGPattern(8, 8, 2, kind)
    one, all_rows = (
        lsg_attention(*case, mask, pattern, backend=backend) for mask in (key_mask, key_mask.expand(3, -1))
    )
    assert torch.equal(one, all_rows)
