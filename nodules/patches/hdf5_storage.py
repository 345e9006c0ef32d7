"""Read the stored bytes of HDF5 data sets without the HDF5 library.

The library inflates a chunk to any size, whatever size the data set declares, reads beyond the end
of an inflated chunk, and accepts many chunks at one file position. Here each stored piece must have
its own place in the file, and each filter is undone with an upper bound on its output. The library
is used only once, when a data set is opened, to locate the pieces.
"""

import itertools
import math
import os
import weakref
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

LZF = 32000
KNOWN_FILTERS = "none, gzip, lzf, shuffle or fletcher32"

# Measured data hardly compress to a tenth. Large data beyond this ratio cannot be measured.
MAX_RATIO = 100
SMALL_BYTES = 64 * 2**20
# Chunks are decoded whole, so large ones are accepted only from large files.
LARGE_CHUNK_BYTES = 2**28
MAX_CHUNK_RATIO = 10
# Size of the cache of decoded chunks; neighbouring rows often share a chunk.
CACHE_BYTES = 2**26


class StorageError(ValueError):
    """The stored data contradict the structure that the file declares."""


class Filter(NamedTuple):
    """A step of the filter pipeline that was applied when a chunk was written."""

    code: int
    options: tuple[int, ...]


class Pieces(NamedTuple):
    """File offsets and sizes in bytes, each (n,), of the stored pieces of a data set."""

    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]


class _Chunks(NamedTuple):
    """The chunks of a data set, in order of position (last axis fastest)."""

    pieces: Pieces
    masks: NDArray[np.uint32]  # one bit per filter; set if the chunk was stored without it
    shape: tuple[int, ...]
    grid: tuple[int, ...]  # chunks along each axis


