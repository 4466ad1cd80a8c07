"""Weights have to be real numbers, all of them finite; others are refused, and a change of format is reported."""

from pathlib import Path

import pytest
import torch
from helpers import load_dense, load_tokenizer
from safetensors.torch import load_file, save_file
from test_command import assert_refused, rewrite_json, run

import lsg.weights
from lsg import ConversionError, LSGConverter

QUERY = "roberta.encoder.layer.0.attention.self.query.weight"
ALLOWED = "a weight has to be one of float32, float16, bfloat16, float64"


def change_weights(source: Path, as_bin: bool = False, **tensors) -> None:
    """Replace tensors of a checkpoint; dots in their names are written as double underscores."""
    add_weights(source, {name.replace("__", "."): tensor for name, tensor in tensors.items()}, as_bin)


def add_weights(source: Path, tensors: dict[str, torch.Tensor], as_bin: bool) -> None:
    """Add tensors to those of a checkpoint, or replace them; `as_bin` saves all of them as a pickle."""
    file = source / "model.safetensors"
    tensors = {**load_file(file), **tensors}
    if as_bin:
        file.unlink()
        torch.save(tensors, source / "pytorch_model.bin")
    else:
        save_file(tensors, file, metadata={"format": "pt"})


def change_config(source: Path, **fields) -> None:
    rewrite_json(source / "config.json", torch_dtype=None, **fields)


@pytest.mark.parametrize("as_bin", [False, True])
@pytest.mark.parametrize("kind", ["int8", "bool", "complex64", "int64", "float8_e4m3fn"])
def test_weights_that_are_no_real_numbers(kind: str, as_bin: bool, source: Path, tmp_path: Path, capfd) -> None:
    change_weights(source, as_bin, **{QUERY: torch.ones(16, 16).to(getattr(torch, kind))})
    assert_refused(capfd, source, tmp_path / "out", f"{QUERY} is {kind}, {ALLOWED}")


def test_integers_that_are_no_weights(source: Path, tmp_path: Path) -> None:
    """Position ids, as in old checkpoints, and tensors that the model does not have."""
    positions = torch.arange(514)[None]
    change_weights(source, roberta__embeddings__position_ids=positions, counter=torch.ones(3, dtype=torch.int8))
    assert run(source, tmp_path / "out") == 0
    change_weights(source, roberta__pooler__dense__weight=torch.ones(16, 16, dtype=torch.int8))
    assert run(source, tmp_path / "second") == 0


