"""A decoder alone, out of a whole checkpoint: its words are those that encoder and decoder share."""

import shutil
from pathlib import Path

import pytest
import torch
import transformers
from helpers import SEQ2SEQ, TYPES, initial, load_dense, load_tokenizer
from safetensors.torch import load_file, save_file
from test_command import run

from lsg import LSGConverter
from lsg.model_types import MODEL_TYPES

WHOLE = [name for name in TYPES if name in SEQ2SEQ and "AutoModelForCausalLM" in MODEL_TYPES[name].auto_classes]


def causal_architecture(model_type: str) -> str:
    return MODEL_TYPES[model_type].auto_classes["AutoModelForCausalLM"].__name__.removeprefix("LSG")


def whole(model_type: str, folder: Path, form: str) -> Path:
    """A whole checkpoint in one of the forms that they come in."""
    shutil.copytree(initial(model_type), folder)
    tensors = load_file(folder / "model.safetensors")
    if form == "sharded":
        dense = load_dense(model_type, MODEL_TYPES[model_type].default_architecture)
        (folder / "model.safetensors").unlink()
        dense.save_pretrained(folder, max_shard_size="20KB")
        assert len(list(folder.glob("model-*.safetensors"))) > 2
    elif form == "pickle":
        (folder / "model.safetensors").unlink()
        torch.save(tensors, folder / "pytorch_model.bin")
    elif form == "base model":  # facebook/bart-base is one
        base = {name.removeprefix("model."): x for name, x in tensors.items() if name.startswith("model.")}
        save_file(base, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def decoder_by_hand(model_type: str):
    """transformers' own decoder with the words put in, which it leaves random."""
    dense = load_dense(model_type, causal_architecture(model_type))
    words = load_file(initial(model_type) / "model.safetensors")["model.shared.weight"]
    with torch.no_grad():
        dense.model.decoder.embed_tokens.weight.copy_(words)
    dense.tie_weights()
    return dense


@pytest.mark.parametrize("model_type", WHOLE)
@pytest.mark.parametrize("form", ["one file", "sharded", "pickle", "base model"])
def test_it_is_the_decoder_of_the_checkpoint(model_type: str, form: str, tmp_path: Path, caplog) -> None:
    source = whole(model_type, tmp_path / "whole", form)
    architecture = causal_architecture(model_type)
    ours, _ = LSGConverter(1100).convert_from_pretrained(source, architecture=architecture)
    assert "newly initialized" not in caplog.text
    assert "model.encoder" not in caplog.text and "the encoder's 3" in caplog.text  # not each of them
    dense = decoder_by_hand(model_type)
    expected, found = dense.state_dict(), ours.state_dict()
    assert expected.keys() == found.keys()
    for name in expected.keys() - {"model.decoder.embed_positions.weight"}:  # longer
        assert torch.equal(found[name], expected[name]), name
    ids = torch.arange(5, 45).reshape(2, 20)
    with torch.no_grad():
        assert (ours(ids).logits - dense(ids).logits).abs().max().item() < 1e-5
    assert ours.lm_head.weight is ours.model.decoder.embed_tokens.weight


@pytest.mark.parametrize("model_type", ["bart", "pegasus"])
def test_the_output_of_the_command_generates_the_same(model_type: str, tmp_path: Path, capfd, forked_self_test) -> None:
    """And passes its test, in which only the decoder is run: there is no other class to make of it."""
    out, architecture = tmp_path / "out", causal_architecture(model_type)
    length = ["--max_sequence_length", "1100"]
    assert run(initial(model_type), out, "--architecture", architecture, "--run_test", *length) == 0
    table = capfd.readouterr().out
    assert "| AutoModelForCausalLM " in table and "| AutoModel " not in table and "original" not in table
    saved = load_file(out / "model.safetensors")
    words = load_file(initial(model_type) / "model.safetensors")["model.shared.weight"]
    assert torch.equal(saved["model.decoder.embed_tokens.weight"], words)
    ours = transformers.AutoModelForCausalLM.from_pretrained(out, trust_remote_code=True).eval()
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "num_beams": 1}
    ids = torch.arange(5, 25)[None]
    expected = decoder_by_hand(model_type).generate(ids, **options)
    assert torch.equal(ours.generate(ids, **options), expected)


def test_words_of_its_own_go_first(tmp_path: Path) -> None:
    """Old checkpoints hold the words three times; the decoder's are the decoder's."""
    source = whole("bart", tmp_path / "whole", "one file")
    tensors = load_file(source / "model.safetensors")
    tensors["model.decoder.embed_tokens.weight"] = tensors["model.shared.weight"] + 1
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    ours, _ = LSGConverter(1100).convert_from_pretrained(source, architecture="BartForCausalLM")
    assert torch.equal(ours.model.decoder.embed_tokens.weight, tensors["model.decoder.embed_tokens.weight"])


def test_out_of_a_whole_lsg_checkpoint(tmp_path: Path) -> None:
    for part in LSGConverter(1100).convert_from_pretrained(initial("bart")):
        part.save_pretrained(tmp_path)
    converter = LSGConverter(1100, resize_lsg=True)
    ours, _ = converter.convert_from_pretrained(tmp_path, architecture="LSGBartForCausalLM")
    again, _ = LSGConverter(1200).convert(decoder_by_hand("bart"), load_tokenizer("bart"))
    for name in again.state_dict().keys() - {"model.decoder.embed_positions.weight"}:
        assert torch.equal(ours.state_dict()[name], again.state_dict()[name]), name
