"""Read DICOM images as grey values, in Hounsfield units for CT.

Only the modality transformation (slope and intercept, or a lookup table) is applied. The display
window that a file suggests (VOI LUT) is ignored: all patches of a data set share one window.
"""

import io
import math
import warnings
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydicom import Dataset, FileDataset, dcmread
from pydicom.encaps import generate_frames
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset, read_preamble
from pydicom.multival import MultiValue
from pydicom.pixels import apply_modality_lut, pixel_array
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    LegacyConvertedEnhancedCTImageStorage,
    RLELossless,
)

from nodules.errors import FileError
from nodules.importers.images import (
    MAX_FILE_BYTES,
    GreyImage,
    check_scans,
    check_size,
    open_image,
)
from nodules.importers.window import HOUNSFIELD
from nodules.system.streams import printable

CT_CLASSES = (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
FUNCTIONAL_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")

# All other elements of a file are skipped unread.
KEYWORDS = (
    *("SOPClassUID", "Modality", *FUNCTIONAL_GROUPS, *PIXEL_KEYWORDS),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "NumberOfFrames"),
    *("Rows", "Columns", "SamplesPerPixel", "PlanarConfiguration", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept", "RescaleType"),
)


def read_dicom(path: Path, file: BinaryIO) -> GreyImage:
    """Read the image of a DICOM file.

    Parameters
    ----------
    path
        Path for error messages.
    file
        The same file, open for reading.

    Raises
    ------
    FileError
        If the file does not hold an image of one frame and one channel, or its header contradicts
        its pixels. On damaged files pydicom may raise almost any other exception.
    """
    data = _parse(path, file)
    photometric = _check_header(path, data)
    _check_pixels(path, data)
    stored = _stored_values(path, data)
    values, rescaled, problem = _modality_values(path, data, stored)
    hounsfield = not problem
    return GreyImage(
        values,
        HOUNSFIELD if hounsfield else None,
        problem or "Hounsfield units",
        photometric == "MONOCHROME1",
        _padding(path, data, stored),
        rescaled,
    )


def holds_image(path: Path) -> bool:
    """Return whether a DICOM file holds an image, unlike a DICOMDIR, a report or a presentation.

    Damaged files count as images, so that reading them reports the damage. An image without its
    pixels is one too, because its header still describes them.

    Raises
    ------
    FileError
        If the file cannot be read.
    """
    with open_image(path) as file:
        try:
            tags = ["Rows", "Columns", "SOPClassUID"]
            head = dcmread(file, stop_before_pixels=True, specific_tags=tags)
        except MemoryError:
            raise
        except Exception:  # pydicom may raise almost any
            return True
        if head.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            return True
        # `stop_before_pixels` stops at the pixels, so that the end of the file means none.
        if "Rows" in head or "Columns" in head or file.read(1):
            return True
        kind = head.get("SOPClassUID") or head.file_meta.get("MediaStorageSOPClassUID")
        # Of the classes, those of images are called so: "CT Image Storage".
        return kind is None or "Image" in UID(kind).name


def _parse(path: Path, file: BinaryIO) -> FileDataset:
    content = file.read()
    buffer = io.BytesIO(content)
    try:
        read_preamble(buffer, False)
    except InvalidDicomError:
        raise FileError(path, "found no DICOM header, expected one as the suffix says") from None
    meta = read_dataset(buffer, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        buffer = io.BytesIO(_inflated(path, content, buffer.tell()))
    buffer.seek(0)
    return dcmread(buffer, specific_tags=list(KEYWORDS))


def _inflated(path: Path, content: bytes, start: int) -> bytes:
    """Return a deflated file converted to Explicit VR Little Endian.

    pydicom would inflate it without a size limit.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    rest = inflater.decompress(content[start:], MAX_FILE_BYTES)
    if not inflater.eof:
        problem = "is truncated"
        if inflater.unconsumed_tail:
            problem = f"expands to more than {MAX_FILE_BYTES:,} bytes"
        raise FileError(path, f"found deflated data that {problem}, expected a whole image")
    deflated, explicit = (
        uid.encode() for uid in (DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian)
    )
    return content[:start].replace(deflated, explicit.ljust(len(deflated), b"\0")) + rest


def _check_header(path: Path, data: Dataset) -> str:
    """Check for one grey frame of allowed size; return the photometric interpretation."""
    photometric = str(data.get("PhotometricInterpretation") or "no PhotometricInterpretation")
    if photometric not in MONOCHROME:
        expected = f"expected {' or '.join(MONOCHROME)}"
        raise FileError(path, f"found {printable(photometric, 60)}, {expected}")
    frames = _integer(path, data, "NumberOfFrames", 1)
    if frames != 1:
        raise FileError(path, f"found {frames} frames, expected one")
    samples = _integer(path, data, "SamplesPerPixel", 1)
    if samples != 1:
        raise FileError(path, f"SamplesPerPixel: found {samples}, expected 1 of {photometric}")
    check_size(path, _integer(path, data, "Columns"), _integer(path, data, "Rows"))
    if sum(keyword in data for keyword in PIXEL_KEYWORDS) != 1:
        raise FileError(path, "found no PixelData, expected an image")
    allocated = _integer(path, data, "BitsAllocated")
    if "PixelData" in data:
        bits = _integer(path, data, "BitsStored")
        high = _integer(path, data, "HighBit", bits - 1)
        if not 1 <= bits <= allocated:
            raise FileError(path, f"BitsStored: found {bits}, expected 1 to {allocated}")
        if high != bits - 1:
            raise FileError(path, f"HighBit: found {high}, expected {bits - 1} for {bits} bits")
        if _integer(path, data, "PixelRepresentation") not in (0, 1):
            raise FileError(path, "PixelRepresentation: expected 0 or 1")
    return photometric


def _check_pixels(path: Path, data: FileDataset) -> None:
    """Check that there are as many pixels as the header says, before decoding them."""
    transfer_syntax = _transfer_syntax(path, data)
    (keyword,) = (keyword for keyword in PIXEL_KEYWORDS if keyword in data)
    pixels = data[keyword].value or b""
    columns, rows = data.Columns, data.Rows
    if not isinstance(pixels, bytes):
        raise FileError(path, f"{keyword}: found no bytes, expected pixels")
    if not transfer_syntax.is_encapsulated:
        expected = math.ceil(rows * columns * data.BitsAllocated / 8)
        # Data are padded to an even length.
        if not expected <= len(pixels) <= expected + expected % 2:
            problem = f"found {len(pixels):,} bytes of pixels, expected {expected:,}"
            raise FileError(path, f"{problem} for {rows} x {columns} of {data.BitsAllocated} bits")
        return
    frames = list(generate_frames(pixels, number_of_frames=1))
    if len(frames) != 1:
        raise FileError(path, f"found {len(frames)} frames, expected one")
    if transfer_syntax != RLELossless:
        try:
            opened = Image.open(io.BytesIO(frames[0]), formats=("JPEG", "JPEG2000"))
        except UnidentifiedImageError:
            problem = f"found pixels that are not readable {printable(transfer_syntax.name, 60)}"
            raise FileError(path, f"{problem}, expected JPEG, JPEG 2000 or RLE") from None
        with opened as image:
            if image.size != (columns, rows):
                problem = "found compressed pixels of {} x {}".format(*image.size)
                raise FileError(path, f"{problem}, expected Columns x Rows, {columns} x {rows}")
            if image.format == "JPEG":
                check_scans(path, frames[0])


def _transfer_syntax(path: Path, data: FileDataset) -> UID:
    transfer_syntax = data.file_meta.get("TransferSyntaxUID")
    if not isinstance(transfer_syntax, UID) or not transfer_syntax.is_transfer_syntax:
        found = printable(transfer_syntax or "no TransferSyntaxUID", 60)
        raise FileError(path, f"found {found}, expected a DICOM transfer syntax")
    return transfer_syntax


def _stored_values(path: Path, data: FileDataset) -> NDArray[np.number]:
    with warnings.catch_warnings():
        # This warning means surplus pixels, which pydicom would drop.
        warnings.filterwarnings("error", "The decoded RLE segment")
        values = pixel_array(data, correct_unused_bits=False)
    if values.shape != (data.Rows, data.Columns):
        raise FileError(path, f"found pixels of shape {values.shape}, expected one frame")
    bits = data.get("BitsStored")
    if "PixelData" not in data or values.dtype.kind not in "iu" or bits == data.BitsAllocated:
        return values
    signed = data.PixelRepresentation == 1
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    smallest, largest = int(values.min()), int(values.max())
    if signed and smallest >= 0 and high < largest < 2**bits:
        # Negative values were stored with their unused bits cleared.
        unused = data.BitsAllocated - bits
        return (values << unused) >> unused
    if smallest < low or largest > high:
        problem = f"found stored values {smallest}..{largest}, expected {low}..{high}"
        raise FileError(path, f"{problem} of BitsStored {bits}")
    return values


def _modality_values(
    path: Path, data: FileDataset, stored: NDArray[np.number]
) -> tuple[NDArray[np.number], bool, str]:
    """Return the values, whether they were rescaled, and why they are not Hounsfield units."""
    modality = printable(data.get("Modality") or "", 60)
    if data.get("ModalityLUTSequence"):
        values = apply_modality_lut(stored, data)
        return values, True, f"DICOM of modality {modality or 'none'} with a ModalityLUTSequence"
    found = {_rescale(path, place) for place in _rescale_places(data)}
    if len(found) > 1:
        raise FileError(path, f"found {len(found)} different rescales, expected one")
    slope, intercept, unit = found.pop() if found else (None, None, "HU")
    kind = f"DICOM of modality {modality}" if modality else "DICOM of no modality"
    if slope is None or intercept is None:
        missing = [
            name
            for name, value in (("RescaleSlope", slope), ("RescaleIntercept", intercept))
            if value is None
        ]
        problem = f"{kind} without {' and '.join(missing)}" if modality == "CT" else kind
        return stored, False, problem
    values = stored.astype(np.float64) * slope
    values += intercept
    storage = data.get("SOPClassUID") or data.file_meta.get("MediaStorageSOPClassUID")
    if modality == "CT" and storage not in CT_CLASSES:
        name = storage.name if isinstance(storage, UID) else "none"
        return values, True, f"{kind} of class {printable(name, 60)}"
    if modality == "CT" and unit != "HU":
        return values, True, f"{kind} of RescaleType {printable(unit, 60)}"
    return values, True, "" if modality == "CT" else kind


def _rescale_places(data: Dataset) -> list[Dataset]:
    """Return the data sets with a slope or intercept: the file, or groups of Enhanced CT."""
    places = [data]
    for keyword in FUNCTIONAL_GROUPS:
        for group in data.get(keyword) or ():
            places.extend(group.get("PixelValueTransformationSequence") or ())
    return [place for place in places if "RescaleSlope" in place or "RescaleIntercept" in place]


def _rescale(path: Path, place: Dataset) -> tuple[float | None, float | None, str]:
    slope, intercept = (_number(path, place, name) for name in ("RescaleSlope", "RescaleIntercept"))
    if slope == 0:
        raise FileError(path, "RescaleSlope: found 0, expected a nonzero number")
    return slope, intercept, str(place.get("RescaleType") or "HU").strip()


def _number(path: Path, place: Dataset, keyword: str) -> float | None:
    value: Any = place.get(keyword)
    if value is None or value == "" or (isinstance(value, MultiValue) and not value):
        return None
    if isinstance(value, MultiValue):
        raise FileError(path, f"{keyword}: found {len(value)} numbers, expected one")
    number = float(value)
    if not math.isfinite(number):
        raise FileError(path, f"{keyword}: found {number}, expected a finite number")
    return number


def _integer(path: Path, data: Dataset, keyword: str, default: int | None = None) -> int:
    value: Any = data.get(keyword)
    if value is None or value == "":
        value = default
    if not isinstance(value, int):
        found = "none" if value is None else printable(value, 60)
        raise FileError(path, f"{keyword}: found {found}, expected a whole number")
    return int(value)


def _padding(path: Path, data: Dataset, stored: NDArray[np.number]) -> NDArray[np.bool_] | None:
    """Return a mask of the padding pixels, such as those outside a CT's circular field of view."""
    if data.get("PixelPaddingValue") in (None, "") or stored.dtype.kind not in "iu":
        return None
    value = _integer(path, data, "PixelPaddingValue")
    limit = _integer(path, data, "PixelPaddingRangeLimit", value)
    # Some files confuse signed and unsigned 16-bit values here.
    span = 2 ** (8 * stored.dtype.itemsize)
    low, high = sorted(_wrapped(number, span, stored.dtype) for number in (value, limit))
    return (stored >= low) & (stored <= high)


def _wrapped(number: int, span: int, dtype: np.dtype) -> int:
    number %= span
    return number - span if dtype.kind == "i" and number >= span // 2 else number
