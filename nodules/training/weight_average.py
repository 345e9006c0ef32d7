"""The average of a network's weights over its training, with more weight on later steps."""

from collections.abc import Sequence

import keras
import tensorflow as tf
from numpy.typing import NDArray


class WeightAverage:
    """Weights averaged over all steps so far, with more weight on later ones.

    After t steps the average of the weights w is

        (1 - r) * average + r * w    with    r = 1 / (1 + fraction * (t - 1)),

    the polynomial-decay averaging of Shamir and Zhang (2013), "Stochastic gradient descent for
    non-smooth optimization", https://arxiv.org/abs/1212.1824, with eta = 1 / fraction - 1.
    The weight of step k is about proportional to k ** eta. The average lags behind by fraction /
    (1 + fraction) of the training so far, independent of its length; a moving average with a fixed
    momentum suits only one length.

    Parameters
    ----------
    weights
        All weights of a network. The batch statistics of each step are averaged like the weights
        that they belong to.
    fraction
        Fraction of the training so far that dominates the average, above 0; with 1, all steps have
        the same weight.

    Attributes
    ----------
    variables
        The averages, in the order of the weights.
    """

    def __init__(self, weights: Sequence[keras.Variable], fraction: float) -> None:
        self.variables = [
            keras.Variable(weight.numpy(), trainable=False, name=f"average_{number}")
            for number, weight in enumerate(weights)
        ]
        self._weights, self._fraction = list(weights), fraction

    def update(self, step: tf.Tensor) -> None:
        """Add the weights after a step, counted from 1, to the average."""
        rate = 1 / (1 + self._fraction * (tf.cast(step, tf.float32) - 1))
        for average, weight in zip(self.variables, self._weights, strict=True):
            average.assign_add(rate * (weight - average))

    def values(self) -> list[NDArray]:
        """Return the averages as arrays."""
        return [average.numpy() for average in self.variables]
