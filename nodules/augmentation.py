"""Random changes to a batch of training patches, as a pure function of a seed."""

import math

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
    symmetry, shift, affine, contrast, brightness, noise, level = tf.unstack(
        tf.random.split(seed, 7), axis=0
    )
    batch = tf.shape(patches)[0]

    def uniform(key: tf.Tensor, low: float, high: float) -> tf.Tensor:
        return tf.random.stateless_uniform((batch, 1, 1), key, low, high)

    if params.symmetries:
        patches = _one_of_eight_symmetries(patches, symmetry)
    if params.shift:
        patches = _shifted(patches, params.shift, shift)
    if params.rotation or params.zoom:
        patches = _turned_and_zoomed(patches, params.rotation, params.zoom, affine)
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


def _turned_and_zoomed(
    patches: tf.Tensor, largest_degrees: float, largest_zoom: float, seed: tf.Tensor
) -> tf.Tensor:
    """Turn each patch about its centre and enlarge it, with bilinear interpolation."""
    draws = tf.random.stateless_uniform((2, tf.shape(patches)[0]), seed, -1.0, 1.0)
    angle = draws[0] * (largest_degrees * math.pi / 180)
    scale = 1 / (1 + draws[1] * largest_zoom)
    cosine, sine = scale * tf.cos(angle), scale * tf.sin(angle)
    # Rows of the matrix that takes an output pixel to its source; it keeps the centre in place.
    centre = (PATCH_SIZE - 1) / 2
    nothing = tf.zeros_like(angle)
    transforms = tf.stack(
        [
            cosine,
            -sine,
            centre * (1 - cosine + sine),
            sine,
            cosine,
            centre * (1 - sine - cosine),
            nothing,
            nothing,
        ],
        axis=1,
    )
    turned = tf.raw_ops.ImageProjectiveTransformV3(
        images=patches[..., tf.newaxis],
        transforms=transforms,
        output_shape=(PATCH_SIZE, PATCH_SIZE),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )
    return turned[..., 0]
