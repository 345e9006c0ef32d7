"""Convert a stack of equally sized images to patches, block by block."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nodules.errors import PatchFileError
from nodules.importers.resampling import MAX_VALUE, resample
from nodules.importers.window import EIGHT_BITS, UNIT, Window
from nodules.patches.layout import BLOCK_PATCHES, MAX_PIXELS, PATCH_SIZE, Patches
from nodules.patches.unit_range import in_unit_range, range_advice

BLOCK_BYTES = 32 * 2**20
# Images are read whole.
MAX_IMAGE_BYTES = 2**28


class Stack:
    """An array of images in a file.

    Its type and shape are checked on construction, its values as they are read.

    Parameters
    ----------
    path, name
        File and name of the array, for error messages.
    shape
        (N, H, W), possibly with more axes, which are removed before `convert`.
    dtype
        uint8, or float in 0..1; any number if `window` is given.
    window
        Values that become grey 0 and 255. By default 0 and 255 for uint8, 0 and 1 for floats.

    Raises
    ------
    PatchFileError
        If there are no pixels, the type is another one, or an image has more than 2^25 pixels or
        256 MiB.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype,
        window: Window | None = None,
    ) -> None:
        self.path, self.name = path, name
        self.count, self.height, self.width = shape[:3]
        self.unit_range = window is None and dtype.kind == "f"
        self.window = window or (UNIT if self.unit_range else EIGHT_BITS)
        if 0 in shape:
            problem = f"found shape {shape}, expected at least one image of one pixel"
            raise PatchFileError(path, problem, dataset=name)
        if dtype.kind not in "uif" if window else dtype != np.uint8 and dtype.kind != "f":
            expected = "numbers" if window else "uint8 in 0..255 or float in 0..1"
            raise PatchFileError(path, f"found {dtype}, expected {expected}", dataset=name)
        image_bytes = math.prod(shape[1:]) * dtype.itemsize
        problem = ""
        if self.height * self.width > MAX_PIXELS:
            problem = f"found images of {self.height}x{self.width} pixels"
            problem = f"{problem}, expected at most {MAX_PIXELS:,} pixels"
        elif image_bytes > MAX_IMAGE_BYTES:
            problem = f"found images of {image_bytes:,} bytes, expected at most {MAX_IMAGE_BYTES:,}"
        if problem:
            raise PatchFileError(path, problem, dataset=name)
        self.block = max(1, min(BLOCK_PATCHES, BLOCK_BYTES // image_bytes))

    def notes(self) -> list[str]:
        """Return notes on properties of the images that the user may not expect."""
        if self.height == self.width:
            return []
        side = min(self.height, self.width)
        size = f"{self.height}x{self.width} pixels"
        return [f"{self.name} holds images of {size}: only the central {side}x{side} are used"]

    def convert(self, images: NDArray, start: int) -> Patches:
        """Convert the (n, H, W) images that begin at row `start` to (n, 50, 50) uint8 patches.

        Raises
        ------
        PatchFileError
            If an image holds NaN, infinity or absolute values above 1e30 or, without a window,
            floats outside 0..1.
        """
        with np.errstate(over="ignore"):  # floats wider than 64 bits may overflow
            valid = np.abs(images).max(axis=(1, 2)).astype(np.float64) <= MAX_VALUE
        if self.unit_range:
            valid &= in_unit_range(images)
        if not valid.all():
            bad = int(np.argmin(valid))
            values = images[bad]
            found = "NaN" if np.isnan(values).any() else f"{values.min():g}..{values.max():g}"
            expected = (
                "float intensities in 0..1" if self.unit_range else f"numbers up to {MAX_VALUE:g}"
            )
            problem = f"found {found}, expected {expected}"
            if self.unit_range and np.isfinite(values).all():
                problem += range_advice(images)
            raise PatchFileError(self.path, problem, dataset=self.name, row=start + bad)
        patches = np.empty((len(images), PATCH_SIZE, PATCH_SIZE), np.float32)
        for patch, image in zip(patches, images, strict=True):
            patch[:] = resample(image)
        return self.window.grey(patches)
