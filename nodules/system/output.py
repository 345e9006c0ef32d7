"""A check before any work: what is read is never overwritten."""

from collections.abc import Iterable
from pathlib import Path

from nodules.errors import OutputError
from nodules.system.atomic import place_of


def check_output(out: Path, inputs: Iterable[Path]) -> None:
    """Refuse to write onto an input, a folder, a device or a pipe.

    Raises
    ------
    OutputError
        If `out` is one of `inputs`, or no regular file.
    """
    place_of(out)
    # What is not there is no input: a hundred thousand images need not be looked at.
    if out.exists() and any(path.exists() and path.samefile(out) for path in inputs):
        raise OutputError(out, "found the same file as input, expected a new name")
