"""Attention that depends on distance: sliding windows, against the dense oracle and against transformers' meaning."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from draws import draw_case, draw_window, with_gradients
from fuzz import PATHS, forced
from oracle import oracle_attention, softmax_over

from lsg.modeling.lsg_attention import lsg_attention_forward
from lsg.modeling.lsg_pattern import LSGPattern
from lsg.modeling.modeling_lsg_bert import LSGBertConfig


def assert_agrees(path: str, case: tuple, seed: int) -> None:
    """Compare output and gradients of a drawn case with those of the oracle; "flex" has no gradients on a CPU."""
    *arguments, gradient = case
    tile_bytes = [2**21, 20000, 2000][seed % 3]
    with forced(path, tile_bytes) as attend:
        if path == "flex":
            pairs = [(attend(*arguments), oracle_attention(*arguments))]
        else:
            pairs = zip(with_gradients(attend, *case), with_gradients(oracle_attention, *case), strict=True)
        for found, expected in pairs:
            assert (found - expected).abs().max().item() < 1e-9, (seed, path, arguments[4])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("first", range(0, 200, 50))
def test_sliding_windows_are_those_of_the_oracle(path: str, first: int) -> None:
    """All memory layouts and paddings; in every fourth case there are pinned tokens, too."""
    warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
    for seed in range(first, first + 50):
        assert_agrees(path, draw_case(seed, 5 * (seed % 4 == 0), draw_window), seed)


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
