"""Exchange the names of two folders: in one step if the system can, so that neither name is ever missing."""

import ctypes
import errno
import os
import sys
from pathlib import Path

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # Linux
RENAME_SWAP = 2  # macOS
# errors of systems and file systems without the call; EPERM: of sandboxes that do not know it
NOT_AVAILABLE = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM}


def exchange(first: Path, second: Path, spare: Path) -> None:
    """Rename a folder to the name of another, which gets the first one's name, or else the spare one."""
    if not exchange_at_once(first, second):
        os.rename(second, spare)
        os.rename(first, second)


def exchange_at_once(first: Path, second: Path) -> bool:
    """Exchange the names of two folders in one step; return False if that is not available."""
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
    if failed and number not in NOT_AVAILABLE:
        raise OSError(number, os.strerror(number), str(first), None, str(second))
    return not failed


def rename_without_replacing(folder: Path, name: Path) -> None:
    """Rename a folder to a name that is not in use, or that of an empty folder.

    The system checks that as it renames, so nothing can be created in between.

    Raises:
        OSError: something else has that name.
    """
    if os.name == "nt" and name.is_dir():
        name.rmdir()  # Windows cannot replace an empty folder, either
    os.rename(folder, name)
