"""Attention that depends on distance, sliding windows and biases, against the dense oracle and transformers."""

from types import SimpleNamespace

import pytest
import torch
from draws import draw_bias, draw_bidirectional, draw_case, draw_window, with_gradients
from flex_reference import with_flex_reference
from fuzz import PATHS, forced
from oracle import oracle_attention, softmax_over
from test_models import convert_tiny

from lsg.export import one_is_no_special_size
from lsg.modeling.lsg_attention import lsg_attention, lsg_attention_forward
from lsg.modeling.lsg_pattern import LSGPattern
from lsg.modeling.modeling_lsg_bert import LSGBertConfig


def assert_agrees(path: str, case: tuple, seed: int, *bias: torch.Tensor) -> None:
    """Compare output and gradients of a drawn case, that of the bias included, with those of the oracle."""
    with with_flex_reference(), forced(path, [2**21, 20000, 2000][seed % 3]) as attend:
        ours, theirs = (with_gradients(function, *case, *bias) for function in (attend, oracle_attention))
    for found, expected in zip(ours, theirs, strict=True):
        assert (found - expected).abs().max().item() < 1e-9, (seed, path, case[4])


@pytest.mark.parametrize("path", PATHS)
def test_sliding_windows_are_those_of_the_oracle(path: str) -> None:
    """All memory layouts and paddings; in every fourth case there are pinned tokens, too."""
    for seed in range(200):
        assert_agrees(path, draw_case(seed, 5 * (seed % 4 == 0), draw_window), seed)


@pytest.mark.parametrize("path", PATHS)
def test_a_bias_by_distance_is_that_of_the_oracle(path: str) -> None:
    """All memory layouts, of the bias, too, paddings and kinds of sparse keys; some with pinned tokens or a window."""
    for seed in range(200):
        draw = draw_window if seed % 8 == 1 else draw_bidirectional
        case = draw_case(seed, 5 * (seed % 4 == 0), draw)
        assert_agrees(path, case, seed, draw_bias(seed, case[0].shape[1]))


@pytest.mark.parametrize("w", [0, 9, 70])
@pytest.mark.parametrize("length", [7, 300])
def test_a_layer_with_a_sliding_window_sees_so_many_tokens_on_either_side(length: int, w: int) -> None:
    """transformers hands on w + 1. The sparse keys of the config are for other layers; w may be more than its b."""
    config = LSGBertConfig(block_size=4, sparse_block_size=4, num_global_tokens=2)
    query, key, value = torch.randn(3, 2, 1, 2 + length, 4, dtype=torch.float64)
    key_mask = torch.ones(2, length, dtype=torch.bool)
    key_mask[0, :5] = False  # distances are those of places, as in transformers
    output, _ = lsg_attention_forward(
        SimpleNamespace(config=config), query, key, value, key_mask, 0.3, sliding_window=w + 1
    )
    places = torch.arange(-2, length)
    seen = ((places[:, None] - places).abs() <= w) | (places < 0) | (places < 0)[:, None]
    allowed = torch.cat([torch.ones(2, 2, dtype=torch.bool), key_mask], 1)[:, None, None] & seen
    expected = softmax_over(query, key, value, allowed, 0.3).transpose(1, 2)
    assert (output - expected).abs().max().item() < 1e-9


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"max_distance": -1}, "max_distance=-1 is not allowed: it must be a whole number, at least 0"),
        ({"max_distance": 5}, "max_distance=5 is not allowed: it must be at most block_size (4)"),
        ({"max_distance": 2, "sparsity_type": "norm"}, "there are no sparse keys with it"),
        ({"max_distance": 2, "is_causal": True}, "causal attention has no such limit"),
    ],
)
def test_a_wrong_window_is_named(fields: dict, message: str) -> None:
    with pytest.raises(ValueError) as error:
        LSGPattern(**{"block_size": 4, "sparse_block_size": 4, "sparsity_type": "none", **fields})
    assert message in str(error.value)


@pytest.mark.parametrize("dtype, allowed", [(torch.float32, 1e-5), (torch.bfloat16, 0.02), (torch.float16, 0.01)])
@pytest.mark.parametrize("backend", ["blocks", "tiled"])
def test_a_bias_is_added_up_in_single_precision(backend: str, dtype: torch.dtype, allowed: float) -> None:
    """Its gradient is a sum over all queries and keys, most of them in the two columns of the largest distances."""
    case = torch.randn(4, 2, 2, 1 + 700, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    table = torch.randn(2, 11, generator=torch.Generator().manual_seed(1))
    others = None, LSGPattern(8, 16, 2, "norm"), 0.3

    def attend(*args, **kwargs):
        return lsg_attention(*args, backend=backend, **kwargs)

    found = with_gradients(attend, *case[:3], *others, case[3] + 1, table)
    expected = with_gradients(oracle_attention, *case[:3].double(), *others, (case[3] + 1).double(), table.double())
    assert found[0].dtype == dtype and found[4].dtype == torch.float32
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).norm() < allowed * theirs.norm()


@pytest.mark.parametrize(
    "shape, is_causal, message",
    [
        ((3, 9), False, "it must have the shape (2, 2D + 1), one row for each head"),
        ((2, 8), False, "it must have the shape (2, 2D + 1), one row for each head"),
        ((2, 9), True, "causal attention has no bias by distance"),
    ],
)
def test_a_wrong_bias_is_named(shape: tuple[int, int], is_causal: bool, message: str) -> None:
    case = torch.randn(3, 1, 2, 1 + 40, 8)
    with pytest.raises(ValueError) as error:
        lsg_attention(*case, None, LSGPattern(8, 8, 2, is_causal=is_causal), distance_bias=torch.zeros(shape))
    assert message in str(error.value)


def test_the_bias_of_mpnet_is_that_of_the_original_at_every_distance() -> None:
    """Constant from 128 tokens on; and the original's own, spread over all pairs of tokens, is not formed."""
    dense, ours = convert_tiny("mpnet", "MPNetModel")
    x = torch.zeros(1, 400, 16)
    original = dense.encoder.compute_position_bias(x)[0]  # (h, t, t)
    table = ours.encoder.compute_position_bias(x)
    assert table.shape == (4, 257)
    places = torch.arange(400)
    distances = (places - places[:, None]).clamp(-128, 128) + 128
    assert torch.equal(table[:, distances], original)


class WindowAttention(torch.nn.Module):
    def forward(self, query, key, value, key_mask):
        return lsg_attention(query, key, value, key_mask, LSGPattern(8, 0, 1, "none", max_distance=5))


def test_one_exported_graph_with_a_window_serves_all_lengths() -> None:
    """(One with a bias is exported in test_onnx, MPNet's.)"""

    def draw(length: int) -> tuple[torch.Tensor, ...]:
        key_mask = torch.ones(2, 1 + length, dtype=torch.bool)
        key_mask[1, 1 + length // 2 :] = False
        return *torch.randn(3, 2, 2, 1 + length, 16, generator=torch.Generator().manual_seed(length)), key_mask

    rows, length = torch.export.Dim("rows"), torch.export.Dim("length", max=1000)
    shapes = *[{0: rows, 2: length}] * 3, {0: rows, 1: length}
    attention = WindowAttention()
    with torch.no_grad(), one_is_no_special_size():
        graph = torch.export.export(attention, draw(50), dynamic_shapes=shapes, strict=False).module()
    for tokens in (1, 4, 7, 16, 17, 300):
        case = draw(tokens)
        assert (graph(*case) - attention(*case))[:, :, : 1 + tokens // 2].abs().max().item() < 1e-5
