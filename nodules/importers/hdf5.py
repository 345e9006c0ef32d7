"""Resizing the patches of an HDF5 file that is a patch file but for their size."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nodules.atomic import replacing
from nodules.errors import PatchFileError
from nodules.importers.grey import Window
from nodules.importers.output import check_output
from nodules.importers.stack import Stack
from nodules.patches import PATCH_SIZE, Labels, PatchFile, new_patch_file, open_patches

CARRIED = ("Y", "group", "split")


def import_hdf5(path: Path, out: Path, *, window: Window | None = None) -> list[str]:
    """Resample `X` to 50x50 and carry `Y`, `group` and `split` over.

    Parameters
    ----------
    path
        HDF5 file with `X` of (N, H, W) or (N, H, W, 1), uint8 in 0..255 or float in 0..1, and
        whatever else a patch file holds. `Y` is optional: patches may be there to be scored.
    out
        Patch file to write.
    window
        Values of `X` that become grey 0 and 255. With it `X` may hold any numbers.

    Returns
    -------
    list of str
        What was written and what was noticed, a line each.

    Raises
    ------
    PatchFileError
        If the file breaks this layout.
    OutputError
        If `out` is the same file.
    """
    check_output(out, [path])
    with _open(path) as file:
        data = _images(path, file)
        stack = Stack(path, "X", data.shape, data.dtype, window)
        with _carried(path, file, stack.count) as checked:
            labels = checked.known_labels
            named = (("group", checked.groups), ("split", checked.split))
            columns: dict[str, NDArray] = {k: col for k, col in named if col is not None}
        if labels is not None:
            _write(out, stack, data, labels, columns)
        else:
            # A new patch file has labels; what is there to be scored has none.
            with replacing(out) as unfinished:
                _write(unfinished, stack, data, np.zeros(stack.count, np.uint8), columns)
                with h5py.File(unfinished, "r+") as patches:
                    del patches["Y"]
        left_out = sorted({*file} - {"X", *CARRIED})
    lines = [f"{stack.count:,} patches from {stack.height}x{stack.width} pixels", *stack.notes()]
    if left_out:
        lines.append(f"left out: {', '.join(left_out)}")
    return lines


def _write(
    out: Path, stack: Stack, data: h5py.Dataset, labels: Labels, columns: Mapping[str, NDArray]
) -> None:
    dtypes = {name: column.dtype for name, column in columns.items()}
    with (
        new_patch_file(out, stack.count, dtypes) as patches,
        tqdm(total=stack.count, desc="import", unit="patch") as progress,
    ):
        for start in range(0, stack.count, stack.block):
            rows = slice(start, min(start + stack.block, stack.count))
            images = _read(stack.path, data, rows).reshape(-1, stack.height, stack.width)
            extra = {name: column[rows] for name, column in columns.items()}
            patches.append(stack.convert(images, start), labels[rows], **extra)
            progress.update(len(images))


@contextmanager
def _open(path: Path) -> Iterator[h5py.File]:
    if not path.is_file():
        raise PatchFileError(path, "no such file, expected an HDF5 file")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise PatchFileError(path, f"not a readable HDF5 file ({error})") from None
    with file:
        yield file


def _images(path: Path, file: h5py.File) -> h5py.Dataset:
    data = file.get("X")
    if not isinstance(data, h5py.Dataset):
        names = ", ".join(file) or "nothing"
        raise PatchFileError(path, f"found {names}; expected a data set of this name", dataset="X")
    shape = data.shape or ()
    if len(shape) != 3 and (len(shape), *shape[3:]) != (4, 1):
        problem = f"found shape {shape}, expected (N, height, width) or (N, height, width, 1)"
        raise PatchFileError(path, problem, dataset="X")
    return data


def _read(path: Path, data: h5py.Dataset, rows: slice) -> NDArray:
    try:
        return data[rows]
    except OSError as error:
        problem = f"cannot be read: damaged, or compressed by an unknown method ({error})"
        raise PatchFileError(path, problem, dataset="X") from None


@contextmanager
def _carried(path: Path, file: h5py.File, count: int) -> Iterator[PatchFile]:
    """Open what is carried over as `open_patches` opens and checks it, beside an empty `X`."""
    with TemporaryDirectory() as folder:
        frame = Path(folder) / "frame.h5"
        with h5py.File(frame, "w") as patches:
            # Nothing is written to it, so that it takes no room.
            patches.create_dataset("X", (count, PATCH_SIZE, PATCH_SIZE), np.uint8)
            for name in CARRIED:
                if name in file:
                    patches[name] = h5py.ExternalLink(path.resolve(), name)
        try:
            with open_patches(frame, labelled=False) as opened:
                yield opened
        except PatchFileError as error:
            # What it says is of `path`.
            problem = str(error).removeprefix(f"{frame}: ")
            raise PatchFileError(path, problem) from None
