"""What a sentence-transformers checkpoint holds besides the model: carried over, so that it stays one.

Without these files `SentenceTransformer(folder)` would pool and normalize in its own default way, not the checkpoint's.
"""

import json
import shutil
from pathlib import Path, PurePosixPath
from typing import Any

from transformers.utils import cached_file

from lsg_cli.json_files import read_json

from .errors import ConversionError, one_line

MODULES, SETTINGS = "modules.json", "sentence_bert_config.json"
PART_FILES = ("config.json", "model.safetensors", "pytorch_model.bin")


def part_paths(modules: Path) -> list[str]:
    """Read the folders that a modules.json names.

    Raises:
        ConversionError: it is damaged.
    """
    try:
        parts = read_json(modules)
        return [str(PurePosixPath(part["path"])) for part in parts if part["path"]]
    except (ValueError, TypeError, KeyError) as error:
        raise ConversionError(
            f"{one_line(modules)}: not the {MODULES} of a sentence-transformers checkpoint"
        ) from error


def read_settings(file: Path) -> dict[str, Any]:
    """Return the fields of a sentence_bert_config.json.

    Raises:
        ConversionError: it is damaged.
    """
    try:
        return dict(read_json(file))
    except (ValueError, TypeError) as error:
        raise ConversionError(f"{one_line(file)}: not the {SETTINGS} of a sentence-transformers checkpoint") from error


def copy_sentence_parts(source: str, folder: Path, length: int, hub: dict[str, Any]) -> bool:
    """Copy the parts of a sentence-transformers source into a converted folder; data only, no code.

    Args:
        source: folder, or name on the Hub.
        folder: the converted checkpoint.
        length: tokens that it reads, the new `max_seq_length`.
        hub: `token` and `revision` of the source.

    Returns:
        Whether the source is a sentence-transformers checkpoint.

    Raises:
        ConversionError: its modules.json is damaged, or points out of the checkpoint.
    """

    def find(name: str) -> Path | None:
        found = cached_file(source, name, _raise_exceptions_for_missing_entries=False, **hub)
        return None if found is None else Path(found)

    modules = find(MODULES)
    if modules is None:
        return False
    paths = part_paths(modules)
    if not all((folder / path).resolve().is_relative_to(folder.resolve()) for path in paths):
        raise ConversionError(f"{one_line(source)}: {MODULES} points out of the checkpoint")
    names = [MODULES, "config_sentence_transformers.json"]
    names += [f"{path}/{file}" for path in paths for file in PART_FILES]
    for name, file in ((name, find(name)) for name in names):
        if file is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / name)
    settings = find(SETTINGS)
    fields = {} if settings is None else read_settings(settings)
    (folder / SETTINGS).write_text(json.dumps({**fields, "max_seq_length": length}, indent=2), encoding="utf-8")
    return True
