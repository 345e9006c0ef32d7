"""Resample images of any size to the size of a patch."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nodules.patches.layout import PATCH_SIZE

# Above this, float32 sums may overflow.
MAX_VALUE = 1e30


def resample(image: NDArray[np.number]) -> NDArray[np.float32]:
    """Resample the central square of an image to 50x50.

    Uses Pillow's bilinear filter in float32. When an image is reduced, the filter is a triangle
    two output pixels wide, which prevents aliasing. Results never leave the range of the image. A
    50x50 image is returned unchanged. If height and width differ, the longer side is cropped at
    both ends, so that the image is not distorted.

    Parameters
    ----------
    image
        (H, W), at least one pixel, absolute values up to `MAX_VALUE`.

    Returns
    -------
    (50, 50) float32
        In the units of `image`.
    """
    height, width = image.shape
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    resampled = Image.fromarray(image.astype(np.float32)).resize(
        (PATCH_SIZE, PATCH_SIZE),
        Image.Resampling.BILINEAR,
        box=(left, top, left + side, top + side),
    )
    return np.asarray(resampled)
