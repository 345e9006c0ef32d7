"""Reading a NumPy archive laid out as those of MedMNIST (https://medmnist.com) into a patch file.

An archive is read as a stream, not by `numpy.load`, which would take a whole array into memory.
"""

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from tqdm import tqdm

from nodules.errors import PatchFileError
from nodules.importers.stack import Stack
from nodules.output import check_output
from nodules.patches import SPLITS, Labels, Patches, new_patch_file

CHANNELS = (1, 3)


def import_npz(path: Path, out: Path, *, nodule: int = 1) -> list[str]:
    """Resample the images of a binary set to 50x50 and keep its split.

    Parameters
    ----------
    path
        Archive with `train_images` and `train_labels`, `val_*` and perhaps `test_*`. Images are
        (n, H, W), or (n, H, W, 3) with equal channels, uint8 in 0..255 or float in 0..1; labels
        are (n,) or (n, 1) of 0 and 1.
    out
        Patch file to write, with `X`, `Y` and `split`.
    nodule
        The label that stands for a nodule.

    Returns
    -------
    list of str
        What was written and what was noticed, a line each.

    Raises
    ------
    PatchFileError
        If the archive breaks this layout. Arrays of objects are refused, never unpickled.
    OutputError
        If `out` is the same file.
    """
    check_output(out, [path])
    with _open_archive(path) as archive:
        arrays = {name.removesuffix(".npy") for name in archive.namelist()}
        splits = [split for split in SPLITS if arrays & set(_names(split))]
        needed = [name for split in {"train", "val", *splits} for name in _names(split)]
        if not arrays.issuperset(needed):
            found = ", ".join(sorted(arrays)) or "nothing"
            expected = ", ".join(name for split in SPLITS for name in _names(split))
            raise PatchFileError(path, f"found {found}; expected {expected}")
        labels = {split: _read_labels(path, archive, split) for split in splits}
        stacks = {
            split: _check_images(path, archive, split, len(labels[split])) for split in splits
        }
        total = sum(map(len, labels.values()))
        with (
            new_patch_file(out, total, {"split": np.dtype(object)}) as file,
            tqdm(total=total, desc="import", unit="patch") as progress,
        ):
            for split, stack in stacks.items():
                is_nodule = (labels[split] == nodule).astype(np.uint8)
                for start, patches in _patches(path, archive, stack):
                    rows = slice(start, start + len(patches))
                    names = np.full(len(patches), split, dtype=object)
                    file.append(patches, is_nodule[rows], split=names)
                    progress.update(len(patches))
    nodules = sum(int((split == nodule).sum()) for split in labels.values())
    counts = ", ".join(f"{split} {len(labels[split]):,}" for split in splits)
    notes = [note for stack in stacks.values() for note in stack.notes()]
    return [f"{counts}; {nodules:,} nodules (label {nodule})", *notes]


@dataclass(frozen=True)
class _Array:
    """An array of an archive, its header read."""

    path: Path
    stream: IO[bytes]
    shape: tuple[int, ...]
    dtype: np.dtype

    def read(self, count: int) -> NDArray:
        """Read the next `count` rows."""
        size = math.prod(self.shape[1:]) * count * self.dtype.itemsize
        with _reading(self.path):
            raw = self.stream.read(size)
            if len(raw) < size:
                raise EOFError("an array ends early")
        return np.frombuffer(raw, self.dtype).reshape(count, *self.shape[1:])


def _names(split: str) -> tuple[str, str]:
    return f"{split}_images", f"{split}_labels"


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        problem = f"cannot be read ({reason}), expected a NumPy archive (.npz)"
        raise PatchFileError(path, problem) from None


@contextmanager
def _open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    with ExitStack() as opened:
        with _reading(path):
            archive = opened.enter_context(zipfile.ZipFile(path))
        yield archive


@contextmanager
def _open_array(path: Path, archive: zipfile.ZipFile, name: str) -> Iterator[_Array]:
    with ExitStack() as opened:
        with _reading(path):
            stream = opened.enter_context(archive.open(f"{name}.npy"))
            try:
                version = npy.read_magic(stream)
                read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                shape, fortran_order, dtype = read(stream)
            except ValueError as error:
                problem = f"found no NumPy array ({' '.join(str(error).split())})"
                raise PatchFileError(path, problem, dataset=name) from None
        if dtype.hasobject:
            problem = "found Python objects, which are never unpickled; expected numbers"
            raise PatchFileError(path, problem, dataset=name)
        if fortran_order and len(shape) > 1:
            problem = "found columns first, expected rows first (numpy.ascontiguousarray)"
            raise PatchFileError(path, problem, dataset=name)
        yield _Array(path, stream, shape, dtype)


def _read_labels(path: Path, archive: zipfile.ZipFile, split: str) -> Labels:
    name = _names(split)[1]
    with _open_array(path, archive, name) as array:
        shape, dtype = array.shape, array.dtype
        if shape[1:] not in ((), (1,)) or not shape or dtype.kind not in "uifb":
            problem = f"found {dtype} of shape {shape}, expected numbers of shape (n,) or (n, 1)"
            raise PatchFileError(path, problem, dataset=name)
        labels = array.read(shape[0]).ravel()
    binary = np.isin(labels, (0, 1))
    if not binary.all():
        row = int(np.argmin(binary))
        problem = f"found label {labels[row]}, expected 0 or 1: a set of two classes"
        raise PatchFileError(path, problem, dataset=name, row=row)
    return labels.astype(np.uint8)


def _check_images(path: Path, archive: zipfile.ZipFile, split: str, count: int) -> Stack:
    name = _names(split)[0]
    with _open_array(path, archive, name) as array:
        shape = array.shape
        if len(shape) != 3 and (len(shape) != 4 or shape[3] not in CHANNELS):
            problem = f"found shape {shape}, expected (n, H, W), (n, H, W, 1) or (n, H, W, 3)"
            raise PatchFileError(path, problem, dataset=name)
        if shape[0] != count:
            problem = f"found {shape[0]:,} images, expected {count:,} as there are labels"
            raise PatchFileError(path, problem, dataset=name)
        return Stack(path, name, shape, array.dtype)


def _patches(path: Path, archive: zipfile.ZipFile, stack: Stack) -> Iterator[tuple[int, Patches]]:
    with _open_array(path, archive, stack.name) as array:
        for start in range(0, stack.count, stack.block):
            images = array.read(min(stack.block, stack.count - start))
            if images.ndim > 3:
                images = _one_channel(stack, images, start)
            yield start, stack.convert(images, start)


def _one_channel(stack: Stack, images: NDArray, start: int) -> NDArray:
    grey = (images == images[..., :1]).all(axis=(1, 2, 3))
    if not grey.all():
        row = start + int(np.argmin(grey))
        problem = "found colour, expected grey images, or RGB whose channels are equal"
        raise PatchFileError(stack.path, problem, dataset=stack.name, row=row)
    return images[..., 0]
