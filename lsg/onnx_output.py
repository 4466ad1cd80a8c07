"""--onnx: write onnx/model.onnx beside the weights, and compare it with the model in ONNX Runtime."""

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from .errors import ConversionError, one_line, reported_as
from .export import ExportedEncoder, dimension_names, export_program, input_names
from .loading import choose_class, quiet, read_config
from .model_types import ModelType, find_model_type
from .sentence_encoders import MODULES, read_modules

FILE = "onnx/model.onnx"  # the Hub's layout
OPSET = 20
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
MAX_FILE = 1.9e9  # bytes of weights in one file; ONNX itself allows 2 GiB, above that they are beside it
MAX_NUMBERS = 2**29  # of one output; with a language-modeling head the longest text that is compared is shorter
# rms of the differences / rms of the outputs: float32 makes 1e-6. With sparse keys, in longer texts, "norm" and "lsh" may
# choose another of two nearly equal ones, which makes 1e-3; a wrong graph makes 1e-1.
MAX_DIFFERENCE = 1e-4
MAX_DIFFERENCE_LONG = 2e-2
NOISY = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")  # loggers
# heads without a use outside of generation or pretraining of encoder-decoders have no ONNX file
NOT_EXPORTED = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


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


def check_onnx(model_type: ModelType, architecture: str, is_sentence_encoder: bool) -> None:
    """Raise ConversionError if packages are missing, or if there is no ONNX file of such a model.

    Args:
        model_type: the row of the checkpoint's type.
        architecture: the class, with or without "LSG" in front.
        is_sentence_encoder: whether it is a sentence-transformers checkpoint.
    """
    packages = (*PACKAGES, *(["sentence_transformers"] if is_sentence_encoder else []))
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        names = " ".join(name.replace("_", "-") for name in missing)
        raise ConversionError(f"onnx: {names} is missing; install it with: pip install {names}")
    if "AutoModelForSeq2SeqLM" in model_type.auto_classes or architecture.endswith(NOT_EXPORTED):
        raise ConversionError(
            f"onnx: it is for encoders, with any head except causal language models; this is {one_line(architecture)}"
        )


def export_onnx(folder: str | Path) -> OnnxReport:
    """Write onnx/model.onnx into the folder of an LSG encoder, in float32, and compare it with the model.

    Its outputs are last_hidden_state, logits, start_logits, ..., named as in transformers; a sentence-transformers
    folder has a second one, sentence_embedding, which is pooled and normalized as the folder says.

    Raises:
        ConversionError: packages are missing, the model is none that can be exported, or the file's outputs differ.
    """
    folder = Path(folder)
    model, tokenizer, max_length = load_folder(folder)
    modules = sentence_modules(folder)
    encoder = ExportedEncoder(model, modules).eval()
    names = input_names(model, tokenizer)
    where = f"onnx: {one_line(folder)}"
    with reported_as(f"{where}: cannot be exported"), silenced():
        outputs = write(encoder, names, max_length, folder / FILE)
    report = OnnxReport(FILE, OPSET, names, outputs)
    model.config.lsg_backend = "auto"
    with reported_as(f"{where}: {FILE} does not run"):
        compare(encoder, folder / FILE, report, max_length)
    check_differences(report, 2 * model.config.block_size, where)
    return report


def check_differences(report: OnnxReport, num_dense: int, where: str) -> None:
    """Raise ConversionError if the file's outputs differ too much; up to `num_dense` tokens attention is full."""
    for one in report.differences:
        limit = MAX_DIFFERENCE if one["tokens"] <= num_dense else MAX_DIFFERENCE_LONG
        if not one["relative"] <= limit:
            given = f"{one['tokens']} tokens differ from the model's by {one['relative']:.1e} (rms / rms)"
            raise ConversionError(f"{where}: the outputs of {report.file} for {given}; at most {limit:g} is expected")


def load_folder(folder: Path) -> tuple[PreTrainedModel, Any, int]:
    """Return the model of an LSG folder in float32, its tokenizer, and the maximum number of tokens."""
    config_dict = read_config(str(folder))
    model_type = find_model_type(config_dict, str(folder))
    model_class = choose_class(model_type, None, config_dict.get("architectures"))
    check_onnx(model_type, model_class.__name__, (folder / MODULES).is_file())
    with reported_as(f"onnx: {one_line(folder)}: the model cannot be loaded"), quiet():
        model: Any = model_class.from_pretrained(folder, dtype=torch.float32, lsg_backend="blocks")
        tokenizer = AutoTokenizer.from_pretrained(folder)
    start = model_type.position_offset(model.config) if model_type.max_positions_includes_offset else 0
    return model.eval(), tokenizer, model.config.max_position_embeddings - start


