"""sentence-transformers checkpoints: short texts keep their embeddings, and no pickle is copied."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from helpers import initial, write_json
from huggingface_hub import metadata_load
from safetensors.torch import load_file, save_file
from test_command import rewrite_json, run
from test_refusals import RunsCode

from lsg import LSGConverter

LOGGED = "a sentence-transformers checkpoint: mask_first_token is set"
DENSE = "sentence_transformers.models.Dense"
TEXTS = ["a b", "the house of the river " * 5, "one two three"]
FRONT = """---
license: apache-2.0
library_name: sentence-transformers
tags:
- sentence-transformers
- feature-extraction
- sentence-similarity
- onnx
- text-embeddings-inference
pipeline_tag: sentence-similarity
---
# A card
"""


def add_part(folder: Path, modules: list, kind: str, **config) -> Path:
    """Add a part to a sentence encoder; return its folder."""
    part = folder / f"{len(modules)}_{kind.rsplit('.', 1)[-1]}"
    part.mkdir()
    write_json(part / "config.json", config)
    modules.append({"idx": len(modules), "name": str(len(modules)), "path": part.name, "type": kind})
    write_json(folder / "modules.json", modules)
    return part


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """A BERT with mean pooling and a Dense module, whose weights are a pickle, as in old checkpoints."""
    folder = Path(shutil.copytree(initial("bert"), tmp_path / "encoder"))
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    kind = "sentence_transformers.models.Pooling"
    add_part(folder, modules, kind, word_embedding_dimension=16, pooling_mode_mean_tokens=True)
    sizes = {"in_features": 16, "out_features": 8, "bias": True}
    part = add_part(folder, modules, DENSE, activation_function="torch.nn.modules.activation.Tanh", **sizes)
    generator = torch.Generator().manual_seed(0)
    linear = {"weight": torch.randn(8, 16, generator=generator), "bias": torch.randn(8, generator=generator)}
    torch.save({f"linear.{name}": x for name, x in linear.items()}, part / "pytorch_model.bin")
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 128, "do_lower_case": False})
    (folder / "README.md").write_text(FRONT, encoding="utf-8")
    return folder


def config_of(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


def dense_weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "2_Dense" / "pytorch_model.bin", weights_only=True)


@pytest.mark.parametrize("form", ["pickle", "safetensors", "both"])
def test_it_embeds_short_texts_as_the_original_does(form: str, encoder: Path, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    part = encoder / "2_Dense"
    expected = dense_weights(encoder)
    if form != "pickle":
        save_file(expected, part / "model.safetensors", metadata={"format": "pt"})
    if form == "safetensors":
        (part / "pytorch_model.bin").unlink()
    assert run(encoder, tmp_path / "out") == 0
    original = library.SentenceTransformer(str(encoder), device="cpu")
    converted = library.SentenceTransformer(str(tmp_path / "out"), device="cpu", trust_remote_code=True)
    assert abs(original.encode(TEXTS) - converted.encode(TEXTS)).max() < 1e-5
    assert converted.max_seq_length == 600
    for name, tensor in converted[2].state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_no_pickle_is_copied(encoder: Path, tmp_path: Path, caplog) -> None:
    torch.save({}, encoder / "1_Pooling" / "pytorch_model.bin")
    assert run(encoder, tmp_path / "out") == 0
    assert list((tmp_path / "out").rglob("*.bin")) == []
    assert "Pooling, left out: 1_Pooling/pytorch_model.bin" in caplog.text
    saved, expected = load_file(tmp_path / "out" / "2_Dense" / "model.safetensors"), dense_weights(encoder)
    assert saved.keys() == expected.keys() and all(torch.equal(saved[name], expected[name]) for name in saved)


def test_pickles_that_cannot_be_converted(encoder: Path, tmp_path: Path, capfd, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = encoder / "2_Dense" / "pytorch_model.bin"
    for content, message in ((RunsCode(), "2_Dense/pytorch_model.bin: the weights cannot be loaded"),
                             ([torch.ones(3)], "tensors by name are expected")):  # fmt: skip
        torch.save(content, file)
        run_refused(capfd, encoder, tmp_path, message)
    file.write_bytes(pickle.dumps(RunsCode(), protocol=2))
    run_refused(capfd, encoder, tmp_path, "2_Dense/pytorch_model.bin: the weights cannot be loaded")
    modules = json.loads((encoder / "modules.json").read_text())
    write_json(encoder / "modules.json", [*modules[:2], {**modules[2], "type": "their.Dense"}])
    run_refused(capfd, encoder, tmp_path, "it is not known whether their.Dense reads model.safetensors")
    assert not list(tmp_path.rglob("RUN_BY_*"))


def run_refused(capfd, source: Path, tmp_path: Path, message: str) -> None:
    """Check that it ends with an error of one line, after the one on mask_first_token, and writes nothing."""
    assert run(source, tmp_path / "out") == 1
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("convert_checkpoint.py: error: ") and message in error
    assert not (tmp_path / "out").exists()


def test_mask_first_token_is_the_default_and_logged(encoder: Path, tmp_path: Path, caplog) -> None:
    assert run(encoder, tmp_path / "out") == 0
    assert caplog.text.count(LOGGED) == 1 and config_of(tmp_path / "out")["mask_first_token"] is True
    model, _ = LSGConverter(600).convert_from_pretrained(encoder)
    assert model.config.mask_first_token is True
    caplog.clear()
    assert run(encoder, tmp_path / "named", "--model_kwargs", "{'mask_first_token': false}") == 0
    assert LOGGED not in caplog.text and config_of(tmp_path / "named")["mask_first_token"] is False


@pytest.mark.parametrize("fields", [{"num_global_tokens": 2}, {"pool_with_global": False}])
def test_mask_first_token_is_not_set_where_it_is_useless(fields: dict, encoder: Path, caplog) -> None:
    """Nor for globals without token types, nor if texts do not begin with the token that global 0 represents."""
    assert LSGConverter(600).convert_from_pretrained(encoder, **fields)[0].config.mask_first_token is False
    converter = LSGConverter(600, use_token_ids=False)
    assert converter.convert_from_pretrained(encoder)[0].config.mask_first_token is False
    tokenizer = json.loads((encoder / "tokenizer.json").read_text(encoding="utf-8"))
    write_json(encoder / "tokenizer.json", {**tokenizer, "post_processor": None})
    rewrite_json(encoder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    assert LSGConverter(600).convert_from_pretrained(encoder)[0].config.mask_first_token is False
    assert LSGConverter(600).convert_from_pretrained(initial("bert"))[0].config.mask_first_token is False
    assert LOGGED not in caplog.text


@pytest.mark.parametrize("masked", ["true", "false"])
def test_lsg_sources_keep_theirs(masked: str, encoder: Path, tmp_path: Path, caplog) -> None:
    assert run(encoder, tmp_path / "out", "--model_kwargs", f"{{'mask_first_token': {masked}}}") == 0
    assert run(tmp_path / "out", tmp_path / "again", "--resize_lsg") == 0
    assert config_of(tmp_path / "again")["mask_first_token"] is (masked == "true")
    assert LOGGED not in caplog.text


def test_by_a_name_on_the_hub(encoder: Path, tmp_path: Path, caplog, monkeypatch) -> None:
    """Which is in the cache here, as tests do not use the network."""
    commit = "0" * 40
    snapshot = tmp_path / "cache" / "models--us--encoder" / "snapshots" / commit
    shutil.copytree(encoder, snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(commit)
    model, _ = LSGConverter(600).convert_from_pretrained("us/encoder", cache_dir=str(tmp_path / "cache"))
    assert model.config.mask_first_token is True
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    assert run(Path("us/encoder"), tmp_path / "out") == 0
    assert caplog.text.count(LOGGED) == 2 and config_of(tmp_path / "out")["mask_first_token"] is True
    assert metadata_load(tmp_path / "out" / "README.md")["base_model"] == "us/encoder"


def test_the_card_and_the_closing_line(encoder: Path, tmp_path: Path, capfd) -> None:
    assert run(encoder, tmp_path / "out") == 0
    load = 'SentenceTransformer("{}", trust_remote_code=True)'
    assert f"Load it:  {load.format(tmp_path / 'out')}\n" in capfd.readouterr().out
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert load.format("out") in card and 'AutoModelForPreTraining.from_pretrained("out", trust' in card
    assert "Texts of up to 256 tokens" in card and "`mask_first_token` is\nset" in card
    front = metadata_load(tmp_path / "out" / "README.md")
    assert front["library_name"] == "sentence-transformers" and front["pipeline_tag"] == "sentence-similarity"
    kept = ["sentence-transformers", "feature-extraction", "sentence-similarity"]
    assert front["tags"] == [*kept, "lsg", "long-context", "custom_code"] and front["license"] == "apache-2.0"
    assert run(encoder, tmp_path / "named", "--model_kwargs", "{'mask_first_token': false}") == 0
    assert "embed as by the original" not in (tmp_path / "named" / "README.md").read_text(encoding="utf-8")


def test_the_card_of_another_checkpoint(source: Path, tmp_path: Path, capfd) -> None:
    (source / "README.md").write_text(FRONT, encoding="utf-8")
    assert run(source, tmp_path / "out") == 0
    assert 'Load it:  AutoModelForMaskedLM.from_pretrained("' in capfd.readouterr().out
    front = metadata_load(tmp_path / "out" / "README.md")
    assert front["library_name"] == "transformers" and front["tags"] == ["lsg", "long-context", "custom_code"]


@pytest.mark.parametrize(
    "front",
    ["license: [", "\tlicense: mit", "- license", "5", "license: &a *a", "!!python/object:os.system {}", "\udce4"],
)
def test_a_broken_front_matter_is_a_warning(front: str, encoder: Path, tmp_path: Path, caplog) -> None:
    text = f"---\n{front}\n---\n# A card\n"
    (encoder / "README.md").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert run(encoder, tmp_path / "out") == 0
    warnings = [r.getMessage() for r in caplog.records if "README.md" in r.getMessage()]
    assert len(warnings) == 1 and "nothing of README.md's front matter is kept: " in warnings[0]
    assert "\n" not in warnings[0]
    assert metadata_load(tmp_path / "out" / "README.md")["library_name"] == "sentence-transformers"


@pytest.mark.parametrize(
    "tags", ["tags: retrieval", "tags: [retrieval, 3, {a: b}]", "model-index: 3\ntags: [retrieval]"]
)
def test_of_an_odd_front_matter_what_can_be_read_is_kept(tags: str, encoder: Path, tmp_path: Path) -> None:
    (encoder / "README.md").write_text(f"---\nlicense: mit\n1: 2\n{tags}\n---\n", encoding="utf-8")
    assert run(encoder, tmp_path / "out") == 0
    front = metadata_load(tmp_path / "out" / "README.md")
    assert front["license"] == "mit"
    assert front["tags"] == ["sentence-transformers", "retrieval", "lsg", "long-context", "custom_code"]


@pytest.mark.parametrize(
    "content, message",
    [("{", "not valid JSON"), ("[1]", "a JSON object is expected, this is a list"), ("\udce4", "not valid JSON")],
)
def test_damaged_settings(content: str, message: str, encoder: Path, tmp_path: Path, capfd) -> None:
    """sentence-transformers cannot load it, and defaults may differ from it, in lowercasing, for example."""
    (encoder / "sentence_bert_config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    run_refused(capfd, encoder, tmp_path, "sentence_bert_config.json: " + message)


def test_settings_by_an_old_name(encoder: Path, tmp_path: Path) -> None:
    (encoder / "sentence_bert_config.json").unlink()
    write_json(encoder / "sentence_distilbert_config.json", {"max_seq_length": 128, "do_lower_case": True})
    assert run(encoder, tmp_path / "out") == 0
    settings = json.loads((tmp_path / "out" / "sentence_bert_config.json").read_text())
    assert settings == {"max_seq_length": 600, "do_lower_case": True}


def test_a_file_that_is_not_settings(source: Path, tmp_path: Path) -> None:
    """A checkpoint of transformers alone, with an unrelated file of that name."""
    (source / "sentence_bert_config.json").write_text("{")
    assert run(source, tmp_path / "out") == 0
