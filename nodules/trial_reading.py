"""Reading a patch file for trial in a process of its own, which may crash.

On some damaged files the HDF5 library neither returns nor raises: it loops for ever or crashes, and
nothing in Python can catch that. The commands that take files from outside try them here first.

python -m nodules.trial_reading FILE.h5 yes|no SECONDS
"""

import os
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from nodules.errors import PatchFileError, one_line_errors
from nodules.patches import open_patches

# Far above what any file needs: 10 MB of patches are 4,000 rows, which are read in milliseconds.
SECONDS = 20
BYTES_A_SECOND = 10_000_000
MEMORY = 4 * 2**30


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
        4 GB and twice the size of the file.
    """
    code = [sys.executable, "-m", "nodules.trial_reading"]
    arguments = [str(path), "yes" if labelled else "no", str(seconds)]
    root = str(Path(__file__).parent.parent)
    process = subprocess.run(
        [*code, *arguments],
        env=os.environ | {"PYTHONPATH": root},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    if process.returncode < 0:
        raise PatchFileError(path, "cannot be read: damaged so that the HDF5 library fails on it")
    sentence = process.stderr.strip().removeprefix("error: ")
    if process.returncode == 1 and sentence.startswith(f"{path}: "):
        raise PatchFileError(path, sentence.removeprefix(f"{path}: "))
    # Whatever else went wrong in there is a bug, and shows up with its traceback in the real read.


def _main() -> None:
    path, labelled, seconds = Path(sys.argv[1]), sys.argv[2] == "yes", int(sys.argv[3])
    size = path.stat().st_size if path.is_file() else 0
    seconds += size // BYTES_A_SECOND
    with suppress(ValueError, OSError):  # limits that the system lacks, or has set lower
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY + 2 * size, MEMORY + 2 * size))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with one_line_errors(), open_patches(path, labelled=labelled) as patches:
        next(patches.blocks())


if __name__ == "__main__":
    _main()
