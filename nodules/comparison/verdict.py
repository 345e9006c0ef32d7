"""Paired comparison of each candidate with the baseline on the same test patches."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nodules.patches.layout import Groups, Labels
from nodules.statistics.auc_tests import (
    AucTest,
    compare_with_baseline,
    degrees_of_freedom,
    detectable_difference,
    required_sample_size,
)
from nodules.statistics.bootstrap import PairedScores, percentile_estimate
from nodules.statistics.decision import called
from nodules.statistics.estimate import Estimate
from nodules.statistics.intervals import score_intervals
from nodules.statistics.significance import clustered_mcnemar, mcnemar

ALPHA = 0.05
CONFIDENCE = 1 - ALPHA
POWER = 0.8
SEED = 0
# With two groups of a class, one degree of freedom, a difference is shown no more often than one
# that does not exist, and more than 6% of the latter are where scans differ much.
MIN_UNITS = 3


class Verdict(StrEnum):
    """Conclusion on the AUC difference of two classifiers."""

    BETTER = "better"
    WORSE = "worse"
    NO_EVIDENCE = "no evidence of a difference"
    NONE = "no verdict"


class WithinMargin(StrEnum):
    """Whether a candidate's AUC is shown to be as good as the baseline's, within a margin."""

    EQUIVALENT = "equivalent"
    NON_INFERIOR = "non-inferior"
    NOT_SHOWN = "not shown to be non-inferior"


class Classifier(NamedTuple):
    """A classifier's (N,) predicted probabilities of a nodule, and its decision threshold."""

    probabilities: NDArray[np.floating]
    threshold: float


@dataclass(frozen=True)
class PairedComparison:
    """Comparison of a candidate with the baseline. Differences are candidate minus baseline.

    Attributes
    ----------
    verdict
        `NONE` if fewer than `MIN_UNITS` groups, or patches without groups, hold a class.
        Otherwise `NO_EVIDENCE` unless `p_adjusted` is below `ALPHA`.
    auc_test
        The test that the verdict is from, Obuchowski's or, without groups, DeLong's. None without
        a verdict.
    p_adjusted
        Its p-value times the number of candidates.
    within_margin
        Conclusion from the interval of the AUC difference and the margin; `NON_INFERIOR` if there
        is no interval and the verdict is `BETTER`. None without a margin.
    detectable
        Smallest AUC difference that this test set shows with power `POWER`, or None if it is 1 or
        more or cannot be estimated.
    required_sample
        Limits of the number of test patches, in groups of the same sizes, that shows the observed
        AUC difference with power `POWER`. None if the AUCs are equal or it cannot be estimated.
    differences
        Difference of each score by name with an interval: that of the test for `auc`, a paired
        group bootstrap interval for the others. Their confidence is that of `ComparedClassifiers`.
    mcnemar_p, mcnemar_p_adjusted
        Unadjusted and adjusted p-value of McNemar's test of equal accuracy, in groups if there are
        any. None if there is one group.
    only_baseline_right, only_candidate_right
        Number of patches that only one of the two classifies correctly.
    """

    verdict: Verdict
    auc_test: AucTest | None
    p_adjusted: float | None
    within_margin: WithinMargin | None
    detectable: float | None
    required_sample: tuple[int, int] | None
    differences: dict[str, Estimate]
    mcnemar_p: float | None
    mcnemar_p_adjusted: float | None
    only_baseline_right: int
    only_candidate_right: int


@dataclass(frozen=True)
class ComparedClassifiers:
    """Scores of all classifiers, and comparisons of the candidates with the baseline.

    Attributes
    ----------
    confidence
        Confidence level of the intervals of differences: for all candidates together, `CONFIDENCE`.
    margin
        Largest decrease in AUC that counts as as good, or None.
    scores
        Scores by name with the intervals of `score_intervals`, one dict per classifier, the
        baseline first.
    comparisons
        One comparison per candidate.
    """

    confidence: float
    margin: float | None
    scores: list[dict[str, Estimate]]
    comparisons: list[PairedComparison]


