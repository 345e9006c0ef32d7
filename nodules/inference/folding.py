"""The copy of a model that scores: the same network without its batch normalisations."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

# A kernel, a bias, or one number a channel.
Weights = NDArray[np.float32]
# A normalisation, by name, with the convolutions before it in the order of its channels.
Folds = dict[str, list[str]]


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """Copy a model whose training is over, with its normalisations part of its convolutions.

    Once its statistics are fixed, a batch normalisation multiplies each channel by a number and
    adds another. The kernel and the bias of the convolution before it can do so at no further cost,
    where a normalisation is another pass over the feature map.

    Parameters
    ----------
    model
        Any; the normalisations that are folded are those over the channels of a plain or depthwise
        convolution, or of several that are concatenated, where nothing else sees what lies between.

    Returns
    -------
    keras.Model
        With the same outputs but for rounding, for inference alone; the model itself where it has
        nothing to fold. The two share all layers but those convolutions, which `refold`
        renews after the model has been trained further.
    """
    folds = _folds(model)
    if not folds:
        return model
    convolutions = {name for before in folds.values() for name in before}

    def exchanged(layer: layers.Layer) -> layers.Layer:
        if layer.name not in convolutions:
            return layer
        return type(layer).from_config(
            layer.get_config() | {"use_bias": True, "bias_initializer": "zeros"}
        )

    def passed_by(layer: layers.Layer, *arguments: Any, **named: Any) -> Any:
        if layer.name in folds:
            return arguments[0] if arguments else named["inputs"]
        return layer(*arguments, **named)

    copy = keras.models.clone_model(model, clone_function=exchanged, call_function=passed_by)
    refold(model, copy)
    return copy


def refold(model: keras.Model, copy: keras.Model) -> None:
    """Take a model's present weights and statistics over into the `fold_batch_norm` made of it."""
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
    """Find the normalisations that can be folded, each with the convolutions that take it in."""
    if not isinstance(model, keras.Function):
        return {}
    entries = model.get_config()["layers"]
    if any(len(entry["inbound_nodes"]) > 1 for entry in entries):
        return {}  # a normalisation of several convolutions by turns looks like one of their joint
    inputs = {entry["name"]: list(_sources(entry["inbound_nodes"])) for entry in entries}
    uses = Counter(name for names in inputs.values() for name in names)
    uses.update(model.output_names)
    # Operations that are no layers are none of those looked for here.
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
            and all(_can_take_in(by_name.get(each)) for each in convolutions)
            and all(by_name[each].compute_dtype == layer.compute_dtype for each in between)
        ):
            folds[name] = convolutions
    return folds


def _sources(arguments: Any) -> Iterator[str]:
    """Give the names of the layers whose outputs are among a layer's arguments, in their order."""
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


def _can_take_in(layer: layers.Layer | None) -> bool:
    """Say whether it is a convolution, channels last, of a kernel and at most a bias."""
    return (
        layer is not None
        and type(layer) in (layers.Conv2D, layers.DepthwiseConv2D)
        and layer.activation is keras.activations.linear
        and layer.data_format == "channels_last"
        and len(layer.weights) == 1 + layer.use_bias
    )


def _scale_and_offset(layer: layers.BatchNormalization) -> tuple[Weights, Weights]:
    """Give what a normalisation multiplies each channel by, and then adds."""
    deviation = np.sqrt(layer.moving_variance.numpy() + layer.epsilon)
    scale = (layer.gamma.numpy() if layer.scale else 1) / deviation
    offset = layer.beta.numpy() if layer.center else 0
    return scale, offset - scale * layer.moving_mean.numpy()


def _scaled(layer: layers.Layer, scale: Weights, offset: Weights) -> list[Weights]:
    """Give the kernel and the bias of a convolution whose outputs are scaled and then offset."""
    kernel, *bias = layer.get_weights()
    # A depthwise kernel is (height, width, channels, multiplier), with its outputs in that order.
    depthwise = type(layer) is layers.DepthwiseConv2D
    per_output = scale.reshape(kernel.shape[2:]) if depthwise else scale
    return [kernel * per_output, offset + scale * bias[0] if bias else offset]
