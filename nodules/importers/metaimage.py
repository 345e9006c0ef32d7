"""Read MetaImage files: a header (`.mhd`) and the voxels it describes.

MetaIO, SimpleITK's reader, reports success on damaged voxels and leaves missing ones uninitialised.
It also follows a header to any file on the machine. This module parses headers itself, and reads
voxels only from files next to the header that hold exactly what it describes. From valid files it
reads the same values as SimpleITK.
"""

import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from nodules.errors import FileError
from nodules.system.regular_file import open_regular
from nodules.system.streams import os_error_text, printable

ELEMENT_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",  # four bytes on every machine
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}

MAX_HEADER_BYTES = 2**20
MAX_LENGTH = 2**15
# 1024 x 1024 x 1000 voxels of 16 bits.
MAX_VOXEL_BYTES = 2**31
# CT compresses to a half or a third; deflate can expand data 1032-fold.
MAX_INFLATION = 100
SMALL_BYTES = 2**28

_READ_BYTES = 2**18
# Python would strip many other characters as white space.
_BLANKS = " \t\r"
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_PATTERN = re.compile(r"([^% ]*)%(0?)([1-9]?)d([^% ]*)((?: +[0-9]{1,9}){0,3})")
_LIST = re.compile(r"LIST(?: +2)?")
_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class MetaImage:
    """Content of a MetaImage header.

    Attributes
    ----------
    path
        Header file.
    size
        Voxels along x, y and z.
    dtype
        Type of a voxel, in the byte order of the file.
    spacing, origin
        Voxel spacing along x, y and z, and centre of the first voxel, in mm.
    direction
        (3, 3) float64. Columns are the direction cosines of x, y and z.
    modality
        Modality, such as `MET_MOD_CT`; empty if not given.
    files
        Names of the voxel files in the header's folder: one, or one per slice.
    start
        Number of bytes before the voxels in each file; -1 if the voxels are at its end.
    compressed
        Whether each file is a zlib or gzip stream.
    compressed_size
        Bytes of that stream; None if not given.
    """

    path: Path
    size: tuple[int, int, int]
    dtype: np.dtype
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: NDArray[np.float64]
    modality: str
    files: tuple[str, ...]
    start: int
    compressed: bool
    compressed_size: int | None

    @property
    def slice_bytes(self) -> int:
        """Uncompressed size of an axial slice in bytes."""
        return self.size[0] * self.size[1] * self.dtype.itemsize


def read_header(path: Path) -> MetaImage:
    """Read the header of a scan, without its voxels.

    Raises
    ------
    FileError
        If the header cannot be read, is ambiguous, or describes anything but a three-dimensional
        volume with one stored value per voxel.
    """
    try:
        with open_regular(path) as file:
            data = file.read(MAX_HEADER_BYTES)
    except OSError as error:
        problem = f"cannot be read ({os_error_text(error)}), expected a MetaImage header"
        raise FileError(path, problem) from None
    tags, length = _parse(path, data)
    return _Tags(path, tags).image(length, data[length:])


def read_slices(
    image: MetaImage, wanted: NDArray[np.int64]
) -> tuple[NDArray[np.number], tuple[float, float]]:
    """Read all voxels of a scan and keep some axial slices.

    Parameters
    ----------
    image
        Header, from `read_header`.
    wanted
        (n,) indices of the slices to keep.

    Returns
    -------
    volume
        (depth, height, width) in native byte order, zero outside the wanted slices. Only the
        wanted slices take up memory.
    extremes
        Minimum and maximum of the whole scan.

    Raises
    ------
    FileError
        If a voxel file is missing, is not a regular file, or does not hold exactly the voxels that
        the header describes.
    """
    width, height, depth = image.size
    volume = np.zeros((depth, height, width), image.dtype.newbyteorder("="))
    kept = set(wanted.tolist())
    lowest, highest = math.inf, -math.inf
    for z, data in enumerate(_slices(image)):
        voxels = np.frombuffer(data, image.dtype).reshape(height, width)
        lowest = min(lowest, float(np.fmin.reduce(voxels, axis=None)))
        highest = max(highest, float(np.fmax.reduce(voxels, axis=None)))
        if z in kept:
            volume[z] = voxels
    return volume, (lowest, highest)


def _slices(image: MetaImage) -> Iterator[bytes]:
    """Yield the bytes of each slice. They are verified only when the iterator is exhausted."""
    count = image.size[2] // len(image.files)
    for name in image.files:
        try:
            with open_regular(image.path.parent / name) as file:
                stored = _seek_voxels(image, name, file, count * image.slice_bytes)
                yield from _read(image, name, file, count, stored)
        except OSError as error:
            problem = f"cannot be read ({os_error_text(error)}), expected voxels"
            raise FileError(image.path, f"{printable(name, 60)}: {problem}") from None


