"""--onnx: write onnx/model.onnx beside the weights, and compare it with the model in ONNX Runtime."""

import contextlib
import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from .errors import ConversionError, one_line, reported_as
from .export import ExportedEncoder, dimension_names, export_program, input_names
from .hub_options import HubOptions
from .loading import choose_class, is_reportable, load_model, load_tokenizer, read_config
from .model_types import ModelType, find_model_type, is_lsg_config
from .onnx_check import OnnxReport, check_differences, compare
from .sentence_encoders import MODULES, read_modules

FILE = "onnx/model.onnx"  # the Hub's layout
OPSET = 20
EXPORTED_MODULES = ("Pooling", "Normalize", "Dense", "LayerNorm", "Dropout")
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
MAX_FILE = 1.9e9  # bytes of weights in one file; ONNX itself allows 2 GiB, above that they are beside it
NOISY = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")  # loggers
# heads that generate token by token, for which an ONNX file without a cache would be of no use; and Splinter's, which
# treat a text of one token apart, so that there is no graph for all lengths
GENERATING = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "GenerationDecoder")
NOT_EXPORTED = (*GENERATING, "SplinterForPreTraining", "SplinterForQuestionAnswering")


def check_onnx(
    model_type: ModelType, architecture: str, config_dict: dict[str, Any], is_sentence_encoder: bool
) -> None:
    """Raise ConversionError if packages are missing, or if there is no ONNX file of such a model.

    Args:
        model_type: the row of the checkpoint's type.
        architecture: the class, with or without "LSG" in front.
        config_dict: the fields of its config.
        is_sentence_encoder: whether it is a sentence-transformers checkpoint.
    """
    packages = (*PACKAGES, *(["sentence_transformers"] if is_sentence_encoder else []))
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        names = " ".join(name.replace("_", "-") for name in missing)
        raise ConversionError(f"onnx: {names} is missing; install it with: pip install {names}")
    if "AutoModelForSeq2SeqLM" in model_type.auto_classes or architecture.endswith(NOT_EXPORTED):
        raise ConversionError(
            "onnx: it is for encoders, with any head except causal language models and Splinter's; this is "
            f"{one_line(architecture)}"
        )
    if config_dict.get("is_decoder"):
        raise ConversionError("onnx: is_decoder is set; causal models cannot be exported")
    if config_dict.get("adaptive") is False:
        raise ConversionError("onnx: adaptive is false, but an exported model takes every length; set it to true")


def export_onnx(folder: str | Path, name: str = "") -> OnnxReport:
    """Write onnx/model.onnx into the folder of an LSG encoder, in float32, and compare it with the model.

    Its outputs are last_hidden_state, logits, start_logits, ..., named as in transformers; a sentence-transformers
    folder has a second one, sentence_embedding, which is pooled and normalized as the folder says.

    Args:
        folder: of the model.
        name: what errors call the folder; its path by default.

    Raises:
        ConversionError: packages are missing, the model is none that can be exported, or the file's outputs differ;
            nothing is changed then.
    """
    folder = Path(folder)
    where = f"onnx: {one_line(name or folder)}"
    model, tokenizer, max_length = load_folder(folder, where)
    encoder = ExportedEncoder(model, sentence_modules(folder)).eval()
    names = input_names(model, tokenizer)
    with (
        reported_as(f"{where}: cannot be written", OSError),
        tempfile.TemporaryDirectory(dir=folder, prefix=".onnx-") as temporary,  # renamed once it is known to be right
    ):
        file = Path(temporary) / Path(FILE).name
        with reported_as(f"{where}: cannot be exported"), silenced():
            outputs = write(encoder, names, max_length, file)
        report = OnnxReport(FILE, OPSET, names, outputs)
        model.config.lsg_backend = "auto"
        with reported_as(f"{where}: {FILE} does not run"):
            compare(encoder, file, report, max_length)
        check_differences(report, model.config, where)
        put_in_place(file, folder / FILE)
    return report


def put_in_place(file: Path, target: Path) -> None:
    """Rename a file, and the weights beside it if there are any, to their place; those of an earlier file go."""
    target.parent.mkdir(exist_ok=True)
    Path(f"{target}.data").unlink(missing_ok=True)
    for part in sorted(file.parent.iterdir(), reverse=True):  # the weights first
        part.replace(target.parent / part.name)


def load_folder(folder: Path, where: str) -> tuple[PreTrainedModel, Any, int]:
    """Return the model of an LSG folder in float32, its tokenizer, and the maximum number of tokens.

    Raises:
        ConversionError: it is no LSG folder, cannot be exported, or lacks weights; the message begins with `where`.
    """
    config_dict = read_config(str(folder))
    model_type = find_model_type(config_dict, str(folder))
    model_class = choose_class(model_type, None, config_dict.get("architectures"))
    if not is_lsg_config(config_dict):
        raise ConversionError(f"{where}: an LSG checkpoint is expected, this is a plain one")
    is_sentence_encoder = (folder / MODULES).is_file() and bool(read_modules(folder / MODULES))
    check_onnx(model_type, model_class.__name__, config_dict, is_sentence_encoder)
    if is_sentence_encoder:  # sentence-transformers leaves heads out
        model_class = model_type.auto_classes["AutoModel"]
    with reported_as(f"{where}: the config cannot be loaded"):
        config: Any = model_type.config_class.from_pretrained(folder, lsg_backend="blocks")
    model, info = load_model(str(folder), model_class, config, {"dtype": torch.float32})
    tokenizer = load_tokenizer(str(folder), HubOptions())
    if missing := sorted(filter(is_reportable, info["missing_keys"])):
        raise ConversionError(f"{where}: weights are missing: {one_line(', '.join(missing))}")
    return model, tokenizer, model_type.tokens_read(model.config)


def sentence_modules(folder: Path) -> list[nn.Module]:
    """Return the modules behind the model of a sentence-transformers folder; none of another folder.

    Raises:
        ConversionError: a module is not one of EXPORTED_MODULES, or pools in a way that an ONNX file cannot.
    """
    if not (folder / MODULES).is_file():
        return []
    modules = []
    for module in read_modules(folder / MODULES):
        package, _, name = module.kind.rpartition(".")
        if not package.startswith("sentence_transformers.") or name not in EXPORTED_MODULES:
            known = ", ".join(EXPORTED_MODULES)
            raise ConversionError(
                f"onnx: {one_line(module.kind)} cannot be exported; of sentence-transformers: {known}"
            )
        with reported_as(f"onnx: {one_line(module.kind)} cannot be loaded"), silenced():
            modules.append(getattr(import_module(package), name).load(str(folder), subfolder=module.path))
        if getattr(modules[-1], "include_prompt", True) is False:
            raise ConversionError("onnx: the checkpoint leaves prompts out of its pooling, which an ONNX file cannot")
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
    size = sum(x.numel() * x.element_size() for x in (*encoder.parameters(), *encoder.buffers()))
    exported.save(str(file), external_data=size > MAX_FILE)
    return encoder.output_names
