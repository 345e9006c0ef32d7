"""Single image files, PNG, JPEG, TIFF and DICOM, read as grey values."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import FileDataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_modality_lut

from nodules.errors import ImageError
from nodules.importers.grey import EIGHT_BITS, HOUNSFIELD, SIXTEEN_BITS, Window

PILLOW_FORMATS = ("PNG", "JPEG", "TIFF")
PILLOW_SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".tif", ".tiff"}
DICOM_SUFFIXES = {".dcm", ".dicom"}
DICOM_MAGIC_AT, DICOM_MAGIC = 128, b"DICM"

# TIFF's PhotometricInterpretation of 0 means that 0 is white.
TIFF_PHOTOMETRIC, WHITE_IS_ZERO = 262, 0


@dataclass(frozen=True)
class GreyImage:
    """An image of one channel.

    Attributes
    ----------
    values
        (H, W) numbers; Hounsfield units of a CT in DICOM.
    window
        The values that become grey 0 and 255 where nobody says otherwise: the whole range of the
        type, or -1000 to 400 HU. None where there is no such range.
    kind
        What the values are, for messages.
    white_is_low
        Whether low values are meant to be seen white.
    """

    values: NDArray[np.number]
    window: Window | None
    kind: str
    white_is_low: bool = False


def is_image(path: Path) -> bool:
    """Say whether a file is to be read: by its suffix, or by DICOM's mark at its beginning."""
    if path.suffix.lower() in PILLOW_SUFFIXES | DICOM_SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return file.read(DICOM_MAGIC_AT + len(DICOM_MAGIC))[DICOM_MAGIC_AT:] == DICOM_MAGIC
    except OSError as error:
        raise ImageError(path, f"cannot be read ({error.strerror})") from None


def read_image(path: Path) -> GreyImage:
    """Read an image.

    Parameters
    ----------
    path
        PNG, JPEG or TIFF by its suffix, otherwise DICOM.

    Raises
    ------
    ImageError
        If it cannot be read, has several frames, colour or transparency.
    """
    image = _read_pillow(path) if path.suffix.lower() in PILLOW_SUFFIXES else _read_dicom(path)
    if not np.isfinite(image.values).all():
        raise ImageError(path, "found NaN or infinity, expected numbers")
    return image


def _read_pillow(path: Path) -> GreyImage:
    with _decoding(path, "a readable PNG, JPEG or TIFF image"):
        with Image.open(path, formats=PILLOW_FORMATS) as image:
            frames = getattr(image, "n_frames", 1)
            # 16 bits a channel Pillow reduces to 8.
            reduced = image.mode in ("LA", "RGB", "RGBA") and ";16" in str(image.tile)
            tags = getattr(image, "tag_v2", {})
            image.load()
        if frames > 1:
            raise ImageError(path, f"found {frames} frames, expected one")
        if reduced:
            raise ImageError(path, "found 16 bits a channel, expected 8, or one channel of 16")
        if image.mode.startswith("I;16"):
            values = np.asarray(image).astype(np.uint16)
            inverted = tags.get(TIFF_PHOTOMETRIC) == WHITE_IS_ZERO
            return GreyImage(values, SIXTEEN_BITS, "16 bits", inverted)
        if image.mode in ("I", "F"):
            kind = "floats" if image.mode == "F" else "signed or 32-bit integers"
            return GreyImage(np.asarray(image), None, kind)
        return GreyImage(_one_channel(path, image), EIGHT_BITS, "8 bits")


def _one_channel(path: Path, image: Image.Image) -> NDArray[np.uint8]:
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    if image.mode not in ("P", "PA", "LA", "RGB", "RGBA"):
        raise ImageError(path, f"found {image.mode}, expected grey values or RGB")
    colours, alpha = np.split(np.asarray(image.convert("RGBA")), [3], axis=2)
    if (alpha < EIGHT_BITS.high).any():
        raise ImageError(path, "found transparent pixels, expected opaque ones")
    if (colours != colours[..., :1]).any():
        raise ImageError(path, "found colour, expected grey values, or RGB with equal channels")
    return colours[..., 0]


def _read_dicom(path: Path) -> GreyImage:
    with _decoding(path, "a readable DICOM image"):
        try:
            data = dcmread(path)
        except InvalidDicomError:
            raise ImageError(path, "found no DICOM file, expected one by its suffix") from None
        photometric = data.get("PhotometricInterpretation", "no PhotometricInterpretation")
        if photometric not in ("MONOCHROME1", "MONOCHROME2"):
            raise ImageError(path, f"found {photometric}, expected MONOCHROME1 or MONOCHROME2")
        values = apply_modality_lut(data.pixel_array, data)
    if values.ndim != 2:
        raise ImageError(path, f"found {len(values)} frames, expected one")
    window, kind = _dicom_window(data)
    return GreyImage(values, window, kind, photometric == "MONOCHROME1")


def _dicom_window(data: FileDataset) -> tuple[Window | None, str]:
    # Hounsfield units are a CT's. A file that was stripped of its modality is taken for one.
    modality = data.get("Modality") or "CT"
    return (HOUNSFIELD if modality == "CT" else None), f"DICOM of modality {modality}"


@contextmanager
def _decoding(path: Path, expected: str) -> Iterator[None]:
    # Decoders warn of what they mend, on their own lines.
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ImageError:
        raise
    except Exception as error:
        # A broken file makes decoders raise about anything.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(path, f"not {expected} ({reason})") from None
    finally:
        logger.setLevel(level)
