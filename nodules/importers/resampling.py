"""Images of any size resampled to that of a patch."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nodules.patches.layout import PATCH_SIZE

# Beyond this, sums of float32 may overflow.
MAX_VALUE = 1e30
# The largest radiographs (digitised mammograms) have 28 megapixels.
MAX_PIXELS = 2**25


def resample(image: NDArray[np.number]) -> NDArray[np.float32]:
    """Resample the central square of an image to 50x50.

    Pillow's bilinear filter, in float32: where pixels are to become fewer it is a triangle as wide
    as two new pixels, so that nothing is aliased; it never leaves the range of the image. An image
    of 50x50 stays as it is. Where height and width differ, the ends of the longer are left out
    rather than the picture distorted.

    Parameters
    ----------
    image
        (H, W), of at least one pixel, none beyond `MAX_VALUE`.

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
