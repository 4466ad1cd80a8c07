"""The hidden paths beside an output while a conversion runs, and how they are cleaned up, also after a `kill -9`.

A conversion to `out` builds `.out.ID.new`. To replace an existing `out`, it writes snapshots of both folders to
`.out.ID.json` and exchanges the two; the replaced folder is then at `.out.ID.new` or `.out.ID.old`. A folder that may
be deleted in any state is called `.out.ID.done`. A running conversion holds a lock on the folder that it builds, and
on the one that it replaces, so that others can see that they are in use, whatever their names are at the moment.
"""

import contextlib
import enum
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from transformers.utils import logging

from ..errors import ConversionError, one_line, read_json
from .contents import Snapshot, own_entry, read_contents, take_snapshot, unused_path
from .renames import exchange, rename_without_replacing

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.get_logger(__name__)

KINDS = ("new", "old", "done", "json", "part")  # endings of the hidden paths


class CleanUp(enum.Enum):
    """What a clean-up found and did, as the next conversion logs it."""

    REPLACED = "removed what a conversion had replaced before it was cut off"
    NOT_REPLACED = "removed what a conversion that was cut off had left"
    PUT_BACK = "put back what was here before a conversion that was cut off"
    MOVED_ASIDE = "was changed after a conversion that was cut off"


@dataclass(frozen=True)
class TemporaryPaths:
    """The hidden paths that one conversion uses beside its output, which is an absolute path.

    Args:
        new: the folder that is built; after the exchange, the folder that was replaced.
        old: the folder that was replaced, if the exchange takes two steps.
        done: a folder that is being deleted.
        state: snapshots of the old and the new folder before the exchange.
        part: the file of snapshots while it is written.
    """

    output: Path
    new: Path
    old: Path
    done: Path
    state: Path
    part: Path

    @classmethod
    def of(cls, output: Path, id_: str) -> "TemporaryPaths":
        """Return the paths of a conversion, which has an id of 8 hexadecimal digits."""
        return cls(output, *(output.with_name(f".{output.name}.{id_}.{kind}") for kind in KINDS))

    @property
    def pattern(self) -> Path:
        """A pattern of all of them, for messages."""
        return self.new.with_suffix(".*")

    def write_state(self, old: Snapshot) -> None:
        """Write the snapshots, in one step."""
        self.part.write_text(json.dumps({"old": old, "new": take_snapshot(self.new)}), encoding="utf-8")
        os.replace(self.part, self.state)

    def read_state(self) -> dict[str, Snapshot]:
        """Return what `write_state` wrote.

        Raises:
            ConversionError: it is damaged, or another program's file.
        """
        try:
            state = read_json(self.state)
            if not all(len(state[kind]["."]) == 3 for kind in ("old", "new")):
                raise TypeError("the inodes of two folders are expected")
            return state
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConversionError(
                f"{one_line(self.state)}: damaged; it describes what a conversion that was cut off has left; "
                f"look at the files {one_line(self.pattern.name)} there, and move them elsewhere"
            ) from error

    def delete(self, folder: Path) -> None:
        """Delete a folder; it is renamed first, so that a half-deleted one can be recognized."""
        os.rename(folder, self.done)
        remove(self.done)


def lock_folder(folder: Path, locks: contextlib.ExitStack, wait: bool = False) -> bool:
    """Lock a folder until `locks` is closed; return False if locks are not available.

    The lock stays with the folder when it is renamed, and ends with the process.

    Raises:
        BlockingIOError: another process has locked it; not with `wait`, which waits for that process.
        FileNotFoundError: the folder does not exist, or was replaced in between.
    """
    if fcntl is None:
        return False
    with contextlib.ExitStack() as opened:
        try:
            descriptor = os.open(folder, os.O_RDONLY)
            opened.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if os.stat(folder).st_ino != os.fstat(descriptor).st_ino:
                raise FileNotFoundError(f"{folder} is another folder now")
        except (BlockingIOError, FileNotFoundError):
            raise
        except OSError as error:
            logger.info(f"{folder}: cannot be locked: {one_line(error)}")
            return False
        locks.push(opened.pop_all())
    return True


def find_leftovers(output: Path) -> list[TemporaryPaths]:
    """Return the paths of killed and running conversions to an output; the last replaced folder first."""
    if not output.parent.is_dir():
        return []
    pattern = re.compile(re.escape(f".{output.name}.") + rf"([0-9a-f]{{8}})\.({'|'.join(KINDS)})")
    ids = {match[1] for match in map(pattern.fullmatch, os.listdir(output.parent)) if match}
    return sorted((TemporaryPaths.of(output, id_) for id_ in sorted(ids)), key=replaced_at, reverse=True)


