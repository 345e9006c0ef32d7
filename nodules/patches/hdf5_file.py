"""HDF5 files from outside: tried in a process of its own, then opened and read under bounds.

On some damaged files the HDF5 library neither returns nor raises: it loops for ever or crashes.
What it is asked for here is little: where the data lies (`hdf5_storage` reads it from there), and
the texts. All of that is asked for in another process first, whatever command opens the file.
"""

import functools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import h5py
import numpy as np
from numpy.typing import NDArray

from nodules.errors import PatchFileError
from nodules.patches.hdf5_checks import DAMAGE, holds, link_problem
from nodules.patches.hdf5_storage import StorageError, StoredArray, check_pieces
from nodules.system.limited_process import call_limited
from nodules.system.regular_file import check_regular_file
from nodules.system.streams import error_text, os_error_text, printable

# Far above what any file needs: the columns of 100,000 patches are read in a second.
SECONDS = 10
BYTES_A_SECOND = 10_000_000
MEMORY = 500 * 2**20

# A group is a name. All rows may point at one text, so that a small file could hold terabytes.
MAX_CHARACTERS = 1024
MAX_FIXED_BYTES = 2**14
ROWS_AT_ONCE = 4096

# What a patch file may hold. These are texts, if they are.
NAMES = ("X", "Y", "group", "split", "index")
TEXTS = ("group", "split")


class Hdf5File:
    """An HDF5 file that is open for reading. Use `open_hdf5`.

    Parameters
    ----------
    path, file
        The file, and the same opened.
    """

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path = path
        self._file = file
        self._arrays: dict[str, StoredArray] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for array in self._arrays.values():
            array.close()
        self._file.close()

    def names(self) -> list[str]:
        """Return what the file holds, in alphabetical order."""
        with reading(self.path):
            # A name that is not UTF-8 comes as bytes.
            return sorted(os.fsdecode(name) for name in self._file)

    def holds(self, name: str) -> bool:
        """Return whether the file holds something of this name."""
        with reading(self.path, name):
            return holds(self._file, name)

    def data_set(self, name: str) -> StoredArray:
        """Find a data set, all of which is stored in this very file.

        Raises
        ------
        PatchFileError
            If there is none, or what the file stores is not what it declares.
        """
        if name in self._arrays:
            return self._arrays[name]
        there = self.holds(name)
        with reading(self.path, name):
            problem = link_problem(self._file, name) if there else ""
            found = self._file[name] if there and not problem else None
        if not (problem or isinstance(found, h5py.Dataset)):
            names = ", ".join(printable(each, 60) for each in self.names()[:10]) or "nothing"
            problem = f"found {names}; expected a data set of this name"
        elif found is not None and found.shape is None:
            problem = "found no data, expected an array"
        if problem:
            raise PatchFileError(self.path, problem, dataset=name)
        return self._stored(name, found)

    def _stored(self, name: str, data: h5py.Dataset) -> StoredArray:
        with reading(self.path, name):
            try:
                array = StoredArray(self.path, data)
                others = [other.pieces for other in self._arrays.values()]
                check_pieces([array.pieces, *others], self.path.stat().st_size)
            except StorageError as error:
                problem = str(error)
            else:
                return self._arrays.setdefault(name, array)
        raise PatchFileError(self.path, problem, dataset=name)


