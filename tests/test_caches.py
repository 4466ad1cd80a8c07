"""Causal models and caches: generation as without a cache, caches that hold tokens only, prefixes that all see."""

import copy
from dataclasses import replace

import pytest
import torch
from helpers import CAUSAL, EXACT, architecture_of, load_tokenizer, make_inputs
from oracle import oracle_attention
from test_models import convert_tiny
from transformers import DynamicCache, EncoderDecoderCache, EncoderDecoderModel, StaticCache

from lsg.model_types import MODEL_TYPES
from lsg.modeling.lsg_attention import BACKENDS, lsg_attention
from lsg.modeling.lsg_pattern import SPARSITY_TYPES, LSGPattern

PREFIXED = [t for t, name in CAUSAL]  # types whose encoder takes a cache
GREEDY = {"do_sample": False, "eos_token_id": None}


@pytest.mark.parametrize("model_type, architecture", CAUSAL)
def test_causal_models_are_exact_on_short_input(model_type: str, architecture: str) -> None:
    dense, ours = convert_tiny(model_type, architecture, {"is_decoder": True}, **EXACT)
    inputs = make_inputs(load_tokenizer(model_type), dense.config.vocab_size, [32, 20])
    with torch.no_grad():
        theirs, outputs = dense(**inputs), ours(**inputs)
    real = inputs["attention_mask"].bool()
    assert (theirs.logits - outputs.logits).abs()[real].max().item() < 1e-5


@pytest.mark.parametrize("model_type, architecture", CAUSAL)
@pytest.mark.parametrize("num_beams", [1, 3])
def test_generation_equals_the_original_and_needs_no_cache(model_type: str, architecture: str, num_beams: int) -> None:
    dense, ours = convert_tiny(model_type, architecture, {"is_decoder": True}, **EXACT)
    inputs = make_inputs(load_tokenizer(model_type), dense.config.vocab_size, [10, 10])
    options = {"max_new_tokens": 20, "do_sample": False, "eos_token_id": None, "num_beams": num_beams}
    cached, uncached = (ours.generate(**inputs, use_cache=use_cache, **options) for use_cache in (True, False))
    assert cached.shape == (2, 30) and torch.equal(cached, uncached)
    if num_beams == 1:
        # step by step, as transformers' generate gives the dense RoBERTa family positions that it was not trained on
        ids = inputs["input_ids"]
        for _ in range(20):
            with torch.no_grad():
                ids = torch.cat([ids, dense(ids, attention_mask=torch.ones_like(ids)).logits[:, -1:].argmax(-1)], 1)
        assert torch.equal(cached, ids)


@pytest.mark.parametrize("model_type, architecture", CAUSAL)
def test_generation_after_a_long_prompt(model_type: str, architecture: str) -> None:
    _, ours = convert_tiny(model_type, architecture, {"is_decoder": True})
    inputs = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [77, 50])
    inputs = {name: x.flip(1) for name, x in inputs.items()}  # padded on the left, as generation wants it
    result = ours.generate(**inputs, max_new_tokens=9, do_sample=False, eos_token_id=None)
    assert result.shape == (2, 86)
    cache = ours(**inputs, use_cache=True).past_key_values
    assert cache.get_seq_length() == 77  # neither globals nor padding to blocks


@pytest.mark.parametrize("model_type, architecture", CAUSAL)
def test_a_cached_step_attends_to_everything_cached(model_type: str, architecture: str) -> None:
    _, ours = convert_tiny(model_type, architecture, {"is_decoder": True}, block_size=64, num_global_tokens=3)
    inputs = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [40])
    with torch.no_grad():
        whole = ours(**inputs).logits
        cache = DynamicCache()
        parts = []
        for start, end in ((0, 20), (20, 21), (21, 40)):
            step = ours(inputs["input_ids"][:, start:end], past_key_values=cache, use_cache=True)
            parts.append(step.logits)
    assert (torch.cat(parts, 1) - whole).abs().max().item() < 1e-5


