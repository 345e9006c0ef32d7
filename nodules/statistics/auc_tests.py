"""Nonparametric tests of AUC differences between classifiers on the same patches."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from nodules.patches.layout import Groups, Labels
from nodules.statistics.estimate import Estimate


class CorrelatedAucs(NamedTuple):
    """AUCs of K classifiers on the same patches, with their sampling covariance.

    Attributes
    ----------
    aucs
        (K,) AUCs in 0..1.
    covariance
        (K, K) estimated covariance matrix of the AUCs.
    """

    aucs: NDArray[np.float64]
    covariance: NDArray[np.float64]


class AucTest(NamedTuple):
    """An AUC difference with its standard error and two-sided p-value."""

    difference: Estimate
    standard_error: float
    p_value: float


def correlated_aucs(
    labels: Labels, probabilities: NDArray[np.floating], groups: Groups | None = None
) -> CorrelatedAucs:
    """Return the AUCs and their covariance.

    For independent patches, the estimator is that of DeLong, DeLong and Clarke-Pearson (1988),
    "Comparing the areas under two or more correlated receiver operating characteristic curves",
    Biometrics 44:837-845. For clustered patches, it is that of Obuchowski (1997), "Nonparametric
    analysis of clustered ROC curve data", Biometrics 53:567-578, which equals DeLong's if each
    group has one patch. Both are computed from midranks in O(N log N), after Sun and Xu (2014),
    "Fast implementation of DeLong's algorithm for comparing the areas under correlated receiver
    operating characteristic curves", IEEE Signal Processing Letters 21:1389-1393.

    Parameters
    ----------
    labels
        (N,) labels 0 and 1, at least two of each.
    probabilities
        (K, N) predicted probabilities of K classifiers.
    groups
        (N,) group of each patch, for which `can_be_clustered` is true. None treats patches as
        independent.

    Returns
    -------
    CorrelatedAucs
    """
    nodule = labels == 1
    nodules, others = probabilities[:, nodule], probabilities[:, ~nodule]
    m, n = nodules.shape[1], others.shape[1]
    ranks = rankdata(np.concatenate([nodules, others], axis=1), axis=1)
    # Placement values: the fraction of non-nodules that each nodule outranks, and the fraction of
    # nodules that outrank each non-nodule. A tie counts as half.
    outranked = ranks[:, :m] - rankdata(nodules, axis=1)
    of_nodules = outranked / n
    of_others = 1 - (ranks[:, m:] - rankdata(others, axis=1)) / m
    # Sums of multiples of 0.5 are exact, so equal AUCs compare equal.
    aucs = outranked.sum(axis=1) / (m * n)
    if groups is None:
        covariance = np.cov(of_nodules) / m + np.cov(of_others) / n
        return CorrelatedAucs(aucs, np.atleast_2d(covariance))
    units = np.unique(groups, return_inverse=True)[1]
    count = int(units.max()) + 1
    # Contribution of each group to the deviations of the placement values from the AUC.
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
    """Return whether at least two groups have nodules and at least two have non-nodules."""
    if groups is None:
        return False
    return min(len(set(groups[labels == 1])), len(set(groups[labels == 0]))) > 1


def degrees_of_freedom(labels: Labels, groups: Groups | None) -> int:
    """Return the degrees of freedom of the t distribution for an AUC or a difference of AUCs.

    An AUC is a mean over nodules and over other patches. The class with fewer independent units,
    which are groups or else patches, decides how well its variance is known.

    Parameters
    ----------
    labels
        (N,) labels 0 and 1.
    groups
        (N,) group of each patch, or None for independent patches.

    Returns
    -------
    int
        The smaller number of units that hold a class, minus 1.

    Examples
    --------
    >>> degrees_of_freedom(np.array([1, 0, 0, 1]), np.array([7, 7, 8, 7]))
    0
    """
    units = np.arange(len(labels)) if groups is None else groups
    return min(len(np.unique(units[labels == label])) for label in (0, 1)) - 1


def _sums(units: NDArray[np.intp], values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Sum (K, n) values of patches within each group into (K, count)."""
    return np.stack([np.bincount(units, row, count) for row in values])


def _unbiased(groups: int) -> float:
    return groups / (groups - 1)


def compare_aucs(
    measured: CorrelatedAucs, baseline: int, candidate: int, *, confidence: float
) -> AucTest:
    """Test whether two AUCs differ, with a normal approximation.

    Parameters
    ----------
    measured
        AUCs and covariance from `correlated_aucs`.
    baseline, candidate
        Indices of the two classifiers.
    confidence
        Confidence level of the interval, in 0..1.

    Returns
    -------
    AucTest
        Candidate minus baseline. The p-value is 1 for classifiers with the same ranking.
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


def required_sample_size(
    difference: float, standard_error: float, patches: int, *, alpha: float, power: float
) -> int | None:
    """Return the number of patches needed to detect an AUC difference.

    The variance of the difference is assumed to be inversely proportional to the number of
    patches, with the same proportion of nodules and the same group sizes.

    Parameters
    ----------
    difference, standard_error
        AUC difference and its standard error, measured on `patches` patches.
    patches
        Number of patches of the measurement.
    alpha
        Significance level of the two-sided test, in 0..1.
    power
        Power of the test, in 0..1.

    Returns
    -------
    int or None
        Sample size, or None if the difference is zero.

    Examples
    --------
    >>> required_sample_size(0.01, 0.01, 500, alpha=0.05, power=0.8)
    3925
    """
    if difference == 0:
        return None
    deviations = float(norm.ppf(1 - alpha / 2) + norm.ppf(power))
    return max(int(np.ceil(patches * (deviations * standard_error / difference) ** 2)), 1)
