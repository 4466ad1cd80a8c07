"""Types with rotary positions: the same as the dense original with globals at position 0 and masks of the pattern."""

import pytest
import torch
from helpers import ENCODERS, EXACT, ROTARY, architecture_of, load_dense, load_tokenizer, make_inputs
from test_models import convert, convert_tiny
from transformers import DynamicCache

from lsg import ConversionError, LSGConverter
from lsg.embedding_tables import find_tables

HERE = [name for name in ENCODERS if name in ROTARY]
BLOCK, GLOBALS = 16, 3


def visible(key_mask: torch.Tensor, max_distance: int | None, pinned: int = 0) -> torch.Tensor:
    """Which of [globals | t tokens] sees which, (n, 1, g + t, g + t): blocks side by side, or a sliding window.

    The first tokens may be pinned: all others see them, and they each other.
    """
    t = key_mask.shape[1]
    place = torch.arange(t) - pinned
    near = (place[:, None] // BLOCK - place // BLOCK).abs() <= 1
    if max_distance is not None:
        near = (place[:, None] - place).abs() <= max_distance
    near[:, :pinned], near[:pinned] = True, torch.arange(t) < pinned
    seen = torch.ones(len(key_mask), GLOBALS + t, GLOBALS + t, dtype=torch.bool)
    seen[:, GLOBALS:, GLOBALS:] = near
    seen[:, GLOBALS : GLOBALS + pinned, :GLOBALS] = False
    seen[:, :, GLOBALS:] &= key_mask[:, None]
    return seen[:, None]


def dense_states(dense, globals_: torch.Tensor, inputs: dict[str, torch.Tensor], pinned: int = 0) -> torch.Tensor:
    """What the dense original makes of globals and tokens, (n, t, D): the first global in the place of token 0."""
    words = dense.get_input_embeddings()(inputs["input_ids"])
    types = getattr(getattr(dense, "embeddings", None), "token_type_embeddings", None)
    globals_ = globals_ if types is None else globals_ - types.weight[0]  # which the original adds
    embeds = torch.cat([globals_.expand(len(words), -1, -1), words], 1)
    mask = inputs["attention_mask"].bool()
    first = mask.int().argmax(1, keepdim=True)
    positions = torch.nn.functional.pad((torch.arange(mask.shape[1]) - first).clamp(min=0), (GLOBALS, 0))
    masks = visible(mask, None, pinned)
    if hasattr(dense.config, "layer_types"):
        masks = {"full_attention": masks, "sliding_attention": visible(mask, dense.config.sliding_window, pinned)}
    states = dense(inputs_embeds=embeds, attention_mask=masks, position_ids=positions).last_hidden_state
    return torch.cat([states[:, :1], states[:, GLOBALS + 1 :]], 1)


@pytest.mark.parametrize("model_type", HERE)
@pytest.mark.parametrize("backend", ["tiled", "blocks", "flex"])
def test_globals_at_position_0_blocks_and_windows(model_type: str, backend: str) -> None:
    """Of rows that are padded on either side, packed and not; with all hidden states, too."""
    fields = {"local_attention": 20} if model_type == "modernbert" else {}
    dense = load_dense(model_type, architecture_of(model_type, "AutoModel"), **fields).double()
    sizes = {"block_size": BLOCK, "sparsity_type": "none", "num_global_tokens": GLOBALS, "lsg_backend": backend}
    ours = convert(dense, model_type, **sizes)
    inputs = make_inputs(load_tokenizer(model_type), dense.config.vocab_size, [120, 75, 50])
    inputs = {name: torch.stack([x[0], x[1], x[2].flip(0)]) for name, x in inputs.items()}
    kept = inputs["attention_mask"].bool()
    with torch.no_grad():
        expected = dense_states(dense, find_tables(ours).globals_.weight[:GLOBALS], inputs)[kept]
        for options in ({}, {"output_hidden_states": True}):  # the second time nothing is packed
            found = ours(**inputs, **options).last_hidden_state[kept]
            assert (found - expected).abs().max() < 1e-5, options


@pytest.mark.parametrize("model_type", HERE)
@pytest.mark.parametrize("backend", ["auto", "blocks"])
def test_gradients_under_autocast(model_type: str, backend: str) -> None:
    """In which rotary positions leave queries and keys in single precision."""
    _, ours = convert_tiny(model_type, architecture_of(model_type, "AutoModel"), lsg_backend=backend)
    inputs = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [120, 75])
    expected = ours(**inputs).last_hidden_state
    with torch.autocast("cpu", torch.bfloat16):
        found = ours(**inputs).last_hidden_state
    found.float().square().sum().backward()
    assert (found - expected)[0].norm() < 0.1 * expected[0].norm()
    assert all(x.grad is None or x.grad.isfinite().all() for x in ours.parameters())


