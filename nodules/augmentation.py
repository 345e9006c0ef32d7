"""Random changes to a batch of training patches, as a pure function of a seed."""

import tensorflow as tf

from nodules.params import AugmentationParams
from nodules.patches import PATCH_SIZE


def augment(patches: tf.Tensor, params: AugmentationParams, seed: tf.Tensor) -> tf.Tensor:
    """Change each patch of a batch at random.

    Parameters
    ----------
    patches
        (batch, 50, 50) float32 in 0..255.
    params
        What may change, and how far.
    seed
        (2,) integers; the same seed and patches give the same result.

    Returns
    -------
    (batch, 50, 50) float32
        In 0..255.
    """
    symmetry, shift, contrast, brightness, noise, level = tf.unstack(
        tf.random.split(seed, 6), axis=0
    )
    batch = tf.shape(patches)[0]

    def uniform(key: tf.Tensor, low: float, high: float) -> tf.Tensor:
        return tf.random.stateless_uniform((batch, 1, 1), key, low, high)

    if params.symmetries:
        patches = _one_of_eight_symmetries(patches, symmetry)
    if params.shift:
        patches = _shifted(patches, params.shift, shift)
    if params.contrast:
        patches *= uniform(contrast, 1 - params.contrast, 1 + params.contrast)
    if params.brightness:
        patches += 255 * uniform(brightness, -params.brightness, params.brightness)
    if params.noise:
        deviation = 255 * uniform(level, 0, params.noise)
        patches += deviation * tf.random.stateless_normal(tf.shape(patches), noise)
    return tf.clip_by_value(patches, 0, 255)


def _one_of_eight_symmetries(patches: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Mirror and transpose: three coin flips make each symmetry of the square equally likely."""
    coins = tf.random.stateless_uniform((3, tf.shape(patches)[0], 1, 1), seed) < 0.5
    patches = tf.where(coins[0], patches[:, ::-1], patches)
    patches = tf.where(coins[1], patches[:, :, ::-1], patches)
    return tf.where(coins[2], tf.transpose(patches, (0, 2, 1)), patches)


def _shifted(patches: tf.Tensor, largest: int, seed: tf.Tensor) -> tf.Tensor:
    """Move each patch by whole pixels along both axes, repeating its edge."""
    shape = (2, tf.shape(patches)[0], 1)
    moves = tf.random.stateless_uniform(shape, seed, -largest, largest + 1, tf.int32)
    sources = tf.clip_by_value(tf.range(PATCH_SIZE) + moves, 0, PATCH_SIZE - 1)
    patches = tf.gather(patches, sources[0], axis=1, batch_dims=1)
    return tf.gather(patches, sources[1], axis=2, batch_dims=1)
