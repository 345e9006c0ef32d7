"""Writing patch files: each appears whole under its name, or not at all."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from nodules.patches.hdf5_texts import check_text
from nodules.patches.layout import PATCH_SIZE, Columns, Labels, Patches
from nodules.system.atomic import cannot_write, replacing_all


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
        FileError
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
    FileError
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
