"""Paired comparison of each candidate with the baseline on the same test patches."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nodules.patches.layout import Groups, Labels
from nodules.statistics.auc_tests import (
    can_be_clustered,
    compare_aucs,
    correlated_aucs,
    required_sample_size,
)
from nodules.statistics.bootstrap import PairedScores, percentile_estimate
from nodules.statistics.estimate import Estimate
from nodules.statistics.intervals import score_intervals
from nodules.statistics.significance import holm, mcnemar

ALPHA = 0.05
CONFIDENCE = 1 - ALPHA
POWER = 0.8
SEED = 0


class Verdict(StrEnum):
    """Conclusion on the AUC difference of two classifiers."""

    BETTER = "better"
    WORSE = "worse"
    NO_EVIDENCE = "no evidence of a difference"


class Obstacle(StrEnum):
    """Why there is no evidence of a difference."""

    TOO_FEW_GROUPS = "too few groups"
    NOT_SIGNIFICANT = "not significant"
    INTERVAL_INCLUDES_ZERO = "the bootstrap interval includes 0"


class Classifier(NamedTuple):
    """A classifier's (N,) predicted probabilities of a nodule, and its decision threshold."""

    probabilities: NDArray[np.floating]
    threshold: float


class TestedDifference(NamedTuple):
    """A difference in AUC with its p-value, unadjusted and Holm-adjusted for all candidates."""

    estimate: Estimate
    p_value: float
    p_holm: float


@dataclass(frozen=True)
class PairedComparison:
    """Comparison of a candidate with the baseline. Differences are candidate minus baseline.

    Attributes
    ----------
    auc
        AUC difference by the test that determines the verdict: Obuchowski's if at least two groups
        have nodules and at least two have other patches, otherwise DeLong's.
    delong
        AUC difference by DeLong's test, which assumes independent patches.
    differences
        Difference of each score by name, including `auc`, with a paired group bootstrap interval.
    mcnemar_p, mcnemar_p_holm
        Unadjusted and Holm-adjusted p-value of McNemar's test of equal accuracy.
    only_baseline_right, only_candidate_right
        Number of patches that only one of the two classifies correctly.
    required_sample
        Number of test patches, in groups of the same sizes, needed to detect this AUC difference
        with power `POWER` at the first level of Holm's procedure. None if the AUCs are equal.
    verdict
        `NO_EVIDENCE` unless the adjusted test is significant and the group bootstrap interval
        excludes zero. Always `NO_EVIDENCE` if there are groups, but too few for Obuchowski's test.
    obstacle
        The first reason for `NO_EVIDENCE`; None for the other verdicts.
    """

    auc: TestedDifference
    delong: TestedDifference
    differences: dict[str, Estimate]
    mcnemar_p: float
    mcnemar_p_holm: float
    only_baseline_right: int
    only_candidate_right: int
    required_sample: int | None
    verdict: Verdict
    obstacle: Obstacle | None


@dataclass(frozen=True)
class ComparedClassifiers:
    """Scores of all classifiers, and comparisons of the candidates with the baseline.

    Attributes
    ----------
    clustered
        Whether the verdicts use Obuchowski's test.
    scores
        Scores by name with the intervals of `score_intervals`, one dict per classifier, the
        baseline first.
    comparisons
        One comparison per candidate.
    """

    clustered: bool
    scores: list[dict[str, Estimate]]
    comparisons: list[PairedComparison]


def compare_classifiers(
    labels: Labels,
    groups: Groups | None,
    classifiers: Sequence[Classifier],
    *,
    resamples: int,
) -> ComparedClassifiers:
    """Compare the first classifier with each of the others.

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

    Returns
    -------
    ComparedClassifiers
    """
    probabilities = np.stack([each.probabilities for each in classifiers])
    thresholds = np.array([each.threshold for each in classifiers])
    correct = (probabilities >= thresholds[:, None]) == (labels == 1)
    independent = correlated_aucs(labels, probabilities)
    clustered = can_be_clustered(labels, groups)
    measured = correlated_aucs(labels, probabilities, groups) if clustered else independent
    paired = PairedScores(labels, groups, probabilities, thresholds)
    observed, resampled = paired.observed(), paired.resampled(resamples, SEED)

    def difference(name: str, index: int) -> Estimate:
        replicates = resampled[name][index] - resampled[name][0]
        value = observed[name][index] - observed[name][0]
        return percentile_estimate(value, replicates, confidence=CONFIDENCE)

    candidates = range(1, len(classifiers))
    tests, delong = (
        [compare_aucs(aucs, 0, index, confidence=CONFIDENCE) for index in candidates]
        for aucs in (measured, independent)
    )
    p_holm, delong_p_holm = (holm([test.p_value for test in family]) for family in (tests, delong))
    mcnemar_p = [mcnemar(correct[0], correct[index]) for index in candidates]
    mcnemar_p_holm = holm(mcnemar_p)
    comparisons = []
    for position, (index, test) in enumerate(zip(candidates, tests, strict=True)):
        differences = {name: difference(name, index) for name in observed}
        obstacle = _obstacle(
            p_holm[position],
            differences["auc"],
            too_few_groups=groups is not None and not clustered,
        )
        comparisons.append(
            PairedComparison(
                auc=TestedDifference(test.difference, test.p_value, p_holm[position]),
                delong=TestedDifference(
                    delong[position].difference, delong[position].p_value, delong_p_holm[position]
                ),
                differences=differences,
                mcnemar_p=mcnemar_p[position],
                mcnemar_p_holm=mcnemar_p_holm[position],
                only_baseline_right=int((correct[0] & ~correct[index]).sum()),
                only_candidate_right=int((correct[index] & ~correct[0]).sum()),
                required_sample=required_sample_size(
                    test.difference.value,
                    test.standard_error,
                    len(labels),
                    alpha=ALPHA / len(candidates),
                    power=POWER,
                ),
                verdict=_verdict(test.difference.value, obstacle),
                obstacle=obstacle,
            )
        )
    scores = [
        score_intervals(
            labels, groups, each.probabilities, threshold=each.threshold, confidence=CONFIDENCE
        )
        for each in classifiers
    ]
    return ComparedClassifiers(clustered, scores, comparisons)


def _obstacle(p_value: float, bootstrap: Estimate, *, too_few_groups: bool) -> Obstacle | None:
    # With one group the bootstrap interval has zero width, and DeLong's test ignores groups.
    if too_few_groups:
        return Obstacle.TOO_FEW_GROUPS
    if p_value >= ALPHA:
        return Obstacle.NOT_SIGNIFICANT
    return None if bootstrap.excludes_zero else Obstacle.INTERVAL_INCLUDES_ZERO


def _verdict(difference: float, obstacle: Obstacle | None) -> Verdict:
    if obstacle is not None:
        return Verdict.NO_EVIDENCE
    return Verdict.BETTER if difference > 0 else Verdict.WORSE
