"""Reading patch files: the layout is checked on opening, the values of `X` as they are read."""

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nodules.errors import PatchFileError
from nodules.patches.columns import column, read_known, type_name
from nodules.patches.hdf5_file import Hdf5File, read_rows
from nodules.patches.hdf5_storage import StoredArray
from nodules.patches.layout import BLOCK_PATCHES, PATCH_SIZE, Groups, Labels, Patches
from nodules.patches.probe import open_hdf5


class StoredPatches:
    """Patches that stay on disk: the rows that are asked for are read when they are.

    Indexed by a slice or an array of rows, it returns what an (N, 50, 50) uint8 array would. It is
    no memory map: every page of one that was ever touched counts as memory of the process, and an
    epoch touches all.
    """

    def __init__(self, path: Path, offset: int, count: int) -> None:
        self._path, self._offset, self._count = path, offset, count
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, rows: slice | NDArray[np.integer]) -> Patches:
        if isinstance(rows, slice):
            rows = np.arange(self._count)[rows]
        patches = np.empty((len(rows), PATCH_SIZE, PATCH_SIZE), np.uint8)
        # Neighbouring rows are read at once; the rows of a shuffled batch are no neighbours.
        starts = np.flatnonzero(np.append(True, np.diff(rows) != 1)[: len(rows)])
        for start, stop in pairwise([*starts.tolist(), len(rows)]):
            row = int(rows[start])
            if not 0 <= row <= self._count - (stop - start):
                raise IndexError(f"found row {row}, expected 0 to {self._count - 1}")
            piece, place = patches[start:stop], self._offset + row * PATCH_SIZE**2
            if os.preadv(self._file, [piece.data], place) != piece.nbytes:
                raise PatchFileError(self._path, "cut short while it was read")
        return patches


# What training and scoring take: they ask for a batch of rows at a time.
PatchRows = Patches | StoredPatches


@dataclass(frozen=True)
class PatchFile:
    """An open patch file whose layout has been checked.

    Use `open_patches`. Labels, groups and splits are read whole; patches only in blocks.

    Attributes
    ----------
    path
        Where the file lies.
    known_labels
        (N,) uint8, 1 for a nodule; None where the file has no `Y`.
    groups
        (N,) int64, uint64 where a number is above those of int64, or str objects; None where the
        file has no `group`.
    split
        (N,) str objects out of `SPLITS`; None where the file has no `split`.
    """

    path: Path
    known_labels: Labels | None
    groups: Groups | None
    split: NDArray[np.object_] | None
    _file: Hdf5File
    _data: StoredArray

    def __len__(self) -> int:
        return int(self._data.shape[0])

    @property
    def labels(self) -> Labels:
        """(N,) uint8, 1 for a nodule; PatchFileError where the file has no `Y`."""
        if self.known_labels is None:
            raise PatchFileError(self.path, "found no such data set, expected labels", dataset="Y")
        return self.known_labels

    @property
    def stored_as(self) -> str:
        """Shape and type of `X` as stored in the file."""
        return f"{self._data.shape} {self._data.data.dtype}"

    def read(self, start: int, stop: int) -> Patches:
        """Read consecutive patches.

        Parameters
        ----------
        start, stop
            First row, and the row after the last.

        Returns
        -------
        (stop - start, 50, 50) uint8

        Raises
        ------
        PatchFileError
            If a float patch holds NaN, or a value outside 0..1; the first such row is named. Or if
            the file is damaged there.
        """
        raw = read_rows(self.path, "X", self._data, start, stop).reshape(-1, PATCH_SIZE, PATCH_SIZE)
        if raw.dtype == np.uint8:
            return raw
        self._check_unit_range(raw, start)
        return np.rint(raw * 255).astype(np.uint8)

    def read_index(self) -> NDArray[np.int64]:
        """Read the (N,) rows that these patches had in the data set they were split from."""
        data = column(self._file, "index", len(self))
        if data.dtype.kind not in "iu":
            problem = f"found {type_name(data)}, expected integers"
            raise PatchFileError(self.path, problem, dataset="index")
        index = read_rows(self.path, "index", data)
        if index.min() < 0 or index.max() > np.iinfo(np.int64).max:
            row = int(np.argmax((index < 0) | (index > np.iinfo(np.int64).max)))
            problem = f"found {index[row]}, expected rows of a data set"
            raise PatchFileError(self.path, problem, dataset="index", row=row)
        return index.astype(np.int64)

    def blocks(self, size: int = BLOCK_PATCHES) -> Iterator[tuple[int, Patches]]:
        """Read all patches in order, `size` at a time, each block with its first row."""
        for start in range(0, len(self), size):
            yield start, self.read(start, min(start + size, len(self)))

    def on_disk(self) -> StoredPatches:
        """Return all patches without reading them; they outlive the open file.

        Raises
        ------
        PatchFileError
            If `X` is not stored as contiguous uint8, as the `split` stage writes it.
        """
        offset = self._data.contiguous_offset
        if self._data.dtype != np.uint8 or offset is None:
            problem = (
                f"found {self.stored_as}, chunked or converted; expected a file that `split` wrote"
            )
            raise PatchFileError(self.path, problem, dataset="X")
        return StoredPatches(self.path, offset, len(self))

    def _check_unit_range(self, raw: NDArray[np.floating], start: int) -> None:
        # NaN fails both comparisons, so that one test finds it too.
        valid = ((raw >= 0) & (raw <= 1)).all(axis=(1, 2))
        if valid.all():
            return
        bad = int(np.argmin(valid))
        values = raw[bad]
        problem = f"found {_range(values)}, expected float intensities in 0..1"
        if values.min() >= 0 and 1 < values.max() <= 255:
            problem += ": they look like 0..255, so divide them by 255 or store uint8"
        raise PatchFileError(self.path, problem, dataset="X", row=start + bad)


@contextmanager
def open_patches(path: Path, *, labelled: bool = True) -> Iterator[PatchFile]:
    """Open a patch file and check its layout.

    Parameters
    ----------
    path
        An HDF5 file.
    labelled
        Whether `Y` must be there.

    Yields
    ------
    PatchFile
        Open until the block ends.

    Raises
    ------
    PatchFileError
        If the layout is broken. Values of `X` are checked as they are read.
    """
    with open_hdf5(path) as file:
        data = _patch_data(file)
        known = read_known(file, data.shape[0], labelled=labelled)
        yield PatchFile(path, *known, file, data)


def _range(values: NDArray[np.floating]) -> str:
    if np.isnan(values).any():
        return "NaN"
    return "infinity" if np.isinf(values).any() else f"{values.min():g}..{values.max():g}"


def _patch_data(file: Hdf5File) -> StoredArray:
    data = file.data_set("X")
    expected = f"(N, {PATCH_SIZE}, {PATCH_SIZE}) or (N, {PATCH_SIZE}, {PATCH_SIZE}, 1)"
    square = (PATCH_SIZE, PATCH_SIZE)
    if data.shape[1:] not in (square, (*square, 1)):
        problem = f"found shape {data.shape}, expected {expected}"
        problem = f"{problem} (nodules import hdf5 resizes)"
        raise PatchFileError(file.path, problem, dataset="X")
    if data.shape[0] == 0:
        raise PatchFileError(file.path, "found no patches, expected at least one", dataset="X")
    if data.data.dtype != np.uint8 and data.dtype.kind != "f":
        problem = f"found {type_name(data)}, expected uint8 in 0..255 or float in 0..1"
        raise PatchFileError(file.path, problem, dataset="X")
    return data