def sentence_modules(folder: Path) -> list[nn.Module]:
    """Return the modules behind the model of a sentence-transformers folder; none of another folder.

    Raises:
        ConversionError: a module's class is not one of sentence-transformers, whose code alone is run.
    """
    if not (folder / MODULES).is_file():
        return []
    modules = []
    for module in read_modules(folder / MODULES):
        if not module.kind.startswith("sentence_transformers."):
            raise ConversionError(
                f"onnx: {one_line(module.kind)} is not a class of sentence-transformers, and is not run"
            )
        package, _, name = module.kind.rpartition(".")
        with reported_as(f"onnx: {one_line(module.kind)} cannot be loaded"), silenced():
            modules.append(getattr(import_module(package), name).load(str(folder), subfolder=module.path))
    return modules


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Suppress what exporters warn of in the block: it concerns their own parts, and the result is compared anyway."""
    loggers = [logging.getLogger(name) for name in NOISY]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def write(encoder: ExportedEncoder, names: list[str], max_length: int, file: Path) -> list[str]:
    """Write the encoder as an ONNX file; return the names of its outputs."""
    program = export_program(encoder, names, max_length)
    dimensions = dimension_names(encoder.model)
    exported: Any = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=OPSET,
        input_names=names,
        output_names=encoder.output_names,
        dynamic_shapes=dict.fromkeys(names, dimensions),  # their names
        verbose=False,
    )
    file.parent.mkdir(exist_ok=True)
    size = sum(x.numel() * x.element_size() for x in (*encoder.parameters(), *encoder.buffers()))
    exported.save(str(file), external_data=size > MAX_FILE)
    return encoder.output_names


def compare(encoder: ExportedEncoder, file: Path, report: OnnxReport, max_length: int) -> None:
    """Run an ONNX file beside the model at seven lengths from 1 to the maximum; add the differences to the report."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    shapes = {output.name: output.shape for output in session.get_outputs()}
    lengths = lengths_to_compare(encoder.model.config, max_length)
    for place, length in enumerate(transformers_logging.tqdm(lengths, desc="Comparing the ONNX file", unit="length")):
        inputs = make_inputs(encoder.model, report.inputs, length, 1 + place % 3)
        with torch.inference_mode():
            expected = encoder(**inputs)
        found = session.run(report.outputs, {name: x.numpy() for name, x in inputs.items()})
        mask = inputs["attention_mask"].bool()
        pairs = []
        for name, a, b in zip(report.outputs, expected, map(torch.from_numpy, found), strict=True):
            has_tokens = list(shapes[name][:2]) == ["batch_size", "sequence_length"]
            pairs.append((a[mask], b[mask]) if has_tokens else (a, b))  # what stands at padding is nobody's
        report.differences.append(
            {
                "tokens": length,
                "rows": len(mask),
                "largest": max(largest_difference(a, b) for a, b in pairs),
                "relative": max(float((a - b).norm() / a.norm().clamp(min=1e-12)) for a, b in pairs),
            }
        )


def largest_difference(a: Tensor, b: Tensor) -> float:
    """Return the largest difference of two numbers at the same place."""
    return float((a - b).abs().max())


def lengths_to_compare(config: Any, max_length: int) -> list[int]:
    """Return lengths in ascending order: a token, around one and two blocks, an odd one, and the maximum."""
    b, longest = config.block_size, min(max_length, MAX_NUMBERS // config.vocab_size)
    wanted = {1, b - 1, b, 2 * b, 2 * b + 1, longest * 2 // 3 | 1, longest}
    return sorted(length for length in wanted if 1 <= length <= longest)


def make_inputs(model: PreTrainedModel, names: list[str], length: int, rows: int) -> dict[str, Tensor]:
    """Return rows of random tokens; a third of the second row is padding, and of the third, in front."""
    generator = torch.Generator().manual_seed(length)
    mask = torch.ones(rows, length, dtype=torch.long)
    mask[1:2, length - length // 3 :] = 0
    mask[2:3, : length // 3] = 0
    pad = model.config.pad_token_id or 0
    ids = torch.randint(model.config.vocab_size, (rows, length), generator=generator).masked_fill(mask == 0, pad)
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    if len(dimension_names(model)) == 3:
        inputs = {name: x[:, None].repeat(1, 2, 1) for name, x in inputs.items()}
    return {name: inputs[name] for name in names}
