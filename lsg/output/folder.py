"""Create an output folder: complete or not at all, and without losing any file that is there before."""

import contextlib
import errno
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from transformers.utils import logging

from ..errors import ConversionError, one_line, reported_as
from ..signals import signals_deferred
from .contents import FILE_LIST, Contents, is_conversion, keep_user_files, read_contents, write_list
from .leftovers import CleanUp, TemporaryPaths, clean_up, clean_up_leftovers, is_vacant, lock_folder
from .renames import exchange, rename_without_replacing

logger = logging.get_logger(__name__)

MAX_NAMES = 5  # of files, in an error
CHANGED = "was changed while the conversion ran; nothing was written"
NOT_EMPTY = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)  # errors when a folder is renamed to a name in use


@dataclass(frozen=True)
class Output:
    """The absolute path of an output, and what is there before the conversion; None if nothing is."""

    folder: Path
    before: Contents | None = None


def check_output(output: Path, source: Path, overwrite: bool, remove_leftovers: bool = True) -> Output:
    """Check that an output can be written without losing any file.

    Args:
        output: the folder.
        source: the folder of the original.
        overwrite: whether an earlier conversion may be replaced.
        remove_leftovers: clean up after killed conversions to this output; otherwise nothing is changed.

    Raises:
        ConversionError: it cannot be written, or another conversion to it is running.
    """
    output, source = output.resolve(), source.resolve()
    if output == source or output in source.parents:
        raise ConversionError(f"{one_line(output)}: the output cannot be the input or a folder around it")
    if output == Path.cwd() or output in Path.cwd().parents:
        raise ConversionError(f"{one_line(output)}: the output cannot be the current folder or one around it")
    if output.is_mount():
        raise ConversionError(f"{one_line(output)}: a mount point cannot be replaced; choose a folder inside it")
    with reported_as(f"{one_line(output)}: cannot be read", OSError):
        if remove_leftovers:
            clean_up_leftovers(output)
        checked = Output(output) if is_vacant(output) else check_filled(output, overwrite)
    return checked


def check_filled(output: Path, overwrite: bool) -> Output:
    """Return an output with its present contents; raise ConversionError unless a conversion wrote all of them."""
    if not output.is_dir():
        raise ConversionError(f"{one_line(output)}: the output has to be a folder, this is a file")
    if not overwrite:
        raise ConversionError(f"{one_line(output)}: exists and is not empty; choose another name, or pass --overwrite")
    if not is_conversion(output):
        raise ConversionError(
            f"{one_line(output)}: --overwrite replaces conversions only, and this folder is no LSG checkpoint (it has "
            f"neither {FILE_LIST} nor the config.json of one); choose another name"
        )
    before = read_contents(output)
    if before.others:
        more = len(before.others) - MAX_NAMES
        names = one_line(", ".join(before.others[:MAX_NAMES])) + (f" and {more} more" if more > 0 else "")
        raise ConversionError(
            f"{one_line(output)}: --overwrite replaces what a conversion wrote, but this folder also contains {names}; "
            "move that elsewhere, or choose another name"
        )
    return Output(output, before)


@contextlib.contextmanager
def output_folder(output: Output, on_written: Callable[[Path], object]) -> Iterator[Path]:
    """Yield a new hidden folder, which is renamed to the output's name only if the block succeeds.

    An earlier output is replaced then. On any error, or Ctrl-C, nothing changes. The last steps are not interrupted:
    Ctrl-C takes effect after them.

    Args:
        output: from `check_output`.
        on_written: called with the output's path as soon as it is complete.

    Raises:
        ConversionError: it cannot be written, or the output's contents have changed in between.
    """
    created = [folder for folder in output.folder.parents if not folder.exists()]  # innermost first
    paths = None
    with contextlib.ExitStack() as locks:
        try:
            with signals_deferred():
                paths = create_hidden_folder(output.folder, locks)
            yield paths.new
            put_in_place(paths, output, locks, on_written)
        except BaseException:
            with signals_deferred():
                if paths is not None:
                    clean_up(paths)
                for folder in created:
                    with contextlib.suppress(OSError):
                        folder.rmdir()  # only if empty
            raise


def create_hidden_folder(output: Path, locks: contextlib.ExitStack) -> TemporaryPaths:
    """Create and lock the folder to build in; without the lock, others would remove it as a killed conversion's."""
    while True:
        paths = TemporaryPaths.of(output, uuid.uuid4().hex[:8])
        try:
            paths.new.mkdir(parents=True)
        except OSError as error:
            raise ConversionError(
                f"{one_line(output)}: cannot be written: {one_line(error.strerror or error)}"
            ) from error
        try:
            lock_folder(paths.new, locks)
            return paths
        except (BlockingIOError, FileNotFoundError) as error:  # another conversion removed it before it was locked
            logger.info(f"{paths.new}: {one_line(error)}")


def put_in_place(
    paths: TemporaryPaths, output: Output, locks: contextlib.ExitStack, on_written: Callable[[Path], object]
) -> None:
    """Complete the new folder, rename it to the output's name, and delete the folder that it replaces.

    Raises:
        ConversionError: the output's contents have changed in between.
    """
    before = output.before
    with reported_as(f"{one_line(output.folder)}: cannot be written", OSError):
        kept = keep_files_of_locked(paths, before, locks) if before else {}
        write_list(paths.new, sorted(kept.values()))
        with signals_deferred():
            if before:
                replace(paths, before)
            else:
                rename_new(paths)
            on_written(output.folder)
    if before and not before.has_list:
        logger.warning(f"{output.folder}: it had no {FILE_LIST}; files named like those of a conversion were replaced")
    for name, place in kept.items():
        if before and name in before.edited:
            logger.warning(f"{output.folder}: {name} was edited after its conversion; it is kept as {place}")


def keep_files_of_locked(paths: TemporaryPaths, before: Contents, locks: contextlib.ExitStack) -> dict[str, str]:
    """Lock the folder that is replaced, and keep the user's files in it; return what `keep_user_files` does."""
    try:
        lock_folder(paths.output, locks, wait=True)  # another conversion may lock it for a moment, to check it
        return keep_user_files(paths.output, before, paths.new)
    except FileNotFoundError as error:
        raise ConversionError(f"{one_line(paths.output)}: {CHANGED}") from error


def rename_new(paths: TemporaryPaths) -> None:
    """Rename the new folder to the output's name, where nothing or an empty folder is expected."""
    try:
        rename_without_replacing(paths.new, paths.output)
    except OSError as error:
        if error.errno not in NOT_EMPTY:
            raise
        raise ConversionError(
            f"{one_line(paths.output)}: was filled while the conversion ran; nothing was written"
        ) from error


def replace(paths: TemporaryPaths, before: Contents) -> None:
    """Exchange the new folder and the output, and delete the latter if it is unchanged."""
    paths.write_state(before.snapshot)
    exchange(paths.new, paths.output, paths.old)
    result = clean_up(paths)
    if result == CleanUp.MOVED_ASIDE:
        raise ConversionError(f"{one_line(paths.output)}: was changed while it was replaced; both folders are there")
    if result != CleanUp.REPLACED:
        raise ConversionError(f"{one_line(paths.output)}: {CHANGED}")
