"""The converted models: exact on short input, and at home in transformers (training, generation, dtypes, errors)."""

import copy

import pytest
import torch
import transformers
from helpers import ENCODERS, EXACT, HEADS, NO_BOS, SEQ2SEQ, TYPES, initial, load_dense, load_tokenizer, make_inputs

from lsg import LSGConverter
from lsg.model_types import MODEL_TYPES
from lsg.modeling.lsg_attention import ATTENTION_NAME, lsg_attention
from lsg.modeling.lsg_globals import CACHE_NAME
from lsg.modeling.lsg_pattern import LSGPattern

BLOCKS = {"block_size": 16, "sparse_block_size": 16}


def convert(model, model_type: str, **fields):
    """Convert a model in memory."""
    return LSGConverter(1100).convert(model, load_tokenizer(model_type), **{**BLOCKS, **fields})[0].eval()


def convert_tiny(model_type: str, architecture: str, config_fields: dict | None = None, **fields):
    """Return the dense original and its conversion."""
    dense = load_dense(model_type, architecture, **(config_fields or {}))
    return dense, convert(dense, model_type, **fields)


def tensors(outputs) -> list[torch.Tensor]:
    """All tensors of an output, those in tuples too."""
    flat = []
    for value in outputs.to_tuple():
        flat += [value] if isinstance(value, torch.Tensor) else [x for x in value if isinstance(x, torch.Tensor)]
    return flat


def answer(model, inputs: dict) -> list[torch.Tensor]:
    """All hidden states and outputs of a model, but not the encoder's of an encoder-decoder."""
    with torch.no_grad():
        outputs = model(**inputs, output_hidden_states=True)
    kept = {key: value for key, value in outputs.items() if "encoder" not in key and key != CACHE_NAME}
    return tensors(type(outputs)(**kept))


@pytest.mark.parametrize("model_type, architecture", [head for head in HEADS if head[0] not in NO_BOS])
@pytest.mark.parametrize("pass_globals", [True, False])
def test_every_head_is_exact_on_short_input(model_type: str, architecture: str, pass_globals: bool) -> None:
    fields = {"pass_global_tokens_to_decoder": pass_globals} if model_type in SEQ2SEQ else {}
    if not pass_globals and not fields:
        return
    dense = load_dense(model_type, architecture)
    if getattr(dense.base_model, "pooler", "none") is None and architecture.endswith("ForMultipleChoice"):
        pytest.skip("this version of transformers forgot the pooler of its own class")
    ours = convert(dense, model_type, **EXACT, **fields)
    inputs = make_inputs(load_tokenizer(model_type), dense.config.vocab_size, [32, 20, 2], architecture)
    before = copy.deepcopy(inputs)
    assert type(ours).__name__ == "LSG" + architecture
    real = inputs["attention_mask"].flatten(0, -2).bool()
    for expected, found in zip(answer(dense, inputs), answer(ours, inputs), strict=True):
        assert expected.shape == found.shape
        difference = (expected - found).abs()
        if difference.dim() >= 2 and difference.shape[:2] == real.shape:
            difference = difference[real]
        assert difference.max().item() < 1e-5
    for name, x in inputs.items():
        assert torch.equal(x, before[name])


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize("length", [1, 32, 33, 48, 100, 600])
def test_outputs_have_the_callers_length(model_type: str, length: int) -> None:
    fields = {"pass_global_tokens_to_decoder": False} if model_type in SEQ2SEQ else {}
    dense, ours = convert_tiny(model_type, MODEL_TYPES[model_type].default_architecture, num_global_tokens=5, **fields)
    inputs = make_inputs(load_tokenizer(model_type), dense.config.vocab_size, [length, length])
    encoder = ours.base_model.encoder if model_type in SEQ2SEQ else ours.base_model
    with torch.no_grad():
        outputs = encoder(**inputs, output_hidden_states=True)
        as_tuple = encoder(**inputs, return_dict=False)
    assert outputs.last_hidden_state.shape[:2] == (2, length)
    assert len(outputs.hidden_states) == dense.config.num_hidden_layers + 1
    assert {tuple(x.shape[:2]) for x in outputs.hidden_states} == {(2, length)}
    assert torch.equal(as_tuple[0], outputs.last_hidden_state)


