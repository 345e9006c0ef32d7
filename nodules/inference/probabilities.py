"""Scoring patches with a model, in bounded memory."""

import math
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from nodules.errors import ScoringError
from nodules.params import Views
from nodules.patches.layout import CLASSES, Patches
from nodules.patches.reader import PatchRows
from nodules.patches.symmetry import symmetric_view
from nodules.runtime import usable_processors

# It changes speed and memory, not the result: what a batch makes of its feature maps should fit
# into the caches of a core.
BATCH_SIZE = 64
# Values of the largest feature map of a batch: 128 MB as float32. Smaller batches where a network
# makes more of them keep memory in bounds.
MAX_BATCH_VALUES = 2**25
# Numbers of `symmetric_view`, in the order in which probabilities are added up: it decides bits.
VIEW_ORDER = (0, 5, 7, 2, 4, 3, 1, 6)


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
        Patches scored at once on a core, at least one; fewer where their feature maps would be too
        large. Memory grows with it and with the cores.
    views
        1 scores each patch as it is; 8 averages its probability over its eight symmetric
        views, at eight times the cost.

    Returns
    -------
    (N,) float32
        Probability of a nodule.

    Raises
    ------
    ScoringError
        If the network's outputs are not two probabilities for each patch. Finite weights can still
        overflow, and a builder need not end in a softmax.
    """
    batch_size = max(1, min(batch_size, MAX_BATCH_VALUES // largest_feature_map(model)))
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


def largest_feature_map(model: keras.Model) -> int:
    """Count the values of the largest output of a layer for one patch; 1 where none is known."""
    if not isinstance(model, keras.Function):
        return 1
    outputs = [tensor for each in model.operations for tensor in keras.tree.flatten(each.output)]
    sizes = [math.prod(size or 1 for size in tensor.shape[1:]) for tensor in outputs]
    return max(sizes, default=1)


def _batches_at_once() -> int:
    """Count the cores, or two for a GPU, which computes one while the other is read."""
    return 2 if tf.config.list_logical_devices("GPU") else usable_processors()


def _batch_probabilities(model: keras.Model, batch: Patches, views: Views) -> NDArray[np.float32]:
    probabilities = [
        _checked(model.predict_on_batch(view[..., np.newaxis].astype(np.float32)), len(batch))
        for view in (symmetric_view(batch, number) for number in VIEW_ORDER[:views])
    ]
    return np.mean(probabilities, axis=0, dtype=np.float32)


def _checked(outputs: NDArray[np.float32], patches: int) -> NDArray[np.float32]:
    """Return the probability of a nodule of each patch, having checked those of both classes."""
    expected = (patches, len(CLASSES))
    if outputs.shape != expected:
        raise ScoringError(f"found outputs of shape {outputs.shape}, expected {expected}")
    if not np.isfinite(outputs).all():
        raise ScoringError("found outputs of NaN or infinity, expected probabilities")
    if outputs.min() < 0 or np.abs(outputs.sum(axis=1) - 1).max() > 1e-3:
        raise ScoringError(
            f"found outputs from {outputs.min():.4g} to {outputs.max():.4g}, expected two "
            "probabilities for each patch, which add up to 1"
        )
    return outputs[:, 1]
