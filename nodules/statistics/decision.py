"""The decision whether a patch is called a nodule, the same wherever one is made."""

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
