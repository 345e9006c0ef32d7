"""Opening files that are files: no pipe to wait for, no device to read without end."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


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
