"""Fold the batch norms of a network into its convolutions."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

# A kernel, a bias, or one number per channel.
Weights = NDArray[np.float32]
# The names of the convolutions before each batch norm, in the order of its channels.
Folds = dict[str, list[str]]


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """Copy a trained model with its batch norms folded into its convolutions.

    With fixed statistics, a batch norm multiplies each channel by a number and adds another. Folded
    into the kernel and the bias of the convolution before it, this costs nothing; as a layer, it is
    another pass over the feature map.

    Parameters
    ----------
    model
        Any model. Batch norms are folded if they follow a plain or depthwise convolution, or
        several concatenated ones, whose outputs nothing else uses.

    Returns
    -------
    keras.Model
        A model for inference with the same outputs except for rounding; `model` itself if it has
        nothing to fold. The two share all layers except those convolutions, which `refold` updates
        after further training of the model.
    """
    folds = _folds(model)
    if not folds:
        return model
    convolutions = {name for before in folds.values() for name in before}

    def replaced(layer: layers.Layer) -> layers.Layer:
        if layer.name not in convolutions:
            return layer
        return type(layer).from_config(
            layer.get_config() | {"use_bias": True, "bias_initializer": "zeros"}
        )

    def skipped(layer: layers.Layer, *arguments: Any, **named: Any) -> Any:
        if layer.name in folds:
            return arguments[0] if arguments else named["inputs"]
        return layer(*arguments, **named)

    copy = keras.models.clone_model(model, clone_function=replaced, call_function=skipped)
    refold(model, copy)
    return copy


def refold(model: keras.Model, copy: keras.Model) -> None:
    """Update a copy made by `fold_batch_norm` to the current weights and statistics of `model`."""
    if copy is model:
        return
    for name, before in _folds(model).items():
        scale, offset = _scale_and_offset(model.get_layer(name))
        start = 0
        for convolution in before:
            layer = model.get_layer(convolution)
            channels = slice(start, start + layer.output.shape[-1])
            weights = _scaled(layer, scale[channels], offset[channels])
            copy.get_layer(convolution).set_weights(weights)
            start = channels.stop


def _folds(model: keras.Model) -> Folds:
    """Find the batch norms that can be folded, each with the convolutions before it."""
    if not isinstance(model, keras.Function):
        return {}
    entries = model.get_config()["layers"]
    if any(len(entry["inbound_nodes"]) > 1 for entry in entries):
        # A batch norm applied to several outputs in turn looks like one of their concatenation.
        return {}
    inputs = {entry["name"]: list(_sources(entry["inbound_nodes"])) for entry in entries}
    uses = Counter(name for names in inputs.values() for name in names)
    uses.update(model.output_names)
    # Operations other than layers cannot be folded.
    by_name = {layer.name: layer for layer in model.layers}
    folds = {}
    for name, layer in by_name.items():
        if not _is_over_channels(layer, layers.BatchNormalization):
            continue
        convolutions = between = inputs[name]
        if _is_over_channels(by_name.get(between[0]), layers.Concatenate):
            convolutions = inputs[between[0]]
            between = [*between, *convolutions]
        if (
            all(uses[each] == 1 for each in between)
            and all(_is_foldable_convolution(by_name.get(each)) for each in convolutions)
            and all(by_name[each].compute_dtype == layer.compute_dtype for each in between)
        ):
            folds[name] = convolutions
    return folds


def _sources(arguments: Any) -> Iterator[str]:
    """Yield the names of the layers whose outputs are among a layer's arguments, in order."""
    match arguments:
        case {"keras_history": [name, *_]}:
            yield name
        case dict():
            yield from _sources(list(arguments.values()))
        case list() | tuple():
            for argument in arguments:
                yield from _sources(argument)


def _is_over_channels(layer: layers.Layer | None, kind: type[layers.Layer]) -> bool:
    return (
        layer is not None
        and type(layer) is kind
        and layer.axis in (-1, 3)
        and len(layer.output.shape) == 4
    )


def _is_foldable_convolution(layer: layers.Layer | None) -> bool:
    """Return whether it is a convolution with channels last, a kernel and at most a bias."""
    return (
        layer is not None
        and type(layer) in (layers.Conv2D, layers.DepthwiseConv2D)
        and layer.activation is keras.activations.linear
        and layer.data_format == "channels_last"
        and len(layer.weights) == 1 + layer.use_bias
    )


def _scale_and_offset(layer: layers.BatchNormalization) -> tuple[Weights, Weights]:
    """Return the factors and offsets that a batch norm applies to each channel."""
    deviation = np.sqrt(layer.moving_variance.numpy() + layer.epsilon)
    scale = (layer.gamma.numpy() if layer.scale else 1) / deviation
    offset = layer.beta.numpy() if layer.center else 0
    return scale, offset - scale * layer.moving_mean.numpy()


def _scaled(layer: layers.Layer, scale: Weights, offset: Weights) -> list[Weights]:
    """Return the kernel and the bias of a convolution after scaling and offsetting its outputs."""
    kernel, *bias = layer.get_weights()
    # A depthwise kernel is (height, width, channels, multiplier), with its outputs in that order.
    depthwise = type(layer) is layers.DepthwiseConv2D
    per_output = scale.reshape(kernel.shape[2:]) if depthwise else scale
    return [kernel * per_output, offset + scale * bias[0] if bias else offset]
