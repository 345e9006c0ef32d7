"""AUCs of several classifiers on the same patches, and how far to trust their differences."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from nodules.patches.layout import Groups, Labels
from nodules.statistics.estimate import Estimate


class CorrelatedAucs(NamedTuple):
    """AUCs that were measured on the same patches.

    Attributes
    ----------
    aucs
        (K,) in 0..1.
    covariance
        (K, K): of the AUCs, had other patches, or groups, of the same kind been drawn.
    """

    aucs: NDArray[np.float64]
    covariance: NDArray[np.float64]


class AucTest(NamedTuple):
    """The difference of two AUCs, its standard error, and the two-sided test that it is zero."""

    difference: Estimate
    standard_error: float
    p_value: float


def correlated_aucs(
    labels: Labels, probabilities: NDArray[np.floating], groups: Groups | None = None
) -> CorrelatedAucs:
    """Compute AUCs and their covariance.

    For independent patches: DeLong, DeLong and Clarke-Pearson (1988), "Comparing the areas under
    two or more correlated receiver operating characteristic curves", Biometrics 44:837-845. For
    patches in groups: Obuchowski (1997), "Nonparametric analysis of clustered ROC curve data",
    Biometrics 53:567-578, which is the same where every patch is a group. By midranks, in
    O(N log N), as Sun and Xu (2014), "Fast implementation of DeLong's algorithm for comparing the
    areas under correlated receiver operating characteristic curves", IEEE Signal Processing
    Letters 21:1389.

    Parameters
    ----------
    labels
        (N,) of 0 and 1, at least two of each.
    probabilities
        (K, N): of K classifiers.
    groups
        (N,) group of each patch, `can_be_clustered`; None takes patches as independent.

    Returns
    -------
    CorrelatedAucs
    """
    nodule = labels == 1
    nodules, others = probabilities[:, nodule], probabilities[:, ~nodule]
    m, n = nodules.shape[1], others.shape[1]
    ranks = rankdata(np.concatenate([nodules, others], axis=1), axis=1)
    # Of each nodule, the share of the others that it outranks; of each other, the share of the
    # nodules that outrank it. A tie counts half.
    outranked = ranks[:, :m] - rankdata(nodules, axis=1)
    of_nodules = outranked / n
    of_others = 1 - (ranks[:, m:] - rankdata(others, axis=1)) / m
    # Halves add up without rounding, so that equal AUCs are equal here too.
    aucs = outranked.sum(axis=1) / (m * n)
    if groups is None:
        covariance = np.cov(of_nodules) / m + np.cov(of_others) / n
        return CorrelatedAucs(aucs, np.atleast_2d(covariance))
    units = np.unique(groups, return_inverse=True)[1]
    count = int(units.max()) + 1
    # What each group adds to or takes from the mean, by the placements of its nodules and others.
    by_nodules = _sums(units[nodule], of_nodules - aucs[:, None], count) / m
    by_others = _sums(units[~nodule], of_others - aucs[:, None], count) / n
    both = by_nodules @ by_others.T
    covariance = (
        _unbiased(len(np.unique(units[nodule]))) * by_nodules @ by_nodules.T
        + _unbiased(len(np.unique(units[~nodule]))) * by_others @ by_others.T
        + _unbiased(count) * (both + both.T)
    )
    return CorrelatedAucs(aucs, covariance)


def can_be_clustered(labels: Labels, groups: Groups | None) -> bool:
    """Say whether there are groups, two at least with nodules and two with other patches."""
    if groups is None:
        return False
    return min(len(set(groups[labels == 1])), len(set(groups[labels == 0]))) > 1


def _sums(units: NDArray[np.intp], values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Sum (K, n) over patches into (K, count) over groups."""
    return np.stack([np.bincount(units, row, count) for row in values])


def _unbiased(groups: int) -> float:
    return groups / (groups - 1)


def compare_aucs(
    measured: CorrelatedAucs, baseline: int, candidate: int, *, confidence: float
) -> AucTest:
    """Test whether two of the AUCs differ.

    Parameters
    ----------
    measured
        From `correlated_aucs`.
    baseline, candidate
        Positions among the K.
    confidence
        Level of the interval, in 0..1.

    Returns
    -------
    AucTest
        Candidate minus baseline. Classifiers that rank the patches alike have p-value 1.
    """
    contrast = np.zeros(len(measured.aucs))
    contrast[candidate] += 1
    contrast[baseline] -= 1
    difference = float(contrast @ measured.aucs)
    error = float(np.sqrt(np.maximum(contrast @ measured.covariance @ contrast, 0)))
    margin = float(norm.ppf((1 + confidence) / 2)) * error
    if error > 0:
        p_value = float(2 * norm.sf(abs(difference) / error))
    else:
        p_value = 1.0 if difference == 0 else 0.0
    return AucTest(Estimate(difference, difference - margin, difference + margin), error, p_value)


def patches_to_see(
    difference: float, standard_error: float, patches: int, *, alpha: float, power: float
) -> int | None:
    """Say how many patches a difference would take to be seen.

    The variance of an AUC falls as one over the number of patches, as long as the share of nodules
    stays the same.

    Parameters
    ----------
    difference, standard_error
        Of two AUCs, measured on `patches` patches.
    patches
        How many these are.
    alpha
        Level of the two-sided test, in 0..1.
    power
        Probability that the test sees the difference, in 0..1.

    Returns
    -------
    int or None
        None where the difference is zero: no number would do.

    Examples
    --------
    >>> patches_to_see(0.01, 0.01, 500, alpha=0.05, power=0.8)
    3925
    """
    if difference == 0:
        return None
    deviations = float(norm.ppf(1 - alpha / 2) + norm.ppf(power))
    return max(int(np.ceil(patches * (deviations * standard_error / difference) ** 2)), 1)