@pytest.mark.parametrize("model_type", ENCODERS)
def test_inputs_embeds(model_type: str) -> None:
    _, ours = convert_tiny(model_type, MODEL_TYPES[model_type].default_architecture)
    inputs = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [50, 50])
    embeds = ours.get_input_embeddings()(inputs["input_ids"])
    with torch.no_grad():
        a = ours(**inputs).to_tuple()[0]
        b = ours(inputs_embeds=embeds, attention_mask=inputs["attention_mask"]).to_tuple()[0]
    assert torch.equal(a, b)


@pytest.mark.parametrize("model_type", ENCODERS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing_of_real_tokens(model_type: str, side: str) -> None:
    """A padded row answers like the row alone (not with "norm" on the left, where blocks shift)."""
    _, ours = convert_tiny(model_type, MODEL_TYPES[model_type].default_architecture, sparsity_type="none")
    alone = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [64])
    if side == "left" and ours.config.has_distance_bias:
        pytest.skip("globals stand at place 0, so padding in front puts the text further away from them")
    pad = load_tokenizer(model_type).pad_token_id
    sides = {"left": (16, 0), "right": (0, 16)}[side]  # a whole block, so that blocks on the left do not shift
    padded = {
        "input_ids": torch.nn.functional.pad(alone["input_ids"], sides, value=pad),
        "attention_mask": torch.nn.functional.pad(alone["attention_mask"], sides),
    }
    positions = torch.arange(64)[None] + MODEL_TYPES[model_type].position_offset(ours.config)
    padded["position_ids"] = torch.nn.functional.pad(positions, sides, value=0)
    with torch.no_grad():
        a = ours.base_model(**alone).last_hidden_state
        b = ours.base_model(**padded).last_hidden_state[:, sides[0] : sides[0] + 64]
    assert (a - b).abs()[:, 1:].max().item() < 1e-5


@pytest.mark.parametrize("model_type", TYPES)
def test_layers_do_not_compute_padding(model_type: str) -> None:
    """Of blocks that are all padding, nothing: not in the attention's projections, not in the feed-forward layers."""
    _, ours = convert_tiny(model_type, MODEL_TYPES[model_type].default_architecture)
    encoder = ours.get_encoder() if model_type in SEQ2SEQ else ours.base_model
    inputs = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [300, 50, 17])
    seen = set()
    for name, layer in encoder.named_modules():
        if isinstance(layer, torch.nn.Linear) and "pooler" not in name and "embedding" not in name:
            layer.register_forward_hook(lambda layer, inputs, output: seen.add(output.shape[:-1].numel()))
    with torch.no_grad():
        encoder(**inputs)
        assert seen - {0} == {300 + 64 + 32 + 3 * ours.config.num_global_tokens}  # 0: X-MOD's other languages
        seen.clear()
        encoder(**inputs, output_hidden_states=True)  # of all tokens
        assert seen - {0} == {3 * (300 + ours.config.num_global_tokens)}


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_is_lsg_whatever_is_asked_for(model_type: str, implementation: str) -> None:
    dense = load_dense(model_type, MODEL_TYPES[model_type].default_architecture)
    dense.config._attn_implementation = implementation
    ours = convert(dense, model_type)
    for step in range(2):
        if step == 1:
            ours.set_attn_implementation("eager" if implementation == "sdpa" else "sdpa")
        encoder = ours.base_model.encoder if model_type in SEQ2SEQ else ours
        names = {m.config._attn_implementation for m in encoder.modules() if hasattr(m, "config")}
        assert names == {ATTENTION_NAME}
    if model_type in SEQ2SEQ:
        assert ours.base_model.decoder.config._attn_implementation == ("eager" if implementation == "sdpa" else "sdpa")


