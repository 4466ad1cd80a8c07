"""What a sentence-transformers checkpoint holds besides the model: carried over, so that it stays one.

Without these files `SentenceTransformer(folder)` would pool and normalize in its own default way, not the checkpoint's.

(sentence-transformers could load all of it, and save it with another model. But the converter does not depend on it, it
would run the classes that a modules.json names, and what is copied here are a few files.)
"""

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors.torch import save_file
from transformers.utils import cached_file, logging

from .errors import ConversionError, one_line
from .text import read_json

logger = logging.get_logger(__name__)

MODULES, SETTINGS = "modules.json", "sentence_bert_config.json"
# names that early versions gave to the settings, by model type
OLD_SETTINGS = (
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
)
PART_CONFIGS = ("config.json", "lstm_config.json", "cnn_config.json")
WEIGHTS, PICKLE = "model.safetensors", "pytorch_model.bin"
PART_FILES = (*PART_CONFIGS, WEIGHTS, PICKLE)  # the last one only in outputs of earlier versions
WITHOUT_WEIGHTS = ("Pooling", "Normalize", "Dropout")
Finder = Callable[[str], Path | None]


@dataclass(frozen=True)
class Part:
    """A module behind the model: its folder, and its class with that of its package in front."""

    path: str
    kind: str


def finder(source: str, hub: dict[str, Any]) -> Finder:
    """Return a function that finds a file of a checkpoint, or says None; arguments as `copy_sentence_parts`."""

    def find(name: str) -> Path | None:
        try:
            found = cached_file(source, name, _raise_exceptions_for_missing_entries=False, **hub)
        except OSError as error:
            raise ConversionError(
                f"{one_line(source)}: {one_line(name)} is not to be had: {one_line(error)}"
            ) from error
        return None if found is None else Path(found)

    return find


def is_sentence_encoder(source: str, hub: dict[str, Any]) -> bool:
    """Return whether a checkpoint is one of sentence-transformers; arguments as `copy_sentence_parts`."""
    return finder(source, hub)(MODULES) is not None


def read_parts(modules: Path) -> list[Part]:
    """Return the parts with a folder of their own that a modules.json names.

    Raises:
        ConversionError: it is damaged.
    """
    try:
        parts = read_json(modules)
        return [Part(str(PurePosixPath(part["path"])), str(part.get("type"))) for part in parts if part["path"]]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConversionError(
            f"{one_line(modules)}: not the {MODULES} of a sentence-transformers checkpoint"
        ) from error


def part_paths(modules: Path) -> list[str]:
    """Return the folders that a modules.json names; raises as `read_parts`."""
    return [part.path for part in read_parts(modules)]


def copy_sentence_parts(source: str, folder: Path, length: int, hub: dict[str, Any]) -> bool:
    """Copy the parts of a sentence-transformers source into a converted folder; data only, neither code nor pickles.

    Args:
        source: folder, or name on the Hub.
        folder: the converted checkpoint.
        length: tokens that it reads, the new `max_seq_length`.
        hub: `token` and `revision` of the source.

    Returns:
        Whether the source is a sentence-transformers checkpoint.

    Raises:
        ConversionError: its modules.json or settings are damaged, or point out of the checkpoint, or a part's weights
            cannot be had without running code.
    """
    find = finder(source, hub)
    modules = find(MODULES)
    if modules is None:
        return False
    parts = read_parts(modules)
    if not all((folder / part.path).resolve().is_relative_to(folder.resolve()) for part in parts):
        raise ConversionError(f"{one_line(source)}: {MODULES} points out of the checkpoint")
    settings = {**read_settings(find), "max_seq_length": length}
    names = [MODULES, "config_sentence_transformers.json"]
    names += [f"{part.path}/{file}" for part in parts for file in (*PART_CONFIGS, WEIGHTS)]
    for name, file in ((name, find(name)) for name in names):
        if file is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / name)
    for part in parts:
        unpickle_weights(find, part, folder)
    (folder / SETTINGS).write_text(json.dumps(settings, indent=2), encoding="utf-8")
    return True


def read_settings(find: Finder) -> dict[str, Any]:
    """Return a checkpoint's sentence_bert_config.json, by its present or an old name; nothing if there is none.

    Raises:
        ConversionError: it is damaged. sentence-transformers cannot load it then, and to guess whether it lowers the
            case of words, say, would change embeddings without a word.
    """
    file = next((file for file in map(find, (SETTINGS, *OLD_SETTINGS)) if file is not None), None)
    if file is None:
        return {}
    try:
        settings = read_json(file)
    except ValueError as error:  # also of text that is not UTF-8
        raise ConversionError(
            f"{one_line(file)}: not valid JSON: {one_line(error)}; mend it, or remove it to have the defaults"
        ) from error
    if not isinstance(settings, dict):
        raise ConversionError(f"{one_line(file)}: a JSON object is expected, this is a {type(settings).__name__}")
    return settings


def unpickle_weights(find: Finder, part: Part, folder: Path) -> None:
    """Write weights that a part has only as a pickle as model.safetensors, where sentence-transformers looks first.

    Raises:
        ConversionError: the pickle holds anything but tensors, or is that of a class which may not read safetensors.
    """
    name = f"{part.path}/{PICKLE}"
    file = find(name)
    if file is None or find(f"{part.path}/{WEIGHTS}") is not None:
        return
    if part.kind.rsplit(".", 1)[-1] in WITHOUT_WEIGHTS:
        logger.warning(f"not part of {part.kind}, left out: {name}")
        return
    if not part.kind.startswith("sentence_transformers."):
        raise ConversionError(
            f"{one_line(name)}: a pickle is not carried over, and it is not known whether {one_line(part.kind)} reads "
            f"{WEIGHTS}; save its weights beside it under that name first"
        )
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise ConversionError(f"{one_line(name)}: the weights cannot be loaded: {one_line(error)}") from error
    if not isinstance(found, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in found.values()):
        raise ConversionError(f"{one_line(name)}: tensors by name are expected, it holds something else")
    # clones, as safetensors refuses tensors that share memory
    tensors = {key: tensor.detach().clone().contiguous() for key, tensor in found.items()}
    (folder / part.path).mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / part.path / WEIGHTS, metadata={"format": "pt"})
