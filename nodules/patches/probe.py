"""Open untrusted HDF5 files after probing them in a separate process.

On some damaged files the HDF5 library loops forever or crashes. The probe makes the same calls to
the library as reading a patch file does.
"""

import functools
from contextlib import suppress
from pathlib import Path

from nodules.errors import PatchFileError
from nodules.patches.hdf5_file import Hdf5File, open_unprobed
from nodules.patches.hdf5_texts import is_text, read_texts
from nodules.patches.layout import SOURCES
from nodules.system.limited_process import call_limited
from nodules.system.regular_file import check_regular_file
from nodules.system.streams import os_error_text

# Far more than any valid file needs: the columns of 100,000 patches are read in a second.
SECONDS = 10
BYTES_PER_SECOND = 10_000_000
MEMORY = 500 * 2**20
# Data sets of a patch file, and those of them that may be strings.
NAMES = ("X", "Y", "group", "split", "index", *SOURCES)
TEXTS = ("group", "split", "file")
# These are read only where they are needed; elsewhere they may be anything.
OPTIONAL = ("index", *SOURCES)


def open_hdf5(path: Path) -> Hdf5File:
    """Open an HDF5 file for reading, after probing it in a separate process.

    Raises
    ------
    PatchFileError
        If the file is not HDF5 or cannot be read, or if HDF5 crashes on it, never returns, or
        takes more than 500 MiB plus twice the size of the file.
    """
    expected = "a patch file (HDF5)"
    try:
        check_regular_file(path, expected)
        about = path.stat()
        with path.open("rb"):
            pass
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise PatchFileError(path, f"no such file, expected {expected}") from None
    except OSError as error:
        problem = f"cannot be opened ({os_error_text(error)}), expected {expected}"
        raise PatchFileError(path, problem) from None
    _probe_once(path, about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)
    return Hdf5File(path, open_unprobed(path))


def probe(path: Path, *, seconds: int = SECONDS) -> None:
    """Make the HDF5 calls of reading a patch file in a separate process.

    Parameters
    ----------
    path
        HDF5 file.
    seconds
        CPU time limit of the process; large files get more.

    Raises
    ------
    PatchFileError
        As in `open_hdf5`.
    """
    size = path.stat().st_size
    call_limited(
        read_structure,
        path,
        seconds=seconds + size // BYTES_PER_SECOND,
        memory=MEMORY + 2 * size,
        failure=PatchFileError,
    )


@functools.cache
def _probe_once(path: Path, *_identity: int) -> None:
    """Probe a file, unless this process has already probed it and it is unchanged."""
    probe(path)


def read_structure(path: Path) -> None:
    """Locate the data sets of a patch file and read its strings."""
    with Hdf5File(path, open_unprobed(path)) as file:
        for name in filter(file.holds, NAMES):
            with suppress(*([PatchFileError] if name in OPTIONAL else [])):
                array = file.data_set(name)
                if name in TEXTS and is_text(array):
                    read_texts(path, name, array)
        file.names()
