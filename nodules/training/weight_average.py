"""The average of a network's weights over its training, the later ones counting more."""

from collections.abc import Sequence

import keras
import tensorflow as tf
from numpy.typing import NDArray


class WeightAverage:
    """Weights averaged over all steps so far, each counting the more the later it was.

    After t steps the average of the weights w is

        (1 - r) * average + r * w    with    r = 1 / (1 + share * (t - 1)),

    the polynomial-decay averaging of Shamir and Zhang (2013), "Stochastic gradient descent for
    non-smooth optimization", https://arxiv.org/abs/1212.1824, with eta = 1 / share - 1. Step k
    counts about as k ** eta: the average lags behind by share / (1 + share) of the training so far,
    however long that is, where a moving average with a momentum for each step fits one length.

    Parameters
    ----------
    weights
        Of a network, all of them: the statistics that batch normalisation takes in a step are
        averaged as the weights are to which they belong.
    share
        Above 0 and at most 1, where all steps count the same.

    Attributes
    ----------
    variables
        The averages, in the order of the weights.
    """

    def __init__(self, weights: Sequence[keras.Variable], share: float) -> None:
        self.variables = [
            keras.Variable(weight.numpy(), trainable=False, name=f"average_{number}")
            for number, weight in enumerate(weights)
        ]
        self._weights, self._share = list(weights), share

    def update(self, step: tf.Tensor) -> None:
        """Take in the weights after a step, counted from 1."""
        rate = 1 / (1 + self._share * (tf.cast(step, tf.float32) - 1))
        for average, weight in zip(self.variables, self._weights, strict=True):
            average.assign_add(rate * (weight - average))

    def values(self) -> list[NDArray]:
        """Give the averages as arrays."""
        return [average.numpy() for average in self.variables]
