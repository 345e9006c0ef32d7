"""Reference implementation of the resampling used by imports."""

import numpy as np
from numpy.typing import NDArray


def triangle_weights(size: int) -> NDArray[np.float64]:
    """Return the (50, size) weights of each old pixel in each new one.

    The filter is a triangle centred on the new pixel, two pixels of the coarser grid wide.
    """
    step = size / 50
    centres = (np.arange(50) + 0.5) * step
    distance = np.abs(centres[:, None] - (np.arange(size) + 0.5)) / max(step, 1)
    weights = np.maximum(0, 1 - distance)
    return weights / weights.sum(axis=1, keepdims=True)


def filtered(image: NDArray) -> NDArray[np.float64]:
    """Return a square image resampled to (50, 50)."""
    weights = triangle_weights(len(image))
    return weights @ image.astype(float) @ weights.T


def grey_levels(values: NDArray, low: float, high: float) -> NDArray[np.float64]:
    return np.clip(np.round((values.astype(float) - low) / (high - low) * 255), 0, 255)


def assert_grey(found: NDArray[np.uint8], values: NDArray, low: float, high: float) -> None:
    """Assert equality up to float32 rounding, which occasionally changes a grey level."""
    difference = np.abs(found.astype(float) - grey_levels(values, low, high))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01
