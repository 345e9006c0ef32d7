"""Score patches with a model in bounded memory."""

from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from nodules.errors import ScoringError
from nodules.models.feature_maps import largest_feature_map
from nodules.patches.layout import CLASSES, Patches
from nodules.patches.reader import PatchRows
from nodules.patches.symmetry import Views, symmetric_view
from nodules.runtime import usable_processors

# The batch size affects speed and memory, not the result. The feature maps of a batch should fit
# into a core's caches.
BATCH_SIZE = 64
# Values of the largest feature map of a batch: 128 MB as float32. Networks with larger feature maps
# get smaller batches, which bounds the memory.
MAX_BATCH_VALUES = 2**25
# Views of `symmetric_view`, in the order in which their probabilities are added, which affects the
# last bits of the sum.
VIEW_ORDER = (0, 5, 7, 2, 4, 3, 1, 6)


def nodule_probabilities(
    model: keras.Model, patches: PatchRows, *, batch_size: int = BATCH_SIZE, views: Views = 1
) -> NDArray[np.float32]:
    """Score patches.

    Parameters
    ----------
    model
        Model of `build_model`, or of `fold_batch_norm`, which is faster.
    patches
        (N, 50, 50) uint8, N >= 1, in memory or on disk; read one batch at a time.
    batch_size
        Patches scored at once on one core, at least 1; fewer if their feature maps would be too
        large. Memory grows with the batch size and the number of cores.
    views
        Number of views: 1 scores each patch itself; 8 averages over its eight symmetric views,
        which takes eight times as long.

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
    # Not `predict`, which creates a tf.data pipeline per call that is never freed.
    model.make_predict_function()

    def scored(start: int) -> NDArray[np.float32]:
        return _batch_probabilities(model, patches[start : start + batch_size], views)

    # The first batch runs alone, because TensorFlow traces the network for its size, and threads
    # must not trace at once.
    first, *others = range(0, len(patches), batch_size)
    head = scored(first)
    with ThreadPoolExecutor(_batches_at_once()) as threads:
        return np.concatenate([head, *threads.map(scored, others)])


def _batches_at_once() -> int:
    """Return the number of cores, or 2 for a GPU: one batch is read while the other is computed."""
    return 2 if tf.config.list_logical_devices("GPU") else usable_processors()


def _batch_probabilities(model: keras.Model, batch: Patches, views: Views) -> NDArray[np.float32]:
    probabilities = [
        _checked(model.predict_on_batch(view[..., np.newaxis].astype(np.float32)), len(batch))
        for view in (symmetric_view(batch, number) for number in VIEW_ORDER[:views])
    ]
    return np.mean(probabilities, axis=0, dtype=np.float32)


def _checked(outputs: NDArray[np.float32], patches: int) -> NDArray[np.float32]:
    """Check the probabilities of both classes; return those of a nodule."""
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
