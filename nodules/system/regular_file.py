"""Opening regular files only: no pipe to wait for, no device to read without end."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from nodules.errors import PatchFileError


def irregular_kind(path: Path) -> str:
    """Return what a path leads to if that is no regular file, without opening it.

    Returns
    -------
    str
        `a folder`, or `a device or a pipe` (also for a socket); empty for a regular file.

    Raises
    ------
    OSError
        If it does not exist or cannot be examined.
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
        If it cannot be opened, or is a folder, a pipe, a socket or a device.
    """
    if irregular_kind(path):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    # A pipe that takes its place in between does not block, and reads as empty.
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")


def check_regular_file(path: Path, expected: str) -> None:
    """Refuse a folder, a pipe, a device or a socket in place of a file of arrays.

    Parameters
    ----------
    path
        What is to be read.
    expected
        What it should be, for the message.

    Raises
    ------
    PatchFileError
        If it exists and is no regular file.
    OSError
        If it does not exist or cannot be examined.
    """
    if kind := irregular_kind(path):
        raise PatchFileError(path, f"found {kind}, expected {expected}")
