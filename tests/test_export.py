"""Exported programs serve every batch and every length: one graph, the same outputs as the model's."""

from itertools import cycle

import pytest
import torch
from helpers import ALIKE, CAUSAL, ENCODERS, HEADS, SEQ2SEQ, architecture_of, load_tokenizer, make_inputs
from test_models import convert_tiny
from torch.export import Dim

from lsg.export import (
    FURTHER_INPUTS,
    ExportedEncoder,
    dimension_names,
    export_program,
    input_names,
    one_is_no_special_size,
)
from lsg.modeling.lsg_pattern import SPARSITY_TYPES
from lsg.onnx_output import NOT_EXPORTED

LENGTHS = [1, 2, 5, 16, 17, 32, 33, 64, 101, 1100]  # blocks are of 16 tokens, and 1100 is the maximum
ROWS = cycle([1, 2, 3])
EXPORTED = [head for head in HEADS if head[0] not in SEQ2SEQ | ALIKE and head not in CAUSAL]
EXPORTED = [head for head in EXPORTED if head[1] not in NOT_EXPORTED]
CAUSAL = [head for head in CAUSAL if head[0] not in ALIKE]
KINDS = dict(zip([*EXPORTED, *CAUSAL], cycle(SPARSITY_TYPES)))  # each with a type of sparse keys


