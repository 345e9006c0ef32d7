"""Telling files from what only looks like one: opening a pipe waits for ever."""

import stat
from pathlib import Path

from nodules.errors import PatchFileError


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
