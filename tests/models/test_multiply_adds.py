"""Multiply-adds: counted by hand for a small network, and published for MobileNet."""

import keras
import pytest
from keras import layers

from nodules.models.multiply_adds import multiply_adds


def test_multiply_adds_are_those_counted_by_hand() -> None:
    model = keras.Sequential(
        [
            keras.Input((50, 50, 1)),
            layers.Conv2D(8, 3, strides=2, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.DepthwiseConv2D(3, strides=2, padding="valid"),
            layers.Conv2D(6, 1, groups=2),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2),
        ]
    )
    stem = 25 * 25 * (3 * 3 * 1 * 8)
    depthwise = 12 * 12 * (3 * 3 * 8)
    grouped = 12 * 12 * (2 * (8 // 2) * (6 // 2))
    assert multiply_adds(model) == stem + depthwise + grouped + 6 * 2


def test_mobilenets_multiply_adds_are_those_published() -> None:
    # Howard et al. (2017), https://arxiv.org/abs/1704.04861, table 8: 569 million.
    model = keras.applications.MobileNet((224, 224, 3), weights=None, classes=1000)
    assert multiply_adds(model) == pytest.approx(569e6, rel=0.01)


def test_an_unknown_layer_with_weights_is_named() -> None:
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2DTranspose(2, 3, name="enlarge")])
    with pytest.raises(TypeError, match=r"^enlarge: found Conv2DTranspose, whose"):
        multiply_adds(model)