def padded_inputs(model_type: str, model, length: int, architecture: str = "") -> dict[str, torch.Tensor]:
    """One to three rows, the second and the third of them padded: one on the left, one on the right."""
    rows = next(ROWS)
    lengths = [length, -(-length // 3), -(-length * 2 // 3)][:rows]
    inputs = make_inputs(load_tokenizer(model_type), model.config.vocab_size, lengths, architecture)
    for x in inputs.values():
        x[1:2] = x[1:2].flip(-1)
    return inputs


def further_inputs(config, names: list[str], input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a type takes besides tokens, of values 0 and 1: types of tokens, boxes, paths."""
    sizes = {name: size for name, (_, size) in FURTHER_INPUTS.items() if size is not None}
    inputs = {}
    for name in names:
        size = sizes.get(name)
        size = getattr(config, size) if isinstance(size, str) else size
        ones = input_ids % 2
        if size is not None:
            ones = ones[..., None] * (torch.arange(size) >= size // 2)  # a box ends behind its start
        inputs[name] = ones
    return inputs


def largest_difference(expected, found, mask: torch.Tensor) -> float:
    """Of all outputs, where there is no padding."""
    pairs = [(a, b) for a, b in zip(expected, found, strict=True) if isinstance(a, torch.Tensor)]
    assert pairs and all(a.shape == b.shape for a, b in pairs)
    differences = [(a - b).abs() for a, b in pairs]
    return max((x[mask] if x.shape[:2] == mask.shape else x).max().item() for x in differences)


def few_layers(model_type: str) -> dict:
    """A field of the config: one layer, but in ModernBERT one of each kind, and in ESM all, for its contact head."""
    return {} if model_type in ("esm", "modernbert") else {"num_hidden_layers": 1}


@pytest.mark.parametrize("model_type, architecture", EXPORTED)
def test_every_head(model_type: str, architecture: str) -> None:
    kind = KINDS[model_type, architecture]
    _, ours = convert_tiny(model_type, architecture, few_layers(model_type), sparsity_type=kind)
    encoder = ExportedEncoder(ours)
    names = input_names(ours, load_tokenizer(model_type))
    program = export_program(encoder, names, max_length=1100)
    run = program.module()
    assert not any(module._forward_hooks for module in ours.modules())  # the model is as it was
    assert encoder.output_names and len(dimension_names(ours)) == (3 if "MultipleChoice" in architecture else 2)
    for length in LENGTHS:
        inputs = padded_inputs(model_type, ours, length, architecture)
        mask = inputs["attention_mask"].bool()
        inputs = {name: x for name, x in inputs.items() if name in names}
        inputs |= further_inputs(ours.config, [name for name in names if name not in inputs], inputs["input_ids"])
        with torch.no_grad():
            assert largest_difference(encoder(**inputs), run(**inputs), mask) < 1e-5, length


def export_plain(model, inputs: dict, max_length: int = 1100):
    """Export a model as a user would, whatever inputs it gets."""
    dims = {0: Dim("rows"), 1: Dim("tokens", max=max_length)}
    with one_is_no_special_size(), torch.no_grad():
        return torch.export.export(model, (), inputs, dynamic_shapes=dict.fromkeys(inputs, dims), strict=False).module()


@pytest.mark.parametrize("sparsity_type", SPARSITY_TYPES)
@pytest.mark.parametrize("is_masked", [True, False])
def test_every_sparsity_type(sparsity_type: str, is_masked: bool) -> None:
    _, ours = convert_tiny("bert", "BertModel", {"num_hidden_layers": 1}, sparsity_type=sparsity_type)
    check_plain(ours, "bert", is_masked)


@pytest.mark.parametrize("model_type", [name for name in ENCODERS if name not in ALIKE])
def test_every_type_without_mask(model_type: str) -> None:
    architecture = architecture_of(model_type, "AutoModel")
    _, ours = convert_tiny(model_type, architecture, few_layers(model_type))
    check_plain(ours, model_type, is_masked=False)


@pytest.mark.parametrize("model_type, architecture", CAUSAL)
def test_causal_models(model_type: str, architecture: str) -> None:
    fields = {"num_hidden_layers": 1, "is_decoder": True, "use_cache": False}
    _, ours = convert_tiny(model_type, architecture, fields, sparsity_type=KINDS[model_type, architecture])
    check_plain(ours, model_type, is_masked=True)


def check_plain(model, model_type: str, is_masked: bool) -> None:
    """Export a model with or without a mask, and compare at all lengths."""

    def inputs_of(length: int) -> tuple[dict, torch.Tensor]:
        inputs = padded_inputs(model_type, model, length)
        mask = inputs["attention_mask"].bool()
        return (inputs, mask) if is_masked else ({"input_ids": inputs["input_ids"]}, torch.ones_like(mask))

    run = export_plain(model, inputs_of(40)[0])
    for length in LENGTHS:
        inputs, mask = inputs_of(length)
        with torch.no_grad():
            assert largest_difference(model(**inputs).to_tuple(), run(**inputs).to_tuple(), mask) < 1e-5, length


def test_all_globals_and_uneven_blocks() -> None:
    """Blocks of 10 tokens, several globals, sparse blocks that are smaller or larger."""
    for fields in ({"sparse_block_size": 5, "sparsity_factor": 5}, {"sparse_block_size": 20, "sparsity_factor": 1}):
        fields |= {"block_size": 10, "num_global_tokens": 7, "mask_first_token": True}
        _, ours = convert_tiny("roberta", "RobertaModel", {"num_hidden_layers": 1}, **fields)
        check_plain(ours, "roberta", is_masked=True)


@pytest.mark.parametrize(
    "fields, message", [({"lsg_backend": "tiled"}, "only 'blocks'"), ({"adaptive": False}, "true")]
)
def test_what_cannot_be_exported_is_said(fields: dict, message: str) -> None:
    _, ours = convert_tiny("bert", "BertModel", **fields)
    with pytest.raises(ValueError, match=message):
        export_program(ExportedEncoder(ours), ["input_ids", "attention_mask"], 1100)


def test_a_longer_text_is_refused() -> None:
    _, ours = convert_tiny("bert", "BertModel", {"num_hidden_layers": 1})
    run = export_program(ExportedEncoder(ours), ["input_ids", "attention_mask"], 1100).module()
    ids = torch.ones(1, 1101, dtype=torch.long)
    with pytest.raises((AssertionError, RuntimeError), match="1100"):
        run(input_ids=ids, attention_mask=ids)