def replaced_at(paths: TemporaryPaths) -> int:
    """Return when a conversion renamed the folder that it replaces, in nanoseconds; 0 if it did not."""
    try:
        return paths.old.stat().st_ctime_ns
    except FileNotFoundError:
        return 0


def clean_up_leftovers(output: Path) -> None:
    """Clean up after all killed conversions to an output, and log what was done.

    Raises:
        ConversionError: a conversion to this output is running.
    """
    leftovers = find_leftovers(output)
    if not leftovers:
        return
    with contextlib.ExitStack() as locks:
        locked = fcntl is not None
        for folder in [output, *(folder for x in leftovers for folder in (x.new, x.old, x.done))]:
            try:
                locked = lock_folder(folder, locks) and locked
            except FileNotFoundError:
                continue
            except BlockingIOError as error:
                raise ConversionError(
                    f"{one_line(output)}: another conversion to this output is running; wait for it"
                ) from error
        for paths in find_leftovers(output):  # again, as a running one may have ended in between
            if paths in leftovers and locked:
                logger.warning(f"{output}: {clean_up(paths).value}")
            elif paths in leftovers:
                logger.warning(f"{paths.pattern}: left there, as it is unknown whether it is in use")


def clean_up(paths: TemporaryPaths) -> CleanUp:
    """Complete or undo a conversion, wherever it ended, and remove its hidden files.

    The folder at the output's name before is deleted only if it is unchanged and the new one has taken its place.
    """
    state = paths.read_state() if paths.state.exists() else None
    remove(paths.done)
    if state is not None:
        result = clean_up_exchange(paths, state)
    else:
        result = clean_up_without_state(paths) if paths.old.exists() else CleanUp.NOT_REPLACED
        remove(paths.new)  # half built
    for file in (paths.part, paths.state):
        file.unlink(missing_ok=True)
    return result


def clean_up_exchange(paths: TemporaryPaths, state: dict[str, Snapshot]) -> CleanUp:
    """Clean up after a conversion that ended before, during or after the exchange of the two folders."""
    new = state["new"]["."]
    replaced = [folder for folder in (paths.new, paths.old) if folder.exists() and own_entry(folder) != new]
    is_new = paths.output.exists() and own_entry(paths.output) == new
    if replaced:
        result = clean_up_replaced(paths, state, replaced[0], is_new)
    else:
        result = CleanUp.REPLACED if is_new else CleanUp.NOT_REPLACED
    for folder in (paths.new, paths.old):
        if folder.exists() and own_entry(folder) == new:
            paths.delete(folder)
    return result


def clean_up_replaced(paths: TemporaryPaths, state: dict[str, Snapshot], replaced: Path, is_new: bool) -> CleanUp:
    """Delete the replaced folder, or put it back; `is_new` says whether the new one is at the output's name."""
    if is_new and is_unchanged(replaced, state["old"]):
        paths.delete(replaced)
        return CleanUp.REPLACED
    if is_new and is_unchanged(paths.output, state["new"]):
        exchange(replaced, paths.output, paths.new if replaced == paths.old else paths.old)
        return CleanUp.PUT_BACK
    if is_vacant(paths.output):
        rename_without_replacing(replaced, paths.output)
        return CleanUp.PUT_BACK
    return move_aside(paths, replaced)


def clean_up_without_state(paths: TemporaryPaths) -> CleanUp:
    """Clean up after an earlier version, which wrote no snapshots and deleted what it replaced without a check."""
    if is_vacant(paths.output):
        rename_without_replacing(paths.old, paths.output)
        return CleanUp.PUT_BACK
    if read_contents(paths.old).others:
        return move_aside(paths, paths.old)
    paths.delete(paths.old)
    return CleanUp.REPLACED


def move_aside(paths: TemporaryPaths, folder: Path) -> CleanUp:
    """Rename a folder that cannot be put back to a visible name beside the output, and log the name."""
    place = unused_path(paths.output.with_name(f"{paths.output.name}.old"))
    os.rename(folder, place)
    logger.warning(f"{paths.output}: what was here before is at {place} now")
    return CleanUp.MOVED_ASIDE


def is_unchanged(folder: Path, before: Snapshot) -> bool:
    """Return whether a folder is the same as in an earlier snapshot."""
    try:
        return take_snapshot(folder) == before
    except OSError as error:  # another program is changing it
        logger.info(f"{folder}: {one_line(error)}")
        return False


def is_vacant(path: Path) -> bool:
    """Return whether a path does not exist, or is an empty folder."""
    return not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir()))


def remove(folder: Path) -> None:
    """Delete a folder, if it exists; log what cannot be deleted."""
    try:
        if os.path.lexists(folder):
            shutil.rmtree(folder)
    except OSError as error:
        logger.warning(f"{folder}: cannot be removed: {one_line(error)}")
