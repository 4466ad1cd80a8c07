"""Compare an ONNX file, in ONNX Runtime, with the model that it was made of."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import logging

from .errors import ConversionError
from .export import FURTHER_INPUTS, ExportedEncoder, dimension_names, values_of_a_token

MAX_NUMBERS = 2**28  # of one output at once; with a language-modeling head the longest text may be shorter
# rms of the differences / rms of the outputs. float32 makes 1e-6. In texts of more than two blocks, sparsity types that
# compare numbers may choose another of two nearly equal keys, which makes 1e-3; a wrong graph makes 1e-1.
MAX_DIFFERENCE = 1e-4
MAX_DIFFERENCE_OF_CHOICES = 2e-2
COMPARING = ("norm", "lsh")  # sparsity types


@dataclass
class OnnxReport:
    """What was written, and how far it is from the model.

    Args:
        file: path in the output folder.
        opset: version of the ONNX operators.
        inputs, outputs: names.
        differences: {tokens, rows, largest, relative} for each length: the largest difference of a number, and the rms
            of all differences over that of the outputs; the worst output's.
    """

    file: str
    opset: int
    inputs: list[str]
    outputs: list[str]
    differences: list[dict[str, float]] = field(default_factory=list)

    @property
    def largest_difference(self) -> float:
        """The largest difference of a number between ONNX Runtime and torch."""
        return max(one["largest"] for one in self.differences)

    def summary(self) -> str:
        """Return what was compared, in one sentence."""
        lengths = [int(one["tokens"]) for one in self.differences]
        return (
            f"ONNX Runtime and torch differ by at most {self.largest_difference:.1e} at {len(lengths)} lengths of "
            f"{lengths[0]} to {lengths[-1]:,} tokens, in batches of 1 to 3, with padding"
        )


def compare(encoder: ExportedEncoder, file: Path, report: OnnxReport, max_length: int) -> None:
    """Run an ONNX file beside the model at seven lengths from 1 to the maximum; add the differences to the report."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    shapes = {output.name: output.shape for output in session.get_outputs()}
    width = max((shape[-1] for shape in shapes.values() if isinstance(shape[-1], int)), default=1)
    lengths = lengths_to_compare(encoder.model.config.block_size, min(max_length, MAX_NUMBERS // width))
    for place, length in enumerate(logging.tqdm(lengths, desc="Comparing the ONNX file", unit="length")):
        rows = max(1, min(1 + place % 3, MAX_NUMBERS // (length * width)))
        inputs = make_inputs(encoder.model, report.inputs, length, rows)
        with torch.inference_mode():
            expected = encoder(**inputs)
        found = session.run(report.outputs, {name: x.numpy() for name, x in inputs.items()})
        mask = inputs["attention_mask"].bool()
        pairs = []
        for name, a, b in zip(report.outputs, expected, map(torch.from_numpy, found), strict=True):
            has_tokens = list(shapes[name][:2]) == ["batch_size", "sequence_length"]
            pairs.append((a[mask], b[mask]) if has_tokens else (a, b))  # outputs at padding are not compared
        report.differences.append({"tokens": length, "rows": rows, **differences(pairs)})


def differences(pairs: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Return the largest difference of a number, and of rms / rms, of all outputs; NaN if there is a NaN in one."""
    largest = torch.stack([(a - b).abs().max() for a, b in pairs])
    relative = torch.stack([(a - b).norm() / a.norm().clamp(min=1e-12) for a, b in pairs])
    return {"largest": float(largest.max()), "relative": float(relative.max())}


def lengths_to_compare(block_size: int, longest: int) -> list[int]:
    """Return lengths in ascending order: a token, around one and two blocks, an odd one, and the longest."""
    b = block_size
    wanted = {1, b - 1, b, 2 * b, 2 * b + 1, longest * 2 // 3 | 1, longest}
    return sorted(length for length in wanted if 1 <= length <= longest)


def make_inputs(model: PreTrainedModel, names: list[str], length: int, rows: int) -> dict[str, Tensor]:
    """Return rows of random tokens; a third of the second row is padding, and of the third.

    That is in front, unless the model may read token 0, whose output is not defined if it is padding.
    """
    generator = torch.Generator().manual_seed(length)
    mask = torch.ones(rows, length, dtype=torch.long)
    mask[1:2, length - length // 3 :] = 0
    mask[2:3, (slice(length // 3) if model.config.pool_with_global else slice(length - length // 3, None))] = 0
    pad = model.config.pad_token_id or 0
    ids = torch.randint(model.config.vocab_size, (rows, length), generator=generator)
    if model.config.pin_first_segment:
        ids[:, length // 2] = model.config.separator_token_id  # a pair: the first segment is pinned
    ids = ids.masked_fill(mask == 0, pad)
    types = torch.randint(getattr(model.config, "type_vocab_size", 1) or 1, ids.shape, generator=generator)
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    for name in FURTHER_INPUTS.keys() & set(names):  # sorted: a box ends behind its start
        shape = (*ids.shape, *values_of_a_token(model.config, name))
        values = torch.randint(getattr(model.config, FURTHER_INPUTS[name][0]), shape, generator=generator)
        inputs[name] = values.sort(-1).values
    if len(dimension_names(model)) == 3:
        inputs = {name: x[:, None].expand(-1, 2, *x.shape[1:]).contiguous() for name, x in inputs.items()}
    return {name: inputs[name] for name in names}


def check_differences(report: OnnxReport, config: Any, where: str) -> None:
    """Raise ConversionError if the file's outputs differ by more than is explained, from those of a model's config."""
    for one in report.differences:
        may_choose = config.sparsity_type in COMPARING and one["tokens"] > 2 * config.block_size
        limit = MAX_DIFFERENCE_OF_CHOICES if may_choose else MAX_DIFFERENCE
        if not one["relative"] <= limit:
            given = f"{one['tokens']} tokens differ from the model's by {one['relative']:.1e} (rms / rms)"
            raise ConversionError(f"{where}: the outputs of {report.file} for {given}; at most {limit:g} is expected")
