"""The running statistics of batch normalisation, right after any number of steps."""

from collections.abc import Sequence

import keras
import tensorflow as tf

# Fraction of the training so far that makes up most of the statistics, while that is fewer steps
# than the momentum of the layer stands for.
WINDOW_FRACTION = 0.1


class RunningStatistics:
    """Means and variances of batches averaged over the latest steps.

    After t steps the average of the statistics b of the batches is

        (1 - r) * average + r * b
        with r = max(1 - momentum, 1 / (1 + WINDOW_FRACTION * (t - 1))).

    Keras's own layers take r = 1 - momentum from the first step on. With a momentum of 0.99 the
    values that they start from (mean 0, variance 1) then still count a third after 100 steps, and
    the statistics lag a hundred steps behind weights that change fastest at the start: of a short
    training they normalise another network. Here the first batch replaces the start, the weights
    of the batches always add up to 1, and the average lags behind by at most about that fraction
    of the training so far. As soon as that is more than 1 / (1 - momentum) steps it is Keras's.

    Parameters
    ----------
    layers
        Batch normalisations, each with its momentum. In a step they leave the statistics of the
        batch alone in `moving_mean` and `moving_variance`.

    Attributes
    ----------
    variables
        The averages; after `update` the layers hold them too.
    """

    def __init__(self, layers: Sequence[keras.layers.BatchNormalization]) -> None:
        self._of_layers = [
            (statistic, layer.momentum)
            for layer in layers
            for statistic in (layer.moving_mean, layer.moving_variance)
        ]
        self.variables = [
            keras.Variable(statistic.numpy(), trainable=False, name=f"running_{number}")
            for number, (statistic, _) in enumerate(self._of_layers)
        ]

    def update(self, step: tf.Tensor) -> None:
        """Replace a batch's statistics by the averages, which take them in; steps count from 1."""
        rate = 1 / (1 + WINDOW_FRACTION * (tf.cast(step, tf.float32) - 1))
        for average, (statistic, momentum) in zip(self.variables, self._of_layers, strict=True):
            average.assign_add(tf.maximum(rate, 1 - momentum) * (statistic - average))
            statistic.assign(average)
