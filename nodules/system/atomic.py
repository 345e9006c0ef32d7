"""Atomic writes: outputs are written next to their target and renamed into place."""

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

# Errors that only writing can raise, so they concern the output wherever they occur.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)

# These keep temporary names within the limits of file systems, however long the target's name is.
MAX_LABEL_BYTES = 80
MAX_SUFFIX_BYTES = 20
MAX_HOST_LETTERS = 40
# Not every file system shares locks between machines. A temporary file of another machine, or one
# that cannot be locked, counts as abandoned if it has not been written to for this long.
ABANDONED_S = 24 * 60 * 60
# Paths of objects in DVC's cache, which are named by a hash of their content.
_CACHED_NAME = re.compile(r"/[0-9a-f]{2}/[0-9a-f]{30}(\.dir)?")


@dataclass(frozen=True)
class _Pending:
    """An output that is being written.

    Attributes
    ----------
    target
        Requested path, for error messages.
    place
        Path that is replaced: `target`, or the file it links to.
    temporary
        Temporary file that will become `place`.
    lock
        Open descriptor of `temporary`, locked while this process writes.
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
        File to create or replace. Its folder is created if missing. A replaced file keeps its
        permissions, and its owner where the system allows. See `place_of` for links.

    Yields
    ------
    Path
        Path of an empty file in the same folder, with the same suffix (some writers choose the
        format by it). If the block raises, this file is removed and `target` is unchanged. If the
        process is killed, the next write of `target` removes it.

    Raises
    ------
    FileError
        If `target` is not a regular file, the disk is full, or writing fails for another reason.
    """
    with replacing_all([target]) as (temporary,):
        yield temporary


@contextmanager
def replacing_all(targets: Sequence[Path]) -> Iterator[Sequence[Path]]:
    """Yield temporary paths for several files, which appear together or not at all.

    Parameters
    ----------
    targets
        Files to create or replace, as in `replacing`.

    Yields
    ------
    sequence of Path
        Temporary paths in the order of `targets`. No target changes before all are written.
    """
    with ExitStack() as stack:
        pending = [stack.enter_context(_begun(target)) for target in targets]
        try:
            yield [each.temporary for each in pending]
        except OSError as error:
            # The block may also read files, whose errors do not concern the output.
            names = {str(each.temporary): each.target for each in pending}
            ours = names.get(str(error.filename))
            if ours is None and error.errno not in _FULL:
                raise
            raise cannot_write(ours or targets[0], error) from None
        _rename(pending)


def place_of(target: Path) -> Path:
    """Return the path that is replaced when `target` is written.

    A symbolic link is kept and the file it leads to is replaced. However, DVC may link outputs to
    its cache, which must never change. Therefore a link to a read-only file, or to a file named
    like an object of the cache, is itself replaced.

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
                found = f"found a link into a missing folder ({linked.parent})"
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
    """Check that an output is not an input, a folder, a device or a pipe.

    Raises
    ------
    FileError
        If `out` is one of `inputs`, or is not a regular file.
    """
    place_of(out)
    # A missing file cannot be an input, so up to 100,000 images need not be examined.
    if out.exists() and any(path.exists() and path.samefile(out) for path in inputs):
        raise FileError(out, "found the same file as input, expected a new name")


def _may_change(link: Path, linked: Path) -> bool:
    """Return whether the file that a link leads to may be replaced."""
    if _CACHED_NAME.search(str(linked)):
        return False
    return not link.exists() or bool(link.stat().st_mode & stat.S_IWUSR)


def cannot_write(target: Path, error: OSError) -> FileError:
    """Return an error with the file and the system's description of the cause."""
    return FileError(target, f"cannot be written: {os_error_text(error)}")


def write_json(target: Path, content: Any) -> None:
    """Write `content` as indented JSON; raise ValueError for NaN and infinity."""
    with replacing(target) as temporary:
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
        temporary.write_text(text, encoding="utf-8")


def remove_abandoned(folder: Path, suffix: str, *, stem: str | None = None) -> None:
    """Remove temporary files left by killed processes.

    The writer of a temporary file holds a lock on it, which the system releases however the
    process ends. Process numbers are no criterion, since containers with separate numbers may
    share a folder and a host name.

    Parameters
    ----------
    folder
        Folder of the target files.
    suffix
        Suffix of the target files, such as `.npz`.
    stem
        Stem of the only target to clean up for; None for all targets with the suffix.
    """
    label, end = (".+", suffix) if stem is None else map(re.escape, _label(stem + suffix))
    name = re.compile(rf"\.{label}\.([^.]+)\.[0-9a-f]+\.tmp{end}")
    with suppress(OSError):  # leftovers are harmless
        for path in folder.iterdir():
            if found := name.fullmatch(path.name):
                _remove_if_abandoned(path, same_host=found[1] == _host())


def _remove_if_abandoned(path: Path, *, same_host: bool) -> None:
    with suppress(OSError):
        # Without O_NONBLOCK, opening a pipe of this name would block.
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
    """Hold a locked temporary file for the target; remove it at the end if it still exists."""
    # Named before it is created: a signal may raise an exception at any moment after that.
    names: list[Path] = []
    pending = None
    try:
        pending = _begin(target, names)
        yield pending
    finally:
        for name in names:
            with suppress(OSError):
                name.unlink(missing_ok=True)
        if pending:
            os.close(pending.lock)


def _begin(target: Path, names: list[Path]) -> _Pending:
    """Create a locked temporary file; remove those of killed processes for the same target.

    Its name is added to `names` before it is created.
    """
    place = place_of(target)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"its folder cannot be created or written ({os_error_text(error)})"
        raise FileError(target, problem) from None
    remove_abandoned(place.parent, place.suffix, stem=place.stem)
    label, suffix = _label(place.name)
    # A file that replaces a private one must be private from the start.
    mode = 0o600 if target.exists() else 0o666
    try:
        while True:
            name = f".{label}.{_host()}.{secrets.token_hex(4)}.tmp{suffix}"
            temporary = place.with_name(name)
            names.append(temporary)
            try:
                file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
            except FileExistsError:  # of another process, which must keep it
                names.remove(temporary)
                continue
            # Before it was locked, another process may have removed it as abandoned.
            if _lock(file) is not False and temporary.exists():
                return _Pending(target, place, temporary, file)
            os.close(file)
    except OSError as error:
        raise cannot_write(target, error) from None


def _label(name: str) -> tuple[str, str]:
    """Return the beginning and the suffix that a temporary name shares with its target's."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - a name, not a path
    if len(os.fsencode(suffix)) > MAX_SUFFIX_BYTES:  # not the suffix of any format
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
    """Copy the owner and the permissions of the replaced file.

    The owner always gets write permission, because DVC makes links to its cache read-only.
    """
    try:
        mode = pending.target.stat().st_mode
        link = pending.place.lstat()  # the link's own owner, where a link is replaced
    except FileNotFoundError:
        return
    with suppress(OSError):  # only root may change the owner
        os.chown(pending.temporary, link.st_uid, link.st_gid)
    pending.temporary.chmod(stat.S_IMODE(mode) & 0o777 | 0o600)


def _to_disk(path: Path) -> None:
    """Flush a file or folder to disk, since a rename may reach it before the content does."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
