"""Input and head that all networks share: normalised patches in, two probabilities out."""

from typing import Annotated, Literal

import keras
from keras import KerasTensor, initializers, layers
from pydantic import Field

from nodules.patches.layout import CLASSES, PATCH_SIZE

# Pixels that are cropped along each edge of a patch.
Margin = Annotated[int, Field(ge=0, le=20)]

Pooling = Literal["average", "depthwise"]


def patch_input(margin: Margin) -> tuple[KerasTensor, KerasTensor]:
    """Build the input of a network.

    Parameters
    ----------
    margin
        Pixels to crop along each edge. They are far from the candidate, so they carry little
        information at full cost. In shifted patches, they fill the gap.

    Returns
    -------
    inputs
        (batch, 50, 50, 1) intensities in 0..255.
    scaled
        (batch, 50 - 2 * margin, 50 - 2 * margin, 1) in 0..1. The normalisation is part of the model
        and saved with it.
    """
    inputs = keras.Input((PATCH_SIZE, PATCH_SIZE, 1), name="patch")
    scaled = layers.Rescaling(1 / 255, dtype="float32", name="normalise")(inputs)
    return inputs, layers.Cropping2D(margin, name="crop")(scaled) if margin else scaled


def class_probabilities(
    features: KerasTensor, *, pooling: Pooling, dropout: float, seed: int
) -> KerasTensor:
    """Turn a feature map into class probabilities.

    Parameters
    ----------
    features
        (batch, height, width, channels).
    pooling
        `average`: the mean over all positions. `depthwise`: a weighted sum over all positions, with
        weights that each channel learns, starting from the mean; the global depthwise convolution
        of Chen et al. (2018), "MobileFaceNets", https://arxiv.org/abs/1804.07573, section 3.1. A
        candidate is in the centre of its patch, and the mean discards positions.
    dropout
        Fraction of the pooled features that dropout zeroes in training.
    seed
        Seed of the dropout.

    Returns
    -------
    (batch, 2) KerasTensor
        Probabilities of non-nodule and nodule; float32 with any precision of the other layers.
    """
    pooled = _pooled(features, pooling)
    kept = layers.Dropout(dropout, seed=seed, name="dropout")(pooled)
    logits = layers.Dense(len(CLASSES), dtype="float32", name="logits")(kept)
    return layers.Softmax(dtype="float32", name="probabilities")(logits)


def _pooled(features: KerasTensor, pooling: Pooling) -> KerasTensor:
    if pooling == "average":
        return layers.GlobalAveragePooling2D(name="average")(features)
    height, width = features.shape[1:3]
    mean = initializers.Constant(1 / (height * width))
    weighted = layers.DepthwiseConv2D(
        (height, width), use_bias=False, depthwise_initializer=mean, name="weighted_sum"
    )(features)
    return layers.Flatten(name="flatten")(weighted)
