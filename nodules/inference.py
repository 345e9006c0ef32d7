"""Scoring patches with a model, in bounded memory."""

import keras
import numpy as np
from numpy.typing import NDArray

from nodules.patches import Patches

# It changes speed and memory, not the result.
BATCH_SIZE = 512


def nodule_probabilities(
    model: keras.Model, patches: Patches, batch_size: int = BATCH_SIZE
) -> NDArray[np.float32]:
    """Score patches.

    Parameters
    ----------
    model
        As the builders make it.
    patches
        (N, 50, 50) uint8, which may be memory-mapped: they are read a batch at a time.
    batch_size
        Patches scored at once.

    Returns
    -------
    (N,) float32
        Probability of a nodule.
    """
    # Not `predict` over a tf.data pipeline: one made for every call is never freed.
    batches = (patches[start : start + batch_size] for start in range(0, len(patches), batch_size))
    scored = [
        model.predict_on_batch(batch[..., np.newaxis].astype(np.float32))[:, 1] for batch in batches
    ]
    return np.concatenate(scored)
