"""Whole files or none: outputs are written beside their target and renamed into place."""

import errno
import json
import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nodules.errors import OutputError

# What only a write can meet, wherever in the block it happens.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


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
        If the block raises, the temporary file is removed and `target` stays as it was. If the
        process is killed, the next write of `target` removes the temporary file.

    Raises
    ------
    OutputError
        If the disk is full, or `target` cannot be written for another reason.
    """
    with replacing_all([target]) as (temporary,):
        yield temporary


@contextmanager
def replacing_all(targets: Sequence[Path]) -> Iterator[Sequence[Path]]:
    """Give a temporary path for each of several files, which appear together: all or none.

    Parameters
    ----------
    targets
        As for `replacing`.

    Yields
    ------
    sequence of Path
        As of `replacing`, in the order of `targets`. No target changes before all are written.
    """
    temporaries = [_temporary(target) for target in targets]
    try:
        try:
            yield temporaries
        except OSError as error:
            # The block may read as well: what that meets is not the fault of the output.
            names = {str(path): target for path, target in zip(temporaries, targets, strict=True)}
            ours = names.get(str(error.filename))
            if ours is None and error.errno not in _FULL:
                raise
            raise cannot_write(ours or targets[0], error) from None
        _rename(temporaries, targets)
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)


def cannot_write(target: Path, error: OSError) -> OutputError:
    """Say which file cannot be written, and why in the system's words."""
    return OutputError(target, f"cannot be written: {(error.strerror or str(error)).lower()}")


def write_json(target: Path, content: Any) -> None:
    """Write `content` as indented JSON; NaN and infinity, which JSON lacks, raise ValueError."""
    with replacing(target) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def remove_abandoned(folder: Path, suffix: str, *, stem: str | None = None) -> None:
    """Remove the temporary files that killed processes of this machine have left.

    Parameters
    ----------
    folder
        Where they were to become files.
    suffix
        Of those files, such as `.npz`.
    stem
        Of the one file whose leftovers to remove; None for those of all files with the suffix.
    """
    wanted, host = ".+" if stem is None else re.escape(stem), re.escape(socket.gethostname())
    name = re.compile(rf"\.{wanted}\.{host}\.([0-9]+)\.tmp{re.escape(suffix)}")
    for path in folder.iterdir():
        if (found := name.fullmatch(path.name)) and _has_ended(found[1]):
            path.unlink(missing_ok=True)


def _temporary(target: Path) -> Path:
    """Choose a name beside `target`, and remove what killed processes left there."""
    try:
        if target.is_dir():
            raise OutputError(target, "found a folder, expected the name of a file to write")
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(target.parent, target.suffix, stem=target.stem)
        # The host is named since a folder may be shared, and a process is known on its own alone.
        name = f".{target.stem}.{socket.gethostname()}.{os.getpid()}.tmp{target.suffix}"
        return target.with_name(name)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError(target, f"its folder cannot be made or written ({reason})") from None


def _rename(temporaries: Sequence[Path], targets: Sequence[Path]) -> None:
    pairs = list(zip(temporaries, targets, strict=True))
    for temporary, target in pairs:
        try:
            _to_disk(temporary)
        except OSError as error:
            raise cannot_write(target, error) from None
    for temporary, target in pairs:
        try:
            os.replace(temporary, target)
        except OSError as error:
            raise cannot_write(target, error) from None
        with suppress(OSError):  # not every file system does this for folders
            _to_disk(target.parent)


def _has_ended(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False


def _to_disk(path: Path) -> None:
    """Wait until the disk has what was written: a rename may reach it before the content does."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
