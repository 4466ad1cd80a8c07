"""Writing a checkpoint: whole or not at all, and read back tensor by tensor."""

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from .errors import ConversionError, one_line
from .loading import quiet
from .sentence_parts import MODULES, part_paths

COMPARED_AT_ONCE = 2**24  # numbers
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by their bytes


def check_output(output: Path, source: Path, overwrite: bool) -> None:
    """Raise ConversionError unless `output` can be made without losing anything."""
    output, source = output.resolve(), source.resolve()
    if output == source or output in source.parents:
        raise ConversionError(f"{output}: the output cannot be the input or a folder around it")
    if output == Path.cwd() or output in Path.cwd().parents:
        raise ConversionError(f"{output}: the output cannot be the current folder or one around it")
    if not output.exists():
        return
    if output.is_mount():
        raise ConversionError(f"{output}: a mount point cannot be replaced; choose a folder inside it")
    if not output.is_dir():
        raise ConversionError(f"{output}: the output has to be a folder, this is a file")
    if not any(output.iterdir()):
        return
    if not overwrite:
        raise ConversionError(f"{output}: exists and is not empty; choose another name, or pass --overwrite")
    if not (output / "config.json").is_file():
        raise ConversionError(f"{output}: --overwrite replaces checkpoints only, and this folder has no config.json")
    known = part_paths(output / MODULES) if (output / MODULES).is_file() else []
    inside = sorted(item.name for item in output.iterdir() if item.is_dir() and item.name not in known)
    if inside:
        raise ConversionError(f"{output}: --overwrite would delete the folders in it, too: {', '.join(inside)}")


@contextlib.contextmanager
def whole_or_nothing(output: Path) -> Iterator[Path]:
    """Give a folder to write into, beside `output`, which takes its name only if the block ends well.

    What stood there before is replaced then. On any error, or Ctrl-C, everything is as it was.
    """
    output = output.resolve()
    mark = uuid.uuid4().hex[:8]
    building, old = (output.parent / f".{output.name}.{mark}.{what}" for what in ("new", "old"))
    made = [folder for folder in output.parents if not folder.exists()]  # innermost first
    try:
        try:
            building.mkdir(parents=True)
        except OSError as error:
            raise ConversionError(f"{output}: cannot be written: {one_line(error.strerror or error)}") from error
        yield building
        if output.exists():
            output.rename(old)
        building.rename(output)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        if old.exists():
            old.rename(output)
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()  # only if empty
        raise
    shutil.rmtree(old, ignore_errors=True)


def save_checkpoint(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, max_shard_size: str = "5GB"
) -> None:
    """Write weights, config with its auto_map, modeling files and tokenizer, and compare what was written.

    Args:
        max_shard_size: larger weights are spread over several files.

    Raises:
        ConversionError: the disk is full, or what was read back is not what was written.
    """
    try:
        with quiet():
            model.save_pretrained(folder, max_shard_size=max_shard_size)
            tokenizer.save_pretrained(folder)
        for file in folder.iterdir():
            file.chmod((folder / "config.json").stat().st_mode)  # weights come with the rights of a secret
    except Exception as error:  # safetensors and tokenizers raise classes of their own
        raise ConversionError(f"cannot write the checkpoint: {one_line(error)}") from error
    compare_saved(model, folder)


def compare_saved(model: PreTrainedModel, folder: Path) -> None:
    """Raise ConversionError unless every tensor of the model is in the folder's files, bit for bit."""
    expected = model.state_dict()
    found = set()  # addresses: tied tensors are written once
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            names = list(tensors.keys())
        for name in logging.tqdm(names, desc=f"Comparing {file.name}"):
            if not is_written(file, name, expected[name].cpu()):
                raise ConversionError(f"{file.name}: {name} was not written as it is in memory")
            found.add(expected[name].data_ptr())
    lost = sorted(name for name, tensor in expected.items() if tensor.data_ptr() not in found)
    if lost:
        raise ConversionError(f"not written: {', '.join(lost)}")


def is_written(file: Path, name: str, tensor: torch.Tensor) -> bool:
    """Whether a safetensors file holds a tensor, bit for bit: a NaN equals itself, and 0 is not -0.

    It is read piece by piece, and the file opened for each: what was read of an open one stays in memory.
    """
    with safe_open(file, framework="pt") as tensors:
        if tensors.get_slice(name).get_shape() != list(tensor.shape):
            return False
    bits = INTEGERS[tensor.element_size()]  # as numbers, 0 would equal -0, and no NaN itself
    rows = max(1, COMPARED_AT_ONCE * len(tensor) // max(tensor.numel(), 1)) if tensor.dim() else 1
    pieces = [slice(i, i + rows) for i in range(0, max(len(tensor), 1), rows)] if tensor.dim() else [...]
    for piece in pieces:
        with safe_open(file, framework="pt") as tensors:
            written = tensors.get_tensor(name) if piece is ... else tensors.get_slice(name)[piece]
        meant = tensor[piece]
        if written.dtype != meant.dtype or not torch.equal(written.view(bits), meant.view(bits)):
            return False
    return True
