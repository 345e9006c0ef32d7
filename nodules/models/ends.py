"""What every network here begins and ends with: normalised patches in, two probabilities out."""

import keras
from keras import KerasTensor, layers

from nodules.patches import CLASSES, PATCH_SIZE


def patch_input() -> tuple[KerasTensor, KerasTensor]:
    """Make the input of a network.

    Returns
    -------
    inputs
        (batch, 50, 50, 1) intensities in 0..255.
    scaled
        The same in 0..1: the normalisation is part of the model and is saved with it.
    """
    inputs = keras.Input((PATCH_SIZE, PATCH_SIZE, 1), name="patch")
    return inputs, layers.Rescaling(1 / 255, dtype="float32", name="normalise")(inputs)


def class_probabilities(features: KerasTensor, *, dropout: float, seed: int) -> KerasTensor:
    """Turn a feature map into class probabilities.

    Parameters
    ----------
    features
        (batch, height, width, channels).
    dropout
        Share of the pooled features that training drops.
    seed
        Of the dropout.

    Returns
    -------
    (batch, 2) KerasTensor
        Non-nodule and nodule; float32 whatever the precision of the layers before.
    """
    pooled = layers.GlobalAveragePooling2D(name="average")(features)
    kept = layers.Dropout(dropout, seed=seed, name="dropout")(pooled)
    logits = layers.Dense(len(CLASSES), dtype="float32", name="logits")(kept)
    return layers.Softmax(dtype="float32", name="probabilities")(logits)
