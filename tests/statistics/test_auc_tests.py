"""Tests of AUCs, checked against published figures, definitions and simulations."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodules.statistics.auc_tests import (
    can_be_clustered,
    compare_aucs,
    correlated_aucs,
    required_sample_size,
)
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
    test = compare_aucs(correlated_aucs(*asah), *positions, confidence=0.95)
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


def test_delongs_test_rejects_five_percent_of_true_null_hypotheses() -> None:
    rng = np.random.default_rng(1)
    runs = 2000
    rejected = sum(
        compare_aucs(
            correlated_aucs(*draw_binormal(rng, 200, (1.2, 1.2))), 0, 1, confidence=0.95
        ).p_value
        < 0.05
        for _ in range(runs)
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
    assert can_be_clustered(labels, groups)
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


def test_groups_of_one_class_cannot_be_clustered() -> None:
    labels = np.array([0, 0, 1, 1], np.uint8)
    assert not can_be_clustered(labels, None)
    assert not can_be_clustered(labels, np.array(["a", "b", "a", "a"]))
    assert can_be_clustered(labels, np.array(["a", "b", "a", "b"]))


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
            measured = correlated_aucs(labels, scores, units)
            rejected[test] += compare_aucs(measured, 0, 1, confidence=0.95).p_value < 0.05
    assert 0.03 < rejected["obuchowski"] / runs < 0.07
    assert rejected["delong"] / runs > 0.08


def test_the_required_sample_gives_80_percent_power() -> None:
    rng = np.random.default_rng(2)
    separations = (1.0, 1.3)
    large = compare_aucs(
        correlated_aucs(*draw_binormal(rng, 100_000, separations)), 0, 1, confidence=0.95
    )
    needed = required_sample_size(
        large.difference.value, large.standard_error, 100_000, alpha=0.05, power=0.8
    )
    assert needed is not None
    assert 100 < needed < 2000
    runs = 600
    seen = sum(
        compare_aucs(
            correlated_aucs(*draw_binormal(rng, needed, separations)), 0, 1, confidence=0.95
        ).p_value
        < 0.05
        for _ in range(runs)
    )
    assert 0.74 < seen / runs < 0.86


def test_equal_rankings_are_no_difference(asah) -> None:
    labels, markers = asah
    twice = np.stack([markers[0], 2 * markers[0] + 1])
    test = compare_aucs(correlated_aucs(labels, twice), 0, 1, confidence=0.95)
    assert test.p_value == 1
    assert test.difference == (0, 0, 0)
    assert required_sample_size(0.0, 0.0, 113, alpha=0.05, power=0.8) is None


def test_equal_aucs_of_other_rankings_are_no_difference() -> None:
    # The nodules outrank 1, 2 and 3 of ten others, or 3, 3 and none. In floating point, the two
    # sums of fractions differ.
    labels = np.repeat([0, 1], [10, 3])
    others = np.arange(1.0, 11.0)
    probabilities = np.stack([[*others, 1.5, 2.5, 3.5], [*others, 3.5, 3.5, 0.5]])
    test = compare_aucs(correlated_aucs(labels, probabilities), 0, 1, confidence=0.95)
    assert test.standard_error > 0
    assert test.difference.value == 0
    assert test.p_value == 1
