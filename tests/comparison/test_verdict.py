"""The verdict on a candidate."""

import numpy as np
import pytest

from benchmarks.simulated_scans import simulate_test
from nodules.comparison.verdict import (
    Classifier,
    PairedComparison,
    Verdict,
    WithinMargin,
    compare_classifiers,
)
from nodules.statistics.significance import clustered_mcnemar, mcnemar
from tests.support.predictions import draw_binormal


def compared(labels, groups, *rows, margin: float | None = None) -> PairedComparison:
    classifiers = [Classifier(row, 0.5) for row in rows]
    return compare_classifiers(
        labels, groups, classifiers, resamples=200, margin=margin
    ).comparisons[0]


def test_a_verdict_needs_the_groups_to_agree() -> None:
    labels, scores = draw_binormal(np.random.default_rng(5), 400, (1.0, 1.6))
    assert compared(labels, None, *scores).verdict == Verdict.BETTER
    assert compared(labels, None, *scores[::-1]).verdict == Verdict.WORSE
    # Repeating the patches fifty times adds no patients, although the test of patches is certain.
    few, copies = 24, 50
    labels, scores = draw_binormal(np.random.default_rng(6), few, (1.0, 1.3))
    repeated = np.tile(labels, copies), np.tile(scores, copies)
    assert compared(repeated[0], None, *repeated[1]).verdict == Verdict.BETTER
    grouped = compared(repeated[0], np.tile(np.arange(few), copies), *repeated[1])
    assert grouped.verdict == Verdict.NO_EVIDENCE


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("only", [None, 0, 1])
def test_with_one_or_two_groups_of_a_class_there_is_no_verdict_and_no_p_value(
    only: int | None, count: int
) -> None:
    labels, scores = draw_binormal(np.random.default_rng(5), 400, (1.0, 1.6))
    # All patches, or those of one class, are of so few groups.
    few = np.arange(400) // 4 % count
    groups = few if only is None else np.where(labels == only, few, np.arange(400))
    found = compared(labels, groups, *scores, margin=0.01)
    assert found.verdict == Verdict.NONE
    assert found.auc_test is found.p_adjusted is found.detectable is found.required_sample is None
    assert not found.differences["auc"].has_limits
    assert found.within_margin == WithinMargin.NOT_SHOWN
    if only is None and count == 1:
        assert not any(each.has_limits for each in found.differences.values())
        assert found.mcnemar_p is None


def test_the_interval_excludes_zero_exactly_where_there_is_a_verdict() -> None:
    rng = np.random.default_rng(7)
    verdicts = set()
    for _ in range(60):
        test = simulate_test(rng, (0.8, 0.9, 0.8), scans=5)
        classifiers = [Classifier(row, 0.5) for row in test.scores]
        found = compare_classifiers(test.labels, test.groups, classifiers, resamples=2)
        assert found.confidence == 0.975
        for comparison in found.comparisons:
            assert comparison.auc_test is not None
            assert comparison.auc_test.degrees_of_freedom <= 4
            assert comparison.p_adjusted == min(1, 2 * comparison.auc_test.p_value)
            estimate = comparison.differences["auc"]
            excluded = estimate.low > 0 or estimate.high < 0
            assert excluded == (comparison.p_adjusted < 0.05)
            assert excluded == (comparison.verdict is not Verdict.NO_EVIDENCE)
            verdicts.add(comparison.verdict)
    assert {Verdict.BETTER, Verdict.NO_EVIDENCE} <= verdicts


def test_two_patches_of_a_class_are_no_verdict() -> None:
    labels = np.array([0, 0, 1, 1], np.uint8)
    found = compared(labels, None, np.full(4, 0.5), labels.astype(float))
    assert found.verdict == Verdict.NONE
    assert found.p_adjusted is found.required_sample is None


def test_a_constant_network_is_not_certainly_worse_in_three_scans() -> None:
    labels = np.array([0, 0, 1, 1] * 3, np.uint8)
    groups = np.repeat([0, 1, 2], 4)
    found = compared(labels, groups, np.full(12, 0.5), labels.astype(float), margin=0.01)
    assert found.verdict == Verdict.NO_EVIDENCE
    # None or all of 8 exchanges leave the difference.
    assert found.p_adjusted == 2 / 8
    assert found.required_sample is None
    assert found.within_margin == WithinMargin.NOT_SHOWN


