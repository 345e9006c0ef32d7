"""Read single PNG, JPEG, TIFF and DICOM files as grey values.

Images are untrusted. Their headers are checked before their pixels are decoded: a PNG of 22 kB can
declare 169 megapixels. Attacks that no header shows (a JPEG of a thousand scans, a crash in a
decoder) require running `read_image` under the limits of `nodules.system.limited_process`.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from nodules.errors import FileError
from nodules.importers.resampling import MAX_VALUE
from nodules.importers.tiff import (
    Samples,
    check_strips,
    tiff_kind,
    tiff_samples,
    use_native_byte_order,
)
from nodules.importers.window import EIGHT_BITS, SIXTEEN_BITS, Window
from nodules.patches.layout import MAX_PIXELS
from nodules.system.regular_file import irregular_kind, open_regular
from nodules.system.streams import error_text, os_error_text

PILLOW_FORMATS = ("PNG", "JPEG", "TIFF")
PILLOW_SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".tif", ".tiff"}
DICOM_SUFFIXES = {".dcm", ".dicom"}
DICOM_MAGIC_AT, DICOM_MAGIC = 128, b"DICM"

# `MAX_PIXELS` of 4 bytes each, plus a header.
MAX_FILE_BYTES = 160_000_000

# A progressive JPEG has about 10 scans. Each one takes a pass over the whole image.
MAX_SCANS = 100
START_OF_SCAN = b"\xff\xda"  # never occurs in the data between markers


@dataclass(frozen=True)
class GreyImage:
    """A single-channel image.

    Attributes
    ----------
    values
        (H, W) numbers; Hounsfield units for DICOM CT.
    window
        Values that become grey 0 and 255 by default: the full range of the type, or -1000 and
        400 HU. None if there is no such range.
    kind
        Description of the values, for error messages.
    white_is_low
        Whether low values are displayed as white.
    padding
        (H, W) bool, True at the padding pixels of a DICOM file; None if none are declared.
    rescaled
        Whether a slope and an intercept were applied; None for formats other than DICOM.
    """

    values: NDArray[np.number]
    window: Window | None
    kind: str
    white_is_low: bool = False
    padding: NDArray[np.bool_] | None = None
    rescaled: bool | None = None


def is_image(path: Path) -> bool:
    """Return whether a file is an image, by its suffix or by DICOM's magic bytes.

    Pipes and devices without an image suffix are not images.
    """
    if has_image_suffix(path):
        return True
    try:
        if irregular_kind(path):
            return False
        with path.open("rb") as file:
            return file.read(DICOM_MAGIC_AT + len(DICOM_MAGIC))[DICOM_MAGIC_AT:] == DICOM_MAGIC
    except OSError as error:
        raise _unreadable(path, error) from None


def has_image_suffix(path: Path) -> bool:
    """Return whether a file is named like an image."""
    return path.suffix.lower() in PILLOW_SUFFIXES | DICOM_SUFFIXES


def read_image(path: Path) -> GreyImage:
    """Read an image.

    Parameters
    ----------
    path
        PNG, JPEG or TIFF file according to its suffix; DICOM file otherwise.

    Raises
    ------
    FileError
        If the image cannot be read, has several frames, colour, transparency, or more than
        `MAX_PIXELS`.
    """
    with open_image(path) as file:
        if path.suffix.lower() in PILLOW_SUFFIXES:
            with _decoding(path, "a readable PNG, JPEG or TIFF image"):
                image = _read_pillow(path, file)
        else:
            # Importing pydicom takes longer than reading a folder of PNGs.
            from nodules.importers.dicom import read_dicom

            with _decoding(path, "a readable DICOM image"):
                image = read_dicom(path, file)
    low, high = float(image.values.min()), float(image.values.max())
    if not (np.isfinite(low) and np.isfinite(high)):  # both are NaN if one value is
        raise FileError(path, "found NaN or infinity, expected numbers")
    if max(-low, high) > MAX_VALUE:
        raise FileError(path, f"found {low:g}..{high:g}, expected numbers up to {MAX_VALUE:g}")
    return image


def check_size(path: Path, width: int, height: int) -> None:
    """Raise FileError if an image has no pixels, or more than `MAX_PIXELS`."""
    if width < 1 or height < 1:
        raise FileError(path, f"found {width} x {height} pixels, expected at least one")
    if width * height > MAX_PIXELS:
        problem = f"found {width:,} x {height:,} pixels, expected at most {MAX_PIXELS:,} in all"
        raise FileError(path, problem)


def check_scans(path: Path, jpeg: bytes) -> None:
    """Raise FileError for a JPEG of many scans, which would take minutes to decode."""
    scans = jpeg.count(START_OF_SCAN)
    if scans > MAX_SCANS:
        raise FileError(path, f"found {scans:,} scans in a JPEG, expected at most {MAX_SCANS}")


def open_image(path: Path) -> BinaryIO:
    """Open an image file; raise FileError if it is not a file, or is too large."""
    try:
        if kind := irregular_kind(path):
            raise FileError(path, f"found {kind}, expected a file")
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            problem = f"found {size:,} bytes, expected at most {MAX_FILE_BYTES:,} for an image"
            raise FileError(path, problem)
        return open_regular(path)
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> FileError:
    return FileError(path, f"cannot be read ({os_error_text(error)})")


def _read_pillow(path: Path, file: BinaryIO) -> GreyImage:
    with _opened(path, file) as image:
        check_size(path, *image.size)
        if image.format == "PNG":
            _check_checksums(file)
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            raise FileError(path, f"found {frames} frames, expected one")
        # Pillow would reduce 16 bits per channel to 8.
        if image.mode in ("LA", "RGB", "RGBA") and ";16" in str(image.tile):
            raise FileError(path, "found 16 bits per channel, expected 8, or one channel of 16")
        if image.format == "JPEG":
            file.seek(0)
            check_scans(path, file.read())
        samples = tiff_samples(path, image)
        if samples is not None:
            check_strips(path, file, image)
            use_native_byte_order(image)
        image.load()
        # For TIFF, Pillow has already done this.
        ImageOps.exif_transpose(image, in_place=True)
        grey = _grey(path, image, samples)
        _check_opaque(path, image, grey.values)
        return grey


def _check_checksums(file: BinaryIO) -> None:
    """Check the checksum of every PNG chunk, which Pillow skips while decoding."""
    place = file.tell()
    file.seek(0)
    with Image.open(file, formats=["PNG"]) as image:
        image.verify()
    file.seek(place)


@contextmanager
def _opened(path: Path, file: BinaryIO) -> Iterator[ImageFile.ImageFile]:
    try:
        image = Image.open(file, formats=PILLOW_FORMATS)
    except Image.DecompressionBombError:
        raise FileError(path, f"found more pixels than {MAX_PIXELS:,}, the maximum") from None
    except UnidentifiedImageError:
        kind = tiff_kind(file)
        reason = f"Pillow cannot read a {kind}" if kind else "none of these formats"
        raise FileError(path, f"not a readable PNG, JPEG or TIFF image ({reason})") from None
    with image:
        yield image


def _grey(path: Path, image: Image.Image, samples: Samples | None) -> GreyImage:
    if image.mode.startswith("I;16"):
        inverted = samples is not None and samples.white_is_zero
        return GreyImage(np.asarray(image).astype(np.uint16), SIXTEEN_BITS, "16 bits", inverted)
    if image.mode in ("I", "F"):
        kind = "floats" if image.mode == "F" else "signed or 32-bit integers"
        values = np.asarray(image)
        if samples is None:
            return GreyImage(values, None, kind)
        if samples.unsigned and samples.bits == 32:
            values = values.view(np.uint32)
        return GreyImage(values, None, kind, samples.white_is_zero)
    if samples is not None and samples.signed and image.mode == "L":
        return GreyImage(np.asarray(image).view(np.int8), None, "signed 8-bit integers")
    values = _one_channel(path, image)
    if samples is not None and samples.white_is_zero and image.mode in ("1", "L"):
        # Undo Pillow's inversion: windows apply to stored values, as for images of more bits.
        return GreyImage(255 - values, EIGHT_BITS, "8 bits", white_is_low=True)
    return GreyImage(values, EIGHT_BITS, "8 bits")


def _one_channel(path: Path, image: Image.Image) -> NDArray[np.uint8]:
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    if image.mode not in ("P", "PA", "LA", "RGB", "RGBA"):
        raise FileError(path, f"found {image.mode}, expected grey values or RGB")
    red, green, blue, alpha = image.convert("RGBA").split()
    if (np.asarray(alpha) < EIGHT_BITS.high).any():
        raise FileError(path, "found transparent pixels, expected opaque ones")
    if green != red or blue != red:
        raise FileError(path, "found colour, expected grey values, or RGB with equal channels")
    return np.asarray(red)


def _check_opaque(path: Path, image: Image.Image, values: NDArray[np.number]) -> None:
    """Refuse a PNG with pixels of the grey value that it declares transparent."""
    transparent = image.info.get("transparency")
    if isinstance(transparent, int) and image.mode in ("1", "L", "I;16", "I"):
        if image.mode == "1":
            transparent *= 255
        if (values == transparent).any():
            raise FileError(path, "found transparent pixels, expected opaque ones")


@contextmanager
def _decoding(path: Path, expected: str) -> Iterator[None]:
    # Decoders would log the damage they repair, in lines of their own.
    loggers = [logging.getLogger(name) for name in ("pydicom", "PIL")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (FileError, MemoryError):
        raise
    except Exception as error:
        # On damaged files, decoders raise almost any exception.
        found = type(error).__name__ if isinstance(error, KeyError) else error_text(error)
        raise FileError(path, f"not {expected} ({found})") from None
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
