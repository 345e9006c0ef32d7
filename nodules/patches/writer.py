"""Write patch files atomically: each appears complete under its name, or not at all."""

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
    """A file that hides write errors from HDF5, which may crash on them (h5py issue 914).

    The first error is stored instead. Data that could not be written are held in memory, since
    HDF5 may read them back before it closes the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self.failure: BaseException | None = None
        self._held: list[tuple[int, bytes]] = []

    def write(self, data: Any) -> int:
        """Write all of `data`; on failure, store the error and hold the data in memory."""
        start, rest = self.tell(), memoryview(data).cast("B")
        size = len(rest)
        try:
            while rest and not self.failure:
                rest = rest[super().write(rest) :]
        # A signal handler may raise any exception here, which HDF5 must not see either.
        except BaseException as error:
            self.failure = error
        if rest:
            self._held.append((start, bytes(data)))
            self.seek(start + size)
        return size

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` from the file and the held data; leave the rest unchanged."""
        view, start = memoryview(buffer).cast("B"), self.tell()
        filled = super().readinto(view) or 0
        for place, held in self._held:
            first, last = max(place, start), min(place + len(held), start + len(view))
            if first < last:
                view[first - start : last - start] = held[first - place : last - place]
                filled = max(filled, last - start)
        return filled

    def truncate(self, size: int | None = None) -> int:
        """Set the size; on failure, store the error."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return self.tell() if size is None else size


class PatchWriter:
    """Writer that appends patches to a new patch file of known length.

    Use `new_patch_file` to create one. `X` and `Y` are uint8; `X` is stored contiguously, as
    `PatchFile.on_disk` requires.
    """

    def __init__(
        self,
        path: Path,
        raw: _KeptFile,
        file: h5py.File,
        count: int,
        columns: Columns,
        *,
        labelled: bool,
    ) -> None:
        self._path = path
        self._raw = raw
        self._written = 0
        patches = file.create_dataset("X", (count, PATCH_SIZE, PATCH_SIZE), np.uint8)
        self._data_sets = {"X": patches}
        if labelled:
            self._data_sets["Y"] = file.create_dataset("Y", (count,), np.uint8)
        for name, dtype in columns.items():
            stored = h5py.string_dtype() if dtype.kind in "OU" else dtype
            self._data_sets[name] = file.create_dataset(name, (count,), stored)

    def append(self, patches: Patches, labels: Labels | None, **columns: NDArray) -> Self:
        """Add n patches.

        Parameters
        ----------
        patches
            (n, 50, 50) uint8.
        labels
            (n,) uint8, 1 for a nodule; None if the file was created without labels.
        columns
            (n,) each; exactly the columns that the file was created with.

        Raises
        ------
        FileError
            If the disk is full, or writing fails for another reason.
        PatchFileError
            If a string could not be read back (see `check_text`).
        """
        end = self._written + len(patches)
        rows = {"X": patches, **columns}
        if labels is not None:
            rows["Y"] = labels
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
def new_patch_file(
    path: Path, count: int, columns: Columns | None = None, *, labelled: bool = True
) -> Iterator[PatchWriter]:
    """Create a patch file that appears under its name only if the block succeeds.

    Parameters
    ----------
    path
        File to create or replace.
    count
        Number of patches.
    columns
        Name and type of each additional (N,) data set; strings have dtype object.
    labelled
        Whether the file has `Y`.

    Raises
    ------
    FileError
        If the disk is full, or the file cannot be written for another reason.
    """
    with new_patch_files({path: count}, columns, labelled=labelled) as (writer,):
        yield writer


@contextmanager
def new_patch_files(
    counts: Mapping[Path, int], columns: Columns | None = None, *, labelled: bool = True
) -> Iterator[Sequence[PatchWriter]]:
    """Create several patch files that appear together, only if the block succeeds.

    Parameters
    ----------
    counts
        Number of patches of each file.
    columns, labelled
        Additional data sets of each file, and whether it has `Y`, as in `new_patch_file`.
    """
    with replacing_all(list(counts)) as temporaries, ExitStack() as stack:
        yield [
            stack.enter_context(_writer(path, temporary, count, columns or {}, labelled=labelled))
            for (path, count), temporary in zip(counts.items(), temporaries, strict=True)
        ]


@contextmanager
def _writer(
    path: Path, temporary: Path, count: int, columns: Columns, *, labelled: bool
) -> Iterator[PatchWriter]:
    with _KeptFile(temporary) as raw:
        with h5py.File(raw, "w") as file:
            writer = PatchWriter(path, raw, file, count, columns, labelled=labelled)
            yield writer
        # HDF5 writes the rest when it closes the file.
        writer._check()
