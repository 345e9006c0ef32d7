"""The accelerated model for training, with the same network and weights as the saved model."""

from itertools import pairwise
from typing import Any

import keras
import tensorflow as tf
from numpy.typing import NDArray

from nodules.training.running_statistics import RunningStatistics
from nodules.training.weight_average import WeightAverage


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Batch norm over the channels of (batch, height, width, channels) as one fused operation.

    The layer must have both a scale and an offset.

    Keras composes its layer of some ten elementwise operations, each of which reads and writes the
    whole feature map; TensorFlow's fused operation takes a third of the time on a CPU. It updates
    the running variance with the unbiased variance of a batch, N / (N - 1) times Keras's. The
    difference is negligible, since N counts every pixel of every patch.
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
            # Each device has its own running statistics; those of the first device are saved.
            mean, variance = replica.all_reduce(tf.distribute.ReduceOp.MEAN, (mean, variance))
        for running, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            running.assign(running * self.momentum + batch * (1 - self.momentum))
        return outputs


class WeightedSum(keras.layers.DepthwiseConv2D):
    """A depthwise convolution whose kernel covers the whole feature map, as a weighted sum.

    The gradient of such a kernel takes several times as long with oneDNN's convolution, especially
    in bfloat16.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return (batch, 1, 1, channels), summed in float32."""
        products = tf.cast(inputs, tf.float32) * tf.cast(self.kernel[..., 0], tf.float32)
        return tf.cast(tf.reduce_sum(products, axis=(1, 2), keepdims=True), inputs.dtype)


class AcceleratedModel(keras.Model):
    """A network for training that processes the parts of each batch in parallel.

    The parts of a batch share only its gradients, so TensorFlow computes each part on its own core.
    Computed as a whole, a batch would keep cores waiting for each other at every operation. Batch
    norm takes its statistics within a part: the ghost batches of Hoffer et al. (2017), "Train
    longer, generalize better", https://arxiv.org/abs/1705.08741.

    Parameters
    ----------
    network
        Network whose weights, in the same order, are those of this model. Its fused batch norms are
        direct layers, not layers of a nested model, and each is applied once.
    parts
        Number of parts, as even as possible, of a batch or of a device's portion of it.
    average
        Fraction of the training so far over which weights are averaged; 0 for none.

    A call with `training=True` stores the statistics of the batch, as the mean over the parts, in
    the batch norms. `train_step` averages them over steps, with the weights or separately.
    """

    def __init__(self, network: keras.Model, *, parts: int, average: float) -> None:
        super().__init__(name=network.name)
        self.network = network
        self._parts = parts
        # The average of all weights includes the statistics of each batch, just as it includes the
        # weights of each step. Smoothed beforehand, they would lag further behind.
        self._averages = (
            WeightAverage(network.weights, average)
            if average
            else RunningStatistics(self._normalisations())
        )

    def call(self, patches: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Return the outputs of the network in the order of `patches`."""
        count = tf.shape(patches)[0]
        bounds = [count * part // self._parts for part in range(self._parts + 1)]
        outputs = []
        for part, (start, stop) in enumerate(pairwise(bounds)):
            # With Keras's formula, this gives every part the same weight.
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
        """All variables that change in training.

        The weights, the random state of dropout, the optimizer's variables with its step counter,
        and the averages. Metrics are left out, since each epoch resets them.
        """
        metrics = {id(variable) for variable in self.metrics_variables}
        own = [variable for variable in self.variables if id(variable) not in metrics]
        return [*own, *self.optimizer.variables, *self._averages.variables]

    def _normalisations(self) -> list[keras.layers.BatchNormalization]:
        kind = keras.layers.BatchNormalization
        return [layer for layer in self.network.layers if isinstance(layer, kind)]

    def averaged_weights(self) -> list[NDArray]:
        """Return the averaged weights, or the weights if none are averaged, in order."""
        averages = self._averages
        return (
            averages.values() if isinstance(averages, WeightAverage) else self.network.get_weights()
        )


def accelerate(
    model: keras.Model, *, ghost_batches: int = 1, devices: int = 1, average: float = 0.0
) -> AcceleratedModel:
    """Copy a model and its weights into an accelerated model for training.

    The weights keep their order, so the original can take them over with `set_weights`. The
    original is saved, so its file needs none of the classes here.

    Parameters
    ----------
    model
        Model of `build_model`.
    ghost_batches
        Number of ghost batches per batch: 1, or a multiple of the devices.
    devices
        Number of devices that share a batch: as many ghost batches each, or all of them one.
    average
        Fraction of the training so far over which weights are averaged; 0 for none.

    Returns
    -------
    AcceleratedModel
        Not compiled. Its batch norms are fused where the fused operation supports them. If several
        devices share one ghost batch, they are Keras's synchronised ones with the statistics of the
        whole batch, as on one device.
    """
    shared = ghost_batches < devices
    parts = max(1, ghost_batches // devices)

    def replaced(layer: keras.layers.Layer) -> keras.layers.Layer:
        kind, config = type(layer), layer.get_config()
        if kind is keras.layers.BatchNormalization:
            if _can_be_fused(layer) and not shared:
                kind = FusedBatchNormalization
            else:
                # Otherwise the running statistics would be those of a single device.
                config["synchronized"] = devices > 1
        elif kind is keras.layers.DepthwiseConv2D and _is_a_weighted_sum(layer):
            kind = WeightedSum
        return kind.from_config(config)

    network = keras.models.clone_model(model, clone_function=replaced)
    network.set_weights(model.get_weights())
    return AcceleratedModel(network, parts=parts, average=average)


def _can_be_fused(layer: keras.layers.BatchNormalization) -> bool:
    over_channels = len(layer.input.shape) == 4 and layer.axis in (-1, 3)
    return over_channels and layer.scale and layer.center


def _is_a_weighted_sum(layer: keras.layers.DepthwiseConv2D) -> bool:
    plain = not layer.use_bias and layer.activation is keras.activations.linear
    whole_map = layer.kernel_size == layer.input.shape[1:3] and layer.padding == "valid"
    return plain and whole_map and layer.depth_multiplier == 1
