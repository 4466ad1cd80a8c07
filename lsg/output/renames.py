"""Two folders take each other's names: in one step where the system can, so that neither name is ever missing."""

import ctypes
import errno
import os
import sys
from pathlib import Path

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # Linux
RENAME_SWAP = 2  # macOS
# what systems say that lack the call, or file systems that do; EPERM: sandboxes that do not know it
LACKING = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM}


def exchange(first: Path, second: Path, spare: Path) -> None:
    """Let a folder take the name of another; what was there gets the name of the first, or else the spare one."""
    if not exchange_at_once(first, second):
        os.rename(second, spare)
        os.rename(first, second)


def exchange_at_once(first: Path, second: Path) -> bool:
    """Let two folders take each other's names in one step; False where that is not to be had."""
    name = {"linux": "renameat2", "darwin": "renamex_np"}.get(sys.platform)
    function = getattr(ctypes.CDLL(None, use_errno=True), name, None) if name else None
    if function is None:
        return False
    paths = [ctypes.c_char_p(os.fsencode(path)) for path in (first, second)]
    if name == "renameat2":
        here = ctypes.c_int(AT_FDCWD)
        failed = function(here, paths[0], here, paths[1], ctypes.c_uint(RENAME_EXCHANGE))
    else:
        failed = function(*paths, ctypes.c_uint(RENAME_SWAP))
    number = ctypes.get_errno()
    if failed and number not in LACKING:
        raise OSError(number, os.strerror(number), str(first), None, str(second))
    return not failed


def rename_onto_nothing(folder: Path, name: Path) -> None:
    """Rename a folder; fails, with an OSError, where anything but an empty folder stands.

    There is no moment between the look and the renaming.
    """
    if os.name == "nt" and name.is_dir():
        name.rmdir()  # Windows does not rename onto an empty folder, either
    os.rename(folder, name)
