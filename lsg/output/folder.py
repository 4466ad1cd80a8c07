"""Making an output folder: whole or not at all, and without losing anything that stands there."""

import contextlib
import errno
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from transformers.utils import logging

from ..errors import ConversionError, one_line
from .deferral import signals_deferred
from .files import LIST, Contents, carry_over, is_conversion, look_into, write_list
from .leftovers import Outcome, Work, hold, is_vacant, recover, settle
from .renames import exchange, rename_onto_nothing

logger = logging.get_logger(__name__)

MOST_NAMES = 5  # of files, in an error
CHANGED = "was changed while the conversion ran; nothing was written"
FILLED = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)  # what renaming onto something says


@dataclass(frozen=True)
class Output:
    """Where an output is to be made, an absolute path, and what stands there before; None if nothing does."""

    folder: Path
    before: Contents | None = None


def check_output(output: Path, source: Path, overwrite: bool, clear_up: bool = True) -> Output:
    """See that an output can be made without losing anything.

    Args:
        output: the folder to make.
        source: what it is made of.
        overwrite: whether an earlier conversion may be replaced.
        clear_up: bring to rest what killed conversions to it have left; otherwise nothing is touched.

    Raises:
        ConversionError: it cannot, or another conversion to it is running.
    """
    output, source = output.resolve(), source.resolve()
    if output == source or output in source.parents:
        raise ConversionError(f"{one_line(output)}: the output cannot be the input or a folder around it")
    if output == Path.cwd() or output in Path.cwd().parents:
        raise ConversionError(f"{one_line(output)}: the output cannot be the current folder or one around it")
    if output.is_mount():
        raise ConversionError(f"{one_line(output)}: a mount point cannot be replaced; choose a folder inside it")
    try:
        if clear_up:
            recover(output)
        return Output(output) if is_vacant(output) else check_filled(output, overwrite)
    except OSError as error:
        raise ConversionError(f"{one_line(output)}: cannot be read: {one_line(error)}") from error


def check_filled(output: Path, overwrite: bool) -> Output:
    """Return what stands at an output; raise ConversionError unless a conversion wrote all of it."""
    if not output.is_dir():
        raise ConversionError(f"{one_line(output)}: the output has to be a folder, this is a file")
    if not overwrite:
        raise ConversionError(f"{one_line(output)}: exists and is not empty; choose another name, or pass --overwrite")
    if not is_conversion(output):
        raise ConversionError(
            f"{one_line(output)}: --overwrite replaces conversions only, and this folder is no LSG checkpoint (it has "
            f"neither {LIST} nor the config.json of one); choose another name"
        )
    before = look_into(output)
    if before.others:
        more = len(before.others) - MOST_NAMES
        names = one_line(", ".join(before.others[:MOST_NAMES])) + (f" and {more} more" if more > 0 else "")
        raise ConversionError(
            f"{one_line(output)}: --overwrite replaces what a conversion wrote, and this folder holds {names}, too; "
            "move that elsewhere, or choose another name"
        )
    return Output(output, before)


@contextlib.contextmanager
def whole_or_nothing(output: Output, tell_written: Callable[[Path], object]) -> Iterator[Path]:
    """Give a folder to write into, beside the output, which takes its name only if the block ends well.

    What stood there before is replaced then. On any error, or Ctrl-C, everything is as it was. The last steps are
    not interrupted: Ctrl-C takes effect behind them.

    Args:
        output: as `check_output` gives it.
        tell_written: called with the output's path as soon as it is there.

    Raises:
        ConversionError: it cannot be written, or somebody filled or changed what stands there.
    """
    made = [folder for folder in output.folder.parents if not folder.exists()]  # innermost first
    work = None
    with contextlib.ExitStack() as lock:
        try:
            with signals_deferred():
                work = make_room(output.folder, lock)
            yield work.new
            finish(work, output, lock, tell_written)
        except BaseException:
            with signals_deferred():
                if work is not None:
                    settle(work)
                for folder in made:
                    with contextlib.suppress(OSError):
                        folder.rmdir()  # only if empty
            raise


def make_room(output: Path, lock: contextlib.ExitStack) -> Work:
    """Make the folder to build in, and hold its lock: as long as `lock`, nobody takes it for a dead conversion's."""
    while True:
        work = Work(output, uuid.uuid4().hex[:8])
        try:
            work.new.mkdir(parents=True)
        except OSError as error:
            raise ConversionError(
                f"{one_line(output)}: cannot be written: {one_line(error.strerror or error)}"
            ) from error
        try:
            hold(work.new, lock)
            return work
        except (BlockingIOError, FileNotFoundError) as error:  # it was taken for a dead one's before it had its lock
            logger.info(f"{work.new}: {one_line(error)}")


def finish(work: Work, output: Output, lock: contextlib.ExitStack, tell_written: Callable[[Path], object]) -> None:
    """Complete the folder that was built, let it take the output's name, and remove what stood there.

    Raises:
        ConversionError: somebody filled or changed what stands there.
    """
    before = output.before
    try:
        carried = prepare(work, before, lock) if before else {}
        write_list(work.new, sorted(carried.values()))
        with signals_deferred():
            if before:
                replace(work, before)
            else:
                take_name(work)
            tell_written(output.folder)
    except OSError as error:
        raise ConversionError(f"{one_line(output.folder)}: cannot be written: {one_line(error)}") from error
    if before and not before.has_list:
        logger.warning(f"{output.folder}: it had no {LIST}; what had the names of a conversion's files was replaced")
    for name, place in carried.items():
        if before and name in before.edited:
            logger.warning(f"{output.folder}: {name} was edited after its conversion; it is kept as {place}")


def prepare(work: Work, before: Contents, lock: contextlib.ExitStack) -> dict[str, str]:
    """Lock the folder that is replaced, and carry the user's files over from it; return them as `carry_over` does."""
    try:
        hold(work.output, lock, wait=True)  # for another one that only looks, and leaves then
        return carry_over(work.output, before, work.new)
    except FileNotFoundError as error:
        raise ConversionError(f"{one_line(work.output)}: {CHANGED}") from error


def take_name(work: Work) -> None:
    """Let the new folder take the output's name, where nothing but an empty folder stands."""
    try:
        rename_onto_nothing(work.new, work.output)
    except OSError as error:
        if error.errno not in FILLED:
            raise
        raise ConversionError(
            f"{one_line(work.output)}: was filled while the conversion ran; nothing was written"
        ) from error


def replace(work: Work, before: Contents) -> None:
    """Let the new folder take the output's name, and remove what stood there if it is as it was before."""
    work.write_state(before.snapshot)
    exchange(work.new, work.output, work.old)
    outcome = settle(work)
    if outcome == Outcome.SET_ASIDE:
        raise ConversionError(f"{one_line(work.output)}: was changed while it was replaced; both its states are there")
    if outcome != Outcome.WRITTEN:
        raise ConversionError(f"{one_line(work.output)}: {CHANGED}")
