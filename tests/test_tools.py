"""What other tools ask of a model: signatures, hints, hidden states in the graph, old config fields, adapters."""

import inspect
import threading
import warnings
from typing import get_type_hints

import pytest
import torch
from helpers import EXACT, HEADS, SEQ2SEQ, TYPES, architecture_of, encoders_with, initial, load_tokenizer, make_inputs
from test_caches import CAUSAL, PREFIXED, base_architecture
from test_models import convert_tiny
from transformers import DynamicCache, Trainer, TrainingArguments
from transformers.utils import ModelOutput

from lsg import LSGConverter
from lsg.model_types import MODEL_TYPES
from lsg.modeling.lsg_globals import CACHE_NAME, record_layers, recorded_tokens

CLASSIFIERS = encoders_with("AutoModelForSequenceClassification")


def base_class(model_type: str) -> type:
    return MODEL_TYPES[model_type].auto_classes["AutoModel"]


@pytest.mark.parametrize("model_type", TYPES)
def test_forward_has_the_signature_and_hints_of_the_original(model_type: str) -> None:
    """sentence-transformers reads the fields of the output class, Trainer and PEFT the parameters."""
    dense, ours = convert_tiny(model_type, base_architecture(model_type))
    pairs = [(dense, ours)]
    if model_type in SEQ2SEQ:
        pairs.append((dense.get_encoder(), ours.get_encoder()))
    for theirs, mine in pairs:
        signature = inspect.signature(mine.forward)
        original = [p for name, p in signature.parameters.items() if name != "pinned_mask"]
        assert signature.replace(parameters=original) == inspect.signature(theirs.forward)
        assert ("pinned_mask" in signature.parameters) == (model_type not in SEQ2SEQ)
        with pytest.raises(TypeError, match=rf"^{type(mine).__name__}.forward\(\) takes at most .* 30 were given"):
            mine.forward(*[None] * 30)
        hint = get_type_hints(mine.forward).get("return")  # 5.0 has none for some
        assert hint == get_type_hints(theirs.forward).get("return")
        if hint is None:
            continue
        classes = [c for c in getattr(hint, "__args__", [hint]) if isinstance(c, type) and issubclass(c, ModelOutput)]
        assert len(classes) == 1 and classes[0] is not ModelOutput


@pytest.mark.parametrize("model_type", ["bert", "bart"])
def test_a_subclass_keeps_its_own_forward(model_type: str) -> None:
    class Model(base_class(model_type)):
        def forward(self) -> str:
            return "its own"

    class Sharded(Model):  # as FSDP makes one
        pass

    config = MODEL_TYPES[model_type].config_class.from_pretrained(initial(model_type))
    assert Model(config)() == Sharded(config)() == "its own"


@pytest.mark.parametrize("model_type", ["camembert", "roberta", "xlm-roberta"])
def test_padding_beyond_the_positions(model_type: str) -> None:
    """It takes none of them: padding up to a multiple may make a text longer than the model reads."""
    _, ours = convert_tiny(model_type, base_architecture(model_type))
    inputs = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [1100, 1100])
    padding = {"input_ids": ours.config.pad_token_id, "attention_mask": 0}
    longer = {name: torch.nn.functional.pad(x, (0, 52), value=padding[name]) for name, x in inputs.items()}
    with torch.no_grad():
        found, expected = (ours(**given).last_hidden_state[:, :1100] for given in (longer, inputs))
    assert (found - expected).abs().max() < 1e-5


def test_another_module_in_place_of_the_position_table() -> None:
    class Positions(torch.nn.Module):
        def forward(self, positions: torch.Tensor) -> torch.Tensor:
            return torch.zeros(*positions.shape, 16)

    _, ours = convert_tiny("bert", "BertModel")
    ours.embeddings.position_embeddings = Positions()
    assert ours(torch.ones(1, 600, dtype=torch.long)).last_hidden_state.shape == (1, 600, 16)


