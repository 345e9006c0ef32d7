"""Nonparametric tests of AUC differences between classifiers on the same patches."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import chi2, nct, norm, rankdata, t

from nodules.patches.layout import Groups, Labels
from nodules.statistics.estimate import Estimate
from nodules.statistics.units import independent_units, sum_by_unit

# With so many units, all exchanges between two classifiers are tried: 1,024.
MAX_EXACT_UNITS = 10
SAMPLED_EXCHANGES = 999
# They are ranked in blocks of about so many elements.
BLOCK_ELEMENTS = 2**18
# Variances below this, and below this fraction of the classifiers' own, are 0 but for rounding. A
# single inversion of two patches among a million of each class has a standard error of 1e-12.
ROUNDING = 1e-28
RELATIVE_ROUNDING = 1e-13

Floats = NDArray[np.floating]


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
    """Test of an AUC difference, candidate minus baseline.

    Attributes
    ----------
    difference
        AUC difference with its confidence interval. The limits are NaN if the standard error is 0,
        which says nothing about them, except for classifiers with the same ranking.
    standard_error
        Standard error of the difference.
    degrees_of_freedom
        Degrees of freedom of the t distribution that the interval and the p-value are from.
    p_value
        Two-sided p-value.
    """

    difference: Estimate
    standard_error: float
    degrees_of_freedom: float
    p_value: float

    @property
    def is_permutation(self) -> bool:
        """Whether the p-value is from exchanges, since the standard error says nothing."""
        return not self.difference.has_limits


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
        (N,) group of each patch, at least two that hold each class. None treats patches as
        independent.

    Returns
    -------
    CorrelatedAucs
    """
    nodule = labels == 1
    nodules, others = probabilities[:, nodule], probabilities[:, ~nodule]
    m, n = nodules.shape[1], others.shape[1]
    outranked, outranking = placements(nodules, others)
    aucs = outranked.sum(axis=1) / (m * n)
    units = independent_units(len(labels), groups)
    count = int(units.max()) + 1
    # Contribution of each unit to the deviations of the placement values from the AUC.
    by_nodules = sum_by_unit(outranked / n - aucs[:, None], units[nodule], count) / m
    by_others = sum_by_unit(outranking / m - aucs[:, None], units[~nodule], count) / n
    # Obuchowski's estimator as a sum of terms that cannot be negative.
    unbiased = _unbiased(count)
    terms = (
        (unbiased, by_nodules + by_others),
        (_unbiased(len(np.unique(units[nodule]))) - unbiased, by_nodules),
        (_unbiased(len(np.unique(units[~nodule]))) - unbiased, by_others),
    )
    return CorrelatedAucs(aucs, sum(weight * each @ each.T for weight, each in terms))


def placements(nodules: Floats, others: Floats) -> tuple[Floats, Floats]:
    """Return how many others each nodule outranks, and how many nodules outrank each other patch.

    A tie counts as half. Sums of these multiples of 0.5 are exact, so equal AUCs compare equal.

    Parameters
    ----------
    nodules, others
        (..., m) and (..., n) probabilities of the nodules and of the other patches.

    Returns
    -------
    outranked, outranking
        (..., m) and (..., n) counts.

    Examples
    --------
    >>> placements(np.array([0.4, 0.8]), np.array([0.1, 0.4, 0.6]))
    (array([1.5, 3. ]), array([2. , 1.5, 1. ]))
    """
    m = nodules.shape[-1]
    ranks = rankdata(np.concatenate([nodules, others], axis=-1), axis=-1)
    outranked = ranks[..., :m] - rankdata(nodules, axis=-1)
    outranking = m - (ranks[..., m:] - rankdata(others, axis=-1))
    return outranked, outranking


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
    units = independent_units(len(labels), groups)
    return min(len(np.unique(units[labels == label])) for label in (0, 1)) - 1


def _unbiased(groups: int) -> float:
    return groups / (groups - 1)


