"""What every network here begins and ends with: normalised patches in, two probabilities out."""

from typing import Annotated, Literal

import keras
from keras import KerasTensor, initializers, layers
from pydantic import Field

from nodules.patches.layout import CLASSES, PATCH_SIZE

# Pixels left out along each edge of a patch.
Margin = Annotated[int, Field(ge=0, le=20)]

Pooling = Literal["average", "depthwise"]


def patch_input(margin: Margin) -> tuple[KerasTensor, KerasTensor]:
    """Make the input of a network.

    Parameters
    ----------
    margin
        Pixels to leave out along each edge. What is that far from the candidate says little and
        costs as much as the rest; and shifted patches show what lies there instead of a gap.

    Returns
    -------
    inputs
        (batch, 50, 50, 1) intensities in 0..255.
    scaled
        (batch, 50 - 2 * margin, 50 - 2 * margin, 1) in 0..1: the normalisation is part of the
        model and is saved with it.
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
        `average`: the mean over all places. `depthwise`: a sum over all places whose weights each
        channel learns, starting from the mean; the global depthwise convolution of Chen et al.
        (2018), "MobileFaceNets", https://arxiv.org/abs/1804.07573, section 3.1. A candidate lies
        in the middle of its patch, and the mean forgets where things are.
    dropout
        Share of the pooled features that training drops.
    seed
        Of the dropout.

    Returns
    -------
    (batch, 2) KerasTensor
        Non-nodule and nodule; float32 whatever the precision of the layers before.
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
