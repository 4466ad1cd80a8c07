"""tokenizer.json, as `tokenizers` reads it, does not truncate below max_sequence_length, nor pad to a fixed length."""

import json
from pathlib import Path

import pytest
from helpers import load_dense, load_tokenizer
from test_command import rewrite_json, run
from tokenizers import Tokenizer

from lsg import LSGConverter

LONG = "a long text " * 300


@pytest.fixture
def cut(source: Path) -> Path:
    """A checkpoint whose tokenizer.json truncates at 128 tokens and pads to 128, as that of all-MiniLM-L6-v2 does."""
    raw = Tokenizer.from_file(str(source / "tokenizer.json"))
    raw.enable_truncation(128, stride=2)
    raw.enable_padding(pad_id=1, pad_token="<pad>", length=128, pad_to_multiple_of=4)
    raw.save(str(source / "tokenizer.json"))
    rewrite_json(source / "tokenizer_config.json", max_length=128)
    assert len(raw.encode("a")) == len(raw.encode(LONG)) == 128
    return source


def assert_long(folder: Path) -> None:
    raw = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert len(raw.encode("a")) <= 8  # a multiple of 4
    assert [len(row) for row in raw.encode_batch(["a", "a b c d e f g h i j"])] != [128, 128]
    # (some versions of transformers do not load the truncation of a tokenizer.json)
    assert len(raw.encode(LONG)) >= 600 if raw.truncation is None else len(raw.encode(LONG)) == 600
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert config["model_max_length"] == 600 and config.get("max_length", 600) == 600


def test_the_command(cut: Path, tmp_path: Path) -> None:
    assert run(cut, tmp_path / "out") == 0
    assert_long(tmp_path / "out")


def test_the_converter(cut: Path, tmp_path: Path) -> None:
    _, tokenizer = LSGConverter(600).convert_from_pretrained(cut)
    tokenizer.save_pretrained(tmp_path / "out")
    assert_long(tmp_path / "out")


def test_in_memory_the_callers_tokenizer_is_unchanged(tmp_path: Path) -> None:
    model, tokenizer = load_dense("roberta", "RobertaForMaskedLM"), load_tokenizer("roberta")
    raw = tokenizer.backend_tokenizer
    raw.enable_truncation(128, stride=2, strategy="only_first", direction="left")
    raw.enable_padding(pad_id=1, pad_token="<pad>", length=128, direction="left")
    tokenizer.init_kwargs["max_length"] = 128
    before = raw.to_str(), dict(tokenizer.init_kwargs), tokenizer.model_max_length
    _, ours = LSGConverter(600).convert(model, tokenizer)
    assert (raw.to_str(), dict(tokenizer.init_kwargs), tokenizer.model_max_length) == before
    ours.save_pretrained(tmp_path)
    assert_long(tmp_path)
    saved = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    cut = {"max_length": 600, "stride": 2, "strategy": "only_first", "direction": "left"}
    assert saved.truncation == cut and saved.padding == {**raw.padding, "length": None}


def test_nothing_is_added_where_there_was_none(source: Path, tmp_path: Path) -> None:
    assert run(source, tmp_path / "out") == 0
    raw = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert raw.truncation is None and raw.padding is None
