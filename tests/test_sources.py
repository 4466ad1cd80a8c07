"""What people convert: LSG checkpoints of the published converter, sharded ones, custom architectures, old formats."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import EXACT, GOLDEN, GOLDEN_TYPES, NO_BOS, SEQ2SEQ, TYPES, initial, load_dense, load_tokenizer, write_json
from safetensors.torch import load_file, save_file
from test_command import rewrite_json
from test_golden import TOLERANCE, cases, output_named
from test_weight_checks import add_weights
from transformers import AutoModel

from lsg import ConversionError, LSGConverter
from lsg.hub_options import HubOptions
from lsg.model_types import MODEL_TYPES, offset_after_padding, rotary_alone
from lsg.saving import save_checkpoint


def published(model_type: str, folder: Path, as_bin: bool) -> Path:
    """Write a checkpoint as the published converter does, with a modeling file, which must not run."""
    shutil.copytree(initial(model_type), folder)
    shutil.copy(GOLDEN / model_type / "converted_config.json", folder / "config.json")
    add_weights(folder, load_file(GOLDEN / model_type / "converted_tensors.safetensors"), as_bin)
    for name in {item.split(".")[0] for item in json.loads((folder / "config.json").read_text())["auto_map"].values()}:
        (folder / f"{name}.py").write_text("raise RuntimeError('the code of a checkpoint was run')\n")
    return folder


@pytest.mark.parametrize("model_type", GOLDEN_TYPES)
@pytest.mark.parametrize("as_bin", [False, True])
def test_checkpoints_of_the_published_converter(model_type: str, as_bin: bool, tmp_path: Path) -> None:
    """Conversion keeps their globals and outputs, and may add positions."""
    source = published(model_type, tmp_path / "published", as_bin)
    golden = load_file(GOLDEN / model_type / "outputs.safetensors")
    fields = cases(model_type)["variants"]["norm_f2"]
    converter = LSGConverter(1100, resize_lsg=True)
    model, tokenizer = converter.convert_from_pretrained(source, **fields)
    assert type(model).__name__ == json.loads((source / "config.json").read_text())["architectures"][0]
    decoder = {"decoder_input_ids": golden["decoder_input_ids"]} if model_type in SEQ2SEQ else {}
    mask = golden["attention_mask/long"]
    with torch.no_grad():
        outputs = model.base_model(golden["input_ids/long"], mask, **decoder)
    name = "decoder" if model_type in SEQ2SEQ else "hidden"
    difference = (output_named(outputs, name) - golden[f"norm_f2/long/{name}"]).abs()
    if name == "hidden":
        difference = difference * mask[..., None]
    assert difference.max().item() < TOLERANCE
    assert tokenizer.model_max_length == 1100


@pytest.mark.parametrize("model_type", ["roberta", "mbart"])
def test_sharded_in_and_out(model_type: str, tmp_path: Path, monkeypatch) -> None:
    dense = load_dense(model_type, MODEL_TYPES[model_type].default_architecture)
    dense.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    load_tokenizer(model_type).save_pretrained(tmp_path / "sharded")
    assert len(list((tmp_path / "sharded").glob("model-*.safetensors"))) > 2
    model, tokenizer = LSGConverter(1100).convert_from_pretrained(tmp_path / "sharded")
    whole, _ = LSGConverter(1100).convert_from_pretrained(initial(model_type))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    (tmp_path / "out").mkdir()
    save_checkpoint(model, tokenizer, tmp_path / "out", max_shard_size="20KB")
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 2
    again = type(model).from_pretrained(tmp_path / "out")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_of_an_unlisted_architecture_the_base_model_is_converted(tmp_path: Path, caplog) -> None:
    source = Path(shutil.copytree(initial("bert"), tmp_path / "colbert"))
    rewrite_json(source / "config.json", architectures=["ColBERT"])
    add_weights(source, {"linear.weight": torch.ones(4, 16)}, as_bin=False)
    model, _ = LSGConverter(600).convert_from_pretrained(source)
    assert type(model).__name__ == "LSGBertModel"
    assert "ColBERT is not one of transformers' own classes for bert" in caplog.text
    assert "left out: cls.predictions" in caplog.text and "linear.weight" in caplog.text
    assert "pooler" not in caplog.text
    model, _ = LSGConverter(600).convert_from_pretrained(source, architecture="BertForMaskedLM")
    assert type(model).__name__ == "LSGBertForMaskedLM"


def test_barthez_by_either_name(tmp_path: Path) -> None:
    source = Path(shutil.copytree(initial("barthez"), tmp_path / "barthez"))
    for model_type in ("mbart", "barthez"):
        rewrite_json(source / "config.json", model_type=model_type)
        model, tokenizer = LSGConverter(1100).convert_from_pretrained(source)
        assert type(model).__name__ == "LSGMBartForConditionalGeneration" and model.config.model_type == "mbart"
        assert tokenizer("un deux").input_ids == load_tokenizer("barthez")("un deux").input_ids


@pytest.mark.parametrize("mean", [0.0, 3.0])
def test_random_globals_have_the_words_mean_and_covariance(mean: float) -> None:
    from lsg.embedding_init import draw_words

    generator = torch.Generator().manual_seed(0)
    words = mean + torch.randn(3000, 4, generator=generator) @ torch.randn(4, 4, generator=generator)
    drawn = draw_words(words, 100_000, generator)
    assert (drawn.mean(0) - words.mean(0)).abs().max().item() < 0.05
    assert (drawn.T.cov() - words.T.cov()).abs().max().item() < 0.1


def test_sinusoids_may_be_left_out_of_a_checkpoint(tmp_path: Path) -> None:
    source = Path(shutil.copytree(initial("pegasus"), tmp_path / "pegasus"))
    tensors = load_file(source / "model.safetensors")
    kept = {name: x for name, x in tensors.items() if "embed_positions" not in name}
    assert len(kept) < len(tensors)
    save_file(kept, source / "model.safetensors", metadata={"format": "pt"})
    model, _ = LSGConverter(1100).convert_from_pretrained(source)
    whole, _ = LSGConverter(1100).convert_from_pretrained(initial("pegasus"))
    for name, tensor in whole.state_dict().items():
        assert (tensor - model.state_dict()[name]).abs().max().item() < 1e-6, name


def test_weights_with_names_of_their_own_are_refused_in_memory() -> None:
    dense = load_dense("bert", "BertForMaskedLM")
    attention = dense.bert.encoder.layer[0].attention.self
    attention.query = torch.nn.ModuleDict({"base_layer": attention.query})
    with pytest.raises(ConversionError, match="query"):
        LSGConverter(600).convert(dense, load_tokenizer("bert"))


def test_the_other_name_of_lsh_num_pre_rounds(tmp_path: Path) -> None:
    for part in LSGConverter(600).convert_from_pretrained(initial("bert"), lsg_num_pre_rounds=2):
        part.save_pretrained(tmp_path)
    model, _ = LSGConverter(600, resize_lsg=True).convert_from_pretrained(tmp_path, lsg_num_pre_rounds=3)
    assert model.config.lsh_num_pre_rounds == 3
    loaded = AutoModel.from_pretrained(tmp_path, trust_remote_code=True, lsg_num_pre_rounds=4)
    assert loaded.config.lsh_num_pre_rounds == 4


@pytest.mark.parametrize(
    "model_type", [name for name in TYPES if name != "nomic_bert"]
)  # transformers refuses its config
def test_without_a_padding_token(model_type: str, tmp_path: Path) -> None:
    """It is converted if the dense model runs without one; otherwise the error says what to set."""
    source = Path(shutil.copytree(initial(model_type), tmp_path / "source"))
    config = json.loads((source / "config.json").read_text())
    write_json(source / "config.json", {**config, "pad_token_id": None})
    ids = torch.arange(5, 45).reshape(2, 20)
    inputs = {"input_ids": ids, **({"decoder_input_ids": ids} if model_type in SEQ2SEQ else {})}
    architecture = MODEL_TYPES[model_type].default_architecture
    fields = {} if model_type in NO_BOS else EXACT
    if MODEL_TYPES[model_type].position_offset in (offset_after_padding, rotary_alone):
        with pytest.raises(ConversionError, match="pad_token_id=None is not allowed.*set it with model_kwargs"):
            LSGConverter(1100).convert_from_pretrained(source)
        fields = {**fields, "pad_token_id": 1}
    model, _ = LSGConverter(1100).convert_from_pretrained(source, **fields)
    if model_type not in NO_BOS:  # the others are not exact
        ids[:, 0] = load_tokenizer(model_type)("a")["input_ids"][0]
        with torch.no_grad():
            expected = load_dense(model_type, architecture).base_model(**inputs)[0]
            found = model.base_model(**inputs)[0]
        assert (found - expected).abs().max().item() < 1e-4


def test_hub_options_are_taken_from_the_keywords() -> None:
    keywords = {"token": "hf_secret", "force_download": True, "dtype": None, "block_size": 64}
    hub = HubOptions.take_from(keywords)
    assert keywords == {"block_size": 64} and "hf_secret" not in repr(hub)
    assert hub.for_files() == {"token": "hf_secret", "force_download": True}
    assert hub.for_model() == {"token": "hf_secret", "dtype": "auto"}
    assert hub.for_tokenizer() == {**hub.for_files(), "trust_remote_code": False}


def test_a_subfolder(tmp_path: Path) -> None:
    shutil.copytree(initial("roberta"), tmp_path / "inner")
    model, _ = LSGConverter(600).convert_from_pretrained(tmp_path, subfolder="inner")
    assert type(model).__name__ == "LSGRobertaForMaskedLM"


@pytest.mark.parametrize("model_type", ["roberta", "bart"])
def test_a_loaded_lsg_model_is_converted_in_memory(model_type: str, tmp_path: Path) -> None:
    """Its class is that of the copied code, but it is recognized as LSG: its globals are kept."""
    for part in LSGConverter(1100).convert_from_pretrained(initial(model_type)):
        part.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, trust_remote_code=True)
    with torch.no_grad():
        globals_ = next(p for name, p in loaded.named_parameters() if "global_embeddings" in name).add_(1)
    longer, tokenizer = LSGConverter(1300, resize_lsg=True).convert(loaded, load_tokenizer(model_type))
    found = next(p for name, p in longer.named_parameters() if "global_embeddings" in name)
    assert torch.equal(found, globals_) and tokenizer.model_max_length == 1300


def test_a_type_that_this_transformers_lacks_names_the_release_that_has_it(monkeypatch) -> None:
    def fail(*args: str) -> None:
        raise ImportError("cannot import name 'BertConfig' from 'transformers'")

    monkeypatch.setattr("lsg.model_types.importlib", SimpleNamespace(import_module=fail))
    row = replace(MODEL_TYPES["bert"], since="5.99.0")
    with pytest.raises(ConversionError, match="model type 'bert' needs transformers 5.99.0 or later; 5.* is installed"):
        row.auto_classes  # noqa: B018 (it is imported here)
