"""Convert a NumPy archive laid out like MedMNIST's (https://medmnist.com) to a patch file.

Archives are streamed, since `numpy.load` would read whole arrays into memory. The shape and type
that an array declares are compared with the size of its member before any data is read.
"""

import io
import math
import struct
import tokenize
import warnings
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
from nodules.patches.hdf5_storage import MAX_RATIO, SMALL_BYTES
from nodules.patches.layout import SPLITS, Labels, Patches
from nodules.patches.summary import counted
from nodules.patches.writer import new_patch_file
from nodules.system.atomic import check_output
from nodules.system.regular_file import check_regular_file
from nodules.system.streams import error_text, os_error_text, printable

CHANNELS = (1, 3)

# NumPy's own limit.
MAX_HEADER_BYTES = 10_000
LOCAL_HEADER_BYTES = 30

# Exceptions that zipfile and zlib raise, or may raise, on damaged archives.
_DAMAGE = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
    OverflowError,
    MemoryError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
# Exceptions that NumPy raises on invalid headers, which it parses as Python literals.
_BAD_HEADER = (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError)


def import_npz(path: Path, out: Path, *, nodule: int = 1) -> list[str]:
    """Resample the images of a binary data set to 50x50 and keep its split.

    Parameters
    ----------
    path
        Archive with `train_images`, `train_labels`, `val_*` and optionally `test_*`. Images are
        (n, H, W), (n, H, W, 1), or (n, H, W, 3) with equal channels, uint8 in 0..255 or float in
        0..1. Labels are (n,) or (n, 1), all 0 or 1.
    out
        Patch file to write, with `X`, `Y` and `split`.
    nodule
        Label of the nodules.

    Returns
    -------
    list of str
        Summary of what was written, then notes; one line each.

    Raises
    ------
    PatchFileError
        If the archive breaks this layout. Object arrays are refused, never unpickled.
    FileError
        If `out` is the input file.
    """
    check_output(out, [path])
    with _open_archive(path) as archive:
        arrays = {_array_name(member) for member in archive.infolist()}
        splits = [split for split in SPLITS if arrays & set(_names(split))]
        needed = [name for split in {"train", "val", *splits} for name in _names(split)]
        if not arrays.issuperset(needed):
            found = ", ".join(printable(name, 60) for name in sorted(arrays)[:10]) or "nothing"
            expected = ", ".join(name for split in SPLITS for name in _names(split))
            raise PatchFileError(path, f"found {found}; expected {expected}")
        # All headers are checked before any data is read.
        counts = {split: _check_labels(path, archive, split) for split in splits}
        stacks = {split: _check_images(path, archive, split, counts[split]) for split in splits}
        labels = {split: _read_labels(path, archive, split) for split in splits}
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
    summary = ", ".join(f"{split} {counts[split]:,}" for split in splits)
    notes = [note for stack in stacks.values() for note in stack.notes()]
    return [f"{summary}; {counted(nodules, 'nodule')} (label {nodule})", *notes]


@dataclass(frozen=True)
class _Array:
    """An open array of an archive, positioned after its header."""

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
                raise EOFError("an array is truncated")
        return np.frombuffer(raw, self.dtype).reshape(count, *self.shape[1:])


def _names(split: str) -> tuple[str, str]:
    return f"{split}_images", f"{split}_labels"


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        found = os_error_text(error) if isinstance(error, OSError) else error_text(error)
        problem = f"cannot be read ({found}), expected a NumPy archive (.npz)"
        raise PatchFileError(path, problem) from None


@contextmanager
def _open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    with ExitStack() as opened:
        with _reading(path):
            check_regular_file(path, "a NumPy archive (.npz)")
            archive = opened.enter_context(zipfile.ZipFile(path))
        _check_members(path, archive.infolist())
        yield archive


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """Refuse members with equal names or overlapping bytes."""
    end = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        if member.header_offset < end:
            name = printable(_array_name(member), 60)
            problem = "found bytes that also belong to another member"
            raise PatchFileError(path, problem, dataset=name)
        end = member.header_offset + LOCAL_HEADER_BYTES + member.compress_size
    if end > path.stat().st_size:
        raise PatchFileError(path, "found a member beyond the end of the file")
    known = set()
    for name in map(_array_name, members):
        if name in known:
            problem = "found twice in the archive, expected one array of this name"
            raise PatchFileError(path, problem, dataset=printable(name, 60))
        known.add(name)