class StoredArray:
    """An HDF5 data set whose rows are read directly from the file, without the HDF5 library.

    Parameters
    ----------
    path
        HDF5 file.
    data
        Data set of that file, with a shape.

    Attributes
    ----------
    data
        The data set.
    shape
        Shape of the data set.
    dtype
        Type that `read` returns: the type of the data set, uint8 for bool, and `text_reference`
        records for variable-length strings.
    pieces
        Position of the data in the file; empty for a compact data set.
    contiguous_offset
        File offset of the data if they are stored contiguously, otherwise None.

    Raises
    ------
    StorageError
        If the data are not completely stored in this file, pieces overlap, the compression ratio
        is absurd, or a filter is not supported.
    """

    def __init__(self, path: Path, data: h5py.Dataset) -> None:
        check_sizes(data)
        self.data = data
        self.shape: tuple[int, ...] = data.shape
        self.dtype, self._stored_type = _types(data)
        self._item_bytes = _item_bytes(data)
        self._filters = _filters(data)
        self._cache: OrderedDict[int, NDArray] = OrderedDict()
        self._chunks = None if data.chunks is None else _chunks(data)
        self.pieces = _single_piece(data) if self._chunks is None else self._chunks.pieces
        check_pieces([self.pieces], path.stat().st_size)
        self._chunk_bytes = math.prod(data.chunks or ()) * self._item_bytes
        self._check_chunk_size()
        one_piece = self._chunks is None and len(self.pieces.offsets) > 0
        self.contiguous_offset = int(self.pieces.offsets[0]) if one_piece else None
        # A compact data set is part of the file's structure, and at most 64 kB.
        self._compact = None if one_piece or self._chunks else _read_compact(data, self.dtype)
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        # Called by `close`, or when the array is garbage-collected.
        self._closer = weakref.finalize(self, os.close, self._file)

    def close(self) -> None:
        """Close the file."""
        self._closer()

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, start: int = 0, stop: int | None = None) -> NDArray:
        """Read consecutive rows.

        Parameters
        ----------
        start, stop
            First row, and the row after the last; by default all rows.

        Returns
        -------
        (stop - start, ...)
            Of type `dtype`.

        Raises
        ------
        StorageError
            If a chunk is damaged, or does not decode to its declared size.
        """
        stop = len(self) if stop is None else stop
        if self._compact is not None:
            return self._compact[start:stop]
        if self.contiguous_offset is not None:
            row_bytes = math.prod(self.shape[1:]) * self._item_bytes
            place = self.contiguous_offset + start * row_bytes
            raw = self._read_bytes(place, (stop - start) * row_bytes)
            return self._typed(raw).reshape(stop - start, *self.shape[1:])
        return self._read_chunks(start, stop)

    def check(self) -> None:
        """Decode every chunk without keeping it.

        Raises
        ------
        StorageError
            As in `read`.
        """
        if self._chunks is not None:
            for number in range(len(self._chunks.masks)):
                self._decoded(number)

    def _check_chunk_size(self) -> None:
        if self._chunks is None:
            return
        size, stored = self._chunk_bytes, int(self.pieces.sizes.sum())
        if size > max(LARGE_CHUNK_BYTES, MAX_CHUNK_RATIO * stored):
            found = f"found a chunk of {size:,} bytes in {stored:,} stored"
            raise StorageError(f"{found}, expected at most {LARGE_CHUNK_BYTES:,}")

    def _read_chunks(self, start: int, stop: int) -> NDArray:
        assert self._chunks is not None
        chunk_shape, grid = self._chunks.shape, self._chunks.grid
        rows = np.empty((stop - start, *self.shape[1:]), self.dtype)
        axes = [range(start // chunk_shape[0], -(-stop // chunk_shape[0])), *map(range, grid[1:])]
        for place in itertools.product(*axes):
            number = 0
            for position, length in zip(place, grid, strict=True):
                number = number * length + position
            target, source = [], []
            for axis, (position, length) in enumerate(zip(place, chunk_shape, strict=True)):
                first, last = (start, stop) if axis == 0 else (0, self.shape[axis])
                begin = position * length
                low, high = max(begin, first), min(begin + length, last)
                target.append(slice(low - first, high - first))
                source.append(slice(low - begin, high - begin))
            rows[tuple(target)] = self._chunk(number)[tuple(source)]
        return rows

    def _chunk(self, number: int) -> NDArray:
        if number in self._cache:
            self._cache.move_to_end(number)
            return self._cache[number]
        assert self._chunks is not None
        chunk = self._typed(self._decoded(number)).reshape(self._chunks.shape)
        # All chunks have one size. The newest is kept even if it alone exceeds the cache.
        while self._cache and (len(self._cache) + 1) * chunk.nbytes > CACHE_BYTES:
            self._cache.popitem(last=False)
        self._cache[number] = chunk
        return chunk

    def _decoded(self, number: int) -> memoryview:
        assert self._chunks is not None
        pieces, mask = self._chunks.pieces, int(self._chunks.masks[number])
        stored = self._read_bytes(int(pieces.offsets[number]), int(pieces.sizes[number]))
        applied = [each for bit, each in enumerate(self._filters) if not mask >> bit & 1]
        try:
            return undo_filters(stored, applied, self._chunk_bytes)
        except StorageError as error:
            raise StorageError(f"chunk {number}: {error}") from None

    def _read_bytes(self, place: int, size: int) -> memoryview:
        raw = memoryview(bytearray(size))
        read = 0
        while read < size:
            count = os.preadv(self._file, [raw[read:]], place + read)
            if count == 0:
                raise StorageError("truncated while being read")
            read += count
        return raw

    def _typed(self, raw: bytes | memoryview) -> NDArray:
        if self._stored_type is None:
            return np.frombuffer(raw, self.dtype)
        # HDF5 converts rare types, such as 24-bit floats, in memory.
        count = len(raw) // self._stored_type.get_size()
        size = max(self._stored_type.get_size(), self.dtype.itemsize)
        buffer = np.zeros(count * size, np.uint8)
        buffer[: len(raw)] = np.frombuffer(raw, np.uint8)
        h5py.h5t.convert(self._stored_type, h5py.h5t.py_create(self.dtype), count, buffer)
        return buffer[: count * self.dtype.itemsize].view(self.dtype)


def check_sizes(data: h5py.Dataset) -> None:
    """Compare the declared size of a data set with the number of bytes that the file stores.

    Neither reads the data nor allocates memory for it.

    Raises
    ------
    StorageError
        If the sizes contradict each other, or the data are stored in other files.
    """
    if data.is_virtual or data.external:
        raise StorageError(
            "found data stored in other files, expected the data itself in this file"
        )
    shape, stored = data.shape, data.id.get_storage_size()
    if data.chunks is None:
        needed = math.prod(shape) * _item_bytes(data)
        if stored != needed:
            raise StorageError(
                f"found {stored:,} bytes stored, expected {needed:,} for shape {shape}"
            )
        return
    expected = math.prod(-(-rows // each) for rows, each in zip(shape, data.chunks, strict=True))
    chunks = data.id.get_num_chunks()
    if chunks != expected:
        raise StorageError(
            f"found {chunks:,} chunks stored, expected {expected:,} for shape {shape}"
        )
    if chunks > data.file.id.get_filesize():
        raise StorageError(f"found {chunks:,} chunks, more than the file has bytes")
    expanded = chunks * math.prod(data.chunks) * _item_bytes(data)
    if expanded > max(SMALL_BYTES, MAX_RATIO * stored):
        found = f"found {stored:,} bytes that expand to {expanded:,}"
        raise StorageError(f"{found}, expected at most {MAX_RATIO} times as many")


def text_reference(data: h5py.Dataset) -> np.dtype:
    """Return the record type that refers to a variable-length string: `bytes`, place, number.

    Parameters
    ----------
    data
        Data set of variable-length strings.
    """
    address = data.file.id.get_create_plist().get_sizes()[0]
    return np.dtype([("bytes", "<u4"), ("place", f"<u{address}"), ("number", "<u4")])


def _item_bytes(data: h5py.Dataset) -> int:
    """Return the size of an element in the file in bytes, before filters."""
    if _is_reference(data):
        return text_reference(data).itemsize
    return int(data.id.get_type().get_size())


def _single_piece(data: h5py.Dataset) -> Pieces:
    """Return the position of an unchunked data set in its file; empty for a compact one."""
    offset = data.id.get_offset()
    if offset is None:
        return Pieces(np.empty(0, np.int64), np.empty(0, np.int64))
    return Pieces(np.array([offset]), np.array([data.id.get_storage_size()]))


def check_pieces(parts: Sequence[Pieces], file_size: int) -> None:
    """Check that stored pieces do not overlap and lie within the file.

    Raises
    ------
    StorageError
        If they overlap or lie beyond the end of the file.
    """
    offsets = np.concatenate([part.offsets for part in parts])
    ends = offsets + np.concatenate([part.sizes for part in parts])
    if (ends > file_size).any() or (offsets < 0).any() or (ends < offsets).any():
        raise StorageError("found data beyond the end of the file")
    order = np.argsort(offsets, kind="stable")
    if (offsets[order][1:] < ends[order][:-1]).any():
        raise StorageError("found pieces of data that share bytes, expected each in its own place")


def undo_filters(stored: bytes | memoryview, filters: Sequence[Filter], size: int) -> memoryview:
    """Decode a chunk.

    Parameters
    ----------
    stored
        Bytes of the chunk in the file.
    filters
        Filters in the order in which they were applied.
    size
        Expected number of decoded bytes.

    Raises
    ------
    StorageError
        If the chunk is damaged or decodes to another size. The output of each step is limited to
        what its filter can have encoded.
    """
    limits = list(
        itertools.accumulate(filters, lambda limit, each: _encoded_limit(each, limit), initial=size)
    )
    data = memoryview(stored)
    for each, limit in zip(reversed(filters), reversed(limits[:-1]), strict=True):
        data = memoryview(_undo(each, data, limit))
    if len(data) != size:
        raise StorageError(f"found {len(data):,} bytes, expected {size:,}")
    return data


def _encoded_limit(step: Filter, size: int) -> int:
    if step.code == h5py.h5z.FILTER_FLETCHER32:
        return size + 4
    # HDF5's limit; a chunk that deflates to more is stored without this filter.
    return size + -(-size // 1000) + 12 if step.code == h5py.h5z.FILTER_DEFLATE else size


def _undo(step: Filter, data: memoryview, limit: int) -> bytes | memoryview:
    if step.code == h5py.h5z.FILTER_DEFLATE:
        return _inflate(data, limit)
    if step.code == LZF:
        return _unpack_lzf(bytes(data), limit)
    if step.code == h5py.h5z.FILTER_FLETCHER32:
        return _without_checksum(data)
    return _unshuffle(data, step.options[0] if step.options else 1)


def _inflate(data: memoryview, limit: int) -> bytes:
    inflater = zlib.decompressobj()
    try:
        inflated = inflater.decompress(data, limit + 1)
    except zlib.error as error:
        raise StorageError(f"damaged ({error})") from None
    if len(inflated) > limit:
        raise StorageError(f"inflates to more than the {limit:,} bytes that it declares")
    if not inflater.eof or inflater.unused_data:
        raise StorageError("damaged (its deflate stream ends too early or too late)")
    return inflated


def _unpack_lzf(data: bytes, limit: int) -> bytes:
    """Decode LibLZF's format: runs of literal bytes, and copies of decoded bytes."""
    decoded = bytearray()
    place = 0
    try:
        while place < len(data):
            control = data[place]
            place += 1
            if control < 32:
                decoded += data[place : place + control + 1]
                place += control + 1
            else:
                count = (control >> 5) + 2
                if count == 9:
                    count += data[place]
                    place += 1
                first = len(decoded) - ((control & 31) << 8) - data[place] - 1
                place += 1
                if first < 0:
                    raise StorageError("damaged (an lzf copy from before the start of the chunk)")
                piece = decoded[first : first + count]
                # A copy may overlap its own output, which then repeats.
                decoded += piece if len(piece) == count else (piece * count)[:count]
            if len(decoded) > limit:
                raise StorageError(f"unpacks to more than the {limit:,} bytes that it declares")
    except IndexError:
        raise StorageError("damaged (its lzf stream ends early)") from None
    if place != len(data):
        raise StorageError("damaged (its lzf stream ends early)")
    return bytes(decoded)


def _unshuffle(data: memoryview, width: int) -> bytes | memoryview:
    count = len(data) // width if width > 1 else 0
    if count < 2:
        return data
    raw, end = np.frombuffer(data, np.uint8), count * width
    restored = np.empty(len(raw), np.uint8)
    restored[:end].reshape(count, width)[:] = raw[:end].reshape(width, count).T
    restored[end:] = raw[end:]
    return restored.data


def _without_checksum(data: memoryview) -> memoryview:
    if len(data) < 4:
        raise StorageError("damaged (it is shorter than its checksum)")
    content, found = data[:-4], int.from_bytes(data[-4:], "little")
    expected = _fletcher32(content)
    # HDF5 before 1.6.3 swapped the bytes of each half on some machines; readers accept both.
    swapped = int.from_bytes(expected.to_bytes(4, "big")[i] for i in (1, 0, 3, 2))
    if found not in (expected, swapped):
        raise StorageError("damaged (its checksum differs)")
    return content


def _fletcher32(data: memoryview) -> int:
    """Return HDF5's Fletcher checksum, computed over big-endian 16-bit words."""
    padded = bytes(data) + b"\0" if len(data) % 2 else data
    words = np.frombuffer(padded, ">u2").astype(np.int64)
    first = second = 0
    for start in range(0, len(words), 2**20):  # blocks keep the sums within 64 bits
        block = words[start : start + 2**20]
        second += len(block) * first + int((block * np.arange(len(block), 0, -1)).sum())
        first += int(block.sum())
    # Only zeros sum to 0: HDF5 reduces multiples of 65,535 to 65,535.
    low, high = (number and (number - 1) % 65535 + 1 for number in (first, second))
    return high << 16 | low


def _read_compact(data: h5py.Dataset, dtype: np.dtype) -> NDArray | None:
    """Read a compact data set; return None for variable-length strings, stored elsewhere."""
    if _is_reference(data):
        return None
    return np.asarray(data[()]).view(dtype) if data.dtype.kind == "b" else np.asarray(data[()])


def _is_reference(data: h5py.Dataset) -> bool:
    text = h5py.check_string_dtype(data.dtype)
    return text is not None and text.length is None


def _types(data: h5py.Dataset) -> tuple[np.dtype, h5py.h5t.TypeID | None]:
    """Return the type to read as, and the stored type if HDF5 must convert it."""
    if _is_reference(data):
        return text_reference(data), None
    stored = data.id.get_type()
    dtype = np.dtype(data.dtype.str)  # without h5py's metadata
    if data.dtype.kind == "b":
        # Stored bytes may differ from 0 and 1.
        return np.dtype(np.uint8), None
    same = stored.equal(h5py.h5t.py_create(data.dtype, logical=True))
    return dtype, None if same or dtype.kind not in "iuf" else stored


def _filters(data: h5py.Dataset) -> list[Filter]:
    properties = data.id.get_create_plist()
    filters = []
    for number in range(properties.get_nfilters()):
        code, _, options, name = properties.get_filter(number)
        known = (h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, LZF)
        if code not in known:
            title = name.decode(errors="replace").split("\0")[0][:40] or f"filter {code}"
            raise StorageError(
                f"compressed by an unknown method ({title}), expected {KNOWN_FILTERS}"
            )
        filters.append(Filter(code, options))
    return filters


def _chunks(data: h5py.Dataset) -> _Chunks:
    grid = tuple(-(-length // each) for length, each in zip(data.shape, data.chunks, strict=True))
    found: list[h5py.h5d.StoreInfo] = []
    data.id.chunk_iter(found.append)
    places = np.array([each.chunk_offset for each in found], np.int64).reshape(-1, len(grid))
    positions = places // data.chunks
    # HDF5 1.14 returns wrong positions if the only resizable axis is not the first.
    if (positions >= grid).any() or (positions < 0).any():
        raise StorageError("found chunks outside the data set, expected each in its own place")
    numbers = np.ravel_multi_index(tuple(positions.T), grid) if len(found) else np.empty(0, int)
    order = np.argsort(numbers)
    if not np.array_equal(numbers[order], np.arange(math.prod(grid))):
        raise StorageError("found several chunks in one place, expected one in each")
    offsets = np.array([each.byte_offset for each in found], np.uint64).astype(np.int64)
    sizes = np.array([each.size for each in found], np.uint64).astype(np.int64)
    masks = np.array([each.filter_mask for each in found], np.uint32)
    pieces = Pieces(offsets[order], sizes[order])
    return _Chunks(pieces, masks[order], data.chunks, grid)
