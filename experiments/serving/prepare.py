"""Make what the runtimes load: an LSG folder, the dense model of the same weights, ONNX files, a package."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
import transformers
from tqdm import tqdm

from experiments.common.errors import InputError
from lsg import LSGConverter
from lsg.export import ExportedEncoder, export_program, one_is_no_special_size, trace
from lsg.modeling.modeling_lsg_roberta import LSGRobertaConfig, LSGRobertaModel
from lsg.onnx_output import silenced, write
from lsg.quiet import quiet

NAMES = ["input_ids", "attention_mask"]


def prepare(
    folder: Path, initial_model: str | None, length: int, layers: int, runtimes: Sequence[str]
) -> dict[str, Any]:
    """Write what the runtimes need into the folder; return what the model is.

    Args:
        initial_model: a plain checkpoint of an encoder; None for RoBERTa-base's size with random weights.
        length: the longest text, and the number of positions.
        layers: of the random model.
        runtimes: names in `worker.RUNTIMES`.
    """
    model, ids = make_model(initial_model, length, layers)
    numpy.save(folder / "ids.npy", ids)
    with quiet():
        model.save_pretrained(folder / "lsg")
    encoder = ExportedEncoder(model).eval()
    steps: dict[str, Callable[[], object]] = {  # in this order, as the second file is made of the first
        "ONNX Runtime": lambda: write(encoder, NAMES, length, folder / "lsg.onnx"),
        "ONNX Runtime, int8": lambda: quantize(folder / "lsg.onnx", folder / "lsg-int8.onnx"),
        "dense, torch": lambda: make_dense(folder).save_pretrained(folder / "dense"),
        "dense, ONNX Runtime": lambda: write_dense_onnx(make_dense(folder), folder / "dense.onnx", length),
        "AOTInductor": lambda: compile_package(encoder, length, folder / "lsg.pt2"),
    }
    needed = {*runtimes, *(["ONNX Runtime"] if "ONNX Runtime, int8" in runtimes else [])}
    with silenced():
        for name in tqdm([name for name in steps if name in needed], desc="Preparing", unit="runtime"):
            steps[name]()
    return {"model": initial_model and Path(initial_model).name, "layers": model.config.num_hidden_layers}


def make_model(initial_model: str | None, length: int, layers: int) -> tuple[Any, numpy.ndarray]:
    """Return an LSG model, and tokens: of English text, or random ones for random weights."""
    if initial_model is None:
        torch.manual_seed(0)
        fields = {"vocab_size": 50265, "num_hidden_layers": layers, "max_position_embeddings": length + 2}
        config = LSGRobertaConfig(**fields, type_vocab_size=1, pad_token_id=1)
        return LSGRobertaModel(config, add_pooling_layer=False).eval(), torch.randint(5, 50000, (length,)).numpy()
    from pydoc_data.topics import topics  # the Python language reference

    model, tokenizer = LSGConverter(length).convert_from_pretrained(initial_model, lsg_backend="auto")
    ids = tokenizer("\n\n".join(topics.values()), truncation=True, max_length=length)["input_ids"]
    if len(ids) < length:
        raise InputError(f"--lengths {length} is not allowed: the text has {len(ids)} tokens")
    return model.base_model, numpy.array(ids)


def make_dense(folder: Path) -> Any:
    """Return transformers' dense model of the same weights, with as many positions."""
    with quiet():  # the globals are left out
        return transformers.AutoModel.from_pretrained(folder / "lsg", dtype=torch.float32).eval()


def quantize(source: Path, target: Path) -> None:
    """Write an ONNX file again, with the weights of its matrix products in int8, a scale for each column."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(source, target, ["MatMul", "Gemm"], per_channel=True, weight_type=QuantType.QInt8)


def write_dense_onnx(model: Any, file: Path, length: int) -> None:
    """Write the ONNX file of a dense model."""
    encoder = ExportedEncoder(model).eval()
    program = trace(encoder, NAMES, length, min(length, 300))
    exported: Any = torch.onnx.export(program, dynamo=True, output_names=encoder.output_names, verbose=False)
    exported.save(str(file))


def compile_package(encoder: ExportedEncoder, length: int, file: Path) -> None:
    """Compile the encoder into a package of AOTInductor."""
    from torch._inductor import aoti_compile_and_package

    with one_is_no_special_size():
        aoti_compile_and_package(export_program(encoder, NAMES, length), package_path=str(file))