@pytest.mark.parametrize("model_type", ["bert", "distilbert"])
def test_trainer_takes_a_base_model(model_type: str, tmp_path) -> None:
    """It leaves out the columns that are not in forward's signature, and would leave out all."""

    class Mean(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
            loss = model(**inputs).last_hidden_state.square().mean()
            return (loss, {}) if return_outputs else loss

    _, ours = convert_tiny(model_type, base_architecture(model_type))
    ids = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [50] * 4)["input_ids"]
    rows = [{"input_ids": row, "attention_mask": torch.ones_like(row), "of_no_use": 3} for row in ids]
    options = {"max_steps": 2, "report_to": [], "use_cpu": True, "disable_tqdm": True, "save_strategy": "no"}
    assert Mean(ours, TrainingArguments(str(tmp_path), **options), train_dataset=rows).train().global_step == 2


def test_dynamic_shapes_may_be_named_by_input() -> None:
    _, ours = convert_tiny("bert", "BertModel")
    ids = make_inputs(load_tokenizer("bert"), ours.config.vocab_size, [64, 64])["input_ids"]
    ours.config.return_dict = False
    options = {"dynamic_shapes": {"input_ids": None}, "strict": False}
    exported = torch.export.export(ours, (), {"input_ids": ids}, **options).module()
    with torch.no_grad():
        assert (exported(input_ids=ids)[0] - ours(ids)[0]).abs().max().item() < 1e-5


@pytest.mark.parametrize("model_type, architecture", HEADS)
def test_an_old_config_asks_for_checkpointing(model_type: str, architecture: str, tmp_path) -> None:
    """`gradient_checkpointing` in config.json: on for all layers of ours, and not saved again."""
    ours, _ = LSGConverter(1100).convert_from_pretrained(initial(model_type), architecture)
    ours.config.gradient_checkpointing = True
    ours.save_pretrained(tmp_path)
    del ours.config.gradient_checkpointing
    loaded = type(ours).from_pretrained(tmp_path)
    ours.gradient_checkpointing_enable()
    expected = {name for name, module in ours.named_modules() if getattr(module, "gradient_checkpointing", False)}
    found = {name for name, module in loaded.named_modules() if getattr(module, "gradient_checkpointing", False)}
    assert expected and found == expected
    assert not hasattr(loaded.config, "gradient_checkpointing")


@pytest.mark.parametrize("model_type", ["pegasus"])
def test_positions_can_be_resized_by_transformers(model_type: str) -> None:
    dense, ours = convert_tiny(model_type, MODEL_TYPES[model_type].default_architecture, mask_first_token=True)
    inputs = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [40, 30])
    inputs["decoder_input_ids"] = inputs["input_ids"][:, :9]
    with torch.no_grad():
        before = ours(**inputs).logits
        ours.resize_position_embeddings(1500)
        assert torch.equal(ours(**inputs).logits, before)
        long = {name: x.repeat(1, 35) for name, x in inputs.items() if not name.startswith("decoder")}
        assert ours(**long, decoder_input_ids=inputs["decoder_input_ids"]).logits.isfinite().all()
    assert ours.config.max_position_embeddings == ours.get_encoder().config.max_position_embeddings == 1500


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize("pass_globals", [True, False])
def test_hidden_states_are_in_the_graph(model_type: str, pass_globals: bool) -> None:
    """Each has the gradient of what comes after it, as saliency maps need it."""
    fields = {"pass_global_tokens_to_decoder": pass_globals} if model_type in SEQ2SEQ else {}
    _, ours = convert_tiny(model_type, base_architecture(model_type), num_global_tokens=2, **fields)
    encoder = ours.get_encoder() if model_type in SEQ2SEQ else ours
    inputs = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [50, 40])
    outputs = encoder(**inputs, output_hidden_states=True)
    states = outputs.hidden_states
    for state in states:
        state.retain_grad()
    (outputs.last_hidden_state[:, 3] * torch.arange(ours.config.hidden_size)).sum().backward()
    assert len(states) == ours.config.num_hidden_layers + 1
    assert all(state.grad is not None and state.grad.shape == state.shape for state in states)
    assert all(state.grad[:, 5].abs().max() > 0 for state in states[:-1])
    with torch.no_grad():
        again = encoder(**inputs, output_hidden_states=True).hidden_states
    assert all((a - b).abs().max() < 1e-5 for a, b in zip(states, again, strict=True))


