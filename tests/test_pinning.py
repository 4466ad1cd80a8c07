"""Conversion of models that answer questions: what is written, which sizes are chosen, and what is said about it."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from helpers import SEQ2SEQ, TYPES, architecture_of, encoders_with, initial, load_dense, load_tokenizer
from test_command import rewrite_json, run

from lsg.errors import ConversionError
from lsg.model_types import MODEL_TYPES
from lsg.modeling.lsg_config import fitting_sizes
from lsg.modeling.lsg_pinned import make_layout
from lsg.pinning import SIZE_FIELDS, smallest_period
from lsg_converter import LSGConverter

BEST = {"sparsity_type": "none", "block_size": 64}
DEFAULTS = {"sparsity_type": "norm", "block_size": 128, "sparse_block_size": 128, "sparsity_factor": 2}


def sizes(config) -> dict:
    return {name: getattr(config, name) for name in SIZE_FIELDS}


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """The lines that conversion logs about pinning."""
    lines: list[str] = []
    monkeypatch.setattr("lsg.pinning.logger.warning", lines.append)
    return lines


def convert_bert(architecture: str = "BertForQuestionAnswering", source: Path | None = None, **fields):
    """The config of a converted BERT, from its folder."""
    return LSGConverter(1100).convert_from_pretrained(str(source or initial("bert")), architecture, **fields)[0].config


def small_bert(folder: Path, num_positions: int) -> Path:
    fields = {**json.loads((initial("bert") / "config.json").read_text()), "max_position_embeddings": num_positions}
    model = transformers.BertForQuestionAnswering(transformers.BertConfig(**fields))
    for part in (model, load_tokenizer("bert")):
        part.save_pretrained(folder)
    return folder


def lsg_source(folder: Path, drop: tuple[str, ...] = (), **fields) -> Path:
    """An LSG checkpoint that answers questions, whose config lacks some fields, as those of earlier versions do."""
    converter = LSGConverter(1100)
    for part in converter.convert_from_pretrained(str(initial("bert")), "BertForQuestionAnswering", **fields):
        part.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k not in drop}))
    return folder


@pytest.mark.parametrize("model_type", TYPES)
def test_separator_and_period_are_always_written(model_type: str) -> None:
    """Of encoder types; the encoders of encoder-decoders have no pinned tokens."""
    architecture = architecture_of(model_type, "AutoModel")
    model, tokenizer = LSGConverter(1100).convert_from_pretrained(str(initial(model_type)), architecture)
    expected = (None, None) if model_type in SEQ2SEQ else (tokenizer.sep_token_id, 512)
    assert (model.config.separator_token_id, model.config.position_period) == expected
    assert model.config.pin_first_segment is False and sizes(model.config) == DEFAULTS


@pytest.mark.parametrize("model_type", encoders_with("AutoModelForQuestionAnswering"))
def test_a_plain_checkpoint_that_answers_questions_pins_by_itself(model_type: str, said: list[str]) -> None:
    """From a folder and in memory; what is chosen is said in one line."""
    architecture = architecture_of(model_type, "AutoModelForQuestionAnswering")
    loaded = LSGConverter(1100).convert_from_pretrained(str(initial(model_type)), architecture)[0]
    converted = LSGConverter(1100).convert(load_dense(model_type, architecture), load_tokenizer(model_type))[0]
    for config in (loaded.config, converted.config):
        assert config.pin_first_segment and sizes(config) == {**DEFAULTS, **BEST}
    assert len(said) == 2 and all(line.startswith("the question is pinned") and "\n" not in line for line in said)


@pytest.mark.parametrize(
    "fields",
    [{"pin_first_segment": False}, {"block_size": 128}, {"sparsity_type": "norm"}, {"sparsity_factor": 2}],
)
def test_a_user_who_chooses_gets_that(fields: dict, said: list[str]) -> None:
    config = convert_bert(**fields)
    assert config.pin_first_segment is False and sizes(config) == DEFAULTS
    hint = "the question is not pinned: a size was named; pin_first_segment=True pins it"
    assert said == ([] if "pin_first_segment" in fields else [hint])


def test_other_heads_pin_only_if_asked_to(said: list[str]) -> None:
    assert convert_bert("BertForTokenClassification").pin_first_segment is False and said == []
    config = convert_bert("BertForTokenClassification", pin_first_segment=True)
    assert config.pin_first_segment and sizes(config) == {**DEFAULTS, **BEST}
    assert said == [f"pin_first_segment: no size was named, so these are set: {in_words(BEST)}"]


def in_words(fields: dict) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in fields.items())


def test_a_user_who_pins_and_names_sizes_gets_those_or_an_error() -> None:
    config = convert_bert(pin_first_segment=True, sparsity_type="none", block_size=64)
    assert config.pin_first_segment and config.block_size == 64
    with pytest.raises(ConversionError, match=re.escape(f"(384); choose {in_words(BEST)}")):
        convert_bert(pin_first_segment=True, block_size=128)


@pytest.mark.parametrize("num_positions, block_size", [(512, 64), (256, 64), (255, 32), (192, 32), (128, None)])
def test_smaller_models_get_smaller_sizes(num_positions: int, block_size: int | None, tmp_path: Path, said) -> None:
    source = small_bert(tmp_path / "source", num_positions)
    config = convert_bert(source=source)
    assert config.position_period == num_positions and len(said) == 1
    if block_size:
        assert config.pin_first_segment and sizes(config) == {**DEFAULTS, **BEST, "block_size": block_size}
    else:
        assert config.pin_first_segment is False
        assert said[0].startswith("the question is not pinned: no sizes fit with position_period=128")
        with pytest.raises(ConversionError, match="no sizes fit, lower max_pinned_tokens"):
            convert_bert(source=source, pin_first_segment=True)
        assert convert_bert(source=source, max_pinned_tokens=32).block_size == 32


def test_fitting_sizes_fit_as_far_as_possible() -> None:
    for allowed in range(500):
        found = fitting_sizes(allowed)
        reach = 2 * found["block_size"] - 1 if found else 7
        assert (reach < allowed <= 2 * reach + 1 or (allowed > 127 == reach)) if found else allowed <= reach


def test_no_key_in_reach_has_the_position_of_its_query() -> None:
    """The largest sizes that are allowed, with as many pinned tokens as may be; one more would share a position."""
    config_class = MODEL_TYPES["bert"].config_class
    fields = {"sparsity_type": "none", "block_size": 192, "position_period": 512, "separator_token_id": 3}
    with pytest.raises(ValueError, match=r"\(383\) must be below position_period - max_pinned_tokens \(383\)"):
        config_class(pin_first_segment=True, max_pinned_tokens=129, **fields)
    config_class(pin_first_segment=True, max_pinned_tokens=128, **fields)
    mask = torch.ones(1, 2000, dtype=torch.bool)
    pinned = torch.arange(2000)[None] < 128
    layout = make_layout(mask, pinned, torch.arange(2000)[None] == 0, 128, 1872)
    position = layout.positions(512)[0, 128:]
    assert (position[:-383] != position[383:]).all() and (position[:-384] == position[384:]).all()


def test_what_cannot_be_pinned_is_converted_as_before(said: list[str]) -> None:
    assert convert_bert(adaptive=False).pin_first_segment is False
    assert said == ["the question is not pinned: adaptive is false"]
    assert convert_bert(is_decoder=True).pin_first_segment is False
    assert said[1:] == ["the question is not pinned: causal models cannot"]


def test_a_tokenizer_without_a_separator_between_texts(tmp_path: Path, said: list[str]) -> None:
    source = small_bert(tmp_path / "source", 512)
    content = json.loads((source / "tokenizer.json").read_text())
    content["post_processor"] = None
    (source / "tokenizer.json").write_text(json.dumps(content))
    rewrite_json(source / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    assert convert_bert(source=source).pin_first_segment is False
    assert said == ["the question is not pinned: the tokenizer puts no separator between two texts"]
    assert convert_bert(source=source, pin_first_segment=True).pin_first_segment
    assert "puts no separator_token_id=3 between two texts, so nothing is pinned but what pinned_mask names" in said[1]


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"position_period": 513}, "position_period=513 is not allowed: the checkpoint reads 512 tokens"),
        ({"position_period": "x"}, "position_period='x' is not allowed"),
        ({"separator_token_id": -1}, "separator_token_id=-1 is not allowed"),
        ({"pin_first_segment": True, "separator_token_id": 10**9}, "it must be a token of the vocabulary"),
        ({"max_pinned_tokens": 0}, "max_pinned_tokens=0 is not allowed"),
        ({"pin_first_segment": 1}, "pin_first_segment=1 is not allowed"),
        ({"pin_first_segment": True, "adaptive": False}, "adaptive=False is not allowed"),
    ],
)
def test_wrong_fields_are_refused_before_weights_are_loaded(fields: dict, message: str, monkeypatch) -> None:
    monkeypatch.setattr("lsg.loading.load_model", lambda *args: pytest.fail("the weights were loaded"))
    with pytest.raises(ConversionError, match=re.escape(message)):
        convert_bert(**fields)


def test_encoder_decoders_say_that_they_do_not_pin(said: list[str]) -> None:
    LSGConverter(1100).convert_from_pretrained(str(initial("bart")), "BartForQuestionAnswering")
    assert said == ["the question is not pinned: encoder-decoders have no pinned tokens (yet)"]


@pytest.mark.parametrize("model_type", sorted(SEQ2SEQ))
def test_encoder_decoders_cannot_pin(model_type: str) -> None:
    with pytest.raises(ConversionError, match="no pinned tokens"):
        LSGConverter(1100).convert_from_pretrained(str(initial(model_type)), pin_first_segment=True)


def test_lsg_checkpoints_keep_their_fields(tmp_path: Path, said: list[str]) -> None:
    """Pinned or not, with --resize_lsg: the answers stay the same."""
    source = lsg_source(tmp_path / "source", max_pinned_tokens=40)
    said.clear()
    longer, tokenizer = LSGConverter(3000, resize_lsg=True).convert_from_pretrained(str(source))
    before = MODEL_TYPES["bert"].architectures["BertForQuestionAnswering"].from_pretrained(source).eval()
    for name in before.config.lsg_defaults:
        assert getattr(longer.config, name) == getattr(before.config, name)
    assert longer.config.pin_first_segment and longer.config.max_pinned_tokens == 40 and said == []
    inputs = tokenizer("which word?", "a word and another one. " * 70, return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(longer(**inputs).start_logits, before(**inputs).start_logits)
        assert longer(**tokenizer("which word?", "a word. " * 400, return_tensors="pt")).start_logits.isfinite().all()
    off = lsg_source(tmp_path / "off", pin_first_segment=False)
    said.clear()
    config = LSGConverter(3000, resize_lsg=True).convert_from_pretrained(str(off))[0].config
    assert config.pin_first_segment is False and said == []


@pytest.mark.parametrize("kind", ["safetensors", "pickle", "in memory"])
def test_the_period_of_an_earlier_lsg_checkpoint_is_that_of_its_table(kind: str, tmp_path: Path, said) -> None:
    """And whoever pins it gets sizes that fit, if its own do not."""
    drop = ("position_period", "separator_token_id", "max_pinned_tokens", "pin_first_segment")
    source = lsg_source(tmp_path / "source", drop, pin_first_segment=False)
    weights = source / "model.safetensors"
    if kind == "pickle":
        from safetensors.torch import load_file

        torch.save(load_file(weights), source / "pytorch_model.bin")
        weights.unlink()
    said.clear()
    converter = LSGConverter(3000, resize_lsg=True)
    if kind == "in memory":
        model = MODEL_TYPES["bert"].architectures["BertForQuestionAnswering"].from_pretrained(source)
        config = converter.convert(model, load_tokenizer("bert"), pin_first_segment=True)[0].config
    else:
        config = converter.convert_from_pretrained(str(source), pin_first_segment=True)[0].config
    assert (config.position_period, config.separator_token_id) == (512, load_tokenizer("bert").sep_token_id)
    assert sizes(config) == {**DEFAULTS, **BEST} and len(said) == 1
    rewrite_json(source / "config.json", block_size=64, sparse_block_size=64, sparsity_factor=2)
    if kind != "in memory":
        config = converter.convert_from_pretrained(str(source), pin_first_segment=True)[0].config
        assert config.block_size == 64 and len(said) == 1  # its own sizes fit


def test_a_table_that_does_not_repeat_needs_the_users_word(tmp_path: Path) -> None:
    source = lsg_source(tmp_path / "source", ("position_period",), pin_first_segment=False)
    model = MODEL_TYPES["bert"].architectures["BertForQuestionAnswering"].from_pretrained(source)
    model.bert.embeddings.position_embeddings.weight.data += torch.rand(1100, 1)  # as if trained
    model.config.position_period = None
    model.save_pretrained(source)
    converter = LSGConverter(1200, resize_lsg=True)
    assert converter.convert_from_pretrained(str(source))[0].config.position_period is None
    with pytest.raises(ConversionError, match="position_period=None is not allowed.*512 of most models.*; set it"):
        converter.convert_from_pretrained(str(source), pin_first_segment=True)
    assert converter.convert_from_pretrained(str(source), pin_first_segment=True, position_period=512)


@pytest.mark.parametrize(
    "rows, period",
    [
        ("abcabcab", 3),
        ("abca", 3),
        ("aaaa", 1),
        ("abab", 2),
        ("abcd", None),
        ("aabaab", 3),
        ("a", None),
        ("abcdabcdabc" * 2 + "abcd", 4),  # resized twice
    ],
)
def test_the_smallest_period(rows: str, period: int | None) -> None:
    assert smallest_period(torch.tensor([[ord(row), 1] for row in rows])) == period


def test_a_dry_run_shows_the_fields(tmp_path: Path, capfd) -> None:
    source = small_bert(tmp_path / "source", 256)
    assert run(source, tmp_path / "out", "--dry_run") == 0
    shown = json.loads(capfd.readouterr().out.split("config.json: ")[1])
    assert (shown["pin_first_segment"], shown["block_size"], shown["position_period"]) == (True, 64, 256)
    shutil.rmtree(source)
    lsg_source(source, ("position_period",), pin_first_segment=False)
    kwargs = ("--model_kwargs", '{"pin_first_segment": true}', "--max_sequence_length", "1200")
    assert run(source, tmp_path / "out", "--dry_run", "--resize_lsg", *kwargs) == 0
    assert '"position_period": 512' in capfd.readouterr().out
