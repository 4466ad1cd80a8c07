"""The files of a sentence-transformers checkpoint besides the model; they are copied, so that the output is one, too.

Without these files `SentenceTransformer(folder)` would pool and normalize in its default way, not the checkpoint's.

(sentence-transformers could load and save all of it. But the converter does not depend on that package, which would
also run the classes that a modules.json names; and only a few files are copied here.)
"""

import json
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors.torch import save_file
from transformers.utils import logging

from .errors import ConversionError, one_line, read_json, read_json_object, reported_as
from .hub_options import HubOptions

logger = logging.get_logger(__name__)

MODULES, SETTINGS = "modules.json", "sentence_bert_config.json"
# model types whose settings had a file name of their own in early versions
OLD_SETTINGS_OF = ("roberta", "distilbert", "camembert", "albert", "xlm-roberta")
OLD_SETTINGS = [f"sentence_{model_type}_config.json" for model_type in OLD_SETTINGS_OF]
MODULE_CONFIGS = ("config.json", "lstm_config.json", "cnn_config.json")
WEIGHTS, PICKLE = "model.safetensors", "pytorch_model.bin"
MODULE_FILES = (*MODULE_CONFIGS, WEIGHTS, PICKLE)  # the last one only in outputs of earlier versions
WITHOUT_WEIGHTS = ("Pooling", "Normalize", "Dropout")


@dataclass(frozen=True)
class SentenceModule:
    """A module after the model: its folder, and its class with that of its package in front."""

    path: str
    kind: str


@dataclass(frozen=True)
class SourceFiles:
    """The files of a checkpoint, which is a folder or a name on the Hub."""

    name_or_path: str
    hub: HubOptions

    def find(self, name: str) -> Path | None:
        """Return a file, None if there is none of that name.

        Raises:
            ConversionError: it cannot be downloaded.
        """
        with reported_as(f"{one_line(self.name_or_path)}: {one_line(name)} cannot be downloaded", OSError):
            file = self.hub.find_file(self.name_or_path, name)
        return file


def is_sentence_encoder(source: str, hub: HubOptions) -> bool:
    """Return whether a checkpoint is one of sentence-transformers; arguments and errors as `copy_sentence_files`."""
    return SourceFiles(source, hub).find(MODULES) is not None


def read_modules(file: Path) -> list[SentenceModule]:
    """Return the modules with a folder of their own that a modules.json names.

    Raises:
        ConversionError: it is damaged.
    """
    try:
        modules = [module for module in read_json(file) if module["path"]]
        return [SentenceModule(str(PurePosixPath(module["path"])), str(module.get("type"))) for module in modules]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConversionError(f"{one_line(file)}: not the {MODULES} of a sentence-transformers checkpoint") from error


def copy_sentence_files(source: str, folder: Path, length: int, hub: HubOptions) -> bool:
    """Copy the files of a sentence-transformers checkpoint into a converted folder: data only, no code or pickles.

    Args:
        source: folder, or name on the Hub.
        folder: the converted checkpoint.
        length: maximum number of tokens, the new `max_seq_length`.
        hub: how to find the source's files.

    Returns:
        Whether the source is a sentence-transformers checkpoint.

    Raises:
        ConversionError: its modules.json or settings are damaged, or point outside of the checkpoint, or a module's
            weights cannot be read without running code.
    """
    files = SourceFiles(source, hub)
    modules_file = files.find(MODULES)
    if modules_file is None:
        return False
    modules = read_modules(modules_file)
    if not all((folder / module.path).resolve().is_relative_to(folder.resolve()) for module in modules):
        raise ConversionError(f"{one_line(source)}: {MODULES} points outside of the checkpoint")
    settings = {**read_settings(files), "max_seq_length": length}
    names = [MODULES, "config_sentence_transformers.json"]
    names += [f"{module.path}/{name}" for module in modules for name in (*MODULE_CONFIGS, WEIGHTS)]
    for name in names:
        file = files.find(name)
        if file is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / name)
    for module in modules:
        convert_pickle(files, module, folder)
    (folder / SETTINGS).write_text(json.dumps(settings, indent=2), encoding="utf-8")
    return True


def read_settings(files: SourceFiles) -> dict[str, Any]:
    """Return a checkpoint's sentence_bert_config.json, by its present or an old name; empty if there is none.

    Raises:
        ConversionError: it is damaged. sentence-transformers cannot load it then, and defaults in its place could
            change embeddings unnoticed, by lowercasing, for example.
    """
    file = next((file for file in map(files.find, (SETTINGS, *OLD_SETTINGS)) if file is not None), None)
    return {} if file is None else read_json_object(file, hint="; repair it, or remove it to use the defaults")


def convert_pickle(files: SourceFiles, module: SentenceModule, folder: Path) -> None:
    """Write weights that a module has only as a pickle as model.safetensors, which sentence-transformers prefers.

    Raises:
        ConversionError: the pickle contains anything but tensors, or it is unknown whether the module's class reads
            safetensors.
    """
    name = f"{module.path}/{PICKLE}"
    file = files.find(name)
    if file is None or files.find(f"{module.path}/{WEIGHTS}") is not None:
        return
    if module.kind.rsplit(".", 1)[-1] in WITHOUT_WEIGHTS:
        logger.warning(f"not part of {module.kind}, left out: {name}")
        return
    if not module.kind.startswith("sentence_transformers."):
        raise ConversionError(
            f"{one_line(name)}: pickles are not copied, and it is not known whether {one_line(module.kind)} reads "
            f"{WEIGHTS}; save its weights beside it under that name first"
        )
    errors = (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError)
    with reported_as(f"{one_line(name)}: the weights cannot be loaded", errors):
        found = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(found, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in found.values()):
        raise ConversionError(f"{one_line(name)}: tensors by name are expected, it contains something else")
    # clones, as safetensors refuses tensors that share memory
    tensors = {key: tensor.detach().clone().contiguous() for key, tensor in found.items()}
    (folder / module.path).mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / module.path / WEIGHTS, metadata={"format": "pt"})