def test_threads_record_hidden_states_of_their_own() -> None:
    encoder = torch.nn.Module()
    encoder.layers = torch.nn.ModuleList([torch.nn.Identity(), torch.nn.Identity()])
    record_layers(encoder)
    together = threading.Barrier(3)
    found = {}

    def run(number: int) -> None:
        x = torch.full((1, 5, 2), float(number))
        with recorded_tokens(number, is_on=number > 0) as tokens:
            for layer in encoder.layers:
                together.wait(timeout=30)
                x = layer(x)
        found[number] = x, tokens

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, (x, tokens) in found.items():
        assert torch.equal(x, torch.full((1, 5, 2), float(number)))
        assert [tuple(part.shape) for part in tokens] == ([(1, 5 - number, 2)] * 2 if number else [])


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize(
    "field, value, message",
    [
        ("lsg_backend", "frob", "lsg_backend='frob' is not allowed: choose one of auto, blocks"),
        ("num_global_tokens", 0, "num_global_tokens=0 is not allowed: it must be a whole number, at least 1"),
        ("mask_first_token", "yes", "mask_first_token='yes' is not allowed: it must be true or false"),
        ("lsh_seed", 2**64, "lsh_seed=18446744073709551616 is not allowed: it must be a whole number, at least 0 and"),
    ],
)
def test_wrong_values_set_later_are_named(model_type: str, field: str, value: object, message: str) -> None:
    architecture = MODEL_TYPES[model_type].default_architecture
    _, ours = convert_tiny(model_type, architecture)
    inputs = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [40, 40], architecture)
    setattr(ours.config, field, value)
    with pytest.raises(ValueError) as error:
        ours(**inputs)
    assert message in str(error.value)
    with pytest.raises(ValueError):
        MODEL_TYPES[model_type].config_class(**{field: value})


@pytest.mark.parametrize("model_type", TYPES)
def test_a_mask_of_another_batch_is_refused(model_type: str) -> None:
    architecture = MODEL_TYPES[model_type].default_architecture
    _, ours = convert_tiny(model_type, architecture)
    inputs = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [40, 40], architecture)
    inputs["attention_mask"] = inputs["attention_mask"][:1]
    for mask in (inputs["attention_mask"], inputs["attention_mask"].tril()):
        with pytest.raises(ValueError, match=r"attention_mask of .*2.*, got \(1, 40\)"):
            ours(**{**inputs, "attention_mask": mask})


@pytest.mark.parametrize("model_type", CLASSIFIERS)
def test_global_tokens_are_trained_beside_an_adapter(model_type: str, tmp_path) -> None:
    """PEFT's `modules_to_save` trains and saves them whole; the adapter gives them to the next model."""
    peft = pytest.importorskip("peft")
    architecture = architecture_of(model_type, "AutoModelForSequenceClassification")
    _, ours = convert_tiny(model_type, architecture)
    _, other = convert_tiny(model_type, architecture)
    layers = (name for name, m in ours.named_modules() if isinstance(m, torch.nn.Linear) and "layer" in name)
    query = next(layers).rsplit(".")[-1]
    config = peft.LoraConfig(target_modules=[query], modules_to_save=["global_embeddings"], task_type="SEQ_CLS")
    model = peft.get_peft_model(ours, config).train()
    inputs = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [50, 40])
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    trained = next(p for name, p in model.named_parameters() if "global_embeddings.modules_to_save" in name)
    before = trained.detach().clone()
    for _ in range(2):
        optimizer.zero_grad()
        model(**inputs).logits.square().sum().backward()
        optimizer.step()
    assert not torch.equal(trained[0], before[0]) and torch.equal(trained[5], before[5])
    model.eval().save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(other, tmp_path).eval()
    with torch.no_grad():
        expected = model(**inputs).logits
        tolerance = 1e-5 * max(1.0, expected.abs().max().item())
        assert (loaded(**inputs).logits - expected).abs().max().item() < tolerance
        merged = loaded.merge_and_unload()
        assert (merged(**inputs).logits - expected).abs().max().item() < tolerance