def _seek_voxels(image: MetaImage, name: str, file: BinaryIO, expected: int) -> int:
    """Seek to the first byte of the voxels and return the number of bytes stored from there."""
    size = file.seek(0, 2)
    start = max(size - expected, 0) if image.start < 0 else image.start
    file.seek(start)
    stored = max(size - start, 0)
    if image.compressed:
        declared = image.compressed_size
        if stored != (stored if declared is None else declared):
            problem = f"found {stored:,} bytes, expected {declared:,} as CompressedDataSize says"
            raise FileError(image.path, f"{printable(name, 60)}: {problem}")
        if expected > max(SMALL_BYTES, MAX_INFLATION * stored):
            found = f"found {stored:,} bytes for {expected:,} bytes of voxels"
            problem = f"{found}, expected at least 1 byte per {MAX_INFLATION}"
            raise FileError(image.path, f"{printable(name, 60)}: {problem}")
    elif stored != expected:
        problem = f"found {stored:,} bytes of voxels, expected {expected:,}"
        raise FileError(image.path, f"{printable(name, 60)}: {problem}")
    return stored


def _read(image: MetaImage, name: str, file: BinaryIO, count: int, stored: int) -> Iterator[bytes]:
    stream = _Inflation(file, stored) if image.compressed else None
    read = stream.read if stream else file.read
    try:
        for _ in range(count):
            data = read(image.slice_bytes)
            if len(data) != image.slice_bytes:
                raise _DamagedError("ends too early")
            yield data
        if stream:
            stream.finish()
    except (_DamagedError, zlib.error) as error:
        found = f"found damaged voxels ({str(error).rpartition(': ')[2]})"
        whole = "a whole zlib stream of " if stream else ""
        expected = f"expected {whole}{count * image.slice_bytes:,} bytes"
        raise FileError(image.path, f"{printable(name, 60)}: {found}, {expected}") from None


class _DamagedError(Exception):
    """The voxel data end too early or too late."""


