"""The patch file: CT patches with labels, groups and splits in one HDF5 file, read and written.

Layout (N patches):

========  =============================  ======================================  ========
data set  shape                          type                                    needed
========  =============================  ======================================  ========
`X`       (N, 50, 50) or (N, 50, 50, 1)  uint8 in 0..255, or float in 0..1       yes
`Y`       (N, 2) one-hot, or (N,)        any number; column 1 is the nodule      to train
`group`   (N,)                           integer or string: the scan or patient  no
`split`   (N,)                           string: train, val or test              no
========  =============================  ======================================  ========

A group stands in one split only. Files that the `split` stage writes also hold `index`, the row of
each patch in the data set.

Inside the program a patch is always uint8: floats are rounded to the nearest of 256 grey levels,
which is finer than CT noise and loses nothing of what was an 8-bit image once.

A patch file is data that anybody may have made. Everything is read from that one file, whatever its
links say, and nothing is allocated that the file does not store.
"""

import io
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from nodules.errors import PatchFileError
from nodules.patches.hdf5_checks import shown
from nodules.patches.hdf5_file import (
    Hdf5File,
    check_text,
    is_text,
    open_hdf5,
    read_rows,
    read_texts,
)
from nodules.patches.hdf5_storage import StoredArray
from nodules.system.atomic import cannot_write, replacing_all

PATCH_SIZE = 50
SPLITS = ("train", "val", "test")
CLASSES = ("non_nodule", "nodule")

# 4,096 patches are 10 MB as uint8: large enough for speed, small enough for any machine.
BLOCK_PATCHES = 4096

Patches = NDArray[np.uint8]
Labels = NDArray[np.uint8]
Columns = Mapping[str, np.dtype]
Groups = NDArray[np.int64] | NDArray[np.uint64] | NDArray[np.object_]


class StoredPatches:
    """Patches that stay on disk: the rows that are asked for are read when they are.

    Indexed by a slice or by an array of rows, it gives what an (N, 50, 50) uint8 array would. It is
    no memory map, of which every page once touched counts as the memory of the process: an epoch
    touches all.
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


class Known(NamedTuple):
    """What a file says of each patch; None where it says nothing. `PatchFile` describes each."""

    labels: Labels | None
    groups: Groups | None
    split: NDArray[np.object_] | None


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
        """Shape and type of `X` as they stand in the file."""
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
        data = _column(self._file, "index", len(self))
        if data.dtype.kind not in "iu":
            problem = f"found {_type_name(data)}, expected integers"
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
        """Give all patches without reading them; they outlive the open file.

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


def read_known(file: Hdf5File, count: int, *, labelled: bool) -> Known:
    """Read and check what a file says of each patch, whatever the size of its patches.

    Parameters
    ----------
    file
        An open file.
    count
        Number of its patches.
    labelled
        Whether `Y` must be there.

    Raises
    ------
    PatchFileError
        If `Y`, `group` or `split` breaks the layout.
    """
    labels = _labels(file, count) if labelled or file.holds("Y") else None
    groups = _groups(file, count) if file.holds("group") else None
    split = _split(file, count) if file.holds("split") else None
    if groups is not None and split is not None:
        _check_groups_are_whole(file.path, groups, split)
    return Known(labels, groups, split)


def _type_name(array: StoredArray) -> str:
    return "text" if is_text(array) else f"{array.data.dtype}"


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
        problem = f"{problem} (python -m nodules import hdf5 resizes)"
        raise PatchFileError(file.path, problem, dataset="X")
    if data.shape[0] == 0:
        raise PatchFileError(file.path, "found no patches, expected at least one", dataset="X")
    if data.data.dtype != np.uint8 and data.dtype.kind != "f":
        problem = f"found {_type_name(data)}, expected uint8 in 0..255 or float in 0..1"
        raise PatchFileError(file.path, problem, dataset="X")
    return data


