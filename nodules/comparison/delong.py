"""DeLong's test: the AUCs of several classifiers on the same patches, and how far to trust them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from nodules.comparison.estimate import Estimate
from nodules.patches import Labels


class CorrelatedAucs(NamedTuple):
    """AUCs that were measured on the same patches.

    Attributes
    ----------
    aucs
        (K,) in 0..1.
    covariance
        (K, K): of the AUCs, had other patches of the same kind been drawn independently.
    """

    aucs: NDArray[np.float64]
    covariance: NDArray[np.float64]


class AucTest(NamedTuple):
    """The difference of two AUCs, its standard error, and the two-sided test that it is zero."""

    difference: Estimate
    standard_error: float
    p_value: float


def correlated_aucs(labels: Labels, probabilities: NDArray[np.floating]) -> CorrelatedAucs:
    """Compute AUCs and their covariance.

    DeLong, DeLong and Clarke-Pearson (1988), "Comparing the areas under two or more correlated
    receiver operating characteristic curves", Biometrics 44:837-845; by midranks, in O(N log N),
    as Sun and Xu (2014), "Fast implementation of DeLong's algorithm for comparing the areas under
    correlated receiver operating characteristic curves", IEEE Signal Processing Letters 21:1389.

    Parameters
    ----------
    labels
        (N,) of 0 and 1, at least two of each.
    probabilities
        (K, N): of K classifiers.

    Returns
    -------
    CorrelatedAucs
        The covariance holds for independent patches.
    """
    nodules, others = probabilities[:, labels == 1], probabilities[:, labels == 0]
    m, n = nodules.shape[1], others.shape[1]
    ranks = rankdata(np.concatenate([nodules, others], axis=1), axis=1)
    # Of each nodule, the share of the others that it outranks; of each other, the share of the
    # nodules that outrank it. A tie counts half.
    of_nodules = (ranks[:, :m] - rankdata(nodules, axis=1)) / n
    of_others = 1 - (ranks[:, m:] - rankdata(others, axis=1)) / m
    covariance = np.cov(of_nodules) / m + np.cov(of_others) / n
    return CorrelatedAucs(of_nodules.mean(axis=1), np.atleast_2d(covariance))


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
