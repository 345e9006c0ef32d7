"""Comparison statistics, checked against published figures, definitions and simulations."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn import metrics

from nodules.comparison.verdict import Classifier, Verdict, compare_classifiers
from nodules.statistics.auc_tests import (
    can_be_clustered,
    compare_aucs,
    correlated_aucs,
    patches_to_see,
)
from nodules.statistics.bootstrap import PairedScores
from nodules.statistics.significance import holm, mcnemar

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


@st.composite
def paired_predictions(draw) -> tuple[np.ndarray, np.ndarray]:
    """Draw labels, at least two per class, and two sets of probabilities with ties."""
    labels = [0, 0, 1, 1, *draw(st.lists(st.integers(0, 1), max_size=30))]
    tenths = st.lists(st.integers(0, 10), min_size=len(labels), max_size=len(labels))
    return np.array(labels, np.uint8), np.array([draw(tenths), draw(tenths)]) / 10


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


def draw_binormal(
    rng: np.random.Generator, patches: int, separations: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Draw labels and two correlated scores; separations are in standard deviations."""
    labels = (np.arange(patches) % 4 == 0).astype(np.uint8)
    shared = rng.normal(size=patches)
    own = rng.normal(size=(2, patches))
    return labels, 0.7 * shared + 0.7 * own + np.outer(separations, labels)


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
    needed = patches_to_see(
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
    assert patches_to_see(0.0, 0.0, 113, alpha=0.05, power=0.8) is None


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


def scikit_learn_scores(
    labels: np.ndarray, probabilities: np.ndarray, threshold: float
) -> dict[str, float]:
    calls = probabilities >= threshold
    return {
        "auc": metrics.roc_auc_score(labels, probabilities),
        "average_precision": metrics.average_precision_score(labels, probabilities),
        "sensitivity": metrics.recall_score(labels, calls),
        "specificity": metrics.recall_score(labels, calls, pos_label=0),
        "accuracy": metrics.accuracy_score(labels, calls),
        "brier": metrics.brier_score_loss(labels, probabilities),
    }


@given(case=paired_predictions(), thresholds=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_scores_are_those_of_scikit_learn(case, thresholds: tuple[float, float]) -> None:
    labels, probabilities = case
    found = PairedScores(labels, None, probabilities, np.array(thresholds)).observed()
    for row, threshold in enumerate(thresholds):
        expected = scikit_learn_scores(labels, probabilities[row], threshold)
        assert {name: scores[row] for name, scores in found.items()} == pytest.approx(expected)


def test_resamples_hold_whole_groups_and_are_the_same_for_both() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 60).astype(np.uint8)
    groups = np.repeat(np.array(list("abcdef"), object), 10)
    probabilities = rng.integers(0, 20, (2, 60)) / 20
    paired = PairedScores(labels, groups, probabilities, np.array([0.5, 0.4]))
    found = paired.resampled(5, seed=7)
    again = PairedScores(labels, groups, probabilities, np.array([0.5, 0.4])).resampled(5, seed=7)
    draws = np.random.default_rng(7).integers(6, size=(5, 6))
    for resample, draw in enumerate(draws):
        rows = np.concatenate([np.flatnonzero(groups == "abcdef"[group]) for group in draw])
        for classifier, threshold in enumerate((0.5, 0.4)):
            expected = scikit_learn_scores(labels[rows], probabilities[classifier, rows], threshold)
            mine = {name: scores[classifier, resample] for name, scores in found.items()}
            assert mine == pytest.approx(expected)
    for name, scores in found.items():
        assert np.array_equal(scores, again[name])


def test_the_bootstrap_of_single_patches_agrees_with_delong() -> None:
    labels, scores = draw_binormal(np.random.default_rng(4), 400, (1.0, 1.3))
    test = compare_aucs(correlated_aucs(labels, scores), 0, 1, confidence=0.95)
    resampled = PairedScores(labels, None, scores, np.zeros(2)).resampled(4000, seed=0)["auc"]
    assert (resampled[1] - resampled[0]).std() == pytest.approx(test.standard_error, rel=0.1)


def test_mcnemars_p_value_sums_the_binomial_by_hand() -> None:
    right = np.array([True] * 3 + [False] * 12 + [True] * 40)
    other = np.array([False] * 3 + [True] * 12 + [True] * 40)
    assert mcnemar(right, other) == pytest.approx(2 * binom.cdf(3, 15, 0.5))
    assert mcnemar(right, other) == mcnemar(other, right)
    assert mcnemar(right, right) == 1


@given(p_values=st.lists(st.floats(0, 1), min_size=1, max_size=8), alpha=st.floats(0.01, 0.2))
def test_holm_rejects_in_steps(p_values: list[float], alpha: float) -> None:
    adjusted = holm(p_values)
    rejected = set()
    for step, position in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[position] * (len(p_values) - step) > alpha:
            break
        rejected.add(position)
    assert {each for each, value in enumerate(adjusted) if value <= alpha} == rejected


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


def test_a_single_group_is_no_evidence_however_small_delongs_p_value() -> None:
    labels, scores = draw_binormal(np.random.default_rng(5), 400, (1.0, 1.6))
    classifiers = [Classifier(row, 0.5) for row in scores]
    groups = np.zeros(len(labels), int)
    compared = compare_classifiers(labels, groups, classifiers, resamples=100)
    assert compared.comparisons[0].auc.p_value < 0.001
    assert compared.comparisons[0].verdict == Verdict.NO_EVIDENCE


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
