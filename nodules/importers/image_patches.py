"""Convert image files to patches, one by one, in a process with resource limits."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nodules.errors import FileError
from nodules.importers.images import PILLOW_SUFFIXES, GreyImage, read_image
from nodules.importers.resampling import resample
from nodules.importers.window import SIXTEEN_BITS, Window
from nodules.patches.layout import PATCH_SIZE, Patches
from nodules.system.limited_process import call_each_limited

# CPU time and memory limits per image. The largest allowed image needs 3 s and 600 MB, a small one
# 1 ms.
SECONDS = 10
MEMORY = 900_000_000


@dataclass(frozen=True)
class ImagePatch:
    """A patch, and properties of its image that the user may not expect.

    Attributes
    ----------
    patch
        (50, 50) uint8.
    oblong
        Whether height and width of the image differ.
    wide_range
        Minimum and maximum of a 16-bit image whose full range was mapped to grey levels; None for
        other images.
    rescaled
        Whether DICOM's slope and intercept were applied; None for other formats.
    """

    patch: Patches
    oblong: bool
    wide_range: tuple[int, int] | None
    rescaled: bool | None


def image_patches(paths: Sequence[Path], window: Window | None) -> Iterator[ImagePatch]:
    """Yield the patch of each image, read in a separate process.

    Parameters
    ----------
    paths
        Image files, in the order of the results.
    window
        As in `image_patch`.

    Raises
    ------
    FileError
        For the first image that `image_patch` refuses, that crashes a decoder, or that takes more
        than 10 s of CPU time or 900 MB.
    """
    limits = () if window is None else (repr(window.low), repr(window.high))
    results = call_each_limited(
        packed_patch, paths, *limits, seconds=SECONDS, memory=MEMORY, failure=FileError
    )
    for packed in results:
        oblong, wide, low, high, rescaled = _FACTS.unpack_from(packed)
        patch = np.frombuffer(packed, np.uint8, offset=_FACTS.size)
        yield ImagePatch(
            patch.reshape(PATCH_SIZE, PATCH_SIZE),
            oblong,
            (low, high) if wide else None,
            None if rescaled < 0 else bool(rescaled),
        )


# Fields: oblong, whether there is a wide range, its minimum and maximum, rescaled (-1 for None).
_FACTS = struct.Struct("<??HHb")


def packed_patch(path: Path, *limits: str) -> bytes:
    """Return the result of `image_patch` packed as bytes, to be sent between processes."""
    made = image_patch(path, Window(*map(float, limits)) if limits else None)
    low, high = made.wide_range or (0, 0)
    rescaled = -1 if made.rescaled is None else made.rescaled
    facts = _FACTS.pack(made.oblong, made.wide_range is not None, low, high, rescaled)
    return facts + made.patch.tobytes()


def without_image(paths: Sequence[Path]) -> list[bool]:
    """Return for each file whether it is a DICOM file without an image, such as DICOMDIR.

    DICOM headers are read in a separate process, with the limits of `image_patches`.

    Raises
    ------
    FileError
        If a file cannot be read, or crashes the reader. Damaged files count as images.
    """
    dicom = [path for path in paths if path.suffix.lower() not in PILLOW_SUFFIXES]
    if not dicom:
        return [False] * len(paths)
    results = call_each_limited(
        image_flag, dicom, seconds=SECONDS, memory=MEMORY, failure=FileError
    )
    empty = {path for path, flag in zip(dicom, results, strict=True) if not flag}
    return [path in empty for path in paths]


def image_flag(path: Path) -> bytes:
    """Return whether a DICOM file holds an image, as one byte or none."""
    # Importing pydicom takes longer than reading a folder of PNGs.
    from nodules.importers.dicom import holds_image

    return b"1" if holds_image(path) else b""


def image_patch(path: Path, window: Window | None) -> ImagePatch:
    """Read an image and resample it to a patch.

    Parameters
    ----------
    path
        PNG, JPEG, TIFF or DICOM file.
    window
        Values that become grey 0 and 255. By default 0..255 for 8-bit images, 0..65535 for 16-bit
        images, and -1000..400 HU for DICOM CT.

    Raises
    ------
    FileError
        If the image cannot be read, is not grey, or needs a window.
    """
    image = read_image(path)
    chosen = window or image.window
    low, high = image.values.min(), image.values.max()
    if chosen is None:
        problem = f"found {image.kind}, {low:g}..{high:g}; expected --window LOW HIGH"
        raise FileError(path, f"{problem}, the values that become grey 0 and 255")
    grey = chosen.grey(resample(_without_padding(image, chosen)))
    return ImagePatch(
        255 - grey if image.white_is_low else grey,
        len(set(image.values.shape)) > 1,
        (int(low), int(high)) if chosen is SIXTEEN_BITS else None,
        image.rescaled,
    )


def _without_padding(image: GreyImage, window: Window) -> NDArray[np.number]:
    """Return the values, with padding moved to the black end of the window or beyond."""
    if image.padding is None:
        return image.values
    if image.white_is_low:
        return np.where(image.padding, np.maximum(image.values, window.high), image.values)
    return np.where(image.padding, np.minimum(image.values, window.low), image.values)
