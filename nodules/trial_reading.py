"""Reading a patch file for trial in a process of its own, which may crash.

On some damaged files the HDF5 library neither returns nor raises: it loops for ever or crashes. The
commands that take files from outside try them here first.
"""

from pathlib import Path

from nodules.errors import PatchFileError
from nodules.limited_process import call_limited
from nodules.patches import open_patches

# Far above what any file needs: 10 MB of patches are 4,000 rows, which are read in milliseconds.
SECONDS = 20
BYTES_A_SECOND = 10_000_000
MEMORY = 2**30


def try_reading(path: Path, *, labelled: bool = True, seconds: int = SECONDS) -> None:
    """Open a patch file and read its first patches, all in another process.

    Parameters
    ----------
    path, labelled
        As for `open_patches`.
    seconds
        Of processor time before the process is ended; large files get more.

    Raises
    ------
    PatchFileError
        If `open_patches` refuses the file, or the process crashes, takes no end, or needs more than
        1 GB and twice the size of the file.
    """
    size = path.stat().st_size if path.is_file() else 0
    call_limited(
        read_first_patches,
        path,
        "labelled" if labelled else "",
        seconds=seconds + size // BYTES_A_SECOND,
        memory=MEMORY + 2 * size,
        failure=PatchFileError,
    )


def read_first_patches(path: Path, labelled: str) -> None:
    """Open a patch file, with its `Y` unless `labelled` is empty, and read the first block."""
    with open_patches(path, labelled=bool(labelled)) as patches:
        next(patches.blocks())
