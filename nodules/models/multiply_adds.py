"""The cost of a forward pass in multiply-adds, the usual unit for compact networks."""

import math

import keras
from keras import layers


def multiply_adds(model: keras.Model) -> int:
    """Count the multiplications, each with its addition, of the convolutions and dense layers.

    Parameters
    ----------
    model
        Network whose layers are each used once, on (batch, height, width, channels) of known
        height and width.

    Returns
    -------
    int
        Multiply-adds of a forward pass for one patch. Batch norms and biases are not counted, as is
        usual: they cost one or two operations per output value, and a batch norm can be folded
        into the kernel before it.

    Raises
    ------
    TypeError
        If any other layer has weights.
    """
    return sum(_multiply_adds_of(layer) for layer in model.layers if layer.weights)


def _multiply_adds_of(layer: layers.Layer) -> int:
    match layer:
        case layers.Conv2D() | layers.DepthwiseConv2D() | layers.Dense():
            # Each output pixel uses every weight of the kernel once. The output of a dense layer
            # after the pooling is a single pixel.
            return math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:-1])
        case layers.BatchNormalization():
            return 0
    raise TypeError(
        f"{layer.name}: found {type(layer).__name__}, whose multiply-adds are unknown; expected "
        "Conv2D, DepthwiseConv2D, Dense or BatchNormalization"
    )
