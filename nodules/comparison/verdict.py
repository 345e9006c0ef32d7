"""Comparing each candidate with the baseline on the same test patches, down to one verdict."""

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
    patches_to_see,
)
from nodules.statistics.bootstrap import PairedScores, percentile_estimate
from nodules.statistics.estimate import Estimate
from nodules.statistics.significance import holm, mcnemar

ALPHA = 0.05
CONFIDENCE = 1 - ALPHA
POWER = 0.8
SEED = 0


class Verdict(StrEnum):
    """What the AUCs of two classifiers say."""

    BETTER = "better"
    WORSE = "worse"
    NO_EVIDENCE = "no evidence of a difference"


class Classifier(NamedTuple):
    """What is compared: (N,) probabilities of a nodule, and the threshold of the calls."""

    probabilities: NDArray[np.floating]
    threshold: float


class TestedDifference(NamedTuple):
    """A difference in AUC, the p-value of its test, and that adjusted for all candidates."""

    estimate: Estimate
    p_value: float
    p_holm: float


@dataclass(frozen=True)
class PairedComparison:
    """A candidate against the baseline; differences are candidate minus baseline.

    Attributes
    ----------
    auc
        The difference, by the test that the verdict rests on: Obuchowski's where there are groups
        (two at least with nodules and two with other patches), otherwise DeLong's.
    delong
        The difference by DeLong's test, which takes patches as independent.
    differences
        By name of the score, with the interval of the paired group bootstrap; `auc` is among them.
    mcnemar_p, mcnemar_p_holm
        That both are right equally often.
    only_baseline_right, only_candidate_right
        The patches that McNemar's test looks at.
    patches_to_see
        How many test patches, in groups like these, would show a difference in AUC of this size
        with probability `POWER`, at the level that Holm's method begins with; None where there is
        none to be shown.
    verdict
        `NO_EVIDENCE` unless the test, adjusted, and the group bootstrap's interval agree; always,
        where there are groups but too few for Obuchowski's test.
    """

    auc: TestedDifference
    delong: TestedDifference
    differences: dict[str, Estimate]
    mcnemar_p: float
    mcnemar_p_holm: float
    only_baseline_right: int
    only_candidate_right: int
    patches_to_see: int | None
    verdict: Verdict


@dataclass(frozen=True)
class ComparedClassifiers:
    """The scores of each classifier, with the bootstrap's intervals, and the comparisons.

    Attributes
    ----------
    clustered
        Whether the verdicts rest on Obuchowski's test.
    scores
        For each classifier, the baseline first, by name of the score.
    comparisons
        For each candidate.
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
        (N,) of 0 and 1, at least two of each.
    groups
        (N,) group of each patch, or None.
    classifiers
        The baseline, then the candidates, all on the same N patches.
    resamples
        Of the bootstrap.

    Returns
    -------
    ComparedClassifiers
    """
    probabilities = np.stack([each.probabilities for each in classifiers])
    thresholds = np.array([each.threshold for each in classifiers])
    right = (probabilities >= thresholds[:, None]) == (labels == 1)
    independent = correlated_aucs(labels, probabilities)
    clustered = can_be_clustered(labels, groups)
    measured = correlated_aucs(labels, probabilities, groups) if clustered else independent
    paired = PairedScores(labels, groups, probabilities, thresholds)
    observed, resampled = paired.observed(), paired.resampled(resamples, SEED)

    def score(name: str, each: int) -> Estimate:
        return percentile_estimate(
            observed[name][each], resampled[name][each], confidence=CONFIDENCE
        )

    def difference(name: str, each: int) -> Estimate:
        spread = resampled[name][each] - resampled[name][0]
        value = observed[name][each] - observed[name][0]
        return percentile_estimate(value, spread, confidence=CONFIDENCE)

    candidates = range(1, len(classifiers))
    tests, delong = (
        [compare_aucs(aucs, 0, each, confidence=CONFIDENCE) for each in candidates]
        for aucs in (measured, independent)
    )
    p_holm, delong_p_holm = (holm([test.p_value for test in each]) for each in (tests, delong))
    mcnemar_p = [mcnemar(right[0], right[each]) for each in candidates]
    mcnemar_p_holm = holm(mcnemar_p)
    comparisons = []
    for position, (each, test) in enumerate(zip(candidates, tests, strict=True)):
        differences = {name: difference(name, each) for name in observed}
        comparisons.append(
            PairedComparison(
                auc=TestedDifference(test.difference, test.p_value, p_holm[position]),
                delong=TestedDifference(
                    delong[position].difference, delong[position].p_value, delong_p_holm[position]
                ),
                differences=differences,
                mcnemar_p=mcnemar_p[position],
                mcnemar_p_holm=mcnemar_p_holm[position],
                only_baseline_right=int((right[0] & ~right[each]).sum()),
                only_candidate_right=int((right[each] & ~right[0]).sum()),
                patches_to_see=patches_to_see(
                    test.difference.value,
                    test.standard_error,
                    len(labels),
                    alpha=ALPHA / len(candidates),
                    power=POWER,
                ),
                verdict=_verdict(
                    test.difference.value,
                    p_holm[position],
                    differences["auc"],
                    too_few_groups=groups is not None and not clustered,
                ),
            )
        )
    scores = [{name: score(name, each) for name in observed} for each in range(len(classifiers))]
    return ComparedClassifiers(clustered, scores, comparisons)


def _verdict(
    difference: float, p_value: float, by_groups: Estimate, *, too_few_groups: bool
) -> Verdict:
    # Of one group the bootstrap's interval has no width, and DeLong's test knows of no groups.
    if too_few_groups or p_value >= ALPHA or not by_groups.excludes_zero:
        return Verdict.NO_EVIDENCE
    return Verdict.BETTER if difference > 0 else Verdict.WORSE
