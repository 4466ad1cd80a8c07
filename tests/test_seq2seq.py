"""What encoder-decoders have besides: globals handed to the decoder, the cross-attention's mask, generation."""

import copy
import pickle

import pytest
import torch
from helpers import EXACT, NO_BOS, SEQ2SEQ, architecture_of, load_dense, load_tokenizer, make_inputs
from helpers import TYPES as ALL_TYPES
from test_models import BLOCKS, convert_tiny

from lsg import LSGConverter
from lsg.embedding_init import sinusoidal_positions
from lsg.model_types import MODEL_TYPES

TYPES = [model_type for model_type in ALL_TYPES if model_type in SEQ2SEQ]
GENERATE = {"max_new_tokens": 12, "eos_token_id": None, "forced_eos_token_id": None, "forced_bos_token_id": None}


def seq2seq(model_type: str, **fields):
    return convert_tiny(model_type, MODEL_TYPES[model_type].default_architecture, **fields)


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize("pass_globals", [True, False])
def test_the_encoder_hands_over_its_globals_or_not(model_type: str, pass_globals: bool) -> None:
    _, ours = seq2seq(model_type, num_global_tokens=3, pass_global_tokens_to_decoder=pass_globals)
    inputs = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [50, 40])
    with torch.no_grad():
        outputs = ours(**inputs, decoder_input_ids=inputs["input_ids"], output_hidden_states=True)
    length = 53 if pass_globals else 50
    assert outputs.encoder_last_hidden_state.shape[1] == length
    assert {state.shape[1] for state in outputs.encoder_hidden_states} == {length}
    assert outputs.logits.shape[1] == 50


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize("pass_globals", [True, False])
@pytest.mark.parametrize("mask_first", [True, False])
def test_padding_is_masked_in_the_cross_attention(model_type: str, pass_globals: bool, mask_first: bool) -> None:
    _, ours = seq2seq(model_type, pass_global_tokens_to_decoder=pass_globals, mask_first_token=mask_first)
    vocab = ours.config.vocab_size
    alone = make_inputs(load_tokenizer(model_type), vocab, [20])
    padded = {name: torch.nn.functional.pad(x, (0, 9), value=0) for name, x in alone.items()}
    decoder_ids = alone["input_ids"][:, :5]
    with torch.no_grad():
        a = ours(**alone, decoder_input_ids=decoder_ids).logits
        b = ours(**padded, decoder_input_ids=decoder_ids).logits
        unmasked = ours(padded["input_ids"], decoder_input_ids=decoder_ids).logits
    assert (a - b).abs().max().item() < 1e-5
    assert (b - unmasked).abs().max().item() > 1e-5


@pytest.mark.parametrize("model_type", TYPES)
def test_encoder_outputs_given(model_type: str) -> None:
    _, ours = seq2seq(model_type, mask_first_token=True)
    inputs = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [60, 40])
    labels = inputs["input_ids"][:, :7].contiguous()
    with torch.no_grad():
        whole = ours(**inputs, labels=labels)
        encoded = ours.get_encoder()(**inputs)
        for given in (encoded, (encoded.last_hidden_state,)):
            part = ours(attention_mask=inputs["attention_mask"], encoder_outputs=given, labels=labels)
            assert torch.equal(part.logits, whole.logits) and torch.equal(part.loss, whole.loss)
        as_tuple = ours(**inputs, labels=labels, return_dict=False)
    assert torch.equal(as_tuple[1], whole.logits)


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize("options", [{"do_sample": False}, {"num_beams": 3}, {"do_sample": True, "top_k": 5}])
def test_generation(model_type: str, options: dict) -> None:
    """With and without cache alike; where it is exact, like the original."""
    dense, ours = seq2seq(model_type, **EXACT)
    inputs = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [30, 20])
    results = []
    for model in (ours, dense):
        for use_cache in (True, False):
            torch.manual_seed(0)
            results.append(model.generate(**inputs, use_cache=use_cache, **GENERATE, **options))
    assert results[0].shape == (2, 13) and torch.equal(results[0], results[1])
    if model_type not in NO_BOS:
        assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("model_type", TYPES)
def test_generation_from_a_long_padded_source(model_type: str) -> None:
    _, ours = seq2seq(model_type, num_global_tokens=2)
    inputs = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [150, 90])
    result = ours.generate(**inputs, do_sample=False, num_beams=2, **GENERATE)
    assert result.shape == (2, 13)