@pytest.mark.parametrize("model_type", HERE)
def test_pinned_tokens_keep_their_positions(model_type: str) -> None:
    """And so do all others: nothing repeats."""
    fields = {"local_attention": 20} if model_type == "modernbert" else {}
    dense = load_dense(model_type, architecture_of(model_type, "AutoModel"), **fields).double()
    sizes = {"block_size": BLOCK, "sparsity_type": "none", "num_global_tokens": GLOBALS}
    ours = convert(dense, model_type, pin_first_segment=True, max_pinned_tokens=20, **sizes)
    inputs = make_inputs(load_tokenizer(model_type), dense.config.vocab_size, [100])
    inputs["input_ids"][0, 10] = ours.config.separator_token_id
    with torch.no_grad():
        expected = dense_states(dense, find_tables(ours).globals_.weight[:GLOBALS], inputs, pinned=11)
        assert (ours(**inputs).last_hidden_state - expected).abs().max() < 1e-5


def test_short_texts_are_exact_within_one_window() -> None:
    """And not beyond: the global that stands for token 0 is seen by all tokens."""
    dense, ours = convert_tiny("modernbert", "ModernBertModel", {"local_attention": 16}, **EXACT)
    assert ours.config.exact_length == 9
    inputs = make_inputs(load_tokenizer("modernbert"), ours.config.vocab_size, [10])
    for length, is_exact in ((9, True), (10, False)):
        short = {name: x[:, :length] for name, x in inputs.items()}
        with torch.no_grad():
            difference = (dense(**short).last_hidden_state - ours(**short).last_hidden_state).abs().max()
        assert (difference < 1e-5) == is_exact
    ours.config.layer_types = ["full_attention"] * 2
    assert ours.config.exact_length == 2 * ours.config.block_size


@pytest.mark.skipif("esm" not in HERE, reason="a release without it")
def test_masked_words_scale_the_globals_as_they_do_the_others() -> None:
    """In ESM, which makes up for the words that are masked; of padding there are none."""
    dense, ours = convert_tiny("esm", "EsmForMaskedLM", {"token_dropout": True}, **EXACT)
    inputs = make_inputs(load_tokenizer("esm"), ours.config.vocab_size, [32, 20, 5])
    inputs["input_ids"][:2, 3:9] = ours.config.mask_token_id
    kept = inputs["attention_mask"].bool()
    with torch.no_grad():
        difference = (dense(**inputs).logits - ours(**inputs).logits)[kept].abs().max()
        inputs["attention_mask"][0] = 0
        assert ours(**inputs).logits.isfinite().all()
    assert difference < 1e-5


@pytest.mark.skipif("esm" not in HERE, reason="a release without it")
def test_learned_positions_of_an_esm_are_refused() -> None:
    dense = load_dense("esm", "EsmModel", position_embedding_type="absolute")
    with pytest.raises(ConversionError, match="position_embedding_type='absolute' is not allowed: it must"):
        LSGConverter(1100).convert(dense, load_tokenizer("esm"))


@pytest.mark.parametrize("model_type", HERE)
def test_conversion_to_65536_tokens_adds_globals_only(model_type: str) -> None:
    """Global 0 is BOS; the others differ, as no position tells them apart."""
    dense = load_dense(model_type, architecture_of(model_type, "AutoModel"))
    ours, tokenizer = LSGConverter(65536).convert(dense, load_tokenizer(model_type))
    assert ours.config.max_position_embeddings == tokenizer.model_max_length == 65536
    tables = find_tables(ours)
    assert ours.num_parameters() == dense.num_parameters() + tables.globals_.weight.numel()
    token_type = 0 if tables.token_type is None else tables.token_type
    first = tables.words[tokenizer.cls_token_id] + token_type
    assert torch.equal(tables.globals_.weight[0], first)
    assert tables.globals_.weight.unique(dim=0).shape[0] == 512
    again, _ = LSGConverter(65536).convert(dense, load_tokenizer(model_type))
    assert torch.equal(find_tables(again).globals_.weight, tables.globals_.weight)


def test_a_stride_between_globals_without_positions_is_reported(monkeypatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr("lsg.converter.logger.warning", lines.append)
    for stride in (64, 32):
        model = load_dense("modernbert", "ModernBertModel")
        LSGConverter(1100, global_positional_stride=stride).convert(model, load_tokenizer("modernbert"))
    assert lines == ["global_positional_stride is not used: the positions are rotary, so that globals have none"]


def test_frequencies_that_depend_on_the_length_are_refused() -> None:
    dense = load_dense("modernbert", "ModernBertModel")
    kinds = {name: dict(kind) for name, kind in dense.config.rope_parameters.items()}
    kinds["full_attention"] |= {"rope_type": "dynamic", "factor": 2.0}
    with pytest.raises(ConversionError, match="rope_type='dynamic' is not allowed: .* choose one of default, linear"):
        LSGConverter(1100).convert(dense, load_tokenizer("modernbert"), rope_parameters=kinds)


def test_a_cache_is_refused() -> None:
    _, ours = convert_tiny("modernbert", "ModernBertModel")
    inputs = make_inputs(load_tokenizer("modernbert"), ours.config.vocab_size, [20])
    with pytest.raises(ValueError, match="rotary positions take no cache"):
        ours(**inputs, past_key_values=DynamicCache())
