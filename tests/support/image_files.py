"""Write image files byte by byte, for cases that no library can write."""

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

Tags = Mapping[int, tuple[str, Sequence[int]]]

UNCOMPRESSED, DEFLATE = 1, 8
BLACK_IS_ZERO, WHITE_IS_ZERO = 1, 0
UNSIGNED, SIGNED, FLOAT = 1, 2, 3


def tiff(
    stored: NDArray,
    *,
    order: Literal["<", ">"] = "<",
    compression: int = UNCOMPRESSED,
    photometric: int = BLACK_IS_ZERO,
    rows_per_strip: int = 20,
    tags: Tags | None = None,
) -> bytes:
    """Return a single-channel TIFF with the sample type of `stored`.

    Parameters
    ----------
    stored
        (H, W) pixels.
    order
        Byte order, `<` or `>`.
    compression, photometric
        Values of these tags, as in TIFF 6.0.
    rows_per_strip
        Number of rows in every strip but the last.
    tags
        Additional or replacement tags: `B`, `H` or `I`, and the values.
    """
    height, width = stored.shape
    ordered = stored.astype(stored.dtype.newbyteorder(order))
    strips = [
        ordered[row : row + rows_per_strip].tobytes() for row in range(0, height, rows_per_strip)
    ]
    if compression == DEFLATE:
        strips = [zlib.compress(strip) for strip in strips]
    lengths = [len(strip) for strip in strips]
    offsets = [8 + sum(lengths[:number]) for number in range(len(strips))]
    formats = {"u": UNSIGNED, "i": SIGNED, "f": FLOAT}
    known: dict[int, tuple[str, Sequence[int]]] = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [8 * stored.dtype.itemsize]),
        259: ("H", [compression]),
        262: ("H", [photometric]),
        273: ("I", offsets),
        277: ("H", [1]),
        278: ("I", [rows_per_strip]),
        279: ("I", lengths),
        339: ("H", [formats[stored.dtype.kind]]),
        **(tags or {}),
    }
    directory = 8 + sum(lengths)
    entries, values = struct.pack(f"{order}H", len(known)), b""
    for tag, (letter, numbers) in sorted(known.items()):
        packed = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        if len(packed) > 4:
            place = directory + 2 + 12 * len(known) + 4 + len(values)
            values += packed
            packed = struct.pack(f"{order}I", place)
        kind = {"B": 1, "H": 3, "I": 4}[letter]
        entries += struct.pack(f"{order}HHI", tag, kind, len(numbers)) + packed.ljust(4, b"\0")
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return (
        mark + struct.pack(f"{order}I", directory) + b"".join(strips) + entries + bytes(4) + values
    )


def png(
    pixels: bytes, width: int, height: int, *, bits: int = 8, colour: int = 0, chunks: bytes = b""
) -> bytes:
    """Return a PNG with the given scan lines, including filter bytes, and further chunks."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(pixels, 9))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunks + data + chunk(b"IEND", b"")


def chunk(name: bytes, data: bytes) -> bytes:
    """Return a PNG chunk."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def ct(
    stored: NDArray[np.integer],
    syntax: UID = ExplicitVRLittleEndian,
    pixels: bytes | None = None,
    **attributes: Any,
) -> Dataset:
    """Return a CT slice in DICOM format with slope 1 and intercept -1024.

    Parameters
    ----------
    stored
        Stored values, (H, W).
    syntax, pixels
        Transfer syntax, and PixelData if different from `stored`.
    attributes
        Further elements; None omits an element.
    """
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = CTImageStorage, "1.2.3", "CT"
    data.RescaleSlope, data.RescaleIntercept = "1", "-1024"
    data.Rows, data.Columns = stored.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    bits = 8 * stored.dtype.itemsize
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
    data.PixelRepresentation = int(stored.dtype.kind == "i")
    data.PixelData = stored.tobytes() if pixels is None else pixels
    data["PixelData"].VR = "OB" if syntax.is_encapsulated or bits == 8 else "OW"
    for name, value in attributes.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    return data