def _labels(file: Hdf5File, count: int) -> Labels:
    data = file.data_set("Y")
    if data.shape not in ((count,), (count, 2)):
        problem = f"found shape {data.shape}, expected ({count},) or ({count}, 2), as X has rows"
        if len(data.shape) == 2 and data.shape[0] == count and data.shape[1] > 2:
            problem += f": these are {data.shape[1]} classes, expected two"
        raise PatchFileError(file.path, problem, dataset="Y")
    if data.data.dtype.kind not in "iufb":
        problem = f"found {_type_name(data)}, expected numbers"
        raise PatchFileError(file.path, problem, dataset="Y")
    raw = read_rows(file.path, "Y", data)
    binary = np.isin(raw, (0, 1))
    one_hot = raw.ndim == 2
    valid = binary.all(axis=1) & (raw.sum(axis=1) == 1) if one_hot else binary
    if not valid.all():
        row = int(np.argmin(valid))
        expected = "one-hot: (1, 0) or (0, 1)" if one_hot else "0 or 1"
        found = tuple(raw[row].tolist()) if one_hot else raw[row].item()
        raise PatchFileError(file.path, f"found {found}, expected {expected}", dataset="Y", row=row)
    return (raw[:, 1] if one_hot else raw).astype(np.uint8)


def _column(file: Hdf5File, name: str, count: int) -> StoredArray:
    data = file.data_set(name)
    if data.shape != (count,):
        problem = f"found shape {data.shape}, expected ({count},), as X has rows"
        raise PatchFileError(file.path, problem, dataset=name)
    return data


def _groups(file: Hdf5File, count: int) -> Groups:
    data = _column(file, "group", count)
    if is_text(data):
        return read_texts(file.path, "group", data)
    if data.data.dtype.kind not in "iu":
        problem = f"found {data.data.dtype}, expected integers or strings"
        raise PatchFileError(file.path, problem, dataset="group")
    groups = read_rows(file.path, "group", data)
    if groups.max() > np.iinfo(np.int64).max:
        return groups.astype(np.uint64)
    return groups.astype(np.int64)


def _split(file: Hdf5File, count: int) -> NDArray[np.object_]:
    data = _column(file, "split", count)
    if not is_text(data):
        raise PatchFileError(
            file.path, f"found {data.data.dtype}, expected strings", dataset="split"
        )
    names = read_texts(file.path, "split", data)
    known = np.array([name in SPLITS for name in names])
    if not known.all():
        row = int(np.argmin(known))
        name = names[row]
        found = repr(name) if name.strip() in SPLITS else repr(shown(name))
        problem = f"found {found}, expected one of {', '.join(SPLITS)}"
        raise PatchFileError(file.path, problem, dataset="split", row=row)
    return names


def _check_groups_are_whole(path: Path, groups: Groups, split: NDArray[np.object_]) -> None:
    _, first_row, inverse = np.unique(groups, return_index=True, return_inverse=True)
    torn = np.flatnonzero(split != split[first_row][inverse])
    if len(torn):
        row = int(torn[0])
        sides = f"{split[first_row[inverse[row]]]} and {split[row]}"
        problem = f"found {shown(str(groups[row]))} in {sides}, expected a group in one split"
        raise PatchFileError(path, problem, dataset="group", row=row)