def compare_with_baseline(
    labels: Labels,
    groups: Groups | None,
    probabilities: NDArray[np.floating],
    *,
    confidence: float,
    seed: int,
) -> list[AucTest]:
    """Test whether the AUC of each candidate differs from that of the baseline.

    The statistic is Obuchowski's if there are groups, otherwise DeLong's, with the t distribution
    of `degrees_of_freedom`. Where the standard error is 0 although the AUCs differ, the p-value is
    that of `exchange_p_value`.

    Parameters
    ----------
    labels
        (N,) labels 0 and 1.
    groups
        (N,) group of each patch, or None for independent patches. At least two units, which are
        groups or else patches, hold each class.
    probabilities
        (K, N) predicted probabilities of the baseline, then of the candidates.
    confidence
        Confidence level of the intervals, in 0..1.
    seed
        Seed of the permutations.

    Returns
    -------
    list of AucTest
        One per candidate.
    """
    measured = correlated_aucs(labels, probabilities, groups)
    freedom = degrees_of_freedom(labels, groups)
    tests = []
    for index in range(1, len(probabilities)):
        pair = probabilities[[0, index]]
        test = compare_aucs(measured, 0, index, degrees_of_freedom=freedom, confidence=confidence)
        if test.standard_error == 0:
            if np.array_equal(*rankdata(pair, axis=1)):
                test = test._replace(difference=Estimate(0.0, 0.0, 0.0))
            elif test.difference.value != 0:
                test = test._replace(p_value=exchange_p_value(labels, groups, pair, seed=seed))
        tests.append(test)
    return tests


def compare_aucs(
    measured: CorrelatedAucs,
    baseline: int,
    candidate: int,
    *,
    degrees_of_freedom: float,
    confidence: float,
) -> AucTest:
    """Test whether two AUCs differ, with a t distribution.

    Parameters
    ----------
    measured
        AUCs and covariance from `correlated_aucs`.
    baseline, candidate
        Indices of the two classifiers.
    degrees_of_freedom
        Degrees of freedom, at least 1. Infinity is the normal distribution.
    confidence
        Confidence level of the interval, in 0..1.

    Returns
    -------
    AucTest
        If the standard error is 0, the limits are NaN, and so is the p-value unless the AUCs are
        equal.
    """
    contrast = np.zeros(len(measured.aucs))
    contrast[candidate] += 1
    contrast[baseline] -= 1
    difference = float(contrast @ measured.aucs)
    variance = float(contrast @ measured.covariance @ contrast)
    own = float(np.abs(contrast) @ np.diag(measured.covariance))
    if variance <= ROUNDING + RELATIVE_ROUNDING * own:
        p_value = 1.0 if difference == 0 else np.nan
        return AucTest(Estimate.without_limits(difference), 0.0, degrees_of_freedom, p_value)
    error = float(np.sqrt(variance))
    margin = float(t.ppf((1 + confidence) / 2, degrees_of_freedom)) * error
    p_value = float(2 * t.sf(abs(difference) / error, degrees_of_freedom))
    limits = Estimate(difference, difference - margin, difference + margin)
    return AucTest(limits, error, degrees_of_freedom, p_value)


