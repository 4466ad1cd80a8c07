"""Writing a checkpoint, and reading it back tensor by tensor."""

from pathlib import Path

import torch
from safetensors import safe_open
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from .errors import ConversionError, one_line
from .loading import quiet

COMPARED_AT_ONCE = 2**24  # numbers
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by their bytes


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
                raise ConversionError(f"{file.name}: {one_line(name)} was not written as it is in memory")
            found.add(expected[name].data_ptr())
    lost = sorted(name for name, tensor in expected.items() if tensor.data_ptr() not in found)
    if lost:
        raise ConversionError(f"not written: {one_line(', '.join(lost))}")


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
