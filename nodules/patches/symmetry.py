"""The eight symmetries of a square patch; sections through a nodule have no preferred direction."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

# Number of views over which a probability is averaged: the patch itself, or all eight.
Views = Literal[1, 8]


def symmetric_view(patches: NDArray, view: int) -> NDArray:
    """Return patches rotated or reflected.

    Parameters
    ----------
    patches
        (..., k, k).
    view
        0 to 3: number of quarter turns; 4 to 7: `view` - 4 quarter turns, then a transposition.

    Returns
    -------
    (..., k, k)
        View of the same memory.
    """
    turned = np.rot90(patches, view % 4, axes=(-2, -1))
    return np.swapaxes(turned, -2, -1) if view >= 4 else turned


def view_permutations(size: int) -> NDArray[np.intp]:
    """Return the (8, size * size) source indices of the pixels of each view."""
    square = np.arange(size * size).reshape(size, size)
    return np.array([symmetric_view(square, view).ravel() for view in range(8)])
