"""Running statistics of batch norm that are valid after any number of steps."""

from collections.abc import Sequence

import keras
import tensorflow as tf

# Fraction of the training so far that dominates the statistics, as long as that is fewer steps than
# the layer's momentum averages over.
WINDOW_FRACTION = 0.1


class RunningStatistics:
    """Batch means and variances, averaged over recent steps.

    After t steps the average of the statistics b of the batches is

        (1 - r) * average + r * b
        with r = max(1 - momentum, 1 / (1 + WINDOW_FRACTION * (t - 1))).

    Keras's own layers use r = 1 - momentum from the first step. With a momentum of 0.99, the
    initial values (mean 0, variance 1) still have a weight of a third after 100 steps, and the
    statistics lag a hundred steps behind weights that change fastest at the start. After a short
    training they do not fit the network. Here the first batch replaces the initial values, the
    weights of the batches always add up to 1, and the average lags behind by at most about that
    fraction of the training so far. Beyond 1 / (1 - momentum) steps, it equals Keras's.

    Parameters
    ----------
    layers
        Batch norms, each with its momentum. In a step they store the statistics of that batch only
        in `moving_mean` and `moving_variance`.

    Attributes
    ----------
    variables
        The averages, which `update` also stores in the layers.
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
        """Average the statistics after a step (from 1) and store the averages in the layers."""
        rate = 1 / (1 + WINDOW_FRACTION * (tf.cast(step, tf.float32) - 1))
        for average, (statistic, momentum) in zip(self.variables, self._of_layers, strict=True):
            average.assign_add(tf.maximum(rate, 1 - momentum) * (statistic - average))
            statistic.assign(average)
