"""The hidden folders beside an output while it is made, and how they come to rest, also after a `kill -9`.

A conversion of `out` builds `.out.MARK.new`. To replace a filled `out`, it writes down in `.out.MARK.json` how both
look, and exchanges the two; what stood there is at `.out.MARK.new` then, or `.out.MARK.old`. What may be deleted,
whatever state it is in, is called `.out.MARK.done`. A living conversion holds a lock on the folder that it builds, and
on the one that it replaces, so that wherever they are at a moment, another one sees that they are in use.
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

from ..errors import ConversionError, one_line
from ..text import read_json
from .files import Snapshot, free_place, look_into, take_snapshot
from .renames import exchange, rename_onto_nothing

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

logger = logging.get_logger(__name__)


class Outcome(enum.Enum):
    """What became of an output, as the next run tells it."""

    WRITTEN = "removed what a conversion had replaced before it was cut off"
    NOT_WRITTEN = "removed what a conversion that was cut off had left"
    PUT_BACK = "put back what stood here before a conversion that was cut off"
    SET_ASIDE = "was changed after a conversion that was cut off"


@dataclass(frozen=True)
class Work:
    """The names that one conversion uses beside its output, which is an absolute path."""

    output: Path
    mark: str

    def named(self, kind: str) -> Path:
        """Return the hidden path that ends in `kind`."""
        return self.output.with_name(f".{self.output.name}.{self.mark}.{kind}")

    @property
    def new(self) -> Path:
        """The folder that is built; after the exchange what stood at the output."""
        return self.named("new")

    @property
    def old(self) -> Path:
        """What stood at the output, where the exchange takes two steps."""
        return self.named("old")

    @property
    def done(self) -> Path:
        """A folder that is being deleted."""
        return self.named("done")

    @property
    def state(self) -> Path:
        """The file that says how old and new looked before the exchange."""
        return self.named("json")

    def write_state(self, old: Snapshot) -> None:
        """Write down how the old and the new output look; whole, or not at all."""
        part = self.named("part")
        part.write_text(json.dumps({"old": old, "new": take_snapshot(self.new)}), encoding="utf-8")
        os.replace(part, self.state)

    def read_state(self) -> dict[str, Snapshot]:
        """Return what `write_state` wrote.

        Raises:
            ConversionError: it is damaged, or somebody else's file.
        """
        try:
            state = read_json(self.state)
            if not all(len(state[kind]["."]) == 3 for kind in ("old", "new")):
                raise TypeError("the inodes of two folders are expected")
            return state
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConversionError(
                f"{one_line(self.state)}: it says what a conversion that was cut off has left, and is damaged; "
                f"look at what is called {one_line(self.named('*').name)} there, and move it away"
            ) from error

    def discard(self, folder: Path) -> None:
        """Delete a folder; first, in one step, it gets a name that says so."""
        os.rename(folder, self.done)
        remove(self.done)


def hold(folder: Path, locks: contextlib.ExitStack, wait: bool = False) -> bool:
    """Lock a folder until `locks` is closed; return False where there are no locks.

    The lock is the folder's, whatever it is renamed to, and it ends with the process.

    Raises:
        BlockingIOError: a living process holds it; not if `wait` says to wait for that.
        FileNotFoundError: the folder is not there, or another one is by now.
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


def find_leftovers(output: Path) -> list[Work]:
    """Return what conversions to an output have left, or use just now; the youngest replaced folder first."""
    if not output.parent.is_dir():
        return []
    pattern = re.compile(re.escape(f".{output.name}.") + r"([0-9a-f]{8})\.(new|old|done|json|part)")
    marks = {match[1] for match in map(pattern.fullmatch, os.listdir(output.parent)) if match}
    return sorted((Work(output, mark) for mark in sorted(marks)), key=displaced_at, reverse=True)


def displaced_at(work: Work) -> int:
    """Return when a conversion put aside what stood at the output, in nanoseconds; 0 if it did not."""
    try:
        return work.old.stat().st_ctime_ns
    except FileNotFoundError:
        return 0


