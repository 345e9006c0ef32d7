"""Confidence intervals of the scores of one classifier, for patches grouped by scan.

Each is Wilson's interval (1927), "Probable inference, the law of succession, and statistical
inference", JASA 22:209-212, with an effective sample size: the number of independent patches over
which a proportion would have the variance of the score, `value (1 - value) / variance`.

The variance is the sum of the squared influence values: of groups or of patches, whichever is
larger, so the design effect is at least 1. For an AUC they are the placement values of DeLong et
al. (1988), summed by group as in Obuchowski (1997). With groups, the quantile is that of a t
distribution, after Korn and Graubard (1998), "Confidence intervals for proportions with small
expected number of positive counts estimated from survey data", Survey Methodology 24:193-201.

With few errors, an AUC that is too high by chance has an estimated variance that is too small by
the same chance. The variance is therefore averaged with the largest possible one, times the design
effect. For an AUC, that is `value (1 - value) / min(nodules, others)`: Birnbaum and Klose (1957),
"Bounds for the variance of the Mann-Whitney statistic", Annals of Mathematical Statistics
28:933-945. The estimate weighs as many groups as contribute to it, and the largest variance
`WEIGHT_OF_BOUND` of a group. A perfect score has no errors, so the largest variance alone decides.
For proportions, the two are equal.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from nodules.patches.layout import Groups, Labels
from nodules.statistics.auc_tests import placements
from nodules.statistics.decision import called
from nodules.statistics.estimate import Estimate
from nodules.statistics.units import independent_units

# Coverage in `benchmarks.coverage`: half of this lets that of the AUC fall to 0.91 where
# `--scan-effect` is 1, and twice this makes intervals wider than they need to be.
WEIGHT_OF_BOUND = 0.25
# A variance below this fraction of `value (1 - value)` is 0 but for rounding. One nodule that ranks
# below one other patch, among a million of each, makes more.
ROUNDING = 1e-13

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


class _Score(NamedTuple):
    """A score as a function of the patches.

    Attributes
    ----------
    value
        Score in 0..1.
    influence
        (N,) derivatives of the score with respect to the weight of each patch. Their sum is 0.
    classes
        (N,) masks of the classes that the score needs. The smallest limits what is known.
    is_proportion
        Whether it is a proportion of patches, whose variance follows from its value.
    """

    value: float
    influence: Floats
    classes: tuple[Mask, ...]
    is_proportion: bool = False


def score_intervals(
    labels: Labels,
    groups: Groups | None,
    probabilities: NDArray[np.floating],
    *,
    threshold: float,
    confidence: float,
) -> dict[str, Estimate]:
    """Return the scores of a classifier with their confidence intervals.

    Parameters
    ----------
    labels
        (N,) labels 0 and 1, both present.
    groups
        (N,) group of each patch, or None for independent patches.
    probabilities
        (N,) predicted probabilities of a nodule.
    threshold
        Smallest probability that is called a nodule.
    confidence
        Confidence level, in 0..1.

    Returns
    -------
    dict of str to Estimate
        `auc`, `average_precision`, `sensitivity`, `specificity`, `accuracy` and `brier`. An
        interval is 0 to 1 if a single group (or, for `auc` and `average_precision` without groups,
        a single patch) holds a class that the score needs: one says nothing about others.
    """
    exact = np.asarray(probabilities, np.float64)
    nodule = labels == 1
    positive = called(exact, threshold)
    each = np.ones(len(labels), bool)
    scores = {
        "auc": _auc(nodule, exact),
        "average_precision": _average_precision(nodule, exact),
        "sensitivity": _mean(positive, nodule),
        "specificity": _mean(~positive, ~nodule),
        "accuracy": _mean(positive == nodule, each),
        "brier": _mean((exact - labels) ** 2, each),
    }
    return {name: _estimate(score, groups, confidence) for name, score in scores.items()}


def wilson(value: float, patches: float, deviations: float) -> tuple[float, float]:
    """Return Wilson's interval of a proportion.

    Parameters
    ----------
    value
        Proportion in 0..1.
    patches
        Number, or effective number, of independent patches; 0 makes the interval 0 to 1.
    deviations
        Quantile of the normal or t distribution, such as 1.96.

    Returns
    -------
    low, high : float

    Examples
    --------
    >>> low, high = wilson(0.9, 10, 1.96)
    >>> round(low, 3), round(high, 3)
    (0.596, 0.982)
    """
    squared = deviations**2
    centre = (value * patches + squared / 2) / (patches + squared)
    spread = value * (1 - value) * patches + squared / 4
    margin = deviations * float(np.sqrt(spread)) / (patches + squared)
    # The value lies within but for rounding.
    return min(max(centre - margin, 0.0), value), max(min(centre + margin, 1.0), value)


def _estimate(score: _Score, groups: Groups | None, confidence: float) -> Estimate:
    """Return a score with its interval."""
    units = independent_units(len(score.influence), groups)
    freedom: float = min(len(np.unique(units[members])) for members in score.classes) - 1
    if groups is None and score.is_proportion:
        freedom = np.inf
    if freedom == 0:
        return Estimate(score.value, 0.0, 1.0)
    deviations = float(t.ppf((1 + confidence) / 2, freedom))
    return Estimate(score.value, *wilson(score.value, _patches(score, units, freedom), deviations))


def _patches(score: _Score, units: NDArray[np.intp], freedom: float) -> float:
    """Return the effective sample size of a score."""
    largest = min(int(members.sum()) for members in score.classes)
    spread = score.value * (1 - score.value)
    independent = float((score.influence**2).sum())
    if independent <= ROUNDING * spread:
        return largest
    squares = np.bincount(units, score.influence) ** 2
    clustered = float(squares.sum()) * (1 + 1 / freedom)
    variance = max(clustered, independent)
    # Kish's effective number of groups that contribute to the variance.
    contributing = clustered and float(squares.sum() ** 2 / (squares**2).sum())
    bound = variance / independent / largest
    variance_of_each = contributing * variance / spread + WEIGHT_OF_BOUND * bound
    return (contributing + WEIGHT_OF_BOUND) / variance_of_each


def _mean(values: NDArray, members: Mask) -> _Score:
    """Return the mean of (N,) values in 0..1 over the patches of a class."""
    mean = float(values[members].mean())
    influence = np.where(members, values - mean, 0) / members.sum()
    return _Score(mean, influence, (members,), is_proportion=values.dtype == np.bool_)


def _auc(nodule: Mask, probabilities: Floats) -> _Score:
    nodules, others = probabilities[nodule], probabilities[~nodule]
    m, n = len(nodules), len(others)
    outranked, outranking = placements(nodules, others)
    auc = float(outranked.sum() / (m * n))
    influence = np.empty(m + n)
    influence[nodule] = (outranked / n - auc) / m
    influence[~nodule] = (outranking / m - auc) / n
    return _Score(auc, influence, (nodule, ~nodule))


def _average_precision(nodule: Mask, probabilities: Floats) -> _Score:
    order = np.argsort(-probabilities, kind="stable")
    hit = nodule[order].astype(np.float64)
    falls = np.diff(probabilities[order]) < 0
    # Patches of equal probability share one point of the curve.
    ends = np.flatnonzero(np.append(falls, True))
    point = np.append(0, np.cumsum(falls))
    found, called = np.cumsum(hit)[ends], ends + 1.0
    precision, gained, nodules = found / called, np.diff(found, prepend=0), hit.sum()
    value = float((gained * precision).sum() / nodules)

    def from_here_on(each: Floats) -> Floats:
        return np.cumsum(each[::-1])[::-1][point]

    # A nodule adds its own precision. Each patch changes the precision at its point and at all
    # later ones, `found / called`, by `(hit - precision) / called`.
    later = hit * from_here_on(gained / called) - from_here_on(gained * precision / called)
    influence = np.empty(len(hit))
    influence[order] = (hit * (precision[point] - value) + later) / nodules
    return _Score(value, influence, (nodule, ~nodule))
