"""Read patch files. The layout is checked on opening, the values of `X` as they are read."""

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
from nodules.patches.columns import (
    column,
    read_flags,
    read_folds,
    read_known,
    read_split,
    type_name,
)
from nodules.patches.hdf5_file import Hdf5File, read_rows
from nodules.patches.hdf5_storage import StoredArray
from nodules.patches.hdf5_texts import is_text, read_texts
from nodules.patches.layout import (
    BLOCK_PATCHES,
    MAX_PIXELS,
    PATCH_SIZE,
    SOURCES,
    Groups,
    Labels,
    Patches,
)
from nodules.patches.probe import open_hdf5
from nodules.patches.unit_range import clipped, in_unit_range, range_advice


class StoredPatches:
    """Patches on disk, read when they are indexed.

    Indexing with a slice or an array of rows returns the same as for an (N, 50, 50) uint8 array.
    This is not a memory map, because every page of a map that has been touched counts as memory
    of the process, and an epoch touches all of them.
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
        # Consecutive rows are read in one call; those of a shuffled batch are rarely consecutive.
        starts = np.flatnonzero(np.append(True, np.diff(rows) != 1)[: len(rows)])
        for start, stop in pairwise([*starts.tolist(), len(rows)]):
            row = int(rows[start])
            if not 0 <= row <= self._count - (stop - start):
                raise IndexError(f"found row {row}, expected 0 to {self._count - 1}")
            piece, place = patches[start:stop], self._offset + row * PATCH_SIZE**2
            if os.preadv(self._file, [piece.data], place) != piece.nbytes:
                raise PatchFileError(self._path, "truncated while being read")
        return patches


# Input of training and scoring, which index one batch of rows at a time.
PatchRows = Patches | StoredPatches


@dataclass(frozen=True)
class PatchFile:
    """An open patch file whose layout has been checked.

    Use `open_patches` to create one. Labels, groups and splits are in memory; patches are read in
    blocks.

    Attributes
    ----------
    path
        Path of the file.
    known_labels
        (N,) uint8, 1 for a nodule; None if the file has no `Y`.
    groups
        (N,) int64, uint64 if a number exceeds int64, or str objects; None if the file has no
        `group`.
    split
        (N,) str objects, each one of `SPLITS`; None if the file has no `split`.
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
        """(N,) uint8, 1 for a nodule; raises PatchFileError if the file has no `Y`."""
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
            If a float patch holds NaN or a value outside 0..1 (the message names the first such
            row), or if these rows are damaged.
        """
        raw = read_rows(self.path, "X", self._data, start, stop).reshape(-1, PATCH_SIZE, PATCH_SIZE)
        if raw.dtype == np.uint8:
            return raw
        self._check_unit_range(raw, start)
        return np.rint(clipped(raw) * 255).astype(np.uint8)

    def read_index(self) -> NDArray[np.int64]:
        """Read the (N,) row numbers of these patches in the data set they were split from."""
        data = column(self._file, "index", len(self))
        if data.dtype.kind not in "iu":
            problem = f"found {type_name(data)}, expected integers"
            raise PatchFileError(self.path, problem, dataset="index")
        index = read_rows(self.path, "index", data)
        if index.min() < 0 or index.max() > np.iinfo(np.int64).max:
            row = int(np.argmax((index < 0) | (index > np.iinfo(np.int64).max)))
            problem = f"found {index[row]}, expected a row number of a data set"
            raise PatchFileError(self.path, problem, dataset="index", row=row)
        return index.astype(np.int64)

    def read_sources(self) -> dict[str, NDArray]:
        """Read where the patches come from, as far as the file says.

        Returns
        -------
        dict
            `file`: (N,) str objects, and `candidate`: (N,) integers, if the file has data sets of
            these names, this length and these types. Others of these names mean something else.

        Raises
        ------
        PatchFileError
            If such a data set is damaged.
        """
        found: dict[str, NDArray] = {}
        for name in SOURCES:
            data = self._file.data_set(name) if self._file.holds_data_set(name) else None
            if data is None or data.shape != (len(self),):
                continue
            if name == "file" and is_text(data):
                found[name] = read_texts(self.path, name, data)
            elif name == "candidate" and data.data.dtype.kind in "iu":
                found[name] = read_rows(self.path, name, data)
        return found

    def read_published_split(self) -> NDArray[np.object_] | None:
        """Read the (N,) names of the published split; None if the file has none.

        Raises
        ------
        PatchFileError
            If a name is not one of `SPLITS`.
        """
        name = "published_split"
        return read_split(self._file, name, len(self)) if self._file.holds(name) else None

    def read_folds(self) -> NDArray[np.int64] | None:
        """Read the (N,) folds of a cross-validation; None if the file has none.

        Raises
        ------
        PatchFileError
            If a value is no integer, or a group spans two folds.
        """
        name = "fold"
        if not self._file.holds(name):
            return None
        return read_folds(self._file, name, len(self), self.groups)

    def read_irrelevant(self) -> NDArray[np.bool_] | None:
        """Read which of the (N,) patches the challenge ignores; None if the file does not say.

        Raises
        ------
        PatchFileError
            If a value is not 0 or 1.
        """
        name = "irrelevant"
        return read_flags(self._file, name, len(self)) if self._file.holds(name) else None

    def blocks(self, size: int = BLOCK_PATCHES) -> Iterator[tuple[int, Patches]]:
        """Yield all patches in order, in blocks of `size`, each with its first row number."""
        for start in range(0, len(self), size):
            yield start, self.read(start, min(start + size, len(self)))

    def on_disk(self) -> StoredPatches:
        """Return all patches without reading them; the result remains valid after closing.

        Raises
        ------
        PatchFileError
            If `X` is not stored as contiguous uint8, as the `split` stage writes it.
        """
        offset = self._data.contiguous_offset
        if self._data.dtype != np.uint8 or offset is None:
            problem = (
                f"found {self.stored_as}, chunked or converted; expected a file written by `split`"
            )
            raise PatchFileError(self.path, problem, dataset="X")
        return StoredPatches(self.path, offset, len(self))

    def _check_unit_range(self, raw: NDArray[np.floating], start: int) -> None:
        valid = in_unit_range(raw)
        if valid.all():
            return
        bad = int(np.argmin(valid))
        values = raw[bad]
        problem = f"found {_range(values)}, expected float intensities in 0..1"
        # The first such patch may be dark: the others show the range better.
        problem += range_advice(raw) if np.isfinite(values).all() else ""
        raise PatchFileError(self.path, problem, dataset="X", row=start + bad)


@contextmanager
def open_patches(path: Path, *, labelled: bool = True) -> Iterator[PatchFile]:
    """Open a patch file and check its layout.

    Parameters
    ----------
    path
        HDF5 file.
    labelled
        Whether `Y` is required.

    Yields
    ------
    PatchFile
        The file, open until the block ends.

    Raises
    ------
    PatchFileError
        If the layout is invalid. Values of `X` are checked as they are read.
    """
    with open_hdf5(path) as file:
        data = _patch_data(file)
        known = read_known(file, data.shape[0], labelled=labelled)
        yield PatchFile(path, *known, file, data)


def _can_be_resized(data: StoredArray) -> bool:
    """Return whether `import hdf5` accepts patches of this shape and type."""
    images = len(data.shape) == 3 or (len(data.shape) == 4 and data.shape[3] == 1)
    if not images or 0 in data.shape or data.shape[1] * data.shape[2] > MAX_PIXELS:
        return False
    return data.data.dtype == np.uint8 or data.dtype.kind == "f"


def _range(values: NDArray[np.floating]) -> str:
    if np.isnan(values).any():
        return "NaN"
    return (
        "infinity" if np.isinf(values).any() else f"{_exact(values.min())}..{_exact(values.max())}"
    )


def _exact(value: np.floating) -> str:
    """Return a number in six digits, or in as many as tell it from 0 and 1."""
    short = f"{value:g}"
    return short if float(short) not in (0, 1) or float(short) == value else f"{value:.9g}"


def _patch_data(file: Hdf5File) -> StoredArray:
    data = file.data_set("X")
    expected = f"(N, {PATCH_SIZE}, {PATCH_SIZE}) or (N, {PATCH_SIZE}, {PATCH_SIZE}, 1)"
    square = (PATCH_SIZE, PATCH_SIZE)
    if data.shape[1:] not in (square, (*square, 1)):
        problem = f"found shape {data.shape}, expected {expected}"
        if _can_be_resized(data):
            problem = f"{problem} (nodules import hdf5 resizes)"
        raise PatchFileError(file.path, problem, dataset="X")
    if data.shape[0] == 0:
        raise PatchFileError(file.path, "found no patches, expected at least one", dataset="X")
    if data.data.dtype != np.uint8 and data.dtype.kind != "f":
        problem = f"found {type_name(data)}, expected uint8 in 0..255 or float in 0..1"
        raise PatchFileError(file.path, problem, dataset="X")
    return data