@pytest.mark.parametrize("model_type", [name for name in TYPES if name != "m2m_100"])  # which has none
def test_decoder_alone(model_type: str) -> None:
    architecture = architecture_of(model_type, "AutoModelForCausalLM")
    dense = load_dense(model_type, architecture)
    ours = LSGConverter(1100).convert(dense, load_tokenizer(model_type), **BLOCKS)[0].eval()
    inputs = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [30])
    with torch.no_grad():
        assert torch.equal(dense(**inputs).logits, ours(**inputs).logits)
        assert ours(torch.full((1, 1100), 7)).logits.shape[1] == 1100
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    assert torch.equal(*(model.generate(**inputs, **options) for model in (dense, ours)))


def test_words_are_scaled_in_the_globals_as_in_the_model() -> None:
    """With `scale_embedding`, global 0 is exactly the embedded BOS token only if its word is scaled, too."""
    dense = load_dense("bart", "BartModel", scale_embedding=True)
    ours = LSGConverter(1100).convert(dense, load_tokenizer("bart"), **BLOCKS, **EXACT)[0].eval()
    inputs = make_inputs(load_tokenizer("bart"), ours.config.vocab_size, [30, 20])
    with torch.no_grad():
        a, b = (model(**inputs).last_hidden_state for model in (dense, ours))
    real = inputs["attention_mask"].bool()
    assert (a - b).abs()[real].max().item() < 1e-5


def test_sinusoids_are_those_of_transformers() -> None:
    from transformers.models.pegasus.modeling_pegasus import PegasusSinusoidalPositionalEmbedding

    for dim in (16, 7):
        module = PegasusSinusoidalPositionalEmbedding(700, dim)
        assert (sinusoidal_positions(700, dim) - module.create_weight()).abs().max().item() < 1e-6


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize("place", ["model", "encoder"])
def test_a_loaded_models_config_can_be_changed(model_type: str, place: str, tmp_path) -> None:
    """It is the same as setting the fields when loading; what is set in one place is set in both, and saved."""
    fields = {"block_size": 8, "sparse_block_size": 8, "num_global_tokens": 4, "sparsity_type": "stride"}
    fields |= {"mask_first_token": True, "pass_global_tokens_to_decoder": False, "lsg_backend": "blocks"}
    _, ours = seq2seq(model_type)
    inputs = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [90, 40])
    inputs["decoder_input_ids"] = inputs["input_ids"][:, :7]
    ours.save_pretrained(tmp_path / "before")
    for name, value in fields.items():
        setattr(ours.config if place == "model" else ours.get_encoder().config, name, value)
    loaded = type(ours).from_pretrained(tmp_path / "before", **fields).eval()
    copied = copy.deepcopy(ours)
    with torch.no_grad():
        expected = loaded(**inputs).logits
        assert torch.equal(ours(**inputs).logits, expected)
        assert torch.equal(copied(**inputs).logits, expected)
        ours.config.num_global_tokens = copied.get_encoder().config.num_global_tokens = 2
        assert torch.equal(ours(**inputs).logits, copied(**inputs).logits)
        assert not torch.equal(ours(**inputs).logits, expected)
    copied.save_pretrained(tmp_path / "after")
    saved = type(ours.config).from_pretrained(tmp_path / "after")
    assert {name: getattr(saved, name) for name in fields} == {**fields, "num_global_tokens": 2}
    for config in (ours.config, ours.get_encoder().config, saved):
        assert "_lsg_fields" not in config.to_dict() and config.to_dict()["num_global_tokens"] == 2
    assert "_lsg_fields" not in (tmp_path / "after" / "config.json").read_text()
    apart = copy.copy(ours.config)
    apart.num_global_tokens = 7
    assert ours.config.num_global_tokens == 2 and apart.to_dict()["num_global_tokens"] == 7
    again = pickle.loads(pickle.dumps(ours))
    again.config.num_global_tokens = 5
    assert again.get_encoder().config.num_global_tokens == 5 and ours.config.num_global_tokens == 2


@pytest.mark.parametrize("model_type", TYPES)
def test_hidden_states_may_be_asked_for_by_the_config(model_type: str) -> None:
    _, ours = seq2seq(model_type)
    inputs = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [40])
    inputs["decoder_input_ids"] = inputs["input_ids"][:, :7]
    ours.config.output_hidden_states = True
    assert len(ours(**inputs).encoder_hidden_states) == ours.config.num_hidden_layers + 1


@pytest.mark.parametrize("model_type", TYPES)
def test_some_hidden_states_may_be_selected(model_type: str) -> None:
    """By their numbers, in versions that can: the encoder gives those that the original gives."""
    dense, ours = seq2seq(model_type)
    inputs = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [40])
    inputs["decoder_input_ids"] = inputs["input_ids"][:, :7]
    with torch.no_grad():
        states = [m(**inputs, output_hidden_states=[1]).encoder_hidden_states for m in (dense, ours)]
    assert [x is None for x in states[1]] == [x is None for x in states[0]]
