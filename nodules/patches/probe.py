"""Opening HDF5 files from outside after probing them in another process.

On some damaged files the HDF5 library neither returns nor raises: it loops forever or crashes. The
probe asks it for everything that reading a patch file will ask for.
"""

import functools
from contextlib import suppress
from pathlib import Path

from nodules.errors import PatchFileError
from nodules.patches.hdf5_file import Hdf5File, open_unprobed
from nodules.patches.hdf5_texts import is_text, read_texts
from nodules.system.limited_process import call_limited
from nodules.system.regular_file import check_regular_file
from nodules.system.streams import os_error_text

# Far above what any file needs: the columns of 100,000 patches are read in a second.
SECONDS = 10
BYTES_PER_SECOND = 10_000_000
MEMORY = 500 * 2**20
# What a patch file may hold. These are texts, if they are.
NAMES = ("X", "Y", "group", "split", "index")
TEXTS = ("group", "split")


def open_hdf5(path: Path) -> Hdf5File:
    """Open an HDF5 file for reading, after probing it in another process.

    Raises
    ------
    PatchFileError
        If it is no HDF5 file, cannot be read, or HDF5 crashes on it, never ends, or takes more
        than 500 MB and twice the size of the file.
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
    """Make HDF5 do in another process what reading a patch file makes it do.

    Parameters
    ----------
    path
        HDF5 file.
    seconds
        Processor time after which the process is ended; large files get more.

    Raises
    ------
    PatchFileError
        As `open_hdf5`.
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
    """Probe a file unless this process has probed it as it is now."""
    probe(path)


def read_structure(path: Path) -> None:
    """Find the data sets of a patch file and read its texts."""
    with Hdf5File(path, open_unprobed(path)) as file:
        for name in filter(file.holds, NAMES):
            # Only files that `split` wrote need an index; elsewhere it may be anything.
            with suppress(*([PatchFileError] if name == "index" else [])):
                array = file.data_set(name)
                if name in TEXTS and is_text(array):
                    read_texts(path, name, array)
        file.names()
