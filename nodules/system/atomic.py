"""Whole files or none: outputs are written next to their target and renamed into place."""

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import socket
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodules.errors import FileError
from nodules.system.regular_file import irregular_kind
from nodules.system.streams import os_error_text

# What only a write can meet, wherever in the block it happens.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)

# Temporary names are shorter than any limit on names, however long the name of the target is.
MAX_LABEL_BYTES = 80
MAX_SUFFIX_BYTES = 20
MAX_HOST_LETTERS = 40
# Not every file system carries locks from one machine to another. A temporary file of another
# machine, or one that cannot be locked at all, is abandoned if nothing was written to it this long.
ABANDONED_S = 24 * 60 * 60
# How DVC names what its cache holds, by a hash of the content.
_CACHED_NAME = re.compile(r"/[0-9a-f]{2}/[0-9a-f]{30}(\.dir)?")


@dataclass(frozen=True)
class _Pending:
    """An output that is being written.

    Attributes
    ----------
    target
        As it was asked for, which messages name.
    place
        What is replaced: `target`, or what it links to.
    temporary
        The file that will become `place`.
    lock
        Open descriptor of `temporary`, locked as long as this process writes.
    """

    target: Path
    place: Path
    temporary: Path
    lock: int


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes `target` when the block succeeds.

    Parameters
    ----------
    target
        The file to make or replace. Its folder is made if missing. A file that is replaced keeps
        its permissions, and its owner where the system allows; `place_of` says what becomes of a
        link.

    Yields
    ------
    Path
        A path in the same folder, with the same suffix (some writers choose the format by it).
        It exists already and is empty. If the block raises, the temporary file is removed and
        `target` stays as it was. If the process is killed, the next write of `target` removes it.

    Raises
    ------
    FileError
        If `target` is no regular file, the disk is full, or it cannot be written for another
        reason.
    """
    with replacing_all([target]) as (temporary,):
        yield temporary


@contextmanager
def replacing_all(targets: Sequence[Path]) -> Iterator[Sequence[Path]]:
    """Yield a temporary path for each of several files, which appear together: all or none.

    Parameters
    ----------
    targets
        As for `replacing`.

    Yields
    ------
    sequence of Path
        As of `replacing`, in the order of `targets`. No target changes before all are written.
    """
    with ExitStack() as stack:
        pending = [stack.enter_context(_begun(target)) for target in targets]
        try:
            yield [each.temporary for each in pending]
        except OSError as error:
            # The block may read as well: what that meets is not the fault of the output.
            names = {str(each.temporary): each.target for each in pending}
            ours = names.get(str(error.filename))
            if ours is None and error.errno not in _FULL:
                raise
            raise cannot_write(ours or targets[0], error) from None
        _rename(pending)


def place_of(target: Path) -> Path:
    """Return the path that is replaced when `target` is written.

    A symbolic link stays, and the file that it leads to is replaced. DVC, though, may link its
    outputs to its cache, whose content must never change: a link to a read-only file, or to one
    that is named like an object of a cache, is itself replaced.

    Raises
    ------
    FileError
        If `target` is a folder, a device, a pipe, or a link to one of them or into a missing
        folder.
    """
    place = target
    try:
        if target.is_symlink():
            linked = Path(os.path.realpath(target))
            place = linked if _may_change(target, linked) else target
            if place == linked and not linked.parent.is_dir():
                found = f"found a link into a folder that is missing ({linked.parent})"
                raise FileError(target, f"{found}, expected the name of a file to write")
        kind = irregular_kind(target)
    except (FileNotFoundError, NotADirectoryError):
        return place
    except OSError as error:
        raise cannot_write(target, error) from None
    if kind:
        raise FileError(target, f"found {kind}, expected the name of a file to write")
    return place


def check_output(out: Path, inputs: Iterable[Path]) -> None:
    """Refuse to write onto an input, a folder, a device or a pipe.

    Raises
    ------
    FileError
        If `out` is one of `inputs`, or no regular file.
    """
    place_of(out)
    # What is not there is no input: a hundred thousand images need not be looked at.
    if out.exists() and any(path.exists() and path.samefile(out) for path in inputs):
        raise FileError(out, "found the same file as input, expected a new name")


def _may_change(link: Path, linked: Path) -> bool:
    """Return whether the file that a link leads to may be replaced."""
    if _CACHED_NAME.search(str(linked)):
        return False
    return not link.exists() or bool(link.stat().st_mode & stat.S_IWUSR)


def cannot_write(target: Path, error: OSError) -> FileError:
    """Return an error that names the file and the system's reason."""
    return FileError(target, f"cannot be written: {os_error_text(error)}")