def exchange_p_value(
    labels: Labels, groups: Groups | None, probabilities: NDArray[np.floating], *, seed: int
) -> float:
    """Return the p-value of a permutation test that two AUCs are equal.

    The ranks that the two classifiers give to the patches of a unit, which is a group or else a
    patch, are exchanged at random. Bandos, Rockette and Gur (2005), "A permutation test sensitive
    to differences in areas for comparing ROC curves from a paired design", Statistics in Medicine
    24:2873-2893, exchange them for single patches.

    Parameters
    ----------
    labels
        (N,) labels 0 and 1.
    groups
        (N,) group of each patch, or None for independent patches.
    probabilities
        (2, N) predicted probabilities of the two classifiers.
    seed
        Seed of the exchanges, if there are too many for all of them.

    Returns
    -------
    float
        Two-sided p-value: exact with at most `MAX_EXACT_UNITS` units, otherwise from
        `SAMPLED_EXCHANGES` of them.

    Examples
    --------
    A perfect and a constant classifier on two patches of each class: of 16 exchanges, only none
    and all of them leave a difference as large.

    >>> labels, probabilities = np.array([0, 0, 1, 1]), np.array([[0, 0, 1, 1], [1, 1, 1, 1]])
    >>> exchange_p_value(labels, None, probabilities, seed=0)
    0.125
    """
    units = independent_units(len(labels), groups)
    count = int(units.max()) + 1
    ranks = rankdata(probabilities, axis=1)
    nodule = labels == 1

    def differences(exchanged: NDArray[np.bool_]) -> NDArray[np.float64]:
        mixed = np.where(exchanged[:, None, units], ranks[::-1], ranks)
        # In rank sums, which are exact, so that equal differences compare equal.
        sums = rankdata(mixed, axis=2)[:, :, nodule].sum(axis=2)
        return np.abs(sums[:, 1] - sums[:, 0])

    if count <= MAX_EXACT_UNITS:
        exchanges = np.arange(2**count)[:, None] >> np.arange(count) & 1 == 1
    else:
        drawn = np.random.default_rng(seed).random((SAMPLED_EXCHANGES, count)) < 0.5
        # The observed arrangement, no exchange, counts as one of them.
        exchanges = np.vstack([np.zeros(count, bool), drawn])
    blocks = np.array_split(exchanges, -(-exchanges.shape[0] * len(labels) // BLOCK_ELEMENTS))
    found = np.concatenate([differences(block) for block in blocks])
    return float(np.mean(found >= found[0]))


def detectable_difference(test: AucTest, *, alpha: float, power: float) -> float | None:
    """Return the smallest true AUC difference that a test set like this one shows.

    Parameters
    ----------
    test
        The test, whose standard error is taken as the true one.
    alpha
        Significance level of the two-sided t-test, in 0..1.
    power
        Probability of a significant result, in 0..1, from the noncentral t distribution.

    Returns
    -------
    float or None
        AUC difference above 0. None if the standard error is 0, or if the difference would be 1 or
        more.

    Examples
    --------
    >>> test = AucTest(Estimate(0.0, -0.02, 0.02), 0.01, 22, 1.0)
    >>> round(detectable_difference(test, alpha=0.05, power=0.8), 3)
    0.029
    """
    if test.standard_error == 0:
        return None
    critical = float(t.ppf(1 - alpha / 2, test.degrees_of_freedom))
    errors = brentq(
        lambda errors: nct.sf(critical, test.degrees_of_freedom, errors) - power,
        0,
        2 * critical + 10,
    )
    difference = float(errors) * test.standard_error
    return difference if difference < 1 else None


def required_sample_size(
    test: AucTest, patches: int, *, alpha: float, power: float, confidence: float
) -> tuple[int, int] | None:
    """Return between which numbers of patches the one lies that shows the AUC difference.

    The variance of the difference is assumed to be inversely proportional to the number of
    patches, with the same proportion of nodules and the same group sizes. It is estimated from few
    groups, and the limits are those of its confidence interval, from the chi-square distribution.

    Parameters
    ----------
    test
        The test, whose difference is taken as the true one.
    patches
        Number of patches of the measurement.
    alpha
        Significance level of the two-sided test, in 0..1.
    power
        Power of the test, in 0..1.
    confidence
        Confidence level of the limits, in 0..1.

    Returns
    -------
    low, high : int
        Limits of the sample size, or None if the difference or the standard error is 0.

    Examples
    --------
    >>> test = AucTest(Estimate(0.01, -0.01, 0.03), 0.01, 22, 0.3)
    >>> required_sample_size(test, 500, alpha=0.05, power=0.8, confidence=0.95)
    (2348, 7862)
    """
    difference, freedom = test.difference.value, test.degrees_of_freedom
    if difference == 0 or test.standard_error == 0:
        return None
    deviations = float(norm.ppf(1 - alpha / 2) + norm.ppf(power))
    estimated = patches * (deviations * test.standard_error / difference) ** 2
    quantiles = chi2.ppf([(1 + confidence) / 2, (1 - confidence) / 2], freedom)
    low, high = (max(int(np.ceil(estimated * freedom / quantile)), 1) for quantile in quantiles)
    return low, high
