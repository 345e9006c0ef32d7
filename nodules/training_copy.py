"""The copy of a model that is trained: the same weights, its batch normalisations exchanged."""

import keras
import tensorflow as tf


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
        for running, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            running.assign(running * self.momentum + batch * (1 - self.momentum))
        return outputs


def training_copy(model: keras.Model, *, devices: int = 1) -> keras.Model:
    """Copy a model and its weights for training.

    Weights keep their order, so that `get_weights` of the one fits `set_weights` of the other:
    train the copy, save the original, and the saved file needs no code of ours.

    Parameters
    ----------
    model
        As the builders make it.
    devices
        That share each batch. On one, batch normalisation is fused where the operation can compute
        it. On several it is Keras's own, synchronised: its statistics are those of the whole batch,
        as they would be on one.

    Returns
    -------
    keras.Model
        Not compiled.
    """

    def exchanged(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if type(layer) is not keras.layers.BatchNormalization:
            return type(layer).from_config(config)
        if devices > 1:
            return keras.layers.BatchNormalization.from_config({**config, "synchronized": True})
        kind = FusedBatchNormalization if _can_be_fused(layer) else type(layer)
        return kind.from_config(config)

    copy = keras.models.clone_model(model, clone_function=exchanged)
    copy.set_weights(model.get_weights())
    return copy


def _can_be_fused(layer: keras.layers.BatchNormalization) -> bool:
    over_channels = len(layer.input.shape) == 4 and layer.axis in (-1, 3)
    return over_channels and layer.scale and layer.center
