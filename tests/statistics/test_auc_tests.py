"""Tests of AUCs, checked against published figures, definitions and simulations."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmarks.simulated_scans import simulate_test
from nodules.statistics.auc_tests import (
    AucTest,
    compare_aucs,
    compare_with_baseline,
    correlated_aucs,
    degrees_of_freedom,
    detectable_difference,
    exchange_p_value,
    required_sample_size,
)
from nodules.statistics.estimate import Estimate
from tests.support.predictions import draw_binormal, paired_predictions

MARKERS = ("wfns", "s100b", "ndka")


@pytest.fixture(scope="module")
def asah() -> tuple[np.ndarray, np.ndarray]:
    """Return the outcome and three markers of 113 patients with subarachnoid haemorrhage.

    Turck et al. (2010), Intensive Care Medicine 36:107-115. It is the example of the R package pROC
    (Robin et al. (2011), BMC Bioinformatics 12:77), whose documentation and tests contain the
    figures below.
    """
    with (Path(__file__).parent / "asah.csv").open() as file:
        rows = list(csv.DictReader(file))
    labels = np.array([row["outcome"] == "Poor" for row in rows], np.uint8)
    return labels, np.array([[float(row[name]) for row in rows] for name in MARKERS])


def test_aucs_and_their_covariance_are_those_in_print(asah) -> None:
    measured = correlated_aucs(*asah)
    assert measured.aucs == pytest.approx([0.8236789, 0.7313686, 0.6119580], abs=1e-7)
    for first, second, expected in (
        ("wfns", "ndka", -0.000532967856762438),
        ("ndka", "s100b", -0.000756164938056579),
        ("s100b", "wfns", 0.00119615567376754),
    ):
        found = measured.covariance[MARKERS.index(first), MARKERS.index(second)]
        assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("candidate", "baseline", "z", "p_value", "low", "high"),
    [
        ("wfns", "s100b", 2.20898359144091, 0.0271757822291882, 0.0104061769565, 0.174214419249),
        ("wfns", "ndka", 2.79777591868904, 0.00514557970691098, 0.0634011709340, 0.360040563483),
        ("ndka", "s100b", -1.39077002573558, 0.164295175223054, -0.287691744634, 0.0488706064228),
    ],
)
def test_delongs_test_gives_the_figures_in_print(
    asah, candidate: str, baseline: str, z: float, p_value: float, low: float, high: float
) -> None:
    positions = MARKERS.index(baseline), MARKERS.index(candidate)
    # Those in print are from the normal distribution.
    test = compare_aucs(
        correlated_aucs(*asah), *positions, degrees_of_freedom=np.inf, confidence=0.95
    )
    assert test.difference.value / test.standard_error == pytest.approx(z, rel=1e-9)
    assert test.p_value == pytest.approx(p_value, rel=1e-9)
    assert test.difference[1:] == pytest.approx((low, high), rel=1e-9)


@given(case=paired_predictions())
def test_the_covariance_is_that_of_the_placement_values(case) -> None:
    labels, probabilities = case
    wins = np.array(
        [
            [[(x > y) + (x == y) / 2 for y in row[labels == 0]] for x in row[labels == 1]]
            for row in probabilities
        ]
    )
    of_nodules, of_others = wins.mean(axis=2), wins.mean(axis=1)
    expected = np.zeros((2, 2))
    for placements in (of_nodules, of_others):
        apart = placements - placements.mean(axis=1, keepdims=True)
        count = placements.shape[1]
        expected += apart @ apart.T / (count - 1) / count
    measured = correlated_aucs(labels, probabilities)
    assert measured.aucs == pytest.approx(wins.mean(axis=(1, 2)))
    assert measured.covariance == pytest.approx(expected, abs=1e-12)


def compared(labels, scores, groups=None) -> AucTest:
    return compare_with_baseline(labels, groups, scores, confidence=0.95, seed=0)[0]


def test_delongs_test_rejects_five_percent_of_true_null_hypotheses() -> None:
    rng = np.random.default_rng(1)
    runs = 2000
    rejected = sum(
        compared(*draw_binormal(rng, 200, (1.2, 1.2))).p_value < 0.05 for _ in range(runs)
    )
    # The rejection rate over 2,000 true null hypotheses is within 3.5% to 6.5%, except for one run
    # in 400.
    assert 0.035 < rejected / runs < 0.065


@given(case=paired_predictions(), data=st.data())
def test_the_covariance_of_groups_is_obuchowskis(case, data) -> None:
    labels, probabilities = case
    groups = np.array([data.draw(st.integers(0, 4)) for _ in labels])
    # At least two groups per class.
    groups[:4] = [0, 1, 0, 1]
    assert degrees_of_freedom(labels, groups) > 0
    measured = correlated_aucs(labels, probabilities, groups)
    # In the notation of the paper, X are the placements of the diseased, Y those of the others.
    m, n = int(labels.sum()), int((1 - labels).sum())
    members = np.unique(groups)
    sums = np.zeros((2, 2, len(members)))
    for test, row in enumerate(probabilities):
        area = measured.aucs[test]
        for label, group, value in zip(labels, groups, row, strict=True):
            others = row[labels != label]
            wins = (value > others) if label else (value < others)
            placement = np.mean(wins + (value == others) / 2)
            sums[test, 0 if label else 1, list(members).index(group)] += placement - area
    i, i10, i01 = len(members), len(set(groups[labels == 1])), len(set(groups[labels == 0]))
    for r in (0, 1):
        for s in (0, 1):
            s10 = i10 / ((i10 - 1) * m) * (sums[r, 0] @ sums[s, 0])
            s01 = i01 / ((i01 - 1) * n) * (sums[r, 1] @ sums[s, 1])
            s11 = [i / (i - 1) * (sums[a, 0] @ sums[b, 1]) for a, b in ((r, s), (s, r))]
            expected = s10 / m + s01 / n + sum(s11) / (m * n)
            assert measured.covariance[r, s] == pytest.approx(expected, abs=1e-12)


def test_with_one_patch_per_group_obuchowskis_test_is_delongs(asah) -> None:
    labels, scores = asah
    alone = correlated_aucs(labels, scores)
    grouped = correlated_aucs(labels, scores, np.arange(len(labels)))
    assert grouped.aucs == pytest.approx(alone.aucs)
    assert grouped.covariance == pytest.approx(alone.covariance)


@pytest.mark.parametrize(
    ("groups", "expected"),
    [(None, 2), ("abaabca", 0), ("abcabcd", 2), ("ababcde", 1)],
)
def test_degrees_of_freedom_count_the_class_that_fewer_units_hold(
    groups: str | None, expected: int
) -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 1], np.uint8)
    units = None if groups is None else np.array(list(groups))
    if groups == "abaabca":
        labels = np.array([0, 1, 0, 0, 1, 0, 0], np.uint8)
    assert degrees_of_freedom(labels, units) == expected


@pytest.mark.parametrize(("scans", "holders"), [(2, 2), (3, 3), (5, 5), (60, 2), (60, 3)])
def test_with_few_scans_at_most_six_percent_of_true_null_hypotheses_are_rejected(
    scans: int, holders: int
) -> None:
    rng = np.random.default_rng(1)
    runs = 600
    rejected = 0
    for _ in range(runs):
        test = simulate_test(rng, (0.9, 0.9), scans=scans, scans_with_nodules=holders)
        if degrees_of_freedom(test.labels, test.groups) > 0:
            rejected += compared(test.labels, test.scores, test.groups).p_value < 0.05
    assert rejected / runs <= 0.06


def test_where_scans_differ_obuchowskis_test_keeps_its_level_and_delongs_does_not() -> None:
    rng = np.random.default_rng(1)
    scans, patches, runs = 24, 25, 1000
    groups = np.repeat(np.arange(scans), patches)
    rejected = {"obuchowski": 0, "delong": 0}
    for _ in range(runs):
        labels, scores = draw_binormal(rng, scans * patches, (1.2, 1.2))
        order = rng.permutation(len(labels))
        # A random effect of each scan on the score.
        of_scans = rng.normal(size=(2, scans))[:, groups]
        labels, scores = labels[order], scores[:, order] + of_scans
        for test, units in (("obuchowski", groups), ("delong", None)):
            rejected[test] += compared(labels, scores, units).p_value < 0.05
    assert 0.03 < rejected["obuchowski"] / runs < 0.07
    assert rejected["delong"] / runs > 0.08


def test_the_required_sample_gives_80_percent_power() -> None:
    rng = np.random.default_rng(2)
    separations = (1.0, 1.3)
    large = compared(*draw_binormal(rng, 100_000, separations))
    needed = required_sample_size(large, 100_000, alpha=0.05, power=0.8, confidence=0.95)
    assert needed is not None
    # So many patches leave the variance nearly no uncertainty.
    assert 100 < needed[0] < needed[1] < 1.04 * needed[0] < 2000
    runs = 600
    seen = sum(
        compared(*draw_binormal(rng, needed[0], separations)).p_value < 0.05 for _ in range(runs)
    )
    assert 0.74 < seen / runs < 0.86


def test_the_range_of_the_required_sample_holds_that_of_the_true_variance() -> None:
    rng = np.random.default_rng(3)
    freedom, error, runs = 4, 0.02, 2000
    options = {"alpha": 0.05, "power": 0.8, "confidence": 0.9}
    # From the normal quantiles at 1 - 0.05 / 2 and 0.8.
    needed = 500 * ((1.9600 + 0.8416) * error / 0.01) ** 2
    covered = 0
    for _ in range(runs):
        estimated = error * np.sqrt(rng.chisquare(freedom) / freedom)
        test = AucTest(Estimate(0.01, -0.1, 0.1), estimated, freedom, 0.5)
        low, high = required_sample_size(test, 500, **options) or (0, 0)
        covered += low <= needed <= high
    assert 0.88 < covered / runs < 0.92


@pytest.mark.parametrize("freedom", [1, 2, 4, 22])
def test_the_detectable_difference_is_significant_in_80_percent(freedom: int) -> None:
    rng = np.random.default_rng(4)
    error, runs = 0.001, 10_000
    test = AucTest(Estimate(0.0, -0.1, 0.1), error, freedom, 1.0)
    difference = detectable_difference(test, alpha=0.05, power=0.8)
    assert difference is not None
    observed = rng.normal(difference, error, runs)
    errors = error * np.sqrt(rng.chisquare(freedom, runs) / freedom)
    significant = observed / errors > stats.t.ppf(0.975, freedom)
    assert 0.785 < significant.mean() < 0.815


def test_without_a_standard_error_no_size_is_known() -> None:
    test = AucTest(Estimate.without_limits(0.5), 0.0, 1, 0.125)
    assert detectable_difference(test, alpha=0.05, power=0.8) is None
    sizes = required_sample_size(test, 4, alpha=0.05, power=0.8, confidence=0.95)
    assert sizes is None


def test_a_standard_error_of_zero_is_no_certainty() -> None:
    labels = np.array([0, 0, 1, 1], np.uint8)
    test = compared(labels, np.array([[0.5] * 4, labels]))
    assert test.standard_error == 0
    # None or all of 16 exchanges leave the difference of 0.5.
    assert test.p_value == 2 / 16
    assert not test.difference.has_limits
    # Of groups, there are as few exchanges as groups, however many patches they hold.
    many = np.tile(labels, 100)
    test = compared(many, np.array([[0.5] * 400, many]), np.repeat([0, 1], 200))
    assert test.p_value == 2 / 4
    # With many groups, the difference is as clear as the number of samples allows.
    test = compared(many, np.array([[0.5] * 400, many]), np.repeat(np.arange(100), 4))
    assert test.p_value == 1 / 1000


def test_rounding_is_no_standard_error() -> None:
    # One nodule moves up by the same number of others in each group: the differences of the
    # contributions are equal, and only rounding is left of their variance.
    rng = np.random.default_rng(5)
    others = rng.random(49)
    labels = np.tile(np.repeat([0, 1], [49, 1]), 7)
    before = np.concatenate([[*others, 0.3]] * 7)
    after = np.where(labels == 1, 0.6, before)
    groups = np.repeat(np.arange(7), 50)
    test = compared(labels, np.stack([before, after]), groups)
    assert test.difference.value > 0
    assert test.standard_error == 0


@pytest.mark.parametrize("grouped", [False, True])
def test_exchanges_keep_the_level_with_few_and_with_sampled_units(*, grouped: bool) -> None:
    rng = np.random.default_rng(6)
    runs, rejected = 200, 0
    for run in range(runs):
        scans = simulate_test(rng, (0.8, 0.8), scans=8 if grouped else 3, patches_per_scan=6)
        groups = scans.groups if grouped else None
        rejected += exchange_p_value(scans.labels, groups, scans.scores, seed=run) < 0.1
    assert rejected / runs < 0.17


def test_equal_rankings_are_no_difference(asah) -> None:
    labels, markers = asah
    test = compared(labels, np.stack([markers[0], 2 * markers[0] + 1]))
    assert test.p_value == 1
    assert test.difference == (0, 0, 0)
    assert detectable_difference(test, alpha=0.05, power=0.8) is None


def test_two_perfect_classifiers_are_not_known_to_be_equal() -> None:
    labels = np.array([0, 0, 1, 1], np.uint8)
    test = compared(labels, np.array([[0.1, 0.2, 0.8, 0.9], [0.2, 0.1, 0.8, 0.9]]))
    assert test.p_value == 1
    assert test.difference.value == 0
    assert not test.difference.has_limits


def test_equal_aucs_of_other_rankings_are_no_difference() -> None:
    # The nodules outrank 1, 2 and 3 of ten others, or 3, 3 and none. In floating point, the two
    # sums of fractions differ.
    labels = np.repeat([0, 1], [10, 3])
    others = np.arange(1.0, 11.0)
    probabilities = np.stack([[*others, 1.5, 2.5, 3.5], [*others, 3.5, 3.5, 0.5]])
    test = compared(labels, probabilities)
    assert test.standard_error > 0
    assert test.difference.value == 0
    assert test.p_value == 1
