"""block_local_attention: the snippet, golden layers, a dense oracle of their own, leaks, shapes, the two tools."""

import json
import random
import subprocess
import sys

import pytest
import torch
from draws import draw_key_mask, draw_layout, draw_pattern, with_gradients
from helpers import GOLDEN, ROOT
from oracle import oracle_sparse, softmax_over
from safetensors.torch import load_file

from block_local_attention import BlockLocalSelfAttention, LSGSelfAttention, block_local_attention
from block_local_attention import draw as drawing
from block_local_attention.example_gpt2 import main as generate_with_gpt2
from lsg import SPARSITY_TYPES, LSGPattern

SNIPPET = """
from block_local_attention import *

# batch, num_heads, sequence length, hidden_size
n, h, t, d = 2, 4, 58, 32

Q, K, V = torch.randn(n, h, t, d), torch.randn(n, h, t, d), torch.randn(n, h, t, d)
attention_mask = torch.zeros(n, 1, 1, t).float()

attn = BlockLocalSelfAttention(block_size=16, compute_global_attention=True, is_causal=False, attention_dropout_prob=0.1)
outputs = attn(Q, K, V, attention_mask)
"""  # noqa: E501
DRAWS = 400
LAYERS = {"BlockLocalSelfAttention": BlockLocalSelfAttention, "LSGSelfAttention": LSGSelfAttention}


def test_the_snippet() -> None:
    names = {}
    exec(SNIPPET, names)
    assert names["outputs"].shape == (2, 4, 58, 32) and names["outputs"].isfinite().all()
    assert SNIPPET.strip() in (ROOT / "block_local_attention" / "README.md").read_text()


def golden_cases() -> list[dict]:
    return json.loads((GOLDEN / "layers.json").read_text())["cases"]


@pytest.mark.parametrize("case", golden_cases(), ids=lambda case: case["key"])
def test_golden_layers(case: dict) -> None:
    golden, t = load_file(GOLDEN / "layers.safetensors"), case["length"]
    names = ("block_size", "compute_global_attention", "is_causal", "sparsity_type", "sparsity_factor")
    layer = LAYERS[case["cls"]](**{name: case[name] for name in names if name in case}).eval()
    mask = golden[f"mask/{t}"] if case["masked"] else torch.zeros(2, 1, 1, t)
    found = layer(golden[f"q/{t}"], golden[f"k/{t}"], golden[f"v/{t}"], mask)
    assert (found - golden[f"out/{case['key']}"]).abs().max().item() < 1e-5


def oracle_layer(query, key, value, key_mask, pattern, scaling):
    """The layers' definition over a dense mask: token 0 is the global one, and no sparse key is made of it."""
    n, h, t, _ = query.shape
    b, f, s, causal = pattern.block_size, pattern.sparsity_factor, pattern.sparse_block_size, pattern.is_causal
    has_global, m = pattern.num_global_tokens == 1, b // f
    key_mask = torch.ones(n, t, dtype=torch.bool) if key_mask is None else key_mask
    positions = torch.arange(t)
    past = positions[None] <= positions[:, None]
    if t <= 2 * b:
        seen = key_mask[:, None, None] & (past if causal else torch.ones_like(past))
        return softmax_over(query, key, value, seen, scaling)
    block = positions // b
    near = (block[:, None] - block).abs() <= 1
    if has_global:
        near[:, 0] = True
        if not causal:
            near[0] = True
        else:
            near[0] = positions == 0
    seen = (near & past if causal else near) & key_mask[:, None, None]
    seen = seen.expand(n, h, t, t)
    if pattern.has_sparse:
        sparse_mask = key_mask.clone()
        if has_global:
            sparse_mask[:, 0] = False
        sparse_key, sparse_value, sparse_mask, _ = oracle_sparse(query, key, value, sparse_mask, pattern)
        j, i = torch.arange(sparse_key.shape[2])[None], block[:, None]
        left = ((i - 1) * m - s <= j) & (j < (i - 1) * m)
        right = ((i + 2) * m <= j) & (j < (i + 2) * m + s) & (not causal)
        window = left | right
        if has_global:
            window[0] = False  # the query of the global token sees the tokens themselves
        seen = torch.cat([seen, sparse_mask[:, :, None] & window], -1)
        key, value = torch.cat([key, sparse_key], 2), torch.cat([value, sparse_value], 2)
    return softmax_over(query, key, value, seen, scaling)


