"""One contract for every architecture of every type: converted, saved, and loaded elsewhere through its AutoClass."""

import copy
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from helpers import HEADS, SEQ2SEQ, TYPES, initial, load_dense, load_tokenizer, make_inputs
from transformers import AutoConfig, pipeline
from transformers.pipelines import SUPPORTED_TASKS

from lsg import LSGConverter
from lsg.model_types import MODEL_TYPES

LENGTH = 1100
PIPELINES = {
    "ForMaskedLM": "fill-mask",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "LMHeadModel": "text-generation",
    "ForCausalLM": "text-generation",
    "ForQuestionAnswering": "question-answering",
    "GenerationDecoder": "text-generation",
    "Model": "feature-extraction",
    "GenerationEncoder": "feature-extraction",
}
PIPELINES = {end: task for end, task in PIPELINES.items() if task in SUPPORTED_TASKS}  # some come and go


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A converted folder of each type, moved away from where it was made."""
    made = {}
    for model_type in TYPES:
        root = tmp_path_factory.mktemp(model_type)
        converter = LSGConverter(LENGTH)
        for part in converter.convert_from_pretrained(initial(model_type), block_size=16, sparse_block_size=16):
            part.save_pretrained(root / "made")
        made[model_type] = Path(shutil.move(root / "made", root / f"lsg-{model_type}"))
    return made


def load(folder: Path, model_type: str, architecture: str, **fields):
    """Load through the AutoClass; a head that the folder lacks is random, always the same."""
    classes = MODEL_TYPES[model_type].auto_classes
    auto_class = next(name for name, c in classes.items() if c.__name__ == "LSG" + architecture)
    if auto_class == "AutoModelForCausalLM" and model_type not in SEQ2SEQ:
        fields["is_decoder"] = True
    torch.manual_seed(0)
    model = getattr(transformers, auto_class).from_pretrained(folder, trust_remote_code=True, **fields)
    assert type(model).__name__ == "LSG" + architecture
    assert type(model).__module__.startswith("transformers_modules.")
    return model.eval()


def run(model, inputs: dict) -> list[torch.Tensor]:
    """Return all output tensors, and check that they are finite and that the inputs are as they were."""
    before = copy.deepcopy(inputs)
    outputs = [x for x in model(**inputs).to_tuple() if isinstance(x, torch.Tensor)]
    assert outputs and all(x.isfinite().all() for x in outputs)
    assert all(torch.equal(x, before[name]) for name, x in inputs.items())
    return outputs


def inputs_for(model, model_type: str, architecture: str, lengths: list[int]) -> dict:
    return make_inputs(load_tokenizer(model_type), model.config.vocab_size, lengths, architecture)


@pytest.mark.parametrize("model_type, architecture", HEADS)
def test_every_length_mask_and_padding(model_type: str, architecture: str, folders) -> None:
    model = load(folders[model_type], model_type, architecture)
    with torch.no_grad():
        for length in (1, 2, 20, 33, 90, LENGTH):
            whole = inputs_for(model, model_type, architecture, [length, length])
            masked = run(model, whole)
            unmasked = run(model, {name: x for name, x in whole.items() if name != "attention_mask"})
            assert all(torch.equal(a, b) for a, b in zip(masked, unmasked, strict=True))
        right = inputs_for(model, model_type, architecture, [90, 41])
        run(model, right)
        run(model, {name: x if name.startswith("decoder") else x.flip(-1) for name, x in right.items()})


@pytest.mark.parametrize("model_type, architecture", HEADS)
def test_conversion_in_memory_shares_the_weights_that_were_shared(model_type: str, architecture: str) -> None:
    """The words and the head of a masked language model, for instance, which training would otherwise drive apart."""
    model = load_dense(model_type, architecture)
    if getattr(model.base_model, "pooler", "none") is None and architecture.endswith("ForMultipleChoice"):
        pytest.skip("this version of transformers forgot the pooler of its own class")
    converted, _ = LSGConverter(LENGTH).convert(model, load_tokenizer(model_type))

    def shared(owner: torch.nn.Module) -> set[frozenset[str]]:
        groups: dict[int, list[str]] = {}
        for name, weight in owner.named_parameters(remove_duplicate=False):
            groups.setdefault(id(weight), []).append(name)
        return {frozenset(names) for names in groups.values() if len(names) > 1}

    assert shared(converted) == shared(model)


@pytest.mark.parametrize("model_type, architecture", HEADS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_a_wholly_padded_row(model_type: str, architecture: str, dtype, folders) -> None:
    pooling = {"classifier_pooling": "bos"} if model_type == "eurobert" else {}  # not NaN: a mean of no tokens
    model = load(folders[model_type], model_type, architecture, dtype=dtype, **pooling)
    # words under the padding: RoBERTa's padding embeds to zero here, whose LayerNorm overflows in fp16, dense or not
    inputs = inputs_for(model, model_type, architecture, [70, 70])
    inputs["attention_mask"][0] = 0
    inputs["attention_mask"][1, ..., 40:] = 0
    outputs = run(model, inputs)
    sum(x.float().sum() for x in outputs if x.requires_grad).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("model_type, architecture", HEADS)
def test_a_padded_row_gives_what_it_gives_alone(model_type: str, architecture: str, folders) -> None:
    """Rows are packed, or skip the blocks that are all padding: outputs and gradients stay the same."""
    if architecture.endswith("ForMultipleChoice"):
        pytest.skip("its choices are rows of one example")
    model = load(folders[model_type], model_type, architecture)
    inputs = inputs_for(model, model_type, architecture, [75, 23, 40])
    if model_type in SEQ2SEQ and not architecture.endswith("ForCausalLM"):
        inputs["decoder_input_ids"] = inputs["input_ids"]
    together, gradients = [], []
    for fields in ({}, {"output_hidden_states": True}):  # the second time nothing is packed
        model.zero_grad()
        output = model(**inputs, **fields)[0]
        output = output[:, 0] if architecture == "SplinterForPreTraining" else output  # of its question
        together.append(output)
        mask = inputs["attention_mask"]
        is_by_token = output.dim() > 1 and output.shape[1] == mask.shape[1]
        kept = output[mask.bool()] if is_by_token else output
        kept.square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    largest = max(gradient.abs().max() for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        assert (gradient - gradients[1][name]).abs().max() <= 1e-5 * largest, name
    for row, length in enumerate([75, 23, 40]):
        alone = {name: x[row : row + 1] for name, x in inputs.items()}
        alone = {name: x[:, :length] for name, x in alone.items()}
        with torch.no_grad():
            expected = model(**alone)[0][0]
            expected = expected[0] if architecture == "SplinterForPreTraining" else expected
        for output in together:
            found = output[row, :length] if is_by_token else output[row]
            assert (found - expected).abs().max() < 1e-4 * expected.abs().max().clamp(min=1)


@pytest.mark.parametrize("model_type, architecture", HEADS)
def test_gradient_checkpointing_gives_the_same_gradients(model_type: str, architecture: str, folders) -> None:
    config = AutoConfig.from_pretrained(initial(model_type)).to_dict()
    no_dropout = {name: 0.0 for name, value in config.items() if "drop" in name and isinstance(value, float)}
    model = load(folders[model_type], model_type, architecture, **no_dropout).train()
    inputs = inputs_for(model, model_type, architecture, [70, 40])
    model.config.use_cache = False  # checkpointing turns it off, and with a cache padding is computed, too
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        run(model, inputs)[0].clamp(min=-1e4).square().sum().backward()  # Splinter gives padding the lowest number
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    if not (model_type in SEQ2SEQ and architecture.endswith("ForCausalLM")):
        assert any("global_embeddings" in name for name in gradients[0])
    largest = max(gradient.abs().max() for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        assert (gradient - gradients[1][name]).abs().max() <= 1e-5 * largest, name


@pytest.mark.parametrize(
    "model_type, architecture",
    [
        (t, a)
        for t, a in HEADS
        if any(a.endswith(end) for end in PIPELINES) and not (t in SEQ2SEQ and a.endswith("Model"))
    ],
)
def test_pipelines(model_type: str, architecture: str, folders) -> None:
    model, tokenizer = load(folders[model_type], model_type, architecture), load_tokenizer(model_type)
    task = next(task for end, task in PIPELINES.items() if architecture.endswith(end))
    options = {"max_new_tokens": 3} if task == "text-generation" else {}
    text = "a short text " * 30 + (tokenizer.mask_token if task == "fill-mask" else "")
    answer = pipeline(task, model=model, tokenizer=tokenizer)
    results = answer(question="what?", context=text) if task == "question-answering" else answer(text, **options)
    assert len(results) > 0
