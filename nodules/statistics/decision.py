"""The decision whether a patch is called a nodule, the same wherever one is made."""

from typing import TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray


def called(probabilities: ArrayLike, thresholds: ArrayLike) -> NDArray[np.bool_]:
    """Return which patches are called nodules: those whose probability reaches the threshold.

    Both are compared in double precision, which holds every single-precision probability of a
    network and every threshold exactly. Readers of the tables, which hold both as written here,
    therefore make the same decisions.

    Parameters
    ----------
    probabilities
        (...,) probabilities of a nodule, of any floating-point type.
    thresholds
        Smallest probability that is called a nodule: one, or an array that broadcasts with the
        probabilities.

    Returns
    -------
    (...,) bool

    Examples
    --------
    >>> called(np.array([0.69999999, 0.70000001], np.float32), 0.7)
    array([False, False])
    """
    return np.asarray(probabilities, np.float64) >= np.asarray(thresholds, np.float64)


def is_threshold(value: object) -> TypeGuard[float]:
    """Return whether a value that was read from a file is a threshold: a number in 0..1.

    Examples
    --------
    >>> [is_threshold(value) for value in (0.4, 1, True, "0.4", float("nan"), 2)]
    [True, True, False, False, False, False]
    """
    return isinstance(value, float | int) and not isinstance(value, bool) and 0 <= value <= 1
