"""What the published converter answers on tiny checkpoints: converted tensors and outputs, type by type."""

import json

import pytest
import torch
from helpers import GOLDEN, initial
from helpers import GOLDEN_TYPES as TYPES
from safetensors.torch import load_file
from transformers import AutoModel

from lsg import LSGConverter
from lsg.model_types import MODEL_TYPES

TOLERANCE = 1e-5
# the published bos_pooling is wrong where a chunk is wholly padding (lsg-attention.md, "Fixed here")
WRONG = "bos_pooling_f4"


def cases(model_type: str) -> dict:
    return json.loads((GOLDEN / model_type / "cases.json").read_text())


def variants() -> list[tuple[str, str]]:
    return [(t, variant) for t in TYPES for variant in cases(t)["variants"]]


@pytest.fixture(scope="session")
def converted(tmp_path_factory):
    """Convert each type once, as the golden data were; return its folder."""
    folders = {}

    def convert(model_type: str):
        if model_type not in folders:
            given = cases(model_type)
            converter = LSGConverter(
                given["max_sequence_length"],
                global_positional_stride=given["global_positional_stride"],
                use_token_ids=given["use_token_ids"],
            )
            folder = tmp_path_factory.mktemp(model_type) / "converted"
            for part in converter.convert_from_pretrained(initial(model_type)):
                part.save_pretrained(folder)
            folders[model_type] = folder
        return folders[model_type]

    return convert


def compare_tensors(model, name: str, model_type: str) -> None:
    """Compare a model's tensors with the golden ones, and see that nothing else changed."""
    golden = load_file(GOLDEN / model_type / f"{name}.safetensors")
    ours = model.state_dict()
    for key, expected in golden.items():
        assert ours[key].shape == expected.shape, key
        assert torch.equal(ours[key], expected), f"{key}: {(ours[key] - expected).abs().max()}"


@pytest.mark.parametrize("model_type", TYPES)
def test_converted_tensors_and_config(model_type: str, converted) -> None:
    model, tokenizer = LSGConverter(cases(model_type)["max_sequence_length"]).convert_from_pretrained(
        initial(model_type)
    )
    compare_tensors(model, "converted_tensors", model_type)
    original = load_file(initial(model_type) / "model.safetensors")
    changed = set(load_file(GOLDEN / model_type / "converted_tensors.safetensors"))
    for key in set(original) - changed:
        assert torch.equal(model.state_dict()[key], original[key]), key
    golden = json.loads((GOLDEN / model_type / "converted_config.json").read_text())
    ours = json.loads(model.config.to_json_string())
    for key in set(golden) - {"transformers_version", "torch_dtype", "auto_map", "model_type", "forced_eos_token_id"}:
        assert ours.get(key, getattr(model.config, key, None)) == golden[key], key
    assert ours["model_type"] == {"barthez": "mbart"}.get(model_type, model_type)
    assert golden["auto_map"].items() <= ours["auto_map"].items()
    assert tokenizer.model_max_length == cases(model_type)["tokenizer_model_max_length"]


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize("name", ["stride128", "no_token_ids", "resized", "kept_first"])
def test_conversion_options(model_type: str, name: str, converted) -> None:
    if not (GOLDEN / model_type / f"converted_{name}.safetensors").exists():
        pytest.skip("the published converter made no such checkpoint")
    options = dict(cases(model_type)["conversions"][name])
    source = converted(model_type) if options.pop("from_lsg", False) else initial(model_type)
    options = {"max_sequence_length": cases(model_type)["max_sequence_length"], **options}
    model, _ = LSGConverter(**options).convert_from_pretrained(source)
    compare_tensors(model, f"converted_{name}", model_type)


def output_named(outputs, name: str) -> torch.Tensor:
    """The output that the golden data call "hidden", "encoder", "decoder" or "logits"."""
    if name == "logits":
        return outputs.logits[:, :4, :48]
    return outputs.encoder_last_hidden_state if name == "encoder" else outputs.last_hidden_state


@pytest.mark.parametrize("model_type, variant", variants())
def test_outputs(model_type: str, variant: str, converted) -> None:
    given, golden = cases(model_type), load_file(GOLDEN / model_type / "outputs.safetensors")
    classes = MODEL_TYPES[model_type].auto_classes
    for case in given["cases"]:
        if case["variant"] != variant:
            continue
        length = case["length"]
        if variant == WRONG and length == "long":
            continue
        model_class = classes[case["model"]]
        model = model_class.from_pretrained(converted(model_type), **given["variants"][variant]).eval()
        mask = golden[f"attention_mask/{length}"]
        decoder = {"decoder_input_ids": golden["decoder_input_ids"]} if "decoder_input_ids" in golden else {}
        with torch.no_grad():
            outputs = model(input_ids=golden[f"input_ids/{length}"], attention_mask=mask, **decoder)
        for name in case["outputs"]:
            expected = golden[f"{variant}/{length}/{name}"]
            difference = (output_named(outputs, name) - expected).abs()
            if name in ("hidden", "encoder"):
                real = torch.nn.functional.pad(mask, (difference.shape[1] - mask.shape[1], 0), value=1)
                difference = difference * real[..., None]  # globals are real
            if variant == WRONG:
                difference = difference[:1]
            assert difference.max().item() < TOLERANCE, f"{length}, {name}"


@pytest.mark.parametrize("model_type", TYPES)
def test_original_outputs(model_type: str) -> None:
    """The dense original answers today as it did when the golden data were made."""
    golden = load_file(GOLDEN / model_type / "outputs.safetensors")
    keys = [key for key in golden if key.startswith("original/short/")]
    model = AutoModel.from_pretrained(initial(model_type)).eval()
    mask = golden["attention_mask/short"]
    decoder = {"decoder_input_ids": golden["decoder_input_ids"]} if "decoder_input_ids" in golden else {}
    with torch.no_grad():
        outputs = model(golden["input_ids/short"], mask, **decoder)
    for key in keys:
        difference = (output_named(outputs, key.rsplit("/")[-1]) - golden[key]).abs() * mask[..., None]
        assert difference.max().item() < TOLERANCE, key
    assert keys
