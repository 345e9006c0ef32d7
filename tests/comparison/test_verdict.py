"""The verdict on a candidate."""

import numpy as np
import pytest

from nodules.comparison.verdict import Classifier, Obstacle, Verdict, compare_classifiers
from tests.support.predictions import draw_binormal


def test_a_verdict_needs_the_groups_to_agree() -> None:
    rng = np.random.default_rng(5)
    labels, scores = draw_binormal(rng, 400, (1.0, 1.6))
    classifiers = [Classifier(row, 0.5) for row in scores]
    alone = compare_classifiers(labels, None, classifiers, resamples=1000)
    assert alone.comparisons[0].verdict == Verdict.BETTER
    back = compare_classifiers(labels, None, classifiers[::-1], resamples=1000)
    assert back.comparisons[0].verdict == Verdict.WORSE
    # Repeating the patches fifty times adds no patients, although DeLong's p-value falls.
    few, copies = 24, 50
    labels, scores = draw_binormal(np.random.default_rng(6), few, (1.0, 1.3))
    classifiers = [Classifier(np.tile(row, copies), 0.5) for row in scores]
    groups = np.tile(np.arange(few), copies)
    grouped = compare_classifiers(np.tile(labels, copies), groups, classifiers, resamples=1000)
    assert grouped.comparisons[0].delong.p_value < 0.05
    assert grouped.comparisons[0].auc.p_value > 0.05
    assert grouped.comparisons[0].verdict == Verdict.NO_EVIDENCE
    assert grouped.comparisons[0].obstacle == Obstacle.NOT_SIGNIFICANT
    assert alone.comparisons[0].obstacle is None


def test_a_single_group_is_no_evidence_however_small_delongs_p_value() -> None:
    labels, scores = draw_binormal(np.random.default_rng(5), 400, (1.0, 1.6))
    classifiers = [Classifier(row, 0.5) for row in scores]
    groups = np.zeros(len(labels), int)
    compared = compare_classifiers(labels, groups, classifiers, resamples=100)
    assert compared.comparisons[0].auc.p_value < 0.001
    assert compared.comparisons[0].verdict == Verdict.NO_EVIDENCE
    assert compared.comparisons[0].obstacle == Obstacle.TOO_FEW_GROUPS


def test_with_more_candidates_the_required_sample_grows() -> None:
    labels, scores = draw_binormal(np.random.default_rng(5), 400, (1.0, 1.1))
    baseline, candidate = (Classifier(row, 0.5) for row in scores)
    sizes = []
    for count in (1, 2):
        several = [baseline, *[candidate] * count]
        compared = compare_classifiers(labels, None, several, resamples=100)
        size = compared.comparisons[0].required_sample
        assert size is not None
        sizes.append(size)
    # From the normal quantiles at 1 - 0.05 / 2, at 1 - 0.05 / 4 and, for the power, at 0.8.
    one, two = (1.9600 + 0.8416) ** 2, (2.2414 + 0.8416) ** 2
    assert sizes[1] / sizes[0] == pytest.approx(two / one, rel=1e-2)
