"""The output folder: a Parquet file for each part, which is complete or absent, and the settings of its first run."""

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from experiments.common.errors import InputError
from experiments.common.results import write_json
from lsg.errors import one_line, read_json

# readers of Parquet pass over names that begin with a dot or an underscore
SETTINGS, LOCK, UNFINISHED, ATTEMPTS = "_settings.json", ".lock", ".unfinished-", ".attempts-"
MAX_ATTEMPTS = 4


def file_of(folder: Path, number: int) -> Path:
    """Return the output file of a part."""
    return folder / f"part-{number:06d}.parquet"


@contextlib.contextmanager
def attempt(folder: Path, number: int) -> Iterator[None]:
    """Count the attempts to read a part, in a file with a line for each, that is there until one succeeds.

    Raises:
        RuntimeError: all of MAX_ATTEMPTS have ended so; that of a next one would, too.
    """
    file = folder / f"{ATTEMPTS}{number:06d}"
    with file.open("a+", encoding="utf-8") as attempts:
        attempts.seek(0)
        if len(attempts.readlines()) >= MAX_ATTEMPTS:
            raise RuntimeError(f"its worker was lost {MAX_ATTEMPTS} times, perhaps for lack of memory")
        attempts.write(f"{os.getpid()}\n")
    yield
    file.unlink(missing_ok=True)


def write_part(table: pa.Table, file: Path) -> None:
    """Write a part's file; whoever is killed meanwhile leaves none."""
    unfinished = file.with_name(f"{UNFINISHED}{uuid.uuid4().hex}")
    pq.write_table(table, unfinished)
    with unfinished.open("rb") as written:
        os.fsync(written.fileno())
    unfinished.replace(file)


@contextlib.contextmanager
def open_output(folder: Path, settings: dict[str, Any]) -> Iterator[None]:
    """Hold an output folder for one run, in the block; what a killed run left unfinished is removed.

    Args:
        folder: it is made if it is not there.
        settings: all that the results depend on; they are written, or compared with those of the first run.

    Raises:
        InputError: another run has the folder, or one with other settings began it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("w")
    except OSError as error:
        raise InputError(f"--out {folder}: not a folder to write to: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"--out {folder}: another run writes into this folder") from error
        check_settings(folder, settings)
        for file in (*folder.glob(f"{UNFINISHED}*"), *folder.glob(f"{ATTEMPTS}*")):
            file.unlink(missing_ok=True)
        yield


def check_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Write the settings of a first run; raise InputError if another one was with other settings."""
    file = folder / SETTINGS
    if not file.exists():
        if next(folder.glob("*.parquet"), None):
            raise InputError(f"--out {folder}: there are Parquet files of something else in this folder")
        write_json(file, settings)
        return
    try:
        first = read_json(file)
        changed = [name for name in settings if first.get(name) != settings[name]]
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{file}: not the settings of an earlier run: {one_line(error)}") from error
    if changed:
        name = changed[0]
        values = f"{one_line(first.get(name), 60)} then, {one_line(settings[name], 60)} now"
        raise InputError(f"--out {folder}: begun with another {name}: {values}; take another folder")
