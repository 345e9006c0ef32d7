"""MobileNet for 50x50 grayscale patches."""

from typing import Annotated

import keras
from keras import KerasTensor, layers
from pydantic import Field

from nodules.models.input_and_head import Margin, Pooling, class_probabilities, patch_input
from nodules.models.registry import register
from nodules.schema import Count, Fraction

Block = Annotated[list[Count], Field(min_length=2, max_length=2)]


@register("mobilenet")
def build_mobilenet(
    *,
    margin: Margin,
    stem_filters: Count,
    stem_stride: Count,
    blocks: Annotated[list[Block], Field(min_length=1)],
    bypass: bool,
    batch_norm_momentum: Fraction,
    pooling: Pooling,
    dropout: Annotated[float, Field(ge=0, lt=1)],
    seed: int,
) -> keras.Model:
    """Build a MobileNet: a 3x3 convolution, depthwise separable blocks, pooling, softmax.

    After Howard et al. (2017), "MobileNets: efficient convolutional neural networks for mobile
    vision applications", https://arxiv.org/abs/1704.04861. With the strides and filters of its
    table 1 this is `keras.applications.MobileNet` without its weights. Five halvings reduce
    50x50 pixels to 1x1 and lose all positions, so strides are parameters.

    Parameters
    ----------
    margin
        Pixels that are cropped along each edge of a patch.
    stem_filters, stem_stride
        Filters and stride of the first convolution.
    blocks
        One `[filters, stride]` per block: a 3x3 depthwise convolution of that stride, then a 1x1
        convolution to that many filters, each with batch normalisation and ReLU6.
    bypass
        Whether the input of a block that keeps size and channels is added to its output before the
        last ReLU6, as in residual networks; the original has no such sums.
    batch_norm_momentum
        Momentum of the running statistics after the first steps; see
        `nodules.training.running_statistics`. Not used if the recipe has `average`.
    pooling, dropout
        Pooling and dropout of the features; see `input_and_head.class_probabilities`.
    seed
        Seed of the dropout.

    Returns
    -------
    keras.Model
        From (batch, 50, 50, 1) intensities in 0..255 to (batch, 2) probabilities.
    """

    def activated(x: KerasTensor, name: str, shortcut: KerasTensor | None = None) -> KerasTensor:
        x = layers.BatchNormalization(momentum=batch_norm_momentum, name=f"{name}_norm")(x)
        if shortcut is not None:
            x = layers.Add(name=f"{name}_bypass")([x, shortcut])
        return layers.ReLU(max_value=6.0, name=f"{name}_relu")(x)

    inputs, x = patch_input(margin)
    x = layers.Conv2D(
        stem_filters, 3, strides=stem_stride, padding="same", use_bias=False, name="stem"
    )(x)
    x = activated(x, "stem")
    for number, (filters, stride) in enumerate(blocks):
        shortcut = x if bypass and stride == 1 and x.shape[-1] == filters else None
        depthwise, pointwise = f"block{number}_depthwise", f"block{number}_pointwise"
        if stride > 1:
            # Padding as in Keras's own MobileNet, where odd sizes are halved rounding down.
            x = layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"block{number}_pad")(x)
        padding = "same" if stride == 1 else "valid"
        x = layers.DepthwiseConv2D(
            3, strides=stride, padding=padding, use_bias=False, name=depthwise
        )(x)
        x = activated(x, depthwise)
        x = layers.Conv2D(filters, 1, use_bias=False, name=pointwise)(x)
        x = activated(x, pointwise, shortcut)
    return keras.Model(inputs, class_probabilities(x, pooling=pooling, dropout=dropout, seed=seed))