@pytest.mark.parametrize("model_type", TYPES)
def test_what_lsg_cannot_do_is_said(model_type: str) -> None:
    architecture = MODEL_TYPES[model_type].default_architecture
    _, ours = convert_tiny(model_type, architecture)
    inputs = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [40], architecture)
    with pytest.raises(ValueError, match="output_attentions=True is not supported"):
        ours(**inputs, output_attentions=True)
    for mask in (torch.ones(1, 1, 40, 40), torch.eye(1, 39)):
        with pytest.raises(ValueError, match=r"attention_mask of shape \(batch = \d, sequence length = 40\)"):
            ours(**{**inputs, "attention_mask": mask})
    for module in ours.modules():
        if hasattr(module, "config"):
            module.config.adaptive = False
    with pytest.raises(ValueError, match="a length of 40 is not allowed with adaptive=False"):
        ours(**inputs)
    ours(**{name: x[:, :32] for name, x in inputs.items()})


@pytest.mark.parametrize("model_type", TYPES)
def test_wrong_fields_are_refused_by_config_and_model(model_type: str) -> None:
    row = MODEL_TYPES[model_type]
    for fields, message in (
        ({"num_global_tokens": 0}, "num_global_tokens=0"),
        ({"mask_first_token": 1}, "mask_first_token=1 is not allowed: it must be true or false"),
        ({"sparsity_type": "best"}, "sparsity_type='best'"),
        ({"chunk_size_feed_forward": 8}, "chunk_size_feed_forward=8 is not allowed: it must be 0"),
    ):
        with pytest.raises(ValueError, match=message):
            row.config_class(**fields)
    config = row.config_class()
    config.block_size = -3
    with pytest.raises(ValueError, match="block_size=-3"):
        row.auto_classes["AutoModel"](config)


@pytest.mark.parametrize("model_type", TYPES)
def test_config_keeps_its_fields_through_json(model_type: str, tmp_path) -> None:
    config_class = MODEL_TYPES[model_type].config_class
    config = config_class(sparsity_type=None, block_size=64, lsg_num_pre_rounds=3, mask_first_token=True)
    config.save_pretrained(tmp_path)
    again = config_class.from_pretrained(tmp_path)
    assert again.lsh_num_pre_rounds == 3 and again.sparsity_type is None
    assert {k: getattr(again, k) for k in config.lsg_defaults} == {k: getattr(config, k) for k in config.lsg_defaults}
    assert again.to_dict() == config.to_dict()


@pytest.mark.parametrize("model_type", TYPES)
def test_too_long_an_input_is_said_in_words(model_type: str) -> None:
    architecture = MODEL_TYPES[model_type].default_architecture
    _, ours = convert_tiny(model_type, architecture)
    inputs = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [1101], architecture)
    given = [inputs]
    if model_type in ENCODERS:
        given.append({"inputs_embeds": ours.get_input_embeddings()(inputs["input_ids"])})
    for module in ours.modules():  # before positions are looked up, which no GPU survives
        embeddings = getattr(ours.base_model, "embeddings", None)  # EuroBERT's model stands for its own
        if "osition" in type(module).__name__ or module is embeddings is not ours.base_model:
            module.register_forward_pre_hook(lambda *args: pytest.fail("positions were looked up"))
    for arguments in given:
        with pytest.raises(ValueError, match="the model reads 1100 tokens, 1101 were given: truncate them"):
            ours(**arguments)
    with pytest.raises(ValueError, match="1101 were given"):
        ours(inputs["input_ids"])


@pytest.mark.parametrize("model_type", ENCODERS)
def test_positions_that_are_given_may_repeat(model_type: str) -> None:
    _, ours = convert_tiny(model_type, MODEL_TYPES[model_type].default_architecture)
    ids = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [1200])["input_ids"]
    positions = torch.arange(1200)[None] % 600 + MODEL_TYPES[model_type].position_offset(ours.config)
    types = {} if model_type == "distilbert" else {"token_type_ids": torch.zeros_like(ids)}
    with torch.no_grad():
        assert ours.base_model(ids, position_ids=positions, **types).last_hidden_state.shape[1] == 1200