@pytest.mark.parametrize("model_type", [name for name in PREFIXED if name in CLASSIFIERS])
def test_a_classifier_is_tuned_by_a_prefix(model_type: str) -> None:
    peft = pytest.importorskip("peft")
    architecture = architecture_of(model_type, "AutoModelForSequenceClassification")
    config = peft.PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4)
    dense, model = (peft.get_peft_model(model, config) for model in convert_tiny(model_type, architecture))
    inputs = make_inputs(load_tokenizer(model_type), model.config.vocab_size, [90, 40])
    try:
        dense(**inputs)
    except ValueError as error:
        pytest.skip(f"this version of peft cannot tune the original either: {error}")
    model(**inputs).logits.square().sum().backward()
    prompt = next(p for name, p in model.named_parameters() if "prompt_encoder" in name)
    assert prompt.grad.abs().sum() > 0


@pytest.mark.parametrize("names", [["cache"], ["past_key_values"], ["cache", "past_key_values"]])
@pytest.mark.parametrize("model_type, architecture", CAUSAL)
def test_a_cache_has_the_names_of_the_original(model_type: str, architecture: str, names: list[str]) -> None:
    """Which name is read, which warnings come, and what the outputs call it depends on the version of transformers."""
    models = convert_tiny(model_type, architecture, {"is_decoder": True}, **EXACT)
    ids = make_inputs(load_tokenizer(model_type), models[0].config.vocab_size, [9, 9])["input_ids"]
    found = []
    for model in models:
        with torch.no_grad(), warnings.catch_warnings(record=True, action="always") as caught:
            caches = [model(torch.cat([ids] * (1 + i), 1), use_cache=True).to_tuple()[1] for i in range(len(names))]
            outputs = model(ids, **dict(zip(names, caches, strict=True)), use_cache=True)
        lengths = [cache.get_seq_length() for cache in [*caches, outputs.to_tuple()[1]]]
        messages = [str(warning.message).replace("`LSG", "`") for warning in caught]
        found.append((list(outputs), lengths, messages, outputs.logits))
    (*theirs, expected), (*mine, logits) = found
    assert mine == theirs and (logits - expected).abs().max().item() < 1e-5


@pytest.mark.parametrize("names", [["past_key_values"], [CACHE_NAME], ["past_key_values", CACHE_NAME]])
@pytest.mark.parametrize("model_type, architecture", CAUSAL)
def test_every_part_reads_a_cache_by_name(model_type: str, architecture: str, names: list[str]) -> None:
    """If two caches are given, that of the last name is read, by the encoder and by the check of lengths."""
    base = convert_tiny(model_type, architecture, {"is_decoder": True})[1].base_model
    ids = make_inputs(load_tokenizer(model_type), base.config.vocab_size, [18])["input_ids"]
    places = torch.arange(18)[None] + MODEL_TYPES[model_type].position_offset(base.config)
    with torch.no_grad():
        expected = base(ids, position_ids=places).last_hidden_state[:, 9:]
        embedded = [base.embeddings(ids[:, part], position_ids=places[:, part]) for part in (slice(9), slice(9, 18))]
        if hasattr(base, "embeddings_project"):
            embedded = map(base.embeddings_project, embedded)
        caches = {**dict.fromkeys(names, DynamicCache()), names[-1]: DynamicCache()}
        if model_type == "xmod":
            caches["lang_ids"] = torch.ones(1)
        _, states = (base.encoder(part, **caches, use_cache=True).last_hidden_state for part in embedded)
    states = getattr(base, "LayerNorm", torch.nn.Identity())(states)  # RoBERTa-PreLayerNorm has one behind its encoder
    assert (states - expected).abs().max().item() < 1e-5
    with pytest.raises(ValueError, match="the model reads 1100 tokens, 1110 were given"):
        base(ids[:, :1].expand(1, 1092), **caches)
