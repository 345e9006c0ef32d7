"""Scoring patches with a model, in bounded memory."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from nodules.params import Views
from nodules.patches import Patches, PatchRows
from nodules.runtime import usable_processors

# It changes speed and memory, not the result: what a batch makes of its feature maps should fit
# into the caches of a core.
BATCH_SIZE = 64


def nodule_probabilities(
    model: keras.Model, patches: PatchRows, *, batch_size: int = BATCH_SIZE, views: Views = 1
) -> NDArray[np.float32]:
    """Score patches.

    Parameters
    ----------
    model
        As the builders make it, or, which is faster, its `folded_copy`.
    patches
        (N, 50, 50) uint8, at least one; they may stay on disk, and are read a batch at a time.
    batch_size
        Patches scored at once on a core, at least one. Memory grows with it and with the cores.
    views
        1 scores each patch as it is; 8 averages its probability over `symmetric_views`, at eight
        times the cost.

    Returns
    -------
    (N,) float32
        Probability of a nodule.
    """
    # Not `predict` over a tf.data pipeline: one made for every call is never freed.
    model.make_predict_function()

    def scored(start: int) -> NDArray[np.float32]:
        return _batch_probabilities(model, patches[start : start + batch_size], views)

    # The first one by itself: TensorFlow traces the network for its size, and for any other size
    # when that comes, which must not be a race.
    first, *others = range(0, len(patches), batch_size)
    head = scored(first)
    with ThreadPoolExecutor(_batches_at_once()) as threads:
        return np.concatenate([head, *threads.map(scored, others)])


def _batches_at_once() -> int:
    """Count the cores, or two for a GPU, which computes one while the other is read."""
    return 2 if tf.config.list_logical_devices("GPU") else usable_processors()


def symmetric_views(patches: Patches) -> Iterator[Patches]:
    """Give (N, 50, 50) patches under each of the eight symmetries of the square, as they are first.

    A section through a nodule has no up or left, so that all eight ask the same question.
    """
    for turned in (patches, patches.transpose(0, 2, 1)):
        for rows in (1, -1):
            for columns in (1, -1):
                yield turned[:, ::rows, ::columns]


def _batch_probabilities(model: keras.Model, batch: Patches, views: Views) -> NDArray[np.float32]:
    probabilities = [
        model.predict_on_batch(view[..., np.newaxis].astype(np.float32))[:, 1]
        for view in (symmetric_views(batch) if views == 8 else [batch])
    ]
    return np.mean(probabilities, axis=0, dtype=np.float32)
