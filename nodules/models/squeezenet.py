"""SqueezeNet for 50x50 grayscale patches."""

from typing import Annotated

import keras
from keras import KerasTensor, layers
from pydantic import Field

from nodules.models.input_and_head import Margin, Pooling, class_probabilities, patch_input
from nodules.models.registry import register
from nodules.schema import Count, Fraction

Fire = Annotated[list[Count], Field(min_length=2, max_length=2)]


@register("squeezenet")
def build_squeezenet(
    *,
    margin: Margin,
    stem_filters: Count,
    stem_stride: Count,
    fires: Annotated[list[Fire], Field(min_length=1)],
    pool_before: list[Annotated[int, Field(ge=0)]],
    bypass: bool,
    batch_norm: bool,
    batch_norm_momentum: Fraction | None = None,
    pooling: Pooling,
    dropout: Annotated[float, Field(ge=0, lt=1)],
    seed: int,
) -> keras.Model:
    """Build a SqueezeNet: a 3x3 convolution, fire modules, global pooling, softmax.

    After Iandola et al. (2016), "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and
    <0.5MB model size", https://arxiv.org/abs/1602.07360, adapted to small grayscale patches: the
    stem is 3x3 instead of 7x7, the positions of the poolings are parameters, and the classifier is
    a dense layer after the pooling, equivalent to their 1x1 convolution before it without its ReLU.

    Parameters
    ----------
    margin
        Pixels that are cropped along each edge of a patch.
    stem_filters, stem_stride
        Filters and stride of the first convolution.
    fires
        One `[squeeze, expand]` per fire module: filters of its 1x1 squeeze, and of each of its 1x1
        and 3x3 expansions, whose concatenation has twice as many channels.
    pool_before
        Numbers (from 0) of the fire modules that a 3x3 max pooling of stride 2 precedes.
    bypass
        Whether the input of a fire module that has as many channels as its output is added to it
        before the last ReLU: the simple bypass of their figure 2.
    batch_norm
        Whether each convolution is followed by batch normalisation, which the original lacks.
    batch_norm_momentum
        Momentum of the running statistics after the first steps; see
        `nodules.training.running_statistics`. Required with `batch_norm`, unused without it or
        if the recipe has `average`.
    pooling, dropout
        Pooling and dropout of the features; see `input_and_head.class_probabilities`.
    seed
        Seed of the dropout.

    Returns
    -------
    keras.Model
        From (batch, 50, 50, 1) intensities in 0..255 to (batch, 2) probabilities.
    """
    if batch_norm and batch_norm_momentum is None:
        raise ValueError("batch_norm_momentum: missing, expected a fraction, as batch_norm is true")
    if not all(number < len(fires) for number in pool_before):
        raise ValueError(
            f"pool_before: found {pool_before}, expected numbers from 0 to {len(fires) - 1}"
        )

    def convolution(
        x: KerasTensor, filters: int, size: int, name: str, stride: int = 1
    ) -> KerasTensor:
        return layers.Conv2D(
            filters,
            size,
            strides=stride,
            padding="same",
            use_bias=not batch_norm,
            kernel_initializer="he_normal",
            name=name,
        )(x)

    def activated(x: KerasTensor, name: str, shortcut: KerasTensor | None = None) -> KerasTensor:
        if batch_norm:
            x = layers.BatchNormalization(momentum=batch_norm_momentum, name=f"{name}_norm")(x)
        if shortcut is not None:
            x = layers.Add(name=f"{name}_bypass")([x, shortcut])
        return layers.ReLU(name=f"{name}_relu")(x)

    def fire(x: KerasTensor, squeeze: int, expand: int, name: str) -> KerasTensor:
        squeezed = activated(convolution(x, squeeze, 1, f"{name}_squeeze"), f"{name}_squeeze")
        one = convolution(squeezed, expand, 1, f"{name}_expand1")
        three = convolution(squeezed, expand, 3, f"{name}_expand3")
        shortcut = x if bypass and x.shape[-1] == 2 * expand else None
        # Batch norm and ReLU work per channel: once after the concatenation is equivalent to twice
        # before it, and faster.
        both = layers.Concatenate(name=f"{name}_concat")([one, three])
        return activated(both, name, shortcut)

    inputs, x = patch_input(margin)
    x = activated(convolution(x, stem_filters, 3, "stem", stem_stride), "stem")
    for number, (squeeze, expand) in enumerate(fires):
        if number in pool_before:
            x = layers.MaxPooling2D(3, 2, padding="same", name=f"pool{number}")(x)
        x = fire(x, squeeze, expand, f"fire{number}")
    return keras.Model(inputs, class_probabilities(x, pooling=pooling, dropout=dropout, seed=seed))
