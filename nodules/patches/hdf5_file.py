"""HDF5 files whose data sets are read with bounded memory; `probe.open_hdf5` opens them.

The HDF5 library only locates the data, which `hdf5_storage` then reads, and reads strings.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import h5py
from numpy.typing import NDArray

from nodules.errors import PatchFileError
from nodules.patches.hdf5_checks import DAMAGE, holds, link_problem
from nodules.patches.hdf5_storage import StorageError, StoredArray, check_pieces
from nodules.system.streams import error_text, printable


class Hdf5File:
    """An HDF5 file open for reading. Use `open_hdf5` to create one.

    Parameters
    ----------
    path, file
        Path of the file, and the open file.
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
        """Return the names of the file's members in alphabetical order."""
        with reading(self.path):
            # h5py returns a name that is not UTF-8 as bytes.
            return sorted(os.fsdecode(name) for name in self._file)

    def holds(self, name: str) -> bool:
        """Return whether the file has a member of this name."""
        with reading(self.path, name):
            return holds(self._file, name)

    def holds_data_set(self, name: str) -> bool:
        """Return whether the file has a data set of this name, or a link that may lead to one."""
        if not self.holds(name):
            return False
        with reading(self.path, name):
            if link_problem(self._file, name):
                return True
            return isinstance(self._file[name], h5py.Dataset)

    def data_set(self, name: str) -> StoredArray:
        """Return a data set, checking that all of it is stored in this file.

        Raises
        ------
        PatchFileError
            If there is no such data set, or the stored data contradict its declaration.
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


def open_unprobed(path: Path) -> h5py.File:
    """Open an unprobed file, which may crash HDF5; raise PatchFileError if it is not HDF5."""
    problem = "it has no HDF5 signature"
    empty = path.stat().st_size == 0
    try:
        if not empty and h5py.is_hdf5(path):
            return h5py.File(path, "r")
    except DAMAGE as error:
        problem = error_text(error)
        if "unable to lock file" in problem:
            locked = "found a file that another process is writing and has locked"
            raise PatchFileError(path, f"{locked}, expected one that is closed") from None
        if cut := re.search(r"truncated file: eof = (\d+).* stored_eof = (\d+)", problem):
            found, whole = (int(number) for number in cut.groups())
            problem = f"truncated: found {found:,} bytes of {whole:,}"
    problem = "it is empty" if empty else problem
    raise PatchFileError(path, f"not a readable HDF5 file ({problem})")


@contextmanager
def reading(path: Path, name: str = "") -> Iterator[None]:
    """Turn exceptions of HDF5 in the block into a PatchFileError for a damaged file."""
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
    """Read rows of a data set, by default all; raise PatchFileError if the file is damaged."""
    with reading(path, name):
        return array.read(start, stop)
