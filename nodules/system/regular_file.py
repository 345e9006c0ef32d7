"""Open only regular files: reading a pipe may block, and a device may never end."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from nodules.errors import PatchFileError


def irregular_kind(path: Path) -> str:
    """Return the kind of a path that is not a regular file, without opening it.

    Returns
    -------
    str
        `a folder`, or `a device or a pipe` (also for a socket); empty for a regular file.

    Raises
    ------
    OSError
        If the path does not exist or cannot be examined.
    """
    mode = path.stat().st_mode
    if stat.S_ISREG(mode):
        return ""
    return "a folder" if stat.S_ISDIR(mode) else "a device or a pipe"


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file, or a symbolic link to one, for reading.

    Raises
    ------
    OSError
        If the file cannot be opened, or is a folder, a pipe, a socket or a device.
    """
    if irregular_kind(path):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    # If a pipe has replaced the file meanwhile, it does not block and reads as empty.
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")


def check_regular_file(path: Path, expected: str) -> None:
    """Check that a path is a regular file, not a folder, pipe, device or socket.

    Parameters
    ----------
    path
        File to read.
    expected
        Description of the expected file, for the error message.

    Raises
    ------
    PatchFileError
        If the path exists but is not a regular file.
    OSError
        If the path does not exist or cannot be examined.
    """
    if kind := irregular_kind(path):
        raise PatchFileError(path, f"found {kind}, expected {expected}")
