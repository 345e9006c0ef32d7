"""McNemar's exact test, and Holm's correction for multiple tests."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest


def mcnemar(baseline_right: NDArray[np.bool_], candidate_right: NDArray[np.bool_]) -> float:
    """Return the p-value of McNemar's exact test that two classifiers are equally accurate.

    McNemar (1947), "Note on the sampling error of the difference between correlated proportions
    or percentages", Psychometrika 12:153-157, here with the exact binomial distribution.

    Parameters
    ----------
    baseline_right, candidate_right
        (N,) whether each classifier is correct on each patch.

    Returns
    -------
    float
        Two-sided p-value, 1 if both are correct on the same patches.
    """
    won = int((candidate_right & ~baseline_right).sum())
    lost = int((baseline_right & ~candidate_right).sum())
    return float(binomtest(won, won + lost).pvalue) if won + lost else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for multiple tests.

    Holm (1979), "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6:65-70.

    Parameters
    ----------
    p_values
        Unadjusted p-values, one per hypothesis.

    Returns
    -------
    list of float
        Adjusted p-values in the same order. Rejecting those below a level limits the family-wise
        error rate to that level.

    Examples
    --------
    >>> holm([0.02, 0.01, 0.5])
    [0.04, 0.03, 0.5]
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    stepped = np.maximum.accumulate(np.asarray(p_values, np.float64)[order] * factors)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(stepped, 1)
    return [float(value) for value in adjusted]
