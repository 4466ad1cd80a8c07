"""What is in an output folder: files that a conversion wrote, those of them that were edited, and the user's own.

`conversion_files.json`, written last, lists the files that the conversion wrote, with checksums.
"""

import fnmatch
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConversionError, one_line, read_json
from ..model_types import is_lsg_config
from ..sentence_encoders import MODULE_FILES, MODULES, SETTINGS, read_modules

FILE_LIST = "conversion_files.json"
# names of the files that conversions write, for the outputs of versions that wrote no list
KNOWN_NAMES = f"""
    README.md config.json generation_config.json modeling_lsg_*.py lsg_*.py
    model.safetensors model.safetensors.index.json model-{"[0-9]" * 5}-of-{"[0-9]" * 5}.safetensors
    {MODULES} {SETTINGS} config_sentence_transformers.json
    tokenizer.json tokenizer_config.json tokenizer.model special_tokens_map.json added_tokens.json chat_template.jinja
    vocab.json vocab.txt merges.txt spiece.model sentencepiece.bpe.model
""".split()
CHUNK = 2**20  # bytes
Snapshot = dict[str, list[int]]


@dataclass(frozen=True)
class FileList:
    """The content of conversion_files.json.

    Args:
        files: SHA-256 of each file that the conversion wrote, by path.
        kept: paths of the user's files, kept from the output that was replaced.
    """

    files: dict[str, str]
    kept: list[str]


@dataclass(frozen=True)
class Contents:
    """What is in an output before it is replaced.

    Args:
        snapshot: from `take_snapshot`.
        edited: files that a conversion wrote and that were changed since.
        kept: files that an earlier conversion kept.
        others: files that no conversion wrote.
        has_list: whether there is a conversion_files.json; without, names decide which files a conversion wrote.
    """

    snapshot: Snapshot
    edited: list[str]
    kept: list[str]
    others: list[str]
    has_list: bool


def list_files(folder: Path, prefix: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Yield path and status of each file below a folder; links are not followed, empty folders end in a slash."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    if prefix and not entries:
        yield prefix, folder.stat()
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from list_files(Path(entry.path), f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name, entry.stat(follow_symlinks=False)


def take_snapshot(folder: Path) -> Snapshot:
    """Return size, time of change and inode of all files below a folder, and, as ".", the folder's own inode."""
    files = {name: [info.st_size, info.st_mtime_ns, info.st_ino] for name, info in list_files(folder)}
    return {".": own_entry(folder), **files}


def own_entry(folder: Path) -> list[int]:
    """Return a folder's own entry in its snapshot."""
    return [0, 0, folder.stat().st_ino]


def checksum(file: Path) -> str:
    """Return the SHA-256 of a file of any size."""
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while chunk := content.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def write_list(folder: Path, kept: list[str]) -> None:
    """Write the list of all files in the folder; `kept` are those of the user."""
    files = {name: checksum(folder / name) for name, _ in list_files(folder) if name not in kept}
    text = json.dumps({"files": files, "kept": kept}, indent=2)
    (folder / FILE_LIST).write_text(text + "\n", encoding="utf-8")


def read_list(folder: Path) -> FileList | None:
    """Return the list in a folder; None if it has none.

    Raises:
        ConversionError: it is damaged.
    """
    file = folder / FILE_LIST
    if not os.path.lexists(file):
        return None
    try:
        content = read_json(file)
        files, kept = content["files"], content["kept"]
        if (
            not isinstance(files, dict)
            or not isinstance(kept, list)
            or not all(isinstance(text, str) for text in (*files.values(), *kept))
        ):
            raise TypeError("a checksum for each file, and a list of kept files, are expected")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConversionError(
            f"{one_line(file)}: damaged, so it is unknown what --overwrite may replace: {one_line(error)}; "
            "move the folder elsewhere, or choose another name"
        ) from error
    return FileList(files, kept)


def known_names(folder: Path, names: list[str]) -> set[str]:
    """Return those of the files below a folder that have names of files that conversions write."""
    modules = read_modules(folder / MODULES) if (folder / MODULES).is_file() else []
    in_modules = {f"{module.path}/{file}" for module in modules for file in MODULE_FILES}
    known = {name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in KNOWN_NAMES)}
    return {name for name in known if "/" not in name} | in_modules.intersection(names)


def read_contents(folder: Path) -> Contents:
    """Return what is in a folder.

    Raises:
        ConversionError: its list or modules.json is damaged.
    """
    snapshot = take_snapshot(folder)  # first, so that later changes are noticed
    names = [name for name in snapshot if name != "."]
    found = read_list(folder)
    if found is None:
        known = known_names(folder, names)
        return Contents(snapshot, [], [], [name for name in names if name not in known], has_list=False)
    edited = [name for name in names if name in found.files and was_edited(folder / name, found.files[name])]
    unlisted = [name for name in names if name != FILE_LIST and name not in found.files]
    kept = [name for name in unlisted if name in found.kept]
    return Contents(snapshot, edited, kept, [name for name in unlisted if name not in kept], has_list=True)


def was_edited(file: Path, expected: str) -> bool:
    """Return whether a file differs from what a conversion wrote, as do links and pipes."""
    return not stat.S_ISREG(file.lstat().st_mode) or checksum(file) != expected


def is_conversion(folder: Path) -> bool:
    """Return whether a folder is the output of a conversion: it has a list, or the config of an LSG checkpoint."""
    if os.path.lexists(folder / FILE_LIST):
        return True
    try:
        config: Any = read_json(folder / "config.json")
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and is_lsg_config(config)


def keep_user_files(old: Path, contents: Contents, new: Path) -> dict[str, str]:
    """Put the user's files of an old output into a new one, under unused names.

    They are hard links if the system allows it: nothing is copied, and both folders have the complete files.

    Returns:
        Their paths in the new output, by those in the old.
    """
    wanted = {**{name: name for name in contents.kept}, **{name: f"{name}.old" for name in contents.edited}}
    kept = {}
    for name, want in wanted.items():
        place = unused_path(new / want)
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(old / name, place, follow_symlinks=False)
        except (OSError, NotImplementedError):  # not available
            shutil.copy2(old / name, place, follow_symlinks=False)
        kept[name] = place.relative_to(new).as_posix()
    return kept


def unused_path(path: Path) -> Path:
    """Return the first of PATH, PATH.2, PATH.3, ... that does not exist."""
    number, unused = 1, path
    while os.path.lexists(unused):
        number += 1
        unused = path.with_name(f"{path.name}.{number}")
    return unused