@pytest.mark.parametrize("model_type, architecture", CAUSAL)
def test_cross_attention_is_left_as_it_is(model_type: str, architecture: str) -> None:
    dense, ours = convert_tiny(model_type, architecture, {"is_decoder": True, "add_cross_attention": True}, **EXACT)
    inputs = make_inputs(load_tokenizer(model_type), dense.config.vocab_size, [9, 9])
    states = torch.randn(2, 50, dense.config.hidden_size)
    mask = torch.ones(2, 50, dtype=torch.long)
    mask[0, 30:] = 0
    with torch.no_grad():
        logits = [m(**inputs, encoder_hidden_states=states, encoder_attention_mask=mask).logits for m in (dense, ours)]
        unmasked = ours(**inputs, encoder_hidden_states=states).logits
    assert (logits[0] - logits[1]).abs().max().item() < 1e-5
    assert (logits[1] - unmasked).abs().max().item() > 1e-5


@pytest.mark.parametrize("model_type, architecture", CAUSAL)
def test_a_static_cache_is_refused(model_type: str, architecture: str) -> None:
    _, ours = convert_tiny(model_type, architecture, {"is_decoder": True})
    ids = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [8])["input_ids"]
    with pytest.raises(ValueError, match="dynamic cache"):
        ours(ids, past_key_values=StaticCache(config=ours.config, max_cache_len=32), use_cache=True)


@pytest.mark.parametrize("model_type, architecture", CAUSAL)
def test_generation_from_embeddings(model_type: str, architecture: str) -> None:
    if model_type == "roc_bert":
        pytest.skip("the original's generate takes no embeddings")
    _, ours = convert_tiny(model_type, architecture, {"is_decoder": True})
    inputs = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [40])
    embeds = ours.get_input_embeddings()(inputs["input_ids"])
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    expected = ours.generate(**inputs, **options)[:, 40:]
    found = ours.generate(inputs_embeds=embeds, attention_mask=inputs["attention_mask"], **options)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("model_type, architecture", CAUSAL)
@pytest.mark.parametrize("length, new", [(10, 1), (10, 9), (60, 1), (60, 40)])
def test_a_cache_continues_where_it_ended(model_type: str, architecture: str, length: int, new: int) -> None:
    """In one step or many, with globals or more than one: as if all tokens had come in these chunks."""
    _, ours = convert_tiny(model_type, architecture, {"is_decoder": True}, num_global_tokens=3)
    ids = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [length + new] * 2)["input_ids"]
    with torch.no_grad():
        cache = ours(ids[:, :length], use_cache=True).past_key_values
        assert cache.get_seq_length() == length
        assert type(cache) is (EncoderDecoderCache if model_type == "roc_bert" else DynamicCache)  # as the original
        again = copy.deepcopy(cache)
        chunk = ours(ids[:, length:], past_key_values=cache, use_cache=True)
        assert chunk.past_key_values is cache and cache.get_seq_length() == length + new
        steps = [
            ours(ids[:, place : place + 1], past_key_values=again, use_cache=True).logits
            for place in range(length, length + new)
        ]
    assert (torch.cat(steps, 1) - chunk.logits).abs().max().item() < 1e-5


@pytest.mark.parametrize("model_type, architecture", CAUSAL)
@pytest.mark.parametrize("num_beams", [1, 3])
def test_generation_goes_on_from_a_kept_cache(model_type: str, architecture: str, num_beams: int) -> None:
    """A second question in the same conversation is answered as if the first had been asked with it."""
    dense, ours = convert_tiny(model_type, architecture, {"is_decoder": True}, **EXACT)
    ids = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [8, 8])["input_ids"]
    first = ours.generate(ids, return_dict_in_generate=True, max_new_tokens=4, **GREEDY)
    assert first.past_key_values.get_seq_length() == 11  # the last token has not been read yet
    longer = torch.cat([first.sequences, ids[:, 2:6]], 1)
    options = {"max_new_tokens": 5, "num_beams": num_beams, **GREEDY}
    # beams begin as copies of a row
    cache = copy.deepcopy(first.past_key_values)
    if num_beams > 1:
        cache.batch_repeat_interleave(num_beams)
    found = ours.generate(longer, past_key_values=cache, **options)
    assert torch.equal(found, ours.generate(longer, **options))
    logits = [m(longer[:, 11:], past_key_values=c, use_cache=True).logits for m, c in ((ours, first.past_key_values),)]
    with torch.no_grad():
        whole = dense(longer).logits[:, 11:]
    assert (logits[0] - whole).abs().max().item() < 1e-5


