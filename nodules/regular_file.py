"""Opening files that are files: no pipe to wait for, no device to read without end."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from nodules.errors import PatchFileError


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file, or a symbolic link to one, for reading.

    Raises
    ------
    OSError
        If it cannot be opened, or is a folder, a pipe, a socket or a device.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    # A pipe that takes its place in between does not block, and reads as empty.
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")


def check_regular_file(path: Path, expected: str) -> None:
    """Refuse a folder, a pipe, a device or a socket, without opening it.

    Parameters
    ----------
    path
        What is to be read.
    expected
        What it should be, for the message.

    Raises
    ------
    PatchFileError
        If it is there and is no regular file.
    OSError
        If it is not there, or cannot be looked at.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise PatchFileError(path, f"found a folder, expected {expected}")
    if not stat.S_ISREG(mode):
        raise PatchFileError(path, f"found a device or a pipe, expected {expected}")