def recover(output: Path) -> None:
    """Bring to rest what conversions that are not alive any more have left beside an output, and say so.

    Raises:
        ConversionError: a conversion to this output is running.
    """
    works = find_leftovers(output)
    if not works:
        return
    with contextlib.ExitStack() as locks:
        locked = fcntl is not None
        for folder in [output, *(folder for work in works for folder in (work.new, work.old, work.done))]:
            try:
                locked = hold(folder, locks) and locked
            except FileNotFoundError:
                continue
            except BlockingIOError as error:
                raise ConversionError(
                    f"{one_line(output)}: another conversion to this output is running; wait for it"
                ) from error
        for work in find_leftovers(output):  # again, as a living one may have ended just now
            if work in works and locked:
                logger.warning(f"{output}: {settle(work).value}")
            elif work in works:
                logger.warning(f"{work.named('*')}: left there, as it cannot be told whether it is in use")


def settle(work: Work) -> Outcome:
    """Bring an output and the folders beside it to rest, wherever the conversion stands; return what it came to.

    What stood at the output is deleted only if it is as it was and the new one is in its place.
    """
    state = work.read_state() if work.state.exists() else None
    remove(work.done)
    if state is not None:
        outcome = settle_exchange(work, state)
    else:
        outcome = settle_earlier(work) if work.old.exists() else Outcome.NOT_WRITTEN
        remove(work.new)  # half built
    for file in (work.named("part"), work.state):
        file.unlink(missing_ok=True)
    return outcome


def settle_exchange(work: Work, state: dict[str, Snapshot]) -> Outcome:
    """Bring a conversion to rest whose state was written down: before, amid or after the exchange."""
    new = state["new"]["."]
    displaced = [place for place in (work.new, work.old) if place.exists() and inode(place) != new]
    is_new = work.output.exists() and inode(work.output) == new
    if displaced:
        outcome = settle_displaced(work, state, displaced[0], is_new)
    else:
        outcome = Outcome.WRITTEN if is_new else Outcome.NOT_WRITTEN
    for place in (work.new, work.old):
        if place.exists() and inode(place) == new:
            work.discard(place)
    return outcome


def settle_displaced(work: Work, state: dict[str, Snapshot], displaced: Path, is_new: bool) -> Outcome:
    """Delete what stood at the output, or put it back; `is_new` says whether the new one stands there now."""
    if is_new and looks(displaced, state["old"]):
        work.discard(displaced)
        return Outcome.WRITTEN
    if is_new and looks(work.output, state["new"]):
        exchange(displaced, work.output, work.new if displaced == work.old else work.old)
        return Outcome.PUT_BACK
    if is_vacant(work.output):
        rename_onto_nothing(displaced, work.output)
        return Outcome.PUT_BACK
    return set_aside(work, displaced)


def settle_earlier(work: Work) -> Outcome:
    """Bring to rest what an earlier version left, which wrote nothing down and removed whatever it replaced."""
    if is_vacant(work.output):
        rename_onto_nothing(work.old, work.output)
        return Outcome.PUT_BACK
    if look_into(work.old).others:
        return set_aside(work, work.old)
    work.discard(work.old)
    return Outcome.WRITTEN


def set_aside(work: Work, folder: Path) -> Outcome:
    """Give a folder that cannot go back to its place a visible name beside it, and say which."""
    place = free_place(work.output.with_name(f"{work.output.name}.old"))
    os.rename(folder, place)
    logger.warning(f"{work.output}: what stood here before is at {place} now")
    return Outcome.SET_ASIDE


def inode(folder: Path) -> list[int]:
    """Return a folder's own entry in its snapshot."""
    return [0, 0, folder.stat().st_ino]


def looks(folder: Path, as_before: Snapshot) -> bool:
    """Whether a folder is as it was."""
    try:
        return take_snapshot(folder) == as_before
    except OSError as error:  # somebody is at work in it
        logger.info(f"{folder}: {one_line(error)}")
        return False


def is_vacant(path: Path) -> bool:
    """Whether nothing stands there, or an empty folder."""
    return not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir()))


def remove(folder: Path) -> None:
    """Delete a folder, if it is there, as far as that can be done."""
    try:
        if os.path.lexists(folder):
            shutil.rmtree(folder)
    except OSError as error:
        logger.warning(f"{folder}: cannot be removed: {one_line(error)}")
