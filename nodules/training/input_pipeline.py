"""The input pipeline: a shuffled, augmented stream of batches."""

import functools

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from nodules.patches.layout import CLASSES, PATCH_SIZE, Labels, Patches
from nodules.patches.reader import PatchRows
from nodules.training.augmentation import augment
from nodules.training.recipe import AugmentationParams


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Return the number of full batches in an epoch.

    The few remaining patches, which differ between epochs, are skipped, because a small last batch
    would distort the statistics of batch norm.
    """
    return max(1, count // batch_size)


def epoch_order(count: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return a permutation of the rows that depends only on (seed, epoch)."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def training_batches(
    patches: PatchRows,
    labels: Labels,
    *,
    batch_size: int,
    epochs: int,
    augmentation: AugmentationParams,
    class_weights: tuple[float, float],
    label_smoothing: float,
    seed: int,
    first_epoch: int = 0,
) -> tf.data.Dataset:
    """Stream all batches of a training, epoch after epoch.

    Order and augmentation of a batch are functions of (seed, epoch, step).

    Parameters
    ----------
    patches
        (N, 50, 50) uint8, in memory or on disk; rows are read as needed.
    labels
        (N,) uint8.
    batch_size, epochs
        Patches per batch; passes over the patches.
    augmentation
        Random changes to each patch.
    class_weights
        Weight of a non-nodule and of a nodule in the loss.
    label_smoothing
        Fraction of each label that is spread evenly over the classes.
    seed
        Seed of the order and the augmentation.
    first_epoch
        First epoch to stream, from 0; more than 0 in a resumed training.

    Returns
    -------
    tf.data.Dataset
        Patches (batch, 50, 50, 1) float32 in 0..255, labels (batch, 2) float32 and weights (batch,)
        float32; `(epochs - first_epoch) * steps_per_epoch(N, batch_size)` batches in total.
    """
    steps = steps_per_epoch(len(patches), batch_size)
    targets = np.eye(len(CLASSES), dtype=np.float32) * (1 - label_smoothing)
    targets += label_smoothing / len(CLASSES)
    weights = np.asarray(class_weights, dtype=np.float32)

    @functools.lru_cache(maxsize=2)
    def order(epoch: int) -> NDArray[np.int64]:
        return epoch_order(len(patches), seed=seed, epoch=epoch)

    def read(number: np.int64) -> tuple[Patches, Labels]:
        epoch, step = divmod(int(number), steps)
        rows = order(epoch)[step * batch_size : (step + 1) * batch_size]
        return patches[rows], labels[rows]

    def load(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        batch, label = tf.numpy_function(read, [number], (tf.uint8, tf.uint8), stateful=False)
        batch = tf.ensure_shape(batch, (None, PATCH_SIZE, PATCH_SIZE))
        label = tf.cast(tf.ensure_shape(label, (None,)), tf.int32)
        # The number counts through all epochs, so it identifies the pair (epoch, step).
        changed = augment(tf.cast(batch, tf.float32), augmentation, tf.stack([seed, number]))
        return changed[..., tf.newaxis], tf.gather(targets, label), tf.gather(weights, label)

    numbers = tf.data.Dataset.range(first_epoch * steps, epochs * steps)
    batches = numbers.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return batches.prefetch(tf.data.AUTOTUNE)
