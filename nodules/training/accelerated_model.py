"""The copy of a model that is trained: the same weights, computed faster."""

from itertools import pairwise
from typing import Any

import keras
import tensorflow as tf
from numpy.typing import NDArray

from nodules.training.running_statistics import RunningStatistics
from nodules.training.weight_average import WeightAverage


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Keras's layer over the channels of (batch, height, width, channels), computed in one pass.

    It needs both a scale and an offset.

    Keras composes its layer of some ten elementwise operations, each of which reads and writes the
    whole feature map; TensorFlow's fused operation takes a third of the time on a CPU. The running
    variance is fed with the unbiased variance of a batch (N / (N - 1) times Keras's), which is no
    difference to speak of where N counts every pixel of every patch.
    """

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Normalise `inputs`; update the running statistics if `training`."""
        if not (training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, self.gamma, self.beta, epsilon=self.epsilon, is_training=True
        )
        replica = tf.distribute.get_replica_context()
        if replica.num_replicas_in_sync > 1:
            # Each device has running statistics of its own, of which the first one's are saved.
            mean, variance = replica.all_reduce(tf.distribute.ReduceOp.MEAN, (mean, variance))
        for running, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            running.assign(running * self.momentum + batch * (1 - self.momentum))
        return outputs


class WeightedSum(keras.layers.DepthwiseConv2D):
    """A depthwise convolution with one place for its kernel, computed as the sum that it is.

    The gradient of such a kernel takes oneDNN's convolution several times as long, in bfloat16
    most of all.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Give (batch, 1, 1, channels), summed up in float32."""
        products = tf.cast(inputs, tf.float32) * tf.cast(self.kernel[..., 0], tf.float32)
        return tf.cast(tf.reduce_sum(products, axis=(1, 2), keepdims=True), inputs.dtype)


class AcceleratedModel(keras.Model):
    """A network in training: applied to the parts of each batch side by side, its weights averaged.

    Nothing passes between the parts of a batch but its gradients, so that TensorFlow computes each
    part on a core of its own, where a batch as a whole leaves cores waiting for each other at every
    operation. Batch normalisation takes its statistics within a part: the ghost batches of Hoffer
    et al. (2017), "Train longer, generalize better", https://arxiv.org/abs/1705.08741.

    Parameters
    ----------
    network
        Whose weights, in the same order, are this model's. Its fused normalisations are layers of
        its own, not of a model within it, and each is applied once.
    parts
        Of a batch, or of what a device has of it, as even as can be.
    average
        Share of the training so far over which weights are averaged; 0 for none.

    Called with `training=True`, it leaves the statistics of this one batch in its batch
    normalisations, as the mean over the parts; `train_step` averages them over steps, with the
    weights or by themselves.
    """

    def __init__(self, network: keras.Model, *, parts: int, average: float) -> None:
        super().__init__(name=network.name)
        self.network = network
        self._parts = parts
        # An average of all weights takes in the statistics of each batch, as it takes in the
        # weights of each step: smoothed beforehand, they would lag further behind.
        self._averages = (
            WeightAverage(network.weights, average)
            if average
            else RunningStatistics(self._normalisations())
        )

    def call(self, patches: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Give the outputs of the network in the order of `patches`."""
        count = tf.shape(patches)[0]
        bounds = [count * part // self._parts for part in range(self._parts + 1)]
        outputs = []
        for part, (start, stop) in enumerate(pairwise(bounds)):
            # By Keras's formula, so that every part counts as much.
            for layer in self._normalisations():
                layer.momentum = part / (part + 1)
            outputs.append(self.network(patches[start:stop], training=training))
        return tf.concat(outputs, axis=0)

    def train_step(self, data: Any) -> dict[str, Any]:
        """Take Keras's step, then update the averages."""
        logs = super().train_step(data)
        self._averages.update(self.optimizer.iterations)
        return logs

    @property
    def state(self) -> list[keras.Variable]:
        """What changes in training.

        The weights, the generator that dropout draws from, the optimizer's variables with its step
        counter, and the averages. Metrics are left out: each epoch starts them afresh.
        """
        metrics = {id(variable) for variable in self.metrics_variables}
        own = [variable for variable in self.variables if id(variable) not in metrics]
        return [*own, *self.optimizer.variables, *self._averages.variables]

    def _normalisations(self) -> list[keras.layers.BatchNormalization]:
        kind = keras.layers.BatchNormalization
        return [layer for layer in self.network.layers if isinstance(layer, kind)]

    def averaged_weights(self) -> list[NDArray]:
        """Give the averages, or where there are none the weights, in the order of the network's."""
        averages = self._averages
        return (
            averages.values() if isinstance(averages, WeightAverage) else self.network.get_weights()
        )


def accelerate(
    model: keras.Model, *, ghost_batches: int = 1, devices: int = 1, average: float = 0.0
) -> AcceleratedModel:
    """Copy a model and its weights for training.

    Weights keep their order, so that those of the copy fit `set_weights` of the model: train the
    copy, save the original, and the saved file needs no code of ours.

    Parameters
    ----------
    model
        As the builders make it.
    ghost_batches
        Into which a batch is divided: 1, or a multiple of the devices.
    devices
        That share each batch, as many ghost batches each, or all together the only one.
    average
        Share of the training so far over which weights are averaged; 0 for none.

    Returns
    -------
    AcceleratedModel
        Not compiled. Its batch normalisations are fused where the operation can compute them. Where
        several devices share one ghost batch, they are Keras's own, synchronised: their statistics
        are those of the whole batch, as they would be on one device.
    """
    shared = ghost_batches < devices
    parts = max(1, ghost_batches // devices)

    def exchanged(layer: keras.layers.Layer) -> keras.layers.Layer:
        kind, config = type(layer), layer.get_config()
        if kind is keras.layers.BatchNormalization:
            if _can_be_fused(layer) and not shared:
                kind = FusedBatchNormalization
            else:
                # Else the running statistics would be those of one device.
                config["synchronized"] = devices > 1
        elif kind is keras.layers.DepthwiseConv2D and _is_a_weighted_sum(layer):
            kind = WeightedSum
        return kind.from_config(config)

    network = keras.models.clone_model(model, clone_function=exchanged)
    network.set_weights(model.get_weights())
    return AcceleratedModel(network, parts=parts, average=average)


def _can_be_fused(layer: keras.layers.BatchNormalization) -> bool:
    over_channels = len(layer.input.shape) == 4 and layer.axis in (-1, 3)
    return over_channels and layer.scale and layer.center


def _is_a_weighted_sum(layer: keras.layers.DepthwiseConv2D) -> bool:
    plain = not layer.use_bias and layer.activation is keras.activations.linear
    one_place = layer.kernel_size == layer.input.shape[1:3] and layer.padding == "valid"
    return plain and one_place and layer.depth_multiplier == 1
