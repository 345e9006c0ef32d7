"""The bootstrap over groups, against its definition and DeLong."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from nodules.statistics.auc_tests import (
    compare_aucs,
    correlated_aucs,
)
from nodules.statistics.bootstrap import PairedScores, _Ranking
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
