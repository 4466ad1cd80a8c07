"""The attention against the dense oracle: drawn patterns, lengths, paddings; forward and gradients, in float64."""

import pytest
import torch
from draws import draw_case
from flex_reference import with_flex_reference
from fuzz import PATHS, fuzz
from test_tiled import convolve_all

from lsg.modeling import lsg_sparse
from lsg.modeling.lsg_attention import BACKENDS, choose_backend, lsg_attention
from lsg.modeling.lsg_distance import Scoring
from lsg.modeling.lsg_pattern import BACKEND_NAMES, SPARSITY_TYPES, LSGPattern

DRAWS = 600  # of the settings in tests/fuzz.py


@pytest.mark.parametrize("dtype", [*["float64", "float32"] * 6, "bfloat16", "float16"])
def test_agrees_with_the_oracle(dtype: str, request: pytest.FixtureRequest) -> None:
    """A slice of what tests/fuzz.py draws: every path, layouts of all kinds, forward and gradients."""
    part = request.node.callspec.indices["dtype"]
    largest, ties, wrong = fuzz(range(60 * part, 60 * part + 60), list(PATHS), dtype)
    assert not wrong
    assert ties < 8 and all(error > 0 for error in largest.values())


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


@pytest.mark.parametrize("backend", ["blocks", "tiled", "tiled with convolutions", "flex"])
@pytest.mark.parametrize("seed", range(0, 60, 3))
def test_dropout_is_reproduced_by_its_seed(seed: int, backend: str, monkeypatch) -> None:
    """Also by backward: gradients agree with differences of a function whose seed is fixed."""
    backend, *is_convolved = backend.split(" with ")
    if is_convolved:
        convolve_all(monkeypatch)
    query, key, value, key_mask, pattern, scaling, _ = draw_case(seed)

    def attend(*tensors):
        torch.manual_seed(seed)
        with with_flex_reference():
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
