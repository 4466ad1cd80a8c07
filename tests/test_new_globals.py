"""Converting an LSG checkpoint again: its globals may be trained, so the user chooses what happens to them."""

from pathlib import Path

import pytest
import torch
from helpers import initial, load_dense, load_tokenizer
from safetensors.torch import load_file, save_file
from test_command import assert_refused, run

import lsg.loading
from lsg import ConversionError, LSGConverter
from lsg.model_types import MODEL_TYPES

GLOBALS = "roberta.embeddings.global_embeddings.weight"
ASKED = "its global tokens may be trained"


@pytest.fixture
def trained(source: Path, tmp_path: Path) -> Path:
    """An LSG checkpoint whose globals were trained: all of them are 7."""
    folder = tmp_path / "trained"
    assert run(source, folder) == 0
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {**tensors, GLOBALS: torch.full_like(tensors[GLOBALS], 7)}, folder / "model.safetensors", {"format": "pt"}
    )
    return folder


def test_the_command_asks_what_to_do_with_trained_globals(trained: Path, tmp_path: Path, capfd, monkeypatch) -> None:
    """Before it loads weights, which may take minutes."""
    capfd.readouterr()
    monkeypatch.setattr(lsg.loading, "load_model", None)
    assert_refused(capfd, trained, tmp_path / "out", ASKED)


@pytest.mark.parametrize("way, kept", [("resize_lsg", 512), ("keep_first_global_token", 1), ("new_globals", 0)])
def test_each_way_keeps_what_it_says(way: str, kept: int, trained: Path, tmp_path: Path) -> None:
    assert run(trained, tmp_path / "out", f"--{way}") == 0
    globals_ = load_file(tmp_path / "out" / "model.safetensors")[GLOBALS]
    assert (globals_ == 7).all(1).tolist() == [True] * kept + [False] * (512 - kept)


def test_the_converter_asks_too(trained: Path) -> None:
    with pytest.raises(ConversionError, match=ASKED) as error:
        LSGConverter(600).convert_from_pretrained(trained)
    assert all(way in str(error.value) for way in ("resize_lsg", "keep_first_global_token", "new_globals"))
    model, tokenizer = LSGConverter(600, resize_lsg=True).convert_from_pretrained(trained)
    with pytest.raises(ConversionError, match=ASKED):
        LSGConverter(700).convert(model, tokenizer)
    new, _ = LSGConverter(700, new_globals=True).convert(model, tokenizer)
    assert not (new.state_dict()[GLOBALS] == 7).any()


def test_a_plain_checkpoint_has_no_globals_to_lose(source: Path) -> None:
    """They are initialized in any case."""
    dense = load_dense("roberta", MODEL_TYPES["roberta"].default_architecture)
    new, _ = LSGConverter(600, new_globals=True).convert(dense, load_tokenizer("roberta"))
    usual, _ = LSGConverter(600).convert_from_pretrained(initial("roberta"))
    assert torch.equal(new.state_dict()[GLOBALS], usual.state_dict()[GLOBALS])


@pytest.mark.parametrize(
    "first, second",
    [
        ("resize_lsg", "keep_first_global_token"),
        ("resize_lsg", "new_globals"),
        ("resize_lsg", "random_global_init"),
        ("keep_first_global_token", "new_globals"),
    ],
)
def test_flags_that_contradict_each_other(first: str, second: str, source: Path, tmp_path: Path, capfd) -> None:
    with pytest.raises(ConversionError, match=f"{first} and {second} contradict each other"):
        LSGConverter(600, **{first: True, second: True})
    message = f"{first} and {second} contradict each other"
    assert_refused(capfd, source, tmp_path / "out", message, f"--{first}", f"--{second}")
