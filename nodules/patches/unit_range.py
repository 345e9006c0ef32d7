"""Float intensities in 0..1: tolerance for rounding, and advice for other ranges."""

import numpy as np
from numpy.typing import NDArray

# Rounding errors of a few units in the last place. Data of 64 bits may come from 32 bits.
ULPS = 4
# Interpolation (splines, Lanczos) overshoots by a fraction of the range, and only at edges.
# Clipping anything else, such as intensities in -1..1, would destroy it.
MIN_OVERSHOOT, MAX_OVERSHOOT = -0.3, 1.3
MAX_OUTSIDE = 0.25
# Grey levels, and some overshoot.
MIN_GREY, MAX_GREY = 16, 260


def in_unit_range(values: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return a mask of the images, (n, H, W), whose values lie in 0..1 except for rounding."""
    tolerance = ULPS * max(np.finfo(values.dtype).eps, np.finfo(np.float32).eps)
    # NaN fails both comparisons.
    inside = (values >= -tolerance) & (values <= 1 + tolerance)
    return np.asarray(inside.all(axis=(1, 2)))


def range_advice(values: NDArray[np.floating]) -> str:
    """Return what to do with images, (n, H, W), outside 0..1; empty if that is unclear.

    Examples
    --------
    >>> range_advice(np.array([[[-0.1, 0.2, 0.5, 0.5, 0.8, 0.9]]]))
    ': an overshoot, as of interpolation, so clip them to 0..1 (numpy.clip)'
    >>> range_advice(np.array([[[-1.0, -0.4, 0.8]]]))
    ': they look like -1..1, so store (X + 1) / 2'
    >>> range_advice(np.array([[[0.0, 251.0]]]))
    ': they look like 0..255, so divide them by 255 or store uint8'
    >>> range_advice(np.array([[[0.0, 0.9]], [[0.1, 0.8]], [[0.0, 251.0]]]))
    ''
    """
    low, high = values.min(), values.max()
    outside = ((values < 0) | (values > 1)).mean()
    if low >= MIN_OVERSHOOT and high <= MAX_OVERSHOOT and outside <= MAX_OUTSIDE:
        return ": an overshoot, as of interpolation, so clip them to 0..1 (numpy.clip)"
    if -1 - MAX_OUTSIDE <= low < 2 * MIN_OVERSHOOT and high <= MAX_OVERSHOOT:
        return ": they look like -1..1, so store (X + 1) / 2"
    brightest = values.max(axis=(1, 2))
    # Images in 0..1 among others show that the whole file is not in 0..255.
    in_unit = ((brightest > 0) & (brightest <= 1)).sum()
    if low >= 0 and high <= MAX_GREY and (brightest >= MIN_GREY).sum() > in_unit:
        return ": they look like 0..255, so divide them by 255 or store uint8"
    return ""


def clipped(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return values in 0..1, removing rounding errors that `in_unit_range` allows."""
    return np.clip(values, 0, 1)