def test_integers_in_memory() -> None:
    model = load_dense("roberta", "RobertaForMaskedLM")
    query = model.roberta.encoder.layer[0].attention.self.query
    query.weight = torch.nn.Parameter(torch.ones(16, 16, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ConversionError, match=f"the model: {QUERY} is int8, {ALLOWED}"):
        LSGConverter(600).convert(model, load_tokenizer("roberta"))
    with pytest.raises(ConversionError, match="is on the device 'meta'"):
        LSGConverter(600).convert(model.to("meta"), load_tokenizer("roberta"))


def test_quantized_checkpoints(source: Path, tmp_path: Path, capfd) -> None:
    quantized = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    change_config(source, quantization_config=quantized)
    assert_refused(capfd, source, tmp_path / "out", "quantized, its config has a quantization_config")
    model = load_dense("roberta", "RobertaForMaskedLM")
    model.config.quantization_config = quantized
    with pytest.raises(ConversionError, match="quantized, its config has a quantization_config"):
        LSGConverter(600).convert(model, load_tokenizer("roberta"))


@pytest.mark.parametrize("dtype", ["int8", "complex64", "float31", 3])
def test_a_config_with_a_wrong_dtype(dtype, source: Path, tmp_path: Path, capfd) -> None:
    change_config(source, dtype=dtype)
    message = f"dtype={dtype!r} is not allowed; choose one of float32, float16, bfloat16, float64"
    assert_refused(capfd, source, tmp_path / "out", message)


def test_another_dtype_in_the_config_is_reported(source: Path, tmp_path: Path, caplog) -> None:
    change_config(source, dtype="float16")
    assert run(source, tmp_path / "out") == 0
    assert "the weights are float32, the config's dtype says float16: the output is in float16" in caplog.text
    assert {x.dtype for x in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.float16}
    caplog.clear()
    assert run(source, tmp_path / "asked", "--dtype", "float32") == 0
    change_config(source, dtype="float32")
    assert run(source, tmp_path / "same") == 0
    assert "the weights are" not in caplog.text


def test_several_dtypes_are_reported(source: Path, tmp_path: Path, caplog) -> None:
    change_config(source, dtype="float32")
    change_weights(source, **{QUERY: torch.ones(16, 16, dtype=torch.float16)})
    assert run(source, tmp_path / "out") == 0
    assert "the weights are float16 and float32, the config's dtype says float32" in caplog.text
    change_config(source, dtype=None)
    assert run(source, tmp_path / "without") == 0
    assert "the weights are float16 and float32, the config has no dtype: the output is in float" in caplog.text


def test_another_dtype_in_memory_is_reported(caplog) -> None:
    model = load_dense("roberta", "RobertaForMaskedLM").half()
    converted, _ = LSGConverter(600).convert(model, load_tokenizer("roberta"))
    assert "the weights are float16, the config's dtype says float32: the output is in float16" in caplog.text
    assert converted.dtype == torch.float16


def not_finite() -> torch.Tensor:
    tensor = torch.ones(16, 16)
    tensor[0, 0], tensor[3, 1], tensor[15, 15] = float("nan"), float("inf"), -float("inf")
    return tensor


def test_numbers_that_are_none(source: Path, tmp_path: Path, capfd) -> None:
    change_weights(source, **{QUERY: not_finite()})
    message = f"3 of the 256 numbers of {QUERY} are NaN or infinite in float32"
    assert_refused(capfd, source, tmp_path / "out", message)
    assert run(source, tmp_path / "out", "--allow_nan") == 0
    saved = load_file(tmp_path / "out" / "model.safetensors")[QUERY]
    assert torch.equal(saved.view(torch.int32), not_finite().view(torch.int32))


def test_numbers_that_are_none_in_memory() -> None:
    model, tokenizer = load_dense("roberta", "RobertaForMaskedLM"), load_tokenizer("roberta")
    with torch.no_grad():
        model.get_parameter(QUERY).copy_(not_finite())
        model.lm_head.decoder.weight[5] = float("nan")  # tied to the words
    words = "roberta.embeddings.word_embeddings.weight"
    message = f"16 of the 4640 numbers of {words}, the first of 2 such tensors, are NaN or infinite in float32"
    with pytest.raises(ConversionError, match=message):
        LSGConverter(600).convert(model, tokenizer)
    converted, _ = LSGConverter(600, allow_nan=True).convert(model, tokenizer)
    assert converted.state_dict()[QUERY].isnan().sum() == 1 and converted.state_dict()[words][5].isnan().all()


def test_numbers_too_large_for_the_format_asked_for(source: Path, tmp_path: Path, capfd) -> None:
    change_weights(source, **{QUERY: torch.full((16, 16), 1e6)})
    message = f"256 of the 256 numbers of {QUERY} are NaN or infinite in float16"
    assert_refused(capfd, source, tmp_path / "out", message, "--dtype", "float16")
    assert run(source, tmp_path / "out") == 0


def test_large_tensors_are_checked_in_pieces(monkeypatch) -> None:
    monkeypatch.setattr(lsg.weights, "NUMBERS_AT_ONCE", 7)
    assert lsg.weights.count_not_finite(not_finite()) == 3
    assert lsg.weights.count_not_finite(torch.tensor(float("nan"))) == 1
    assert lsg.weights.count_not_finite(torch.zeros(0)) == 0