@pytest.mark.parametrize("model_type, architecture", CAUSAL)
@pytest.mark.parametrize("is_padded", [False, True])
def test_an_assistant_changes_nothing(model_type: str, architecture: str, is_padded: bool) -> None:
    """A smaller LSG model proposes tokens; its cache is cut where they are refused."""
    _, ours = convert_tiny(model_type, architecture, {"is_decoder": True}, **EXACT)
    _, other = convert_tiny(model_type, architecture, {"is_decoder": True}, **EXACT)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in other.parameters():
            weight += 0.02 * torch.randn_like(weight)
    inputs = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [9])
    if is_padded:
        pad = load_tokenizer(model_type).pad_token_id
        inputs["input_ids"] = torch.nn.functional.pad(inputs["input_ids"], (3, 0), value=pad)
        inputs["attention_mask"] = torch.nn.functional.pad(inputs["attention_mask"], (3, 0))
    plain = ours.generate(**inputs, max_new_tokens=8, **GREEDY)
    assert torch.equal(ours.generate(**inputs, assistant_model=other, max_new_tokens=8, **GREEDY), plain)


@pytest.mark.parametrize("model_type, architecture", CAUSAL)
def test_a_cache_for_cross_attention_too(model_type: str, architecture: str) -> None:
    fields = {"is_decoder": True, "add_cross_attention": True}
    _, ours = convert_tiny(model_type, architecture, fields, num_global_tokens=2, block_size=64)
    ids = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [20, 20])["input_ids"]
    states = torch.randn(2, 30, ours.config.hidden_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = ours(ids, encoder_hidden_states=states).logits
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        parts = [
            ours(ids[:, start:end], encoder_hidden_states=states, past_key_values=cache, use_cache=True)
            for start, end in ((0, 9), (9, 10), (10, 20))
        ]
    assert all(part.past_key_values is cache for part in parts) and cache.get_seq_length() == 20
    assert cache.cross_attention_cache.get_seq_length() == 30 and cache.is_updated[0]
    assert (torch.cat([part.logits for part in parts], 1) - whole).abs().max().item() < 1e-5


def make_prefix(model, length: int) -> DynamicCache:
    """A prefix of keys and values, as prefix tuning learns it, for two rows."""
    generator = torch.Generator().manual_seed(1)
    heads, size = model.config.num_attention_heads, model.config.hidden_size // model.config.num_attention_heads
    cache = DynamicCache()
    for layer in range(model.config.num_hidden_layers):
        cache.update(*torch.randn(2, 2, heads, length, size, generator=generator), layer)
    return cache


@pytest.mark.parametrize("model_type", PREFIXED)
def test_a_prefix_of_an_encoder_on_short_input(model_type: str) -> None:
    """It is answered as by the original with the same prefix; token 0 is the one behind the prefix."""
    dense, ours = (model.base_model for model in convert_tiny(model_type, base_architecture(model_type), **EXACT))
    inputs = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [30, 17])
    inputs["position_ids"] = torch.arange(30)[None] + MODEL_TYPES[model_type].position_offset(ours.config)
    inputs["attention_mask"] = torch.nn.functional.pad(inputs["attention_mask"], (5, 0), value=1)
    with torch.no_grad():
        states = [m(**inputs, past_key_values=make_prefix(m, 5)).last_hidden_state for m in (dense, ours)]
    real = inputs["attention_mask"][:, 5:].bool()
    assert (states[0] - states[1]).abs()[real].max().item() < 1e-5


def base_architecture(model_type: str) -> str:
    return architecture_of(model_type, "AutoModel")