def open_hdf5(path: Path) -> Hdf5File:
    """Open an HDF5 file for reading, after a trial in another process.

    Raises
    ------
    PatchFileError
        If it is no HDF5 file, cannot be read, or HDF5 crashes on it, finds no end, or takes more
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
    _try_once(path, about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)
    return Hdf5File(path, _open(path))


def try_reading(path: Path, *, seconds: int = SECONDS) -> None:
    """Ask HDF5 in another process for all that reading a patch file asks it for.

    Parameters
    ----------
    path
        The file.
    seconds
        Processor time before the process is ended; large files get more.

    Raises
    ------
    PatchFileError
        As `open_hdf5`.
    """
    size = path.stat().st_size
    call_limited(
        read_structure,
        path,
        seconds=seconds + size // BYTES_A_SECOND,
        memory=MEMORY + 2 * size,
        failure=PatchFileError,
    )


@functools.cache
def _try_once(path: Path, *_identity: int) -> None:
    """Try a file that has not been tried, as it is now, by this process."""
    try_reading(path)


def read_structure(path: Path) -> None:
    """Find the data sets of a patch file and read its texts."""
    with Hdf5File(path, _open(path)) as file:
        for name in filter(file.holds, NAMES):
            # Only files that `split` wrote need an index; elsewhere it may be anything.
            with suppress(*([PatchFileError] if name == "index" else [])):
                array = file.data_set(name)
                if name in TEXTS and is_text(array):
                    read_texts(path, name, array)
        file.names()


def _open(path: Path) -> h5py.File:
    problem = "it does not begin as one"
    empty = path.stat().st_size == 0
    try:
        if not empty and h5py.is_hdf5(path):
            return h5py.File(path, "r")
    except DAMAGE as error:
        problem = error_text(error)
        if cut := re.search(r"truncated file: eof = (\d+).* stored_eof = (\d+)", problem):
            found, whole = (int(number) for number in cut.groups())
            problem = f"truncated: found {found:,} bytes of {whole:,}"
    problem = "it is empty" if empty else problem
    raise PatchFileError(path, f"not a readable HDF5 file ({problem})")


@contextmanager
def reading(path: Path, name: str = "") -> Iterator[None]:
    """Turn whatever HDF5 raises in the block into a line that says that the file is damaged."""
    try:
        yield
    except StorageError as error:
        raise PatchFileError(path, f"cannot be read: {error}", dataset=name) from None
    except DAMAGE as error:
        problem = "cannot be read: damaged, or compressed by an unknown method"
        raise PatchFileError(path, f"{problem} ({error_text(error)})", dataset=name) from None


def read_rows(
    path: Path, name: str, array: StoredArray, start: int = 0, stop: int | None = None
) -> NDArray:
    """Read rows of a data set, by default all; PatchFileError where the file is damaged."""
    with reading(path, name):
        return array.read(start, stop)


def is_text(array: StoredArray) -> bool:
    """Return whether a data set holds strings."""
    return h5py.check_string_dtype(array.data.dtype) is not None


def read_texts(path: Path, name: str, array: StoredArray) -> NDArray[np.object_]:
    """Read a data set of strings.

    Parameters
    ----------
    path, name
        The file and the data set, for messages.
    array
        (N,) strings, of a fixed length or of any.

    Returns
    -------
    (N,) str objects
        Equal strings are one object, so that a small file takes little memory.

    Raises
    ------
    PatchFileError
        If the file is damaged, or a string is no UTF-8, longer than 1,024 characters, or holds a
        NUL character, which HDF5 writes in no string of any length.
    """
    lengths = _text_lengths(path, name, array)
    compact = not len(array.pieces.offsets)
    step = 1 if compact and lengths is None else ROWS_AT_ONCE
    texts = np.empty(len(array), dtype=object)
    known: dict[bytes, str] = {}
    for start in range(0, len(array), step):
        with reading(path, name):
            encoded = array.data[start : start + step].tolist()
        for row, each in enumerate(encoded, start):
            if each not in known:
                known[each] = _decoded(path, name, row, each)
            # HDF5 reads up to a NUL. Some writers end each string with one, and count it.
            if lengths is not None and lengths[row] > len(each) + 1:
                raise PatchFileError(path, HOLDS_NUL, dataset=name, row=row)
            texts[row] = known[each]
    return texts


def check_text(path: Path, name: str, row: int, text: str) -> None:
    """Refuse a text that is too long for a name, or that HDF5 would cut short.

    Raises
    ------
    PatchFileError
        If it has more than 1,024 characters, or holds a NUL character.
    """
    problem = ""
    if len(text) > MAX_CHARACTERS:
        problem = f"found a text of {len(text):,} characters, expected at most {MAX_CHARACTERS:,}"
    elif "\0" in text:
        problem = HOLDS_NUL
    if problem:
        raise PatchFileError(path, problem, dataset=name, row=row)


HOLDS_NUL = "found a text with a NUL character, expected a name"


def _decoded(path: Path, name: str, row: int, encoded: bytes) -> str:
    try:
        text = encoded.decode()
    except UnicodeDecodeError:
        problem = "found bytes that are not UTF-8 text"
        raise PatchFileError(path, problem, dataset=name, row=row) from None
    check_text(path, name, row, text)
    return text


def _text_lengths(path: Path, name: str, array: StoredArray) -> NDArray[np.uint32] | None:
    """Check how long the strings are before HDF5 reads any; return the bytes of each if known."""
    fixed = h5py.check_string_dtype(array.data.dtype).length
    if fixed is not None:
        if fixed > MAX_FIXED_BYTES:
            problem = f"found texts of {fixed:,} bytes, expected at most {MAX_FIXED_BYTES:,}"
            raise PatchFileError(path, problem, dataset=name)
        with reading(path, name):
            array.check()
        return None
    if not len(array.pieces.offsets):
        return None
    lengths = read_rows(path, name, array)["bytes"]
    row = int(lengths.argmax())
    if lengths[row] > 4 * MAX_CHARACTERS + 1:  # bytes of a character in UTF-8
        with reading(path, name):
            _decoded(path, name, row, array.data[row])
    return lengths
