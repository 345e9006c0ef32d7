"""Random changes to a batch of training patches, as a pure function of a seed."""

import math

import tensorflow as tf

from nodules.patches.layout import PATCH_SIZE
from nodules.training.recipe import AugmentationParams


def augment(patches: tf.Tensor, params: AugmentationParams, seed: tf.Tensor) -> tf.Tensor:
    """Change each patch of a batch at random.

    Parameters
    ----------
    patches
        (batch, 50, 50) float32 in 0..255.
    params
        Kinds and sizes of the random changes.
    seed
        (2,) integers; the same seed and patches give the same result.

    Returns
    -------
    (batch, 50, 50) float32
        In 0..255.
    """
    place, contrast, brightness, noise, level = tf.unstack(tf.random.split(seed, 5), axis=0)
    batch = tf.shape(patches)[0]

    def uniform(key: tf.Tensor, low: float, high: float) -> tf.Tensor:
        return tf.random.stateless_uniform((batch, 1, 1), key, low, high)

    if params.symmetries or params.shift or params.rotation or params.zoom:
        patches = _transformed(patches, params, place)
    if params.contrast:
        patches *= uniform(contrast, 1 - params.contrast, 1 + params.contrast)
    if params.brightness:
        patches += 255 * uniform(brightness, -params.brightness, params.brightness)
    if params.noise:
        deviation = 255 * uniform(level, 0, params.noise)
        patches += deviation * tf.random.stateless_normal(tf.shape(patches), noise)
    return tf.clip_by_value(patches, 0, 255)


def _transformed(patches: tf.Tensor, params: AugmentationParams, seed: tf.Tensor) -> tf.Tensor:
    """Mirror, transpose, rotate, zoom and shift each patch in a single interpolation."""
    batch = tf.shape(patches)[0]
    coin, move, turn = tf.unstack(tf.random.split(seed, 3), axis=0)
    one, nothing = tf.ones(batch), tf.zeros(batch)
    # The matrix that maps an output pixel, relative to the centre, to its source.
    xx, xy, yx, yy = one, nothing, nothing, one
    if params.symmetries:
        # Three coin flips make each symmetry of the square equally likely.
        coins = tf.random.stateless_uniform((3, batch), coin) < 0.5
        mirror_x, mirror_y = tf.where(coins[0], -one, one), tf.where(coins[1], -one, one)
        xx, xy = tf.where(coins[2], nothing, mirror_x), tf.where(coins[2], mirror_x, nothing)
        yx, yy = tf.where(coins[2], mirror_y, nothing), tf.where(coins[2], nothing, mirror_y)
    if params.rotation or params.zoom:
        draws = tf.random.stateless_uniform((2, batch), turn, -1.0, 1.0)
        angle = draws[0] * (params.rotation * math.pi / 180)
        scale = 1 / (1 + draws[1] * params.zoom)
        cosine, sine = scale * tf.cos(angle), scale * tf.sin(angle)
        xx, xy, yx, yy = (
            cosine * xx - sine * yx,
            cosine * xy - sine * yy,
            sine * xx + cosine * yx,
            sine * xy + cosine * yy,
        )
    moves = tf.random.stateless_uniform(
        (2, batch), move, -params.shift, params.shift + 1, dtype=tf.int32
    )
    move_x, move_y = tf.unstack(tf.cast(moves, tf.float32))
    # Shifted last, so the centre moves by that many pixels whatever the rotation.
    centre = (PATCH_SIZE - 1) / 2
    to_x = centre - xx * (centre + move_x) - xy * (centre + move_y)
    to_y = centre - yx * (centre + move_x) - yy * (centre + move_y)
    placed = tf.raw_ops.ImageProjectiveTransformV3(
        images=patches[..., tf.newaxis],
        transforms=tf.stack([xx, xy, to_x, yx, yy, to_y, nothing, nothing], axis=1),
        output_shape=(PATCH_SIZE, PATCH_SIZE),
        fill_value=0.0,
        # Without rotation and zoom, pixels keep their values.
        interpolation="BILINEAR" if params.rotation or params.zoom else "NEAREST",
        fill_mode="NEAREST",
    )
    return placed[..., 0]
