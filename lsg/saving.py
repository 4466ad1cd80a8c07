"""Write a checkpoint, and compare what was written with the model, tensor by tensor."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from .errors import ConversionError, one_line, reported_as
from .quiet import quiet

COMPARED_AT_ONCE = 2**24  # numbers of a tensor
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by size in bytes


@dataclass(frozen=True)
class SavedModel:
    """What is known of a converted model after it was saved, for the summary, the model card and the report.

    Args:
        source: folder or Hub name of the original.
        model_type: that of the original.
        is_lsg: whether the original is an LSG checkpoint.
        max_length: maximum number of tokens.
        trained_head: what its head, which is the original's, finds: "masked words" or "answers"; None for others.
        is_sentence_encoder: whether it is a sentence-transformers checkpoint.
    """

    source: str
    model_type: str
    is_lsg: bool
    config: Any
    num_parameters: int
    max_length: int
    trained_head: str | None
    is_sentence_encoder: bool

    @property
    def class_name(self) -> str:
        """The name of its LSG class."""
        return self.config.architectures[0]

    @property
    def auto_class(self) -> str:
        """The name of the AutoClass that loads it."""
        auto_map = self.config.to_dict()["auto_map"]
        return next(name for name, item in auto_map.items() if item.endswith("." + self.class_name))

    @property
    def lsg_fields(self) -> dict[str, object]:
        """The LSG fields of its config, sorted by name."""
        return {name: getattr(self.config, name) for name in sorted(self.config.lsg_defaults)}


def save_checkpoint(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, max_shard_size: str = "5GB"
) -> None:
    """Write weights, config with its auto_map, modeling files and tokenizer; compare the written weights.

    Args:
        max_shard_size: weights above this size are split into several files.

    Raises:
        ConversionError: the disk is full, or what was read back is not what was written.
    """
    with reported_as("cannot write the checkpoint"):  # safetensors and tokenizers raise classes of their own
        with quiet():
            model.save_pretrained(folder, max_shard_size=max_shard_size)
            tokenizer.save_pretrained(folder)
        for file in folder.iterdir():  # safetensors makes weights readable for their owner only
            file.chmod((folder / "config.json").stat().st_mode)
    compare_saved(model, folder)


def written_tensors(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return the tensors that `save_pretrained` writes, by name: not the positions of Marian, which are computed."""
    left_out = model._keys_to_ignore_on_save or ()
    return {name: tensor for name, tensor in model.state_dict(keep_vars=True).items() if name not in left_out}


def compare_saved(model: PreTrainedModel, folder: Path) -> None:
    """Raise ConversionError unless the folder's files contain every tensor that is to be written, bit for bit."""
    expected = model.state_dict()
    found = set()  # addresses: tied tensors are written once
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            names = list(tensors.keys())
        for name in logging.tqdm(names, desc=f"Comparing {file.name}"):
            if not is_written(file, name, expected[name].cpu()):
                raise ConversionError(f"{file.name}: {one_line(name)} was not written as it is in memory")
            found.add(expected[name].data_ptr())
    lost = sorted(name for name, tensor in written_tensors(model).items() if tensor.data_ptr() not in found)
    if lost:
        raise ConversionError(f"not written: {one_line(', '.join(lost))}")


def is_written(file: Path, name: str, tensor: torch.Tensor) -> bool:
    """Return whether a safetensors file contains a tensor, bit for bit: a NaN equals itself, and 0 is not -0.

    It is read in pieces, and the file is opened again for each: what was read of an open file stays in memory.
    """
    with safe_open(file, framework="pt") as tensors:
        if tensors.get_slice(name).get_shape() != list(tensor.shape):
            return False
    bits = INTEGERS[tensor.element_size()]  # compared as floats, 0 equals -0, and a NaN does not equal itself
    rows = max(1, COMPARED_AT_ONCE * len(tensor) // max(tensor.numel(), 1)) if tensor.dim() else 1
    pieces: list[Any] = [slice(i, i + rows) for i in range(0, max(len(tensor), 1), rows)] if tensor.dim() else [...]
    for piece in pieces:
        with safe_open(file, framework="pt") as tensors:
            written = tensors.get_tensor(name) if piece is ... else tensors.get_slice(name)[piece]
        expected = tensor[piece]
        if written.dtype != expected.dtype or not torch.equal(written.view(bits), expected.view(bits)):
            return False
    return True