def _array_name(member: zipfile.ZipInfo) -> str:
    """Return the name of a member's array. Like NumPy, accept a missing suffix."""
    return member.filename.removesuffix(".npy")


@contextmanager
def _open_array(path: Path, archive: zipfile.ZipFile, name: str) -> Iterator[_Array]:
    member = next(each for each in archive.infolist() if _array_name(each) == name)
    _check_compression(path, name, member)
    with ExitStack() as opened:
        with _reading(path):
            stream = opened.enter_context(archive.open(member))
            try:
                shape, fortran_order, dtype, header_bytes = _read_header(stream)
            except _BAD_HEADER as error:
                problem = f"found no NumPy array ({error_text(error)})"
                raise PatchFileError(path, problem, dataset=name) from None
        if dtype.hasobject:
            problem = "found Python objects, which are never unpickled; expected numbers"
            raise PatchFileError(path, problem, dataset=name)
        if fortran_order and len(shape) > 1:
            problem = "found column-major order, expected row-major (numpy.ascontiguousarray)"
            raise PatchFileError(path, problem, dataset=name)
        size = member.file_size - header_bytes
        needed = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or size != needed:
            problem = f"found {size:,} bytes of data, expected {needed:,} for shape {shape}"
            raise PatchFileError(path, problem, dataset=name)
        yield _Array(path, stream, shape, dtype)


def _check_compression(path: Path, name: str, member: zipfile.ZipInfo) -> None:
    """Refuse a member with an extreme compression ratio, or a method of unbounded memory."""
    problem = ""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        problem = "found a compression that NumPy never uses, expected none or deflate"
    elif member.file_size > max(SMALL_BYTES, MAX_RATIO * member.compress_size):
        found = f"found {member.compress_size:,} bytes that expand to {member.file_size:,}"
        problem = f"{found}, expected at most {MAX_RATIO} times as many"
    if problem:
        raise PatchFileError(path, problem, dataset=name)


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Read a .npy header; return shape, whether it is column-major, type, and header size.

    Raises
    ------
    ValueError
        Or another exception of `_BAD_HEADER`, if the header is invalid.
    """
    start = stream.read(8)
    version = npy.read_magic(io.BytesIO(start))
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"format version {version[0]}.{version[1]}, expected 1.0, 2.0 or 3.0")
    length = stream.read(2 if version == (1, 0) else 4)
    size = int.from_bytes(length, "little")
    if size > MAX_HEADER_BYTES:
        raise ValueError(f"a header of {size:,} bytes, expected at most {MAX_HEADER_BYTES:,}")
    header = io.BytesIO(length + stream.read(size))
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    with warnings.catch_warnings():
        # Python 2 wrote 28 as 28L, which NumPy reads with a warning.
        warnings.simplefilter("ignore")
        shape, fortran_order, dtype = read(header, max_header_size=MAX_HEADER_BYTES)
    return shape, fortran_order, dtype, len(start) + len(length) + size


def _check_labels(path: Path, archive: zipfile.ZipFile, split: str) -> int:
    """Check the type and shape of a split's labels; return their number."""
    name = _names(split)[1]
    with _open_array(path, archive, name) as array:
        shape, dtype = array.shape, array.dtype
    if shape[1:] not in ((), (1,)) or not shape or dtype.kind not in "uifb":
        problem = f"found {dtype} of shape {shape}, expected numbers of shape (n,) or (n, 1)"
        raise PatchFileError(path, problem, dataset=name)
    return shape[0]


def _read_labels(path: Path, archive: zipfile.ZipFile, split: str) -> Labels:
    name = _names(split)[1]
    with _open_array(path, archive, name) as array:
        labels = array.read(array.shape[0]).ravel()
    if labels.dtype.kind == "b":
        labels = labels.view(np.uint8)  # stored bytes may differ from 0 and 1
    binary = np.isin(labels, (0, 1))
    if not binary.all():
        row = int(np.argmin(binary))
        problem = f"found label {labels[row]}, expected 0 or 1: a binary data set"
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
            problem = f"found {shape[0]:,} images, expected {count:,}, one per label"
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
        problem = "found colour, expected grey images, or RGB with equal channels"
        raise PatchFileError(stack.path, problem, dataset=stack.name, row=row)
    return images[..., 0]
