"""McNemar's test and Holm's adjustment, against their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from nodules.statistics.significance import holm, mcnemar


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