def compare_classifiers(
    labels: Labels,
    groups: Groups | None,
    classifiers: Sequence[Classifier],
    *,
    resamples: int,
    margin: float | None = None,
) -> ComparedClassifiers:
    """Compare the first classifier with each of the others.

    For several candidates, p-values and intervals are adjusted by Bonferroni's method: unlike
    Holm's, it has intervals, which exclude 0 exactly where the adjusted p-value is below `ALPHA`.

    Parameters
    ----------
    labels
        (N,) labels 0 and 1, at least two of each.
    groups
        (N,) group of each patch, or None.
    classifiers
        Baseline, then the candidates, with predictions on the same N patches.
    resamples
        Number of bootstrap resamples.
    margin
        Largest decrease in AUC that counts as as good, in 0..1, or None.

    Returns
    -------
    ComparedClassifiers
    """
    probabilities = np.stack([each.probabilities for each in classifiers])
    thresholds = np.array([each.threshold for each in classifiers])
    correct = called(probabilities, thresholds[:, None]) == (labels == 1)
    paired = PairedScores(labels, groups, probabilities, thresholds)
    observed, resampled = paired.observed(), paired.resampled(resamples, SEED)

    candidates = range(1, len(classifiers))
    alpha = ALPHA / len(candidates)

    def adjusted(p_value: float) -> float:
        return min(p_value * len(candidates), 1.0)

    def classifiers_equal(index: int) -> bool:
        same_threshold = thresholds[0] == thresholds[index]
        return bool(same_threshold) and np.array_equal(probabilities[0], probabilities[index])

    def difference(name: str, index: int) -> Estimate:
        value = observed[name][index] - observed[name][0]
        if name == "auc":
            return Estimate.without_limits(value)
        replicates = resampled[name][index] - resampled[name][0]
        interval = percentile_estimate(value, replicates, confidence=1 - alpha)
        # Where no resample differs, they say nothing about other patches, unless all is equal.
        known = interval.low < interval.high or classifiers_equal(index)
        return interval if known else Estimate.without_limits(value)

    tests: Sequence[AucTest | None] = [None] * len(candidates)
    if degrees_of_freedom(labels, groups) + 1 >= MIN_UNITS:
        tests = compare_with_baseline(
            labels, groups, probabilities, confidence=1 - alpha, seed=SEED
        )
    comparisons = []
    for index, test in zip(candidates, tests, strict=True):
        differences = {name: difference(name, index) for name in observed}
        if test is not None:
            differences["auc"] = test.difference
        conclusion = _verdict(test, alpha)
        mcnemar_p = _equal_accuracy(correct[0], correct[index], groups)
        comparisons.append(
            PairedComparison(
                verdict=conclusion,
                auc_test=test,
                p_adjusted=None if test is None else adjusted(test.p_value),
                within_margin=(
                    None if margin is None else _within(margin, differences["auc"], conclusion)
                ),
                detectable=(
                    None if test is None else detectable_difference(test, alpha=alpha, power=POWER)
                ),
                required_sample=(
                    None
                    if test is None
                    else required_sample_size(
                        test, len(labels), alpha=alpha, power=POWER, confidence=CONFIDENCE
                    )
                ),
                differences=differences,
                mcnemar_p=mcnemar_p,
                mcnemar_p_adjusted=None if mcnemar_p is None else adjusted(mcnemar_p),
                only_baseline_right=int((correct[0] & ~correct[index]).sum()),
                only_candidate_right=int((correct[index] & ~correct[0]).sum()),
            )
        )
    scores = [
        score_intervals(
            labels, groups, each.probabilities, threshold=each.threshold, confidence=CONFIDENCE
        )
        for each in classifiers
    ]
    return ComparedClassifiers(1 - alpha, margin, scores, comparisons)


def _verdict(test: AucTest | None, alpha: float) -> Verdict:
    if test is None:
        return Verdict.NONE
    if test.p_value >= alpha:
        return Verdict.NO_EVIDENCE
    return Verdict.BETTER if test.difference.value > 0 else Verdict.WORSE


def _within(margin: float, difference: Estimate, verdict: Verdict) -> WithinMargin:
    """Conclude from two one-sided tests, which the limits of the interval decide."""
    # Limits that are unknown compare as false. A permutation test may still show a better AUC.
    if not difference.low > -margin and verdict is not Verdict.BETTER:
        return WithinMargin.NOT_SHOWN
    return WithinMargin.EQUIVALENT if difference.high < margin else WithinMargin.NON_INFERIOR


def _equal_accuracy(
    baseline_right: NDArray[np.bool_], candidate_right: NDArray[np.bool_], groups: Groups | None
) -> float | None:
    if groups is None:
        return mcnemar(baseline_right, candidate_right)
    if len(set(groups)) < 2:
        return None
    return clustered_mcnemar(baseline_right, candidate_right, groups)
