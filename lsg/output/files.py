"""What stands in an output: the files that a conversion wrote, those of them that were edited, and a user's own.

`conversion_files.json`, written last, lists what the conversion wrote, with checksums.
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

from ..errors import ConversionError, one_line
from ..model_types import is_lsg_config
from ..sentence_parts import MODULES, PART_FILES, SETTINGS, part_paths
from ..text import read_json

LIST = "conversion_files.json"
# what conversions write, to know the outputs of versions that made no list
KNOWN = (
    "README.md",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model-[0-9][0-9][0-9][0-9][0-9]-of-[0-9][0-9][0-9][0-9][0-9].safetensors",
    "model.safetensors.index.json",
    "modeling_lsg_*.py",
    "lsg_*.py",
    MODULES,
    SETTINGS,
    "config_sentence_transformers.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)
CHUNK = 2**20  # bytes
Snapshot = dict[str, list[int]]


@dataclass(frozen=True)
class FileList:
    """The list in an output.

    Args:
        files: path of each file that the conversion wrote to its SHA-256.
        kept: the user's files that were carried over, by path.
    """

    files: dict[str, str]
    kept: list[str]


@dataclass(frozen=True)
class Contents:
    """What an output holds before it is replaced, which is nothing if it is absent or empty.

    Args:
        snapshot: as `take_snapshot` gives it.
        edited: files that a conversion wrote and somebody changed.
        kept: files that an earlier conversion carried over.
        others: files that no conversion wrote.
        has_list: whether a list says so; else what has the name of a conversion's file counts as one.
    """

    snapshot: Snapshot
    edited: list[str]
    kept: list[str]
    others: list[str]
    has_list: bool


def walk(folder: Path, prefix: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Give each file below a folder, by path; links as they are, and empty folders with a slash at their end."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    if prefix and not entries:
        yield prefix, folder.stat()
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from walk(Path(entry.path), f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name, entry.stat(follow_symlinks=False)


def take_snapshot(folder: Path) -> Snapshot:
    """Return size, time of change and inode of all files below a folder, and, as ".", the folder's own inode."""
    files = {name: [stat.st_size, stat.st_mtime_ns, stat.st_ino] for name, stat in walk(folder)}
    return {".": [0, 0, folder.stat().st_ino], **files}


def checksum(file: Path) -> str:
    """Return the SHA-256 of a file, which may be larger than the memory."""
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while chunk := content.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def write_list(folder: Path, kept: list[str]) -> None:
    """Write the list of all that is in the folder; `kept` names those that are the user's."""
    files = {name: checksum(folder / name) for name, _ in walk(folder) if name not in kept}
    text = json.dumps({"files": files, "kept": kept}, indent=2)
    (folder / LIST).write_text(text + "\n", encoding="utf-8")


def read_list(folder: Path) -> FileList | None:
    """Return a folder's list, None if it has none.

    Raises:
        ConversionError: it is damaged.
    """
    file = folder / LIST
    if not os.path.lexists(file):
        return None
    try:
        content = read_json(file)
        files, kept = content["files"], content["kept"]
        whole = isinstance(files, dict) and isinstance(kept, list)
        if not whole or not all(isinstance(text, str) for text in (*files.values(), *kept)):
            raise TypeError("a checksum for each of the files, and a list of kept ones, are expected")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConversionError(
            f"{one_line(file)}: damaged, so it is not known what --overwrite may replace: {one_line(error)}; "
            "move the folder elsewhere, or choose another name"
        ) from error
    return FileList(files, kept)


def known_names(folder: Path, names: list[str]) -> set[str]:
    """Return those of the files below a folder that have the names of what conversions write."""
    parts = part_paths(folder / MODULES) if (folder / MODULES).is_file() else []
    in_parts = {f"{part}/{file}" for part in parts for file in PART_FILES}
    known = {name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in KNOWN)}
    return {name for name in known if "/" not in name} | in_parts.intersection(names)


def look_into(folder: Path) -> Contents:
    """Return what a folder holds.

    Raises:
        ConversionError: its list or modules.json is damaged.
    """
    snapshot = take_snapshot(folder)  # first, so that what is changed from now on is noticed
    names = [name for name in snapshot if name != "."]
    found = read_list(folder)
    if found is None:
        ours = known_names(folder, names)
        return Contents(snapshot, [], [], [name for name in names if name not in ours], has_list=False)
    edited = [name for name in names if name in found.files and was_edited(folder / name, found.files[name])]
    written = {LIST, *found.files}
    kept = [name for name in names if name in found.kept and name not in written]
    ours = {*written, *kept}
    return Contents(snapshot, edited, kept, [name for name in names if name not in ours], has_list=True)


def was_edited(file: Path, expected: str) -> bool:
    """Whether a file is not what a conversion wrote; nor is a link, or a pipe."""
    return not stat.S_ISREG(file.lstat().st_mode) or checksum(file) != expected


def is_conversion(folder: Path) -> bool:
    """Whether a folder is the output of a conversion: it has a list, or the config of an LSG checkpoint."""
    if os.path.lexists(folder / LIST):
        return True
    try:
        config: Any = read_json(folder / "config.json")
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and is_lsg_config(config)


def carry_over(old: Path, contents: Contents, new: Path) -> dict[str, str]:
    """Put the user's files of an old output into a new one, beside the new ones.

    They are hard links where the system allows it: nothing is copied, and both folders hold them whole.

    Returns:
        Their paths in the old output to those in the new.
    """
    wanted = {**{name: name for name in contents.kept}, **{name: f"{name}.old" for name in contents.edited}}
    carried = {}
    for name, want in wanted.items():
        place = free_place(new / want)
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(old / name, place, follow_symlinks=False)
        except (OSError, NotImplementedError):  # a file system, or a system, without them
            shutil.copy2(old / name, place, follow_symlinks=False)
        carried[name] = place.relative_to(new).as_posix()
    return carried


def free_place(path: Path) -> Path:
    """Return the first of PATH, PATH.2, PATH.3, ... that is not taken."""
    number, place = 1, path
    while os.path.lexists(place):
        number += 1
        place = path.with_name(f"{path.name}.{number}")
    return place