def write_json(target: Path, content: Any) -> None:
    """Write `content` as indented JSON; NaN and infinity, which JSON lacks, raise ValueError."""
    with replacing(target) as temporary:
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
        temporary.write_text(text, encoding="utf-8")


def remove_abandoned(folder: Path, suffix: str, *, stem: str | None = None) -> None:
    """Remove the temporary files that killed processes have left.

    The writer of a temporary file holds a lock on it, which the system lifts when the process
    ends, however it ends. Process numbers would tell nothing: containers have their own, and may
    share a folder and a host name.

    Parameters
    ----------
    folder
        Where they were to become files.
    suffix
        Suffix of those files, such as `.npz`.
    stem
        Stem of the one file whose leftovers are removed; None for all files with the suffix.
    """
    label, end = (".+", suffix) if stem is None else map(re.escape, _label(stem + suffix))
    name = re.compile(rf"\.{label}\.([^.]+)\.[0-9a-f]+\.tmp{end}")
    with suppress(OSError):  # what cannot be listed or removed does no damage
        for path in folder.iterdir():
            if found := name.fullmatch(path.name):
                _remove_if_abandoned(path, same_host=found[1] == _host())


def _remove_if_abandoned(path: Path, *, same_host: bool) -> None:
    with suppress(OSError):
        # Without O_NONBLOCK, a pipe of this name would block.
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            status = os.fstat(file)
            locked = _lock(file)
            free = locked is True and same_host
            old = locked is not False and time.time() - status.st_mtime > ABANDONED_S
            if stat.S_ISREG(status.st_mode) and (free or old):
                path.unlink(missing_ok=True)
        finally:
            os.close(file)


def _lock(file: int) -> bool | None:
    """Lock an open file; False if another process holds it, None if it cannot be locked."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@contextmanager
def _begun(target: Path) -> Iterator[_Pending]:
    """Hold a locked temporary file for the target, and remove what is left of it at the end."""
    pending = _begin(target)
    try:
        yield pending
    finally:
        with suppress(OSError):
            pending.temporary.unlink(missing_ok=True)
        os.close(pending.lock)


def _begin(target: Path) -> _Pending:
    """Create a locked temporary file, and remove what killed processes left of the same target."""
    place = place_of(target)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"its folder cannot be made or written ({os_error_text(error)})"
        raise FileError(target, problem) from None
    remove_abandoned(place.parent, place.suffix, stem=place.stem)
    label, suffix = _label(place.name)
    # What replaces a private file is private from its first byte.
    mode = 0o600 if target.exists() else 0o666
    try:
        while True:
            name = f".{label}.{_host()}.{secrets.token_hex(4)}.tmp{suffix}"
            temporary = place.with_name(name)
            file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
            # Another process may have taken it for abandoned, before it was locked.
            if _lock(file) is not False and temporary.exists():
                return _Pending(target, place, temporary, file)
            os.close(file)
    except OSError as error:
        raise cannot_write(target, error) from None


def _label(name: str) -> tuple[str, str]:
    """Return what a temporary file's name takes over of its target's: beginning and suffix."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - it is no path
    if len(os.fsencode(suffix)) > MAX_SUFFIX_BYTES:  # no format that a writer would go by
        stem, suffix = name, ""
    if len(os.fsencode(stem)) > MAX_LABEL_BYTES:
        stem = hashlib.sha256(os.fsencode(stem)).hexdigest()[:32]
    return stem, suffix


def _host() -> str:
    return re.sub("[^A-Za-z0-9]", "-", socket.gethostname())[:MAX_HOST_LETTERS] or "-"


def _rename(pending: Sequence[_Pending]) -> None:
    for each in pending:
        try:
            _to_disk(each.temporary)
            _keep_permissions(each)
        except OSError as error:
            raise cannot_write(each.target, error) from None
    for each in pending:
        try:
            os.replace(each.temporary, each.place)
        except OSError as error:
            raise cannot_write(each.target, error) from None
        with suppress(OSError):  # not every file system does this for folders
            _to_disk(each.place.parent)


def _keep_permissions(pending: _Pending) -> None:
    """Carry over what the file that is replaced says of who may read and write it.

    Its owner may write it at least: read-only is what DVC makes its links to its cache.
    """
    try:
        mode = pending.target.stat().st_mode
        link = pending.place.lstat()  # the link's own owner, where a link is replaced
    except FileNotFoundError:
        return
    with suppress(OSError):  # root alone may give files away
        os.chown(pending.temporary, link.st_uid, link.st_gid)
    pending.temporary.chmod(stat.S_IMODE(mode) & 0o777 | 0o600)


def _to_disk(path: Path) -> None:
    """Wait until the disk has what was written: a rename may reach it before the content does."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