def test_a_candidate_that_exchanges_show_to_be_better_is_non_inferior() -> None:
    labels, groups = np.array([0, 0, 1, 1] * 30, np.uint8), np.repeat(np.arange(30), 4)
    constant, perfect = np.full(120, 0.5), labels.astype(float)
    found = compared(labels, groups, constant, perfect, margin=0.01)
    assert not found.differences["auc"].has_limits
    assert found.verdict == Verdict.BETTER
    assert found.within_margin == WithinMargin.NON_INFERIOR
    found = compared(labels, groups, perfect, constant, margin=0.01)
    assert found.verdict == Verdict.WORSE
    assert found.within_margin == WithinMargin.NOT_SHOWN


def test_equal_scores_of_different_networks_are_not_certain() -> None:
    labels, scores = draw_binormal(np.random.default_rng(5), 40, (1.0, 1.1))
    calls_all = scores - scores.min() + 1
    for groups in (None, np.arange(40) % 5):
        found = compared(labels, groups, *calls_all).differences["sensitivity"]
        assert found.value == 0
        assert not found.has_limits
        same = compared(labels, groups, calls_all[0], calls_all[0]).differences["sensitivity"]
        assert same == (0, 0, 0)


def test_mcnemars_test_allows_for_groups() -> None:
    test = simulate_test(np.random.default_rng(1), (0.9, 0.9), scans=10, scan_effect=1.5)
    right = (test.scores >= 0.5) == (test.labels == 1)
    grouped = compared(test.labels, test.groups, *test.scores)
    assert grouped.mcnemar_p == clustered_mcnemar(right[0], right[1], test.groups)
    assert compared(test.labels, None, *test.scores).mcnemar_p == mcnemar(right[0], right[1])


def test_the_interval_decides_what_lies_within_a_margin() -> None:
    labels, scores = draw_binormal(np.random.default_rng(5), 400, (1.0, 1.1))
    estimate = compared(labels, None, *scores).differences["auc"]
    assert estimate.low < 0 < -estimate.low < estimate.high
    between = (estimate.high - estimate.low) / 2
    for margin, expected in (
        (-estimate.low * 0.99, WithinMargin.NOT_SHOWN),
        (-estimate.low * 1.01, WithinMargin.NON_INFERIOR),
        (between, WithinMargin.NON_INFERIOR),
        (estimate.high * 1.01, WithinMargin.EQUIVALENT),
    ):
        assert compared(labels, None, *scores, margin=margin).within_margin == expected
    assert compared(labels, None, *scores).within_margin is None


def test_equal_predictions_are_equivalent_within_any_margin() -> None:
    labels, scores = draw_binormal(np.random.default_rng(5), 40, (1.0, 1.1))
    found = compared(labels, np.arange(40) % 5, scores[0], scores[0], margin=1e-6)
    assert found.verdict == Verdict.NO_EVIDENCE
    assert found.within_margin == WithinMargin.EQUIVALENT


def test_at_the_margin_at_most_five_percent_are_called_non_inferior() -> None:
    rng = np.random.default_rng(8)
    runs = 500
    false = 0
    for _ in range(runs):
        test = simulate_test(rng, (0.92, 0.88), scans=6)
        found = compared(test.labels, test.groups, *test.scores, margin=0.04)
        false += found.within_margin is not WithinMargin.NOT_SHOWN
    assert 0 < false / runs < 0.05


def test_more_candidates_need_a_larger_sample_and_show_less() -> None:
    labels, scores = draw_binormal(np.random.default_rng(5), 400, (1.0, 1.1))
    one = compared(labels, None, *scores)
    two = compared(labels, None, scores[0], scores[1], scores[1])
    assert one.required_sample is not None
    assert two.required_sample is not None
    # From the normal quantiles at 1 - 0.05 / 2, at 1 - 0.05 / 4 and, for the power, at 0.8.
    ratio = (2.2414 + 0.8416) ** 2 / (1.9600 + 0.8416) ** 2
    for first, second in zip(one.required_sample, two.required_sample, strict=True):
        assert second / first == pytest.approx(ratio, rel=1e-2)
    assert one.detectable is not None
    assert two.detectable is not None
    assert two.detectable > one.detectable
