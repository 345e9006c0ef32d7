"""Whole files or none: outputs are written beside their target and renamed into place."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nodules.errors import OutputError


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a temporary path that becomes `target` when the block ends well.

    Parameters
    ----------
    target
        The file to make or replace. Its folder is made if missing.

    Yields
    ------
    Path
        A path in the same folder, with the same suffix (some writers choose the format by it).
        If the block raises, the temporary file is removed and `target` stays as it was.
    """
    if target.is_dir():
        raise OutputError(target, "found a folder, expected the name of a file to write")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(target, f"its folder cannot be made ({error.strerror})") from None
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.tmp{target.suffix}")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(target: Path, content: Any) -> None:
    """Write `content` as indented JSON; NaN and infinity, which JSON lacks, raise ValueError."""
    with replacing(target) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
