"""Confidence intervals of scores, against printed figures, definitions and simulations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, t

from benchmarks.coverage import THRESHOLD, true_scores
from benchmarks.simulated_scans import simulate_test
from nodules.comparison.verdict import Classifier, compare_classifiers
from nodules.statistics.auc_tests import correlated_aucs
from nodules.statistics.bootstrap import PairedScores
from nodules.statistics.estimate import Estimate
from nodules.statistics.intervals import _auc, _average_precision, score_intervals, wilson
from tests.support.predictions import draw_binormal, predictions, scikit_learn_scores

PROPORTIONS = ("sensitivity", "specificity", "accuracy")


def intervals(labels, groups, probabilities, threshold: float = 0.5) -> dict[str, Estimate]:
    return score_intervals(
        np.asarray(labels, np.uint8),
        None if groups is None else np.asarray(groups),
        np.asarray(probabilities),
        threshold=threshold,
        confidence=0.95,
    )


def replicated(copies: int) -> dict[str, Estimate]:
    """Return the intervals of 24 patches that each scan repeats."""
    rng = np.random.default_rng(2)
    labels = np.arange(24) % 3 == 0
    probabilities = np.clip(rng.normal(0.3 + 0.4 * labels, 0.25), 0, 1)
    labels, groups, probabilities = (
        np.tile(each, copies) for each in (labels, np.arange(24), probabilities)
    )
    return intervals(labels, groups, probabilities)


@given(case=predictions(), threshold=st.floats(0, 1), grouped=st.booleans())
def test_the_values_are_those_of_scikit_learn_and_lie_in_their_intervals(
    case, threshold: float, grouped: bool
) -> None:
    labels, probabilities = case
    groups = np.arange(len(labels)) // 3 if grouped else None
    found = intervals(labels, groups, probabilities, threshold)
    expected = scikit_learn_scores(labels, probabilities, threshold)
    assert {name: estimate.value for name, estimate in found.items()} == pytest.approx(expected)
    for estimate in found.values():
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
        assert estimate.low < estimate.high


@pytest.mark.parametrize(
    ("found", "of", "low", "high"),
    [
        # Newcombe (1998), "Two-sided confidence intervals for the single proportion: comparison of
        # seven methods", Statistics in Medicine 17:857-872, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_proportions_of_independent_patches_have_wilsons_interval(
    found: int, of: int, low: float, high: float
) -> None:
    labels = np.append(np.ones(of), 0)
    estimate = intervals(labels, None, np.arange(of + 1) < found)["sensitivity"]
    assert estimate[1:] == pytest.approx((low, high), abs=5e-5)
    exact = binomtest(found, of).proportion_ci(method="wilson")
    assert estimate[1:] == pytest.approx((exact.low, exact.high))


def test_three_nodules_that_are_all_found_leave_doubt() -> None:
    found = intervals([1, 1, 1, 0, 0, 0], None, [0.9, 0.8, 0.9, 0.1, 0.2, 0.6])
    # By hand: n / (n + 1.96^2).
    assert found["sensitivity"] == pytest.approx((1, 3 / (3 + 1.959964**2), 1))
    grouped = intervals([1, 1, 1, 0, 0, 0], [0, 1, 1, 0, 1, 1], [0.9, 0.8, 0.9, 0.1, 0.2, 0.6])
    # Nodules of two scans: one degree of freedom.
    assert grouped["sensitivity"] == pytest.approx((1, 3 / (3 + t.ppf(0.975, 1) ** 2), 1))


def test_a_proportion_has_the_sample_size_that_the_variance_between_scans_leaves() -> None:
    # Four scans of five nodules, of which 5, 5, 5 and 1 are found.
    hits = np.repeat([1, 1, 1, 0.2], 5)
    hits[-4:] = 0
    labels, groups = np.append(np.ones(20), 0), np.append(np.repeat(np.arange(4), 5), 9)
    estimate = intervals(labels, groups, np.append(hits > 0, 0))["sensitivity"]
    # Linearised variance by hand: deviations of the scans' sums from 5 * 0.8 are 1, 1, 1 and -3.
    variance = 4 / 3 * (1 + 1 + 1 + 9) / 20**2
    assert 0.8 * 0.2 / variance == pytest.approx(4)
    assert estimate == pytest.approx((0.8, *wilson(0.8, 4, t.ppf(0.975, 3))))


def test_scans_that_vary_less_than_chance_do_not_add_patches() -> None:
    # Each scan has one nodule found and one missed, so the scans do not vary at all.
    labels, groups = np.append(np.ones(20), 0), np.append(np.repeat(np.arange(10), 2), 99)
    estimate = intervals(labels, groups, np.append(np.tile([1, 0], 10), 0))["sensitivity"]
    assert estimate == pytest.approx((0.5, *wilson(0.5, 20, t.ppf(0.975, 9))))


def test_copies_of_patches_within_their_scans_add_next_to_nothing() -> None:
    once, many = replicated(1), replicated(50)
    for name in ("auc", *PROPORTIONS, "average_precision", "brier"):
        assert many[name].value == pytest.approx(once[name].value)
        width = once[name].high - once[name].low
        assert many[name].high - many[name].low == pytest.approx(width, rel=0.1), name


def test_the_influence_of_a_patch_is_the_derivative_with_respect_to_its_weight() -> None:
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 2, 50).astype(np.uint8)
    probabilities = rng.integers(0, 12, 50) / 12
    paired = PairedScores(labels, None, probabilities[None], np.array([0.5]))
    step = 1e-6
    weights = np.ones((50, 50)) + step * np.eye(50)
    for name, score in (("auc", _auc), ("average_precision", _average_precision)):
        changed = paired._scores(weights)[name][0] - paired.observed()[name][0]
        assert score(labels == 1, probabilities).influence == pytest.approx(
            changed / step, abs=1e-6
        )


def test_the_influences_of_the_auc_have_obuchowskis_variance() -> None:
    rng = np.random.default_rng(5)
    # Both classes in every scan.
    labels, groups = np.tile([0, 0, 1, 0, 1], 12), np.repeat(np.arange(12), 5)
    probabilities = rng.random(60) + 0.3 * labels
    influence = np.bincount(groups, _auc(labels == 1, probabilities).influence)
    expected = correlated_aucs(labels.astype(np.uint8), probabilities[None], groups)
    assert 12 / 11 * (influence**2).sum() == pytest.approx(expected.covariance[0, 0])


def test_one_error_does_not_make_a_high_auc_certain() -> None:
    # One nodule below one of 200 others: DeLong's standard error would be 0.00018.
    labels = np.append(np.zeros(200), np.ones(40))
    probabilities = np.append(np.linspace(0, 0.5, 200), np.linspace(0.6, 1, 40))
    probabilities[-1] = 0.499
    auc = intervals(labels, None, probabilities)["auc"]
    assert auc.value == 1 - 1 / 8000
    assert 0.9 < auc.low < 0.99


def test_a_perfect_auc_is_as_uncertain_as_the_rarer_class_is_rare() -> None:
    labels = np.append(np.zeros(200), np.ones(40))
    perfect = intervals(labels, np.arange(240) % 24, labels)["auc"]
    assert perfect == pytest.approx((1, 40 / (40 + t.ppf(0.975, 23) ** 2), 1))


def test_a_network_that_tells_nothing_apart_is_not_certain_of_it() -> None:
    labels = np.arange(40) % 4 == 0
    for groups in (None, np.arange(40) // 4):
        auc = intervals(labels, groups, np.full(40, 0.3))["auc"]
        assert auc.low < 0.25
        assert auc.high > 0.75


def test_one_scan_says_nothing_about_others() -> None:
    labels = np.arange(40) % 4 == 0
    probabilities = np.random.default_rng(6).random(40)
    assert {
        estimate[1:] for estimate in intervals(labels, np.zeros(40), probabilities).values()
    } == {(0, 1)}
    # Nodules of one scan, others of many.
    found = intervals(labels, np.where(labels, 7, np.arange(40) % 10), probabilities)
    for name in ("auc", "average_precision", "sensitivity"):
        assert found[name][1:] == (0, 1)
    for name in ("specificity", "accuracy"):
        assert found[name].high - found[name].low < 0.6


def test_compare_prints_these_intervals() -> None:
    labels, scores = draw_binormal(np.random.default_rng(5), 400, (1.0, 1.6))
    groups = np.arange(400) // 16
    classifiers = [
        Classifier(row, threshold) for row, threshold in zip(scores, (0.5, 1.0), strict=True)
    ]
    compared = compare_classifiers(labels, groups, classifiers, resamples=100)
    for classifier, found in zip(classifiers, compared.scores, strict=True):
        row, threshold = classifier
        expected = score_intervals(labels, groups, row, threshold=threshold, confidence=0.95)
        assert found == expected


def test_the_names_of_scans_do_not_matter() -> None:
    rng = np.random.default_rng(7)
    labels, groups = rng.integers(0, 2, 60), rng.integers(0, 9, 60)
    probabilities = rng.random(60)
    names = np.array([f"scan-{9 - group}" for group in groups], object)
    found = intervals(labels, names, probabilities)
    for name, estimate in intervals(labels, groups, probabilities).items():
        assert found[name] == pytest.approx(estimate)


@pytest.mark.parametrize(("scans", "auc"), [(23, 0.98), (10, 0.998), (60, 0.998)])
def test_the_intervals_cover_the_true_scores(scans: int, auc: float) -> None:
    runs = 400
    truth = true_scores(auc)
    found = []
    for seed in range(runs):
        rng = np.random.default_rng([seed, scans])
        labels, groups, scores = simulate_test(rng, (auc,), scans=scans)
        found.append(intervals(labels, groups, scores[0], THRESHOLD))
    for name, value in truth.items():
        above = np.mean([each[name].low > value for each in found])
        below = np.mean([each[name].high < value for each in found])
        # Coverage of 0.93, less two standard errors.
        assert 1 - above - below > 0.905, name
        assert max(above, below) < 0.07, name
