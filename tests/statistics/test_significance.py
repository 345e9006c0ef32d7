"""McNemar's tests, against their definitions and simulations."""

import numpy as np
import pytest
from scipy.stats import binom, chi2

from benchmarks.simulated_scans import simulate_test
from nodules.statistics.significance import clustered_mcnemar, mcnemar


def test_mcnemars_p_value_sums_the_binomial_by_hand() -> None:
    right = np.array([True] * 3 + [False] * 12 + [True] * 40)
    other = np.array([False] * 3 + [True] * 12 + [True] * 40)
    assert mcnemar(right, other) == pytest.approx(2 * binom.cdf(3, 15, 0.5))
    assert mcnemar(right, other) == mcnemar(other, right)
    assert mcnemar(right, right) == 1


def test_the_clustered_statistic_is_durkalskis_by_hand() -> None:
    # Of three scans with 4, 10 and 5 patches, the candidate gains 2 in the first, loses 1 in the
    # second, and gains 2 and loses 1 in the third.
    groups = np.repeat([7, 8, 9], [4, 10, 5])
    baseline = np.ones(19, bool)
    candidate = np.ones(19, bool)
    baseline[[0, 1, 14, 15]] = False
    candidate[[4, 16]] = False
    differences = np.array([2 / 4, -1 / 10, 1 / 5])
    statistic = differences.sum() ** 2 / (differences**2).sum()
    assert statistic == pytest.approx(1.2)
    found = clustered_mcnemar(baseline, candidate, groups)
    assert found == pytest.approx(chi2.sf(1.2, 1))
    assert found == clustered_mcnemar(candidate, baseline, groups)
    assert clustered_mcnemar(baseline, baseline, groups) == 1


def test_with_one_patch_per_group_the_clustered_statistic_is_mcnemars() -> None:
    baseline = np.array([True] * 3 + [False] * 12 + [True] * 40)
    candidate = np.array([False] * 3 + [True] * 12 + [True] * 40)
    found = clustered_mcnemar(baseline, candidate, np.arange(55))
    assert found == pytest.approx(chi2.sf((12 - 3) ** 2 / (12 + 3), 1))


def test_where_scans_differ_only_the_clustered_test_keeps_its_level() -> None:
    rng = np.random.default_rng(1)
    runs = 1000
    clustered = exact = 0
    for _ in range(runs):
        test = simulate_test(rng, (0.96, 0.96), scans=23, scan_effect=1)
        baseline, candidate = (test.scores >= 0.5) == (test.labels == 1)
        clustered += clustered_mcnemar(baseline, candidate, test.groups) < 0.05
        exact += mcnemar(baseline, candidate) < 0.05
    assert clustered / runs < 0.07
    assert exact / runs > 0.2
