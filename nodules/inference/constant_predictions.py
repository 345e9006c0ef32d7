"""Detect networks that give every patch practically the same probability."""

import numpy as np
from numpy.typing import NDArray

# Odds of the highest probability divided by odds of the lowest. Odds are compared rather than
# probabilities, since evidence multiplies the odds: 0.001 and 0.009 differ by as much as 0.5 and
# 0.9. On phantoms, networks stuck at one probability had ratios of 1.0000004 and 1.0014;
# `squeezenet_published`, which learns slowest, had 5 after its first ten steps.
MAX_ODDS_RATIO = 1.02
# Closer to 0 or 1 than this, differences between float32 probabilities are rounding errors.
RESOLUTION = 1e-6


def constant_predictions(probabilities: NDArray[np.floating], patches: str) -> str | None:
    """Return a warning if all probabilities are practically the same.

    Parameters
    ----------
    probabilities
        (N,) in 0..1: the probability of a nodule.
    patches
        Name of the patches, such as `val patches`.

    Returns
    -------
    str or None
        None if the odds of two patches differ by a factor of `MAX_ODDS_RATIO` or more, or if there
        are fewer than two patches.

    Examples
    --------
    >>> constant_predictions(np.array([0.4386673, 0.4386672]), "patches").partition(": ")[0]
    'the probabilities of all 2 patches lie within 0.4386672 to 0.4386673'
    >>> constant_predictions(np.array([0.001, 0.009]), "patches")
    """
    if len(probabilities) < 2:
        return None
    ends = np.array([probabilities.min(), probabilities.max()], np.float64)
    low, high = np.clip(ends, RESOLUTION, 1 - RESOLUTION)
    if high / (1 - high) >= MAX_ODDS_RATIO * low / (1 - low):
        return None
    found = f"the probabilities of all {len(probabilities):,} {patches} lie within"
    return f"{found} {ends[0]:.7g} to {ends[1]:.7g}: the network has learned nothing"
