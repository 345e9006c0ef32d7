"""Weight averaging: included steps and their weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from nodules.training.weight_average import WeightAverage


def averages(values: list[float], fraction: float) -> list[float]:
    """Return the running average after each step for a weight with the given values."""
    weight = keras.Variable(np.zeros((2, 3), np.float32))
    average = WeightAverage([weight], fraction)
    found = []
    for step, value in enumerate(values, 1):
        weight.assign(np.full((2, 3), value))
        average.update(tf.constant(step))
        (array,) = average.values()
        assert array.shape == (2, 3)
        found.append(float(array[0, 0]))
    return found


def test_over_the_whole_training_it_is_the_mean() -> None:
    values = [3.0, -1.0, 4.0, 1.5]
    assert averages(values, 1.0) == pytest.approx([np.mean(values[:n]) for n in (1, 2, 3, 4)])


def test_it_is_shamir_and_zhangs_polynomial_decay_averaging() -> None:
    values = np.random.default_rng(0).normal(size=50)
    eta = 3
    expected, found = 0.0, averages(values.tolist(), 1 / (eta + 1))
    for t, value in enumerate(values, 1):
        expected = (1 - (eta + 1) / (t + eta)) * expected + (eta + 1) / (t + eta) * value
        assert found[t - 1] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("steps", [100, 500])
def test_it_holds_the_same_fraction_of_a_training_of_any_length(steps: int) -> None:
    # The first nine tenths are 1, the last tenth 0; the average is the remaining weight of the
    # ones.
    values = [1.0] * (steps * 9 // 10) + [0.0] * (steps // 10)
    # The average weighs step k with k ** (1 / fraction - 1).
    assert averages(values, 0.1)[-1] == pytest.approx(0.9**10, abs=0.03)


def test_initial_weights_are_not_part_of_the_average() -> None:
    assert averages([5.0, 5.0], 0.1) == [5.0, 5.0]