def draw_case(seed: int) -> tuple:
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    while (pattern := draw_pattern(rng)).num_global_tokens > 1:
        pass
    n, h, d = rng.choice([1, 2]), rng.choice([1, 2, 3]), rng.choice([1, 2, 3, 8])
    shape = (n, h, rng.randrange(1, 9 * pattern.block_size + 2), d)
    tensors = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(4))
    query, key, value, gradient = (draw_layout(rng, x, place != 1) for place, x in enumerate(tensors))
    return query, key, value, draw_key_mask(rng, n, shape[2]), pattern, d**-0.5, gradient


@pytest.mark.parametrize("group", range(10))
def test_layers_agree_with_their_oracle(group: int) -> None:
    def layer(query, key, value, key_mask, pattern, scaling):
        mask = None if key_mask is None else key_mask[:, None, None]
        return block_local_attention(query, key, value, mask, pattern, scaling)

    for seed in range(group * DRAWS // 10, (group + 1) * DRAWS // 10):
        *case, gradient = draw_case(seed)
        ours = with_gradients(layer, *case, gradient)
        theirs = with_gradients(oracle_layer, *case, gradient)
        for name, a, b in zip(("output", "query", "key", "value"), ours, theirs, strict=True):
            assert (a - b).abs().max().item() < 1e-9, f"{name} of seed {seed}: {case[4]}, {tuple(case[0].shape)}"


@pytest.mark.parametrize("kind", SPARSITY_TYPES)
@pytest.mark.parametrize("has_global", [True, False])
def test_a_causal_layer_leaks_nothing(kind: str, has_global: bool) -> None:
    layer = LSGSelfAttention(4, has_global, True, sparsity_type=kind).eval()
    q, k, v = (torch.randn(1, 2, 29, 8) for _ in range(3))
    output = layer(q, k, v)
    for position in range(1, 29):
        changed = [torch.cat([x[:, :, :position], torch.randn_like(x[:, :, position:])], 2) for x in (q, k, v)]
        assert torch.equal(layer(*changed)[:, :, :position], output[:, :, :position])


@pytest.mark.parametrize("t", [20, 61])
def test_masks_of_every_form_say_the_same(t: int) -> None:
    layer = LSGSelfAttention(8, sparsity_type="pooling").eval()
    q, k, v = (torch.randn(2, 2, t, 8) for _ in range(3))
    key_mask = torch.ones(2, 1, 1, t, dtype=torch.bool)
    key_mask[0, ..., 13:] = False
    expected = layer(q, k, v, key_mask)
    for low in (-torch.inf, torch.finfo(torch.float32).min, -10000.0):
        additive = torch.zeros(2, 1, 1, t).masked_fill(~key_mask, low)
        for mask in (additive, additive.expand(2, 1, t, t), key_mask.expand(2, 1, t, t)):
            before = mask.clone()
            assert torch.equal(layer(q, k, v, mask), expected)
            assert torch.equal(mask, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_rows_that_see_nothing(dtype: torch.dtype) -> None:
    q, k, v = (torch.randn(2, 2, 61, 8).to(dtype).requires_grad_() for _ in range(3))
    mask = torch.zeros(2, 1, 1, 61, dtype=dtype)
    mask[0] = torch.finfo(dtype).min
    for has_global in (True, False):
        output = LSGSelfAttention(8, has_global).eval()(q, k, v, mask)
        output.float().sum().backward()
        assert output.dtype == dtype and output.isfinite().all() and not output[0].any()
        assert all(x.grad.isfinite().all() for x in (q, k, v))


def test_dropout_is_for_training_only() -> None:
    layer = BlockLocalSelfAttention(4, attention_dropout_prob=0.5)
    q, k, v = (torch.randn(1, 2, 30, 8) for _ in range(3))
    assert not torch.equal(layer(q, k, v), layer(q, k, v))
    layer.eval()
    assert torch.equal(layer(q, k, v), layer(q, k, v))


@pytest.mark.parametrize("t", [7, 50])
def test_grouped_queries(t: int) -> None:
    q, k, v = torch.randn(2, 6, t, 8), torch.randn(2, 2, t, 8), torch.randn(2, 2, t, 8)
    layer = LSGSelfAttention(8).eval()
    repeated = layer(q, k.repeat_interleave(3, 1), v.repeat_interleave(3, 1))
    assert torch.equal(layer(q, k, v), repeated)


def test_a_step_of_generation_attends_to_everything() -> None:
    layer = BlockLocalSelfAttention(4, is_causal=True).eval()
    q, k, v = (torch.randn(1, 2, 40, 8) for _ in range(3))
    full = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    for steps in (1, 3):
        assert (layer(q[:, :, -steps:], k, v) - full[:, :, -steps:]).abs().max() < 1e-6


@pytest.mark.parametrize(
    "shapes, mask, message",
    [
        ([(1, 2, 9, 4)] * 2 + [(1, 2, 8, 4)], None, "key and value"),
        ([(1, 2, 9, 4), (1, 2, 9, 3), (1, 2, 9, 3)], None, "head size"),
        ([(1, 3, 9, 4), (1, 2, 9, 4), (1, 2, 9, 4)], None, "heads"),
        ([(1, 2, 9, 4), (1, 2, 8, 4), (1, 2, 8, 4)], None, "more queries than keys"),
        ([(2, 9, 4)] * 3, None, "(n, h, t, d)"),
        ([(1, 2, 9, 4)] * 3, torch.zeros(1, 9), "attention_mask of shape (n, 1, 1 or t, 9)"),
        ([(1, 2, 9, 4)] * 3, torch.zeros(1, 1, 1, 8), "attention_mask of shape (n, 1, 1 or t, 9)"),
        ([(1, 2, 9, 4)] * 3, torch.ones(1, 1, 1, 9).long(), "boolean or floating-point"),
    ],
)
def test_what_does_not_fit_is_said(shapes, mask, message: str) -> None:
    with pytest.raises(ValueError) as error:
        block_local_attention(*(torch.randn(shape) for shape in shapes), mask)
    assert message in str(error.value)


def test_all_parameters_by_place() -> None:
    pattern = LSGSelfAttention(32, False, True, 0.0, "lsh", 2, 16, 3, 5).pattern
    assert pattern == LSGPattern(32, 16, 2, "lsh", 0, is_causal=True, lsh_num_pre_rounds=3, lsh_seed=5)


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="attention_dropout_prob=1.5"):
        BlockLocalSelfAttention(attention_dropout_prob=1.5)
    with pytest.raises(ValueError, match="block_size=0"):
        BlockLocalSelfAttention(0)
    with pytest.raises(ValueError, match="num_global_tokens=2"):
        q = torch.randn(1, 1, 4, 4)
        block_local_attention(q, q, q, pattern=LSGPattern(num_global_tokens=2))


def test_the_gpt2_example(capsys) -> None:
    assert generate_with_gpt2(["--new_tokens", "5"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 5


@pytest.mark.parametrize("kind", SPARSITY_TYPES)
@pytest.mark.parametrize("is_causal", [False, True])
def test_the_drawing_shows_the_pattern(kind: str, is_causal: bool) -> None:
    pattern = LSGPattern(4, 4, 2, kind, 2, is_causal)
    kinds = drawing.kinds_of(pattern, 26)
    assert kinds.shape == (28, 28)
    assert (kinds[2:, :2] == 1).all() and (kinds[2, 2] == 2) and (kinds[2, 6] == (0 if is_causal else 2))
    assert is_causal or (kinds[:2] == 1).all()
    assert (kinds == 3).any() == (kind != "none")
    assert not is_causal or not kinds.triu(1).any()


def test_the_drawing_tool(tmp_path, capsys) -> None:
    pytest.importorskip("matplotlib")
    assert drawing.main(["--out", str(tmp_path / "p.png"), "--block_size", "4", "--is_causal"]) == 0
    assert (tmp_path / "p.png").stat().st_size > 5000
    assert drawing.main(["--out", str(tmp_path / "q.png"), "--sparsity_factor", "3"]) == 1
    assert "must divide block_size (4)" in capsys.readouterr().err
    command = [sys.executable, "-m", "block_local_attention.draw", "--help"]
    assert b"--sparsity_type" in subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout


def test_the_benchmark(capsys) -> None:
    from block_local_attention.benchmark import main

    threads = torch.get_num_threads()
    assert main(f"--length 64 --heads 2 --block_size 8 --rounds 2 --threads {threads}".split()) == 0
    rows = capsys.readouterr().out.strip().splitlines()
    assert len(rows) == 8 and all(" x |" in row for row in rows[4:])
