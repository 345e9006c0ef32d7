"""Float intensities in 0..1: tolerance for rounding, and advice for other ranges."""

import numpy as np
from numpy.typing import NDArray

# Rounding errors of a few units in the last place. Data of 64 bits may come from 32 bits.
ULPS = 4
# Interpolation (splines, Lanczos) overshoots by less than the range itself.
MIN_OVERSHOOT, MAX_OVERSHOOT = -1, 2
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
    >>> range_advice(np.array([[[-0.1, 1.2]]]))
    ': an overshoot, as of interpolation, so clip them to 0..1 (numpy.clip)'
    >>> range_advice(np.array([[[0.0, 251.0]]]))
    ': they look like 0..255, so divide them by 255 or store uint8'
    >>> range_advice(np.array([[[0.0, 0.9]], [[0.1, 0.8]], [[0.0, 251.0]]]))
    ''
    """
    low, high = values.min(), values.max()
    if low >= MIN_OVERSHOOT and high <= MAX_OVERSHOOT:
        return ": an overshoot, as of interpolation, so clip them to 0..1 (numpy.clip)"
    brightest = values.max(axis=(1, 2))
    # Images in 0..1 among others show that the whole file is not in 0..255.
    in_unit = ((brightest > 0) & (brightest <= 1)).sum()
    if low >= 0 and high <= MAX_GREY and (brightest >= MIN_GREY).sum() > in_unit:
        return ": they look like 0..255, so divide them by 255 or store uint8"
    return ""


def clipped(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return values in 0..1, removing rounding errors that `in_unit_range` allows."""
    return np.clip(values, 0, 1)