@pytest.mark.parametrize("model_type, architecture", HEADS)
def test_nothing_is_built_and_thrown_away(model_type: str, architecture: str, monkeypatch) -> None:
    """Neither a dense model nor dense parts of ours; nothing but what the original's constructor throws away."""
    wasted = 1 if model_type == "markuplm" else 0  # it makes two position tables
    built, kinds = [], (torch.nn.Linear, torch.nn.Embedding, torch.nn.LayerNorm)

    def count(init):
        return lambda self, *args, **kwargs: built.append(self) or init(self, *args, **kwargs)

    for kind in kinds:
        monkeypatch.setattr(kind, "__init__", count(kind.__init__))
    row = MODEL_TYPES[model_type]
    config = row.config_class.from_pretrained(initial(model_type))
    model = row.model_class(architecture)(config)
    assert len(built) - wasted == sum(isinstance(module, kinds) for module in model.modules())
    assert model.config is config or architecture == "PegasusForCausalLM"  # which copies it


def test_a_transformers_without_such_a_part_is_named() -> None:
    class Model(MODEL_TYPES["bert"].auto_classes["AutoModel"]):
        parts = {"BertEncoderOfLater": object}

    with pytest.raises(NotImplementedError, match="modeling_bert.BertModel.__init__ builds no BertEncoderOfLater"):
        Model(Model.config_class())


@pytest.mark.parametrize("model_type", TYPES)
def test_offloaded_weights(model_type: str) -> None:
    accelerate = pytest.importorskip("accelerate")
    architecture = MODEL_TYPES[model_type].default_architecture
    _, ours = convert_tiny(model_type, architecture)
    inputs = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [50], architecture)
    with torch.no_grad():
        expected = ours(**inputs).to_tuple()[0]
        found = accelerate.cpu_offload(ours)(**inputs).to_tuple()[0]
    assert torch.equal(found, expected)


@pytest.mark.parametrize("model_type", ENCODERS)
def test_global_tokens_can_be_changed_on_a_loaded_model(model_type: str) -> None:
    _, ours = convert_tiny(model_type, MODEL_TYPES[model_type].default_architecture)
    inputs = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [50])
    with torch.no_grad():
        one = ours.base_model(**inputs).last_hidden_state
        ours.config.num_global_tokens = 4
        four = ours.base_model(**inputs).last_hidden_state
    assert one.shape == four.shape and not torch.equal(one, four)


def test_two_copies_of_the_code_keep_to_their_own_models(tmp_path) -> None:
    """The package's and a checkpoint's, in one process: the one registered last does not answer for the other."""
    _, ours = convert_tiny("roberta", "RobertaModel")
    ours.save_pretrained(tmp_path / "saved")
    inputs = make_inputs(load_tokenizer("roberta"), ours.config.vocab_size, [200, 60])
    with torch.no_grad():
        before = ours(**inputs).last_hidden_state
        theirs = transformers.AutoModel.from_pretrained(tmp_path / "saved", trust_remote_code=True).eval()
        assert type(theirs).__module__ != type(ours).__module__
        assert theirs.config._attn_implementation != ours.config._attn_implementation == ATTENTION_NAME
        assert torch.equal(theirs(**inputs).last_hidden_state, before)
        assert torch.equal(ours(**inputs).last_hidden_state, before)


def test_the_earlier_name_of_a_backend_is_read() -> None:
    config_class = MODEL_TYPES["bert"].config_class
    config_class(lsg_backend="walk").check_lsg()
    case = torch.randn(3, 1, 2, 1 + 41, 8)
    pattern = LSGPattern(4, 4, 2)
    tiled, walk = (lsg_attention(*case, None, pattern, backend=name) for name in ("tiled", "walk"))
    assert torch.equal(tiled, walk)
    with pytest.raises(ValueError, match="choose one of auto, blocks, tiled, flex"):
        config_class(lsg_backend="stroll")