@pytest.mark.parametrize("model_type", PREFIXED)
@pytest.mark.parametrize("length", [1, 7])
def test_a_prefix_of_an_encoder_is_seen_at_linear_cost(model_type: str, length: int, monkeypatch) -> None:
    """Each token of a long input sees the prefix, and a far token is still seen by sparse keys only."""
    _, ours = convert_tiny(model_type, base_architecture(model_type), num_global_tokens=2, sparsity_type="none")
    ids = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [200, 200])["input_ids"]
    largest = []
    blocks = BACKENDS["tiled"]
    monkeypatch.setitem(BACKENDS, "tiled", lambda q, *args: largest.append(q.shape[2]) or blocks(q, *args))
    with torch.no_grad():
        plain = ours(ids, past_key_values=make_prefix(ours, length)).last_hidden_state
        prefix = make_prefix(ours, length)
        for layer in prefix.layers:
            layer.values = layer.values + 1
        changed = ours(ids, past_key_values=prefix).last_hidden_state
    assert plain.shape[:2] == (2, 200) and set(largest) == {2 + length + 200}
    assert ((plain - changed).abs().amax(-1) > 1e-4).all()
    many = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [1101 - length] * 2)["input_ids"]
    with pytest.raises(ValueError, match="the model reads 1100 tokens, 1101 were given"):
        ours(many, past_key_values=make_prefix(ours, length))
    with pytest.raises(ValueError, match="a prefix of 600 keys is not allowed: with 2 global tokens it can have 510"):
        ours(ids, past_key_values=make_prefix(ours, 600))


@pytest.mark.parametrize("backend", BACKENDS)
def test_attention_with_a_prefix(backend: str) -> None:
    """The dense oracle, with the prefix as further globals whose queries do not count."""
    for kind in SPARSITY_TYPES:
        pattern = LSGPattern(4, 4, 2, kind, 2)
        query, key, value = torch.randn(3, 2, 2, 2 + 3 + 41, 8, dtype=torch.float64).unbind()
        key_mask = torch.ones(2, 46, dtype=torch.bool)
        key_mask[1, 3], key_mask[1, 40:] = False, False
        tokens = torch.cat([query[:, :, :2], query[:, :, 5:]], 2)
        for t in (8, 41):
            parts = tokens[:, :, : 2 + t], key[:, :, : 5 + t], value[:, :, : 5 + t], key_mask[:, : 5 + t]
            found = lsg_attention(*parts, pattern, 0.3, backend=backend)
            whole = query[:, :, : 5 + t], *parts[1:]
            expected = oracle_attention(*whole, replace(pattern, num_global_tokens=5), 0.3)
            assert (found - torch.cat([expected[:, :, :2], expected[:, :, 5:]], 2)).abs().max() < 1e-9


@pytest.mark.parametrize("model_type, architecture", CAUSAL)
def test_a_prefix_of_a_causal_model_leaves_the_globals(model_type: str, architecture: str) -> None:
    _, ours = convert_tiny(model_type, architecture, {"is_decoder": True})
    ids = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [20, 20])["input_ids"]
    with torch.no_grad():
        before = ours(ids, past_key_values=make_prefix(ours, 4), use_cache=True)
        next(p for name, p in ours.named_parameters() if "global_embeddings" in name)[0, 0] += 1
        after = ours(ids, past_key_values=make_prefix(ours, 4), use_cache=True)
    assert before.past_key_values.get_seq_length() == 24
    assert ((before.logits - after.logits).abs().amax(-1) > 1e-6).all()


def test_encoder_and_decoder_in_one_model() -> None:
    """An EncoderDecoderModel of two LSG models answers short input like one of their originals."""
    pairs = []
    for kind, fields in (("encoder", {}), ("decoder", {"is_decoder": True, "add_cross_attention": True})):
        architecture = "BertModel" if kind == "encoder" else "BertLMHeadModel"
        pairs.append(convert_tiny("bert", architecture, fields, **EXACT))
    dense, ours = (EncoderDecoderModel(encoder=e, decoder=d).eval() for e, d in zip(*pairs, strict=True))
    inputs = make_inputs(load_tokenizer("bert"), 120, [30, 17])
    inputs["decoder_input_ids"] = inputs["input_ids"][:, :9]
    with torch.no_grad():
        assert (dense(**inputs).logits - ours(**inputs).logits).abs().max().item() < 1e-5
        long = make_inputs(load_tokenizer("bert"), 120, [300, 90])
        options = {"decoder_start_token_id": 2, "pad_token_id": 0, "max_new_tokens": 5}
        assert ours.generate(**long, **options, **GREEDY).shape == (2, 6)