class _KeptFile(io.FileIO):
    """A file whose writes never fail HDF5, which may crash then or later (h5py's issue 914).

    The first error is kept instead. What no longer fits is held in memory, since HDF5 may read it
    again before it has closed the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self.failure: BaseException | None = None
        self._held: list[tuple[int, bytes]] = []

    def write(self, data: Any) -> int:
        """Write all of `data`, or hold it and keep why it cannot be written."""
        start, rest = self.tell(), memoryview(data).cast("B")
        size = len(rest)
        try:
            while rest and not self.failure:
                rest = rest[super().write(rest) :]
        # A signal may raise anything in here, and that is no less a failure to HDF5.
        except BaseException as error:
            self.failure = error
        if rest:
            self._held.append((start, bytes(data)))
            self.seek(start + size)
        return size

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`; what neither the file nor the memory holds is left as it is."""
        view, start = memoryview(buffer).cast("B"), self.tell()
        filled = super().readinto(view) or 0
        for place, held in self._held:
            first, last = max(place, start), min(place + len(held), start + len(view))
            if first < last:
                view[first - start : last - start] = held[first - place : last - place]
                filled = max(filled, last - start)
        return filled

    def truncate(self, size: int | None = None) -> int:
        """Set the size, or keep why it cannot be set."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return self.tell() if size is None else size


class PatchWriter:
    """Appends patches to a new patch file whose length is known from the start.

    Use `new_patch_file`. `X` and `Y` are uint8; `X` is stored contiguously, so that
    `PatchFile.on_disk` works.
    """

    def __init__(
        self, path: Path, raw: _KeptFile, file: h5py.File, count: int, columns: Columns
    ) -> None:
        self._path = path
        self._raw = raw
        self._written = 0
        self._data_sets = {
            "X": file.create_dataset("X", (count, PATCH_SIZE, PATCH_SIZE), np.uint8),
            "Y": file.create_dataset("Y", (count,), np.uint8),
        }
        for name, dtype in columns.items():
            stored = h5py.string_dtype() if dtype.kind in "OU" else dtype
            self._data_sets[name] = file.create_dataset(name, (count,), stored)

    def append(self, patches: Patches, labels: Labels, **columns: NDArray) -> Self:
        """Add n patches.

        Parameters
        ----------
        patches
            (n, 50, 50) uint8.
        labels
            (n,) uint8, 1 for a nodule.
        columns
            (n,) each, exactly the columns that the file was made with.

        Raises
        ------
        OutputError
            If the disk is full, or takes no more for another reason.
        PatchFileError
            If a text could not be read back: see `check_text`.
        """
        end = self._written + len(patches)
        rows = {"X": patches, "Y": labels, **columns}
        for name, data_set in self._data_sets.items():
            if h5py.check_string_dtype(data_set.dtype):
                self._check_texts(name, rows[name])
            data_set[self._written : end] = rows[name]
        self._check()
        self._written = end
        return self

    def _check_texts(self, name: str, texts: NDArray) -> None:
        for row, text in enumerate(texts.tolist(), self._written):
            check_text(self._path, name, row, text)

    def _check(self) -> None:
        failure = self._raw.failure
        if isinstance(failure, OSError):
            raise cannot_write(self._path, failure)
        if failure:
            raise failure


@contextmanager
def new_patch_file(path: Path, count: int, columns: Columns | None = None) -> Iterator[PatchWriter]:
    """Make a patch file, which appears under its name only when the block ends well.

    Parameters
    ----------
    path
        The file to make or replace.
    count
        How many patches it will hold.
    columns
        Name and type of each further (N,) data set; strings have dtype object.

    Raises
    ------
    OutputError
        If the disk is full, or the file cannot be written for another reason.
    """
    with new_patch_files({path: count}, columns) as (writer,):
        yield writer


@contextmanager
def new_patch_files(
    counts: Mapping[Path, int], columns: Columns | None = None
) -> Iterator[Sequence[PatchWriter]]:
    """Make several patch files, which appear together when the block ends well: all or none.

    Parameters
    ----------
    counts
        How many patches each file will hold.
    columns
        As for `new_patch_file`, in each of them.
    """
    with replacing_all(list(counts)) as temporaries, ExitStack() as stack:
        yield [
            stack.enter_context(_writer(path, temporary, count, columns or {}))
            for (path, count), temporary in zip(counts.items(), temporaries, strict=True)
        ]


@contextmanager
def _writer(path: Path, temporary: Path, count: int, columns: Columns) -> Iterator[PatchWriter]:
    with _KeptFile(temporary) as raw:
        with h5py.File(raw, "w") as file:
            writer = PatchWriter(path, raw, file, count, columns)
            yield writer
        # Not all is written before HDF5 has closed the file.
        writer._check()