class _Inflation:
    """A zlib or gzip stream that is inflated no further than requested.

    Parameters
    ----------
    file
        File positioned at the first byte of the stream.
    stored
        Length of the stream in bytes.
    """

    def __init__(self, file: BinaryIO, stored: int) -> None:
        self._file = file
        self._left = stored
        self._inflate = zlib.decompressobj(wbits=47)  # accepts both formats, like MetaIO

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, or fewer if the stream ends earlier."""
        parts = []
        while size and not self._inflate.eof:
            compressed = self._inflate.unconsumed_tail or self._next()
            part = self._inflate.decompress(compressed, size)
            if not (compressed or part):
                break
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def finish(self) -> None:
        """Check that the stream ends here, its checksum is valid and nothing follows it."""
        if self.read(1):
            raise _DamagedError("continues after the last voxel")
        if not self._inflate.eof:
            raise _DamagedError("ends too early")
        if self._inflate.unused_data or self._left:
            raise _DamagedError("more bytes after the stream")

    def _next(self) -> bytes:
        data = self._file.read(min(_READ_BYTES, self._left))
        self._left -= len(data)
        return data


def _text(line: bytes) -> str:
    # File names are bytes in any encoding.
    return line.decode("utf-8", "surrogateescape").strip(_BLANKS)


def _parse(path: Path, data: bytes) -> tuple[dict[str, str], int]:
    """Return the values by key, with ElementDataFile last, and the length of the header."""
    tags: dict[str, str] = {}
    length = 0
    for number, line in enumerate(data.split(b"\n"), start=1):
        length += len(line) + 1
        text = _text(line)
        if not text:
            continue
        match = re.fullmatch(r"([^=:]*)[=:][ \t]*(.*)", text)
        if match is None or _CONTROL.search(text):
            problem = f"line {number}: found '{printable(text, 60)}', expected Key = Value"
            raise FileError(path, f"{problem}: not a MetaImage header")
        key, value = match[1].strip(_BLANKS), match[2]
        key = _SPELLING.get(key.lower(), key)
        if key in tags and key in _KEYS:
            raise FileError(
                path, f"{key}: found {printable(value, 60)} in line {number}, expected it once"
            )
        tags[key] = value
        if key == "ElementDataFile":
            return tags, length
    expected = f"expected it as the last key of a header of at most {MAX_HEADER_BYTES:,} bytes"
    raise FileError(path, f"ElementDataFile: found no such key, {expected}")


_ORIGIN = ("Offset", "Position", "Origin", "ImagePosition")
_DIRECTION = ("TransformMatrix", "Rotation", "Orientation")
_BYTE_ORDER = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
_KEYS = {
    *_ORIGIN,
    *_DIRECTION,
    *_BYTE_ORDER,
    *("ObjectType", "NDims", "DimSize", "ElementType", "ElementSpacing", "ElementSize"),
    *("BinaryData", "CompressedData", "CompressedDataSize", "HeaderSize"),
    *("ElementNumberOfChannels", "Modality", "DistanceUnits"),
    *("ElementToIntensityFunctionSlope", "ElementToIntensityFunctionOffset"),
}


# Some writers use other cases of the letters.
_SPELLING = {key.lower(): key for key in (*_KEYS, "ElementDataFile")}


@dataclass(frozen=True)
class _Tags:
    path: Path
    values: dict[str, str]

    def image(self, length: int, rest: bytes) -> MetaImage:
        """Check and return the header, which is `length` bytes long and followed by `rest`."""
        self._expect_fixed()
        size = self._size()
        dtype = self._dtype()
        needed = math.prod(size) * dtype.itemsize
        if needed > MAX_VOXEL_BYTES:
            found = f"found {needed:,} bytes of voxels"
            raise self._error("DimSize", f"{found}, expected at most {MAX_VOXEL_BYTES:,}")
        compressed = self._flag("CompressedData", default=False)
        files, start = self._files(size[2], length, rest)
        if compressed and start < 0:
            problem = "found -1 for compressed voxels, expected the number of bytes before them"
            raise self._error("HeaderSize", problem)
        sizes = self._whole("CompressedDataSize", 1, min_value=1)
        # The voxel size, which is the default for the spacing.
        element = self._numbers("ElementSize", 3) or (1.0, 1.0, 1.0)
        direction = self._same(_DIRECTION, _IDENTITY)
        return MetaImage(
            path=self.path,
            size=size,
            dtype=dtype,
            spacing=self._numbers("ElementSpacing", 3) or element,
            origin=self._same(_ORIGIN, (0.0, 0.0, 0.0)),
            # In the header, the cosines of an axis form a row.
            direction=np.array(direction).reshape(3, 3).T,
            modality=self.values.get("Modality", ""),
            files=files,
            start=start,
            compressed=compressed,
            compressed_size=sizes[0] if compressed and sizes else None,
        )

    def _expect_fixed(self) -> None:
        self._expect("ObjectType", {"Image"}, required=False)
        self._expect("NDims", {"3"})
        self._expect("ElementNumberOfChannels", {"1"}, required=False)
        self._expect("DistanceUnits", {"mm", "?"}, required=False)
        if not self._flag("BinaryData", default=True):
            raise self._error("BinaryData", "found voxels as text, expected True")
        for name, identity in (("Slope", 1.0), ("Offset", 0.0)):
            key = f"ElementToIntensityFunction{name}"
            if self._numbers(key, 1) not in (None, (identity,)):
                # SimpleITK ignores this function; other readers apply it.
                problem = (
                    f"found {printable(self.values[key], 60)}, expected {identity:g}: apply it"
                )
                raise self._error(key, f"{problem} to the voxels and store the result")

    def _size(self) -> tuple[int, int, int]:
        sizes = self._whole("DimSize", 3, min_value=1)
        if sizes is None:
            raise self._error("DimSize", "found no such key, expected 3 whole numbers")
        if max(sizes) > MAX_LENGTH:
            problem = f"found {max(sizes):,} voxels along an axis, expected at most {MAX_LENGTH:,}"
            raise self._error("DimSize", problem)
        x, y, z = sizes
        return x, y, z

    def _dtype(self) -> np.dtype:
        self._expect("ElementType", set(ELEMENT_TYPES))
        flags = {self._flag(key, default=False) for key in _BYTE_ORDER if key in self.values}
        if len(flags) > 1:
            raise self._error(_BYTE_ORDER[1], f"found another value than {_BYTE_ORDER[0]}")
        order = ">" if True in flags else "<"
        return np.dtype(order + ELEMENT_TYPES[self.values["ElementType"]])

    def _files(self, depth: int, length: int, rest: bytes) -> tuple[tuple[str, ...], int]:
        """Return the voxel files, and the number of bytes before the voxels in each."""
        value = self.values["ElementDataFile"]
        (start,) = self._whole("HeaderSize", 1, min_value=-1) or (0,)
        if value in ("LOCAL", "Local", "local"):
            if start not in (0, -1, length):
                problem = f"found {start} with voxels in the same file, expected {length}"
                raise self._error("HeaderSize", problem)
            return (self.path.name,), length
        lines = [text for line in rest.split(b"\n") if (text := _text(line))]
        listed = _LIST.fullmatch(value) is not None
        if lines and not listed:
            problem = f"found '{printable(lines[0], 60)}' after this key, expected it last"
            raise self._error("ElementDataFile", problem)
        if len(rest) + length >= MAX_HEADER_BYTES:
            problem = f"found a longer header, expected at most {MAX_HEADER_BYTES:,} bytes"
            raise FileError(self.path, problem)
        names = lines if listed else self._numbered(value) if "%" in value else [value]
        if len(names) != (depth if listed or "%" in value else 1):
            problem = f"found {len(names):,} files for {depth:,} slices, expected one per slice"
            raise self._error("ElementDataFile", problem)
        for name in names:
            if (
                re.search(r"[/\\]", name)
                or _CONTROL.search(name)
                or name in ("", ".", "..", self.path.name)
            ):
                problem = (
                    f"found '{printable(name, 60)}', expected the name of a file next to the header"
                )
                raise self._error("ElementDataFile", problem)
        if len(set(names)) < len(names):
            raise self._error("ElementDataFile", "found a file twice, expected one per slice")
        return tuple(names), start

    def _numbered(self, value: str) -> list[str]:
        """Expand `name%03d.raw MIN MAX STEP` to one file per slice, without printf."""
        match = _PATTERN.fullmatch(value)
        depth = self._size()[2]
        numbers = [int(text) for text in match[5].split()] if match else []
        first, last, step = (*numbers, *(1, depth, 1)[len(numbers) :])
        if len(numbers) == 1:
            last = first + depth - 1
        if match is None or step < 1:
            expected = "expected one number, as in slice%03d.raw 1 100 1"
            raise self._error("ElementDataFile", f"found '{printable(value, 60)}', {expected}")
        counted = range(first, last + 1, step)
        if len(counted) != depth:
            problem = f"found {len(counted):,} files for {depth:,} slices, expected one per slice"
            raise self._error("ElementDataFile", problem)
        before, zero, width, after = match.group(1, 2, 3, 4)
        return [f"{before}{number:{zero}{width}d}{after}" for number in counted]

    def _same(self, keys: tuple[str, ...], default: tuple[float, ...]) -> tuple[float, ...]:
        """Return the numbers of `keys`, which are synonyms and must not contradict each other."""
        given = [
            (key, self._numbers(key, len(default)) or ()) for key in keys if key in self.values
        ]
        for key, numbers in given[1:]:
            if numbers != given[0][1]:
                raise self._error(key, f"found other numbers than {given[0][0]}, expected the same")
        return given[0][1] if given else default

    def _numbers(self, key: str, count: int) -> tuple[float, ...] | None:
        if key not in self.values:
            return None
        words = re.split(r"[ \t]+", self.values[key])
        if len(words) != count or not all(map(_NUMBER.fullmatch, words)):
            expected = f"expected {count} number{'s' * (count > 1)}"
            raise self._error(key, f"found '{printable(self.values[key], 60)}', {expected}")
        return tuple(map(float, words))

    def _whole(self, key: str, count: int, min_value: int) -> tuple[int, ...] | None:
        numbers = self._numbers(key, count)
        if numbers is None:
            return None
        if not all(number >= min_value and number.is_integer() for number in numbers):
            expected = f"expected whole number{'s' * (count > 1)}, {min_value} or more"
            raise self._error(key, f"found '{printable(self.values[key], 60)}', {expected}")
        return tuple(map(int, numbers))

    def _flag(self, key: str, *, default: bool) -> bool:
        value = self.values.get(key, str(default)).lower()
        if value not in ("true", "t", "1", "false", "f", "0"):
            raise self._error(
                key, f"found '{printable(self.values[key], 60)}', expected True or False"
            )
        return value in ("true", "t", "1")

    def _expect(self, key: str, allowed: set[str], *, required: bool = True) -> None:
        value = self.values.get(key)
        if value in allowed or (value is None and not required):
            return
        found = "found no such key" if value is None else f"found '{printable(value, 60)}'"
        raise self._error(key, f"{found}, expected {' or '.join(sorted(allowed))}")

    def _error(self, key: str, problem: str) -> FileError:
        return FileError(self.path, f"{key}: {problem}")
