"""Independent units of a sample: the groups of patches, or else single patches."""

import numpy as np
from numpy.typing import NDArray

from nodules.patches.layout import Groups


def independent_units(patches: int, groups: Groups | None) -> NDArray[np.intp]:
    """Return the (N,) index of the independent unit of each patch: its group, or the patch.

    Examples
    --------
    >>> independent_units(4, np.array(["b", "a", "b", "b"]))
    array([1, 0, 1, 1])
    >>> independent_units(4, None)
    array([0, 1, 2, 3])
    """
    if groups is None:
        return np.arange(patches)
    return np.unique(groups, return_inverse=True)[1]


def sum_by_unit(values: NDArray, units: NDArray[np.intp], count: int) -> NDArray[np.float64]:
    """Sum (K, N) values of patches within each of `count` units into (K, count)."""
    return np.stack([np.bincount(units, row, count) for row in values])
