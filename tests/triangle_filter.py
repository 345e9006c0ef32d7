"""The resampling that imports do, written as a formula: what their tests compare with."""

import numpy as np
from numpy.typing import NDArray


def triangle_weights(size: int) -> NDArray[np.float64]:
    """(50, size): the weight of each old pixel in each new one.

    A triangle about the centre of the new pixel, as wide as two pixels of the coarser grid.
    """
    step = size / 50
    centres = (np.arange(50) + 0.5) * step
    distance = np.abs(centres[:, None] - (np.arange(size) + 0.5)) / max(step, 1)
    weights = np.maximum(0, 1 - distance)
    return weights / weights.sum(axis=1, keepdims=True)


def filtered(image: NDArray) -> NDArray[np.float64]:
    """(50, 50) of a square image."""
    weights = triangle_weights(len(image))
    return weights @ image.astype(float) @ weights.T


def grey_levels(values: NDArray, low: float, high: float) -> NDArray[np.float64]:
    return np.clip(np.round((values.astype(float) - low) / (high - low) * 255), 0, 255)


def assert_grey(found: NDArray[np.uint8], values: NDArray, low: float, high: float) -> None:
    """Equal but for the rounding of single precision, which decides a grey level now and then."""
    difference = np.abs(found.astype(float) - grey_levels(values, low, high))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01
