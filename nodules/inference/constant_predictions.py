"""Telling a network that scores every patch alike from one that merely is weak."""

import numpy as np
from numpy.typing import NDArray

# Odds of the highest probability over odds of the lowest. Odds rather than a difference, since
# what a patch adds to a prior belief is a factor on its odds: 0.001 and 0.009 differ by as much as
# 0.5 and 0.9. Networks stuck on one probability had ratios of 1.0000004 and 1.0014 on phantoms;
# `squeezenet_published`, which learns slowest, had 5 after its first ten steps.
MAX_ODDS_RATIO = 1.02
# Nearer to 0 or 1 than this a single-precision probability holds rounding alone.
RESOLUTION = 1e-6


def constant_predictions(probabilities: NDArray[np.floating], patches: str) -> str | None:
    """Return a sentence saying that all probabilities are practically the same, if they are.

    Parameters
    ----------
    probabilities
        (N,) in 0..1: the probability of a nodule.
    patches
        What they are, such as `val patches`.

    Returns
    -------
    str or None
        None where the odds of two patches differ by a factor of `MAX_ODDS_RATIO` or more, and
        where there are fewer than two patches.

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
