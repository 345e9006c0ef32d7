"""Tests of equal accuracy, of independent patches and of patches in groups."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, chi2

from nodules.patches.layout import Groups


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


def clustered_mcnemar(
    baseline_right: NDArray[np.bool_], candidate_right: NDArray[np.bool_], groups: Groups
) -> float:
    """Return the p-value of a test that two classifiers are equally accurate in groups.

    Durkalski, Palesch, Lipsitz and Rust (2003), "Analysis of clustered matched-pair data",
    Statistics in Medicine 22:2417-2428. The difference in accuracy within each group counts once;
    with one patch per group, the statistic is McNemar's without continuity correction.

    Parameters
    ----------
    baseline_right, candidate_right
        (N,) whether each classifier is correct on each patch.
    groups
        (N,) group of each patch.

    Returns
    -------
    float
        Two-sided p-value, 1 if the accuracies within each group are equal.

    Examples
    --------
    Differences of +1/2 and +1/4 in two groups: (3/4)^2 / (1/4 + 1/16) = 1.8.

    >>> baseline = np.array([True, False, True, False, False, True])
    >>> candidate = np.array([True, True, True, True, False, True])
    >>> round(clustered_mcnemar(baseline, candidate, np.array([0, 0, 1, 1, 1, 1])), 4)
    0.1797
    """
    units, sizes = np.unique(groups, return_inverse=True, return_counts=True)[1:]
    change = candidate_right.astype(float) - baseline_right.astype(float)
    changes = np.bincount(units, change) / sizes
    spread = float(changes @ changes)
    return float(chi2.sf(changes.sum() ** 2 / spread, 1)) if spread else 1.0
