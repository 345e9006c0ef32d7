"""The bootstrap over groups, against its definition, DeLong and simulated coverage."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from nodules.statistics.auc_tests import (
    compare_aucs,
    correlated_aucs,
)
from nodules.statistics.bootstrap import PairedScores, _Ranking, auc_interval
from tests.support.predictions import (
    draw_binormal,
    paired_predictions,
    predictions,
    scikit_learn_scores,
)


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
    measured = correlated_aucs(labels, scores)
    test = compare_aucs(measured, 0, 1, degrees_of_freedom=np.inf, confidence=0.95)
    resampled = PairedScores(labels, None, scores, np.zeros(2)).resampled(4000, seed=0)["auc"]
    assert (resampled[1] - resampled[0]).std() == pytest.approx(test.standard_error, rel=0.1)


@given(case=predictions(), seed=st.integers(0, 2**32 - 1))
def test_a_resamples_auc_is_that_of_its_repeated_patches(case, seed: int) -> None:
    labels, probabilities = case
    copies = np.random.default_rng(seed).integers(0, 3, (5, len(labels)))
    found, _ = _Ranking(labels, np.arange(len(labels)), probabilities).scores(copies.astype(float))
    for weights, auc in zip(copies, found, strict=True):
        repeated = np.repeat(labels, weights), np.repeat(probabilities, weights)
        if len(set(repeated[0])) < 2:
            assert np.isnan(auc)
        else:
            assert auc == pytest.approx(metrics.roc_auc_score(*repeated))


def simulated(rng: np.random.Generator, groups: int, size: int) -> tuple[np.ndarray, ...]:
    """Draw patches whose scores have a large common offset within each group."""
    group = np.repeat(np.arange(groups), size)
    labels = (rng.random(len(group)) < 0.3).astype(np.uint8)
    offset = rng.normal(0, 1.5, groups)[group]
    scores = labels * 1.5 + offset + rng.normal(0, 1, len(group))
    return labels, 1 / (1 + np.exp(-scores)), group


def test_the_interval_covers_the_true_auc_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    truth = metrics.roc_auc_score(*simulated(rng, 40_000, 5)[:2])
    intervals = [
        auc_interval(*simulated(rng, 60, 5), resamples=400, confidence=0.9, seed=trial)
        for trial in range(200)
    ]
    coverage = np.mean([low <= truth <= high for low, high in intervals])
    # 0.9 plus or minus three standard errors of 0.021, and a small loss due to only 60 groups.
    assert 0.82 <= coverage <= 0.97


def test_correlated_patches_widen_the_interval() -> None:
    rng = np.random.default_rng(6)
    labels, probabilities, group = simulated(rng, 30, 40)
    # One label per scan makes its patches strongly correlated.
    labels = (group % 3 == 0).astype(np.uint8)
    settings_: dict[str, Any] = {"resamples": 500, "confidence": 0.95, "seed": 1}
    low, high = auc_interval(labels, probabilities, group, **settings_)
    alone_low, alone_high = auc_interval(labels, probabilities, None, **settings_)
    assert high - low > 2 * (alone_high - alone_low)


def test_the_interval_is_seeded_and_whatever_the_group_names_are() -> None:
    labels, probabilities, group = simulated(np.random.default_rng(7), 20, 6)
    names = np.array([f"scan-{number:03}" for number in group], dtype=object)
    settings_: dict[str, Any] = {"resamples": 300, "confidence": 0.95}
    first = auc_interval(labels, probabilities, group, seed=1, **settings_)
    assert first == auc_interval(labels, probabilities, names, seed=1, **settings_)
    assert first != auc_interval(labels, probabilities, group, seed=2, **settings_)
