"""PyTorch equivalents of the networks in params.yaml, for `benchmarks.throughput`.

Each takes the same `config` as the Keras builder and has the same layers in the same order. With
the same weights, it computes the same probabilities. This module needs PyTorch and must not
import TensorFlow: their thread pools deadlock in a shared process.

They are written by hand: with `KERAS_BACKEND=torch`, the Keras models train about half as fast.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from nodules.models.params import ModelParams
from nodules.patches.layout import CLASSES, PATCH_SIZE
from nodules.training.recipe import Recipe

# Epsilon of Keras's batch normalisation; PyTorch's default is 1e-5.
EPSILON = 1e-3


class TorchNetwork(nn.Module):
    """Input and head around the features of a network, as in `nodules.models.input_and_head`.

    Maps (batch, 1, 50, 50) float32 intensities in 0..255 to (batch, 2) logits.
    """

    def __init__(
        self, features: nn.Module, channels: int, size: int, config: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.features = features
        self.pooling = (
            nn.Conv2d(channels, channels, size, groups=channels, bias=False)
            if config.get("pooling") == "depthwise"
            else nn.AdaptiveAvgPool2d(1)
        )
        self.dropout = nn.Dropout(config["dropout"])
        self.logits = nn.Linear(channels, len(CLASSES))

    def forward(self, patches: Tensor) -> Tensor:
        """Return the logits of a batch."""
        pooled = self.pooling(self.features(patches / 255)).flatten(1)
        return self.logits(self.dropout(pooled))


class Fire(nn.Module):
    """A fire module: a 1x1 squeeze, then parallel 1x1 and 3x3 expansions.

    Parameters
    ----------
    channels
        Number of input channels.
    squeeze, expand
        Numbers of filters of the squeeze and of each expansion.
    momentum
        Momentum of the batch normalisation, as in Keras; None for no normalisation.
    bypass
        Whether to add the input if it has as many channels as the output.
    """

    def __init__(
        self, channels: int, squeeze: int, expand: int, momentum: float | None, *, bypass: bool
    ) -> None:
        super().__init__()
        bias = momentum is None
        self.bypassed = bypass and channels == 2 * expand
        self.squeeze = nn.Conv2d(channels, squeeze, 1, bias=bias)
        self.squeezed = nn.Sequential(_normalised(squeeze, momentum), nn.ReLU(inplace=True))
        self.expand1 = nn.Conv2d(squeeze, expand, 1, bias=bias)
        self.expand3 = nn.Conv2d(squeeze, expand, 3, padding=1, bias=bias)
        self.expanded = _normalised(2 * expand, momentum)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, 2 * expand, height, width)."""
        squeezed = self.squeezed(self.squeeze(x))
        both = torch.cat([self.expand1(squeezed), self.expand3(squeezed)], dim=1)
        expanded = self.expanded(both)
        return functional.relu(expanded + x if self.bypassed else expanded, inplace=True)


class Separable(nn.Module):
    """A 3x3 depthwise and a 1x1 convolution, each with batch normalisation and ReLU6.

    Parameters
    ----------
    channels, filters
        Numbers of input and output channels.
    stride
        Stride of the depthwise convolution.
    momentum
        Momentum of the batch normalisation, as in Keras.
    bypass
        Whether to add the input if it has the shape of the output.
    """

    def __init__(
        self, channels: int, filters: int, stride: int, momentum: float, bypass: bool
    ) -> None:
        super().__init__()
        self.bypassed = bypass and stride == 1 and channels == filters
        # Padding as in Keras's MobileNet: halving an odd size rounds down.
        self.pad = nn.ZeroPad2d(1 if stride == 1 else (0, 1, 0, 1))
        self.depthwise = nn.Conv2d(channels, channels, 3, stride, groups=channels, bias=False)
        self.filtered = nn.Sequential(_normalised(channels, momentum), nn.ReLU6(inplace=True))
        self.pointwise = nn.Conv2d(channels, filters, 1, bias=False)
        self.combined = _normalised(filters, momentum)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, filters, height, width), downsampled by the stride."""
        filtered = self.filtered(self.depthwise(self.pad(x)))
        combined = self.combined(self.pointwise(filtered))
        return functional.relu6(combined + x if self.bypassed else combined, inplace=True)


def squeezenet(config: Mapping[str, Any]) -> TorchNetwork:
    """Build the equivalent of `nodules.models.squeezenet` from the same configuration."""
    momentum = config["batch_norm_momentum"] if config["batch_norm"] else None
    channels, stride = config["stem_filters"], config["stem_stride"]
    size = PATCH_SIZE - 2 * config.get("margin", 0)
    modules: list[nn.Module] = [
        *_framed(config, stride),
        nn.Conv2d(1, channels, 3, stride, bias=not config["batch_norm"]),
        _normalised(channels, momentum),
        nn.ReLU(inplace=True),
    ]
    size = -(-size // stride)
    for number, (squeeze, expand) in enumerate(config["fires"]):
        if number in config["pool_before"]:
            # TensorFlow pads an odd size on both sides and an even one only at the end, which is
            # equivalent to rounding up.
            pool = nn.MaxPool2d(3, 2, padding=1) if size % 2 else nn.MaxPool2d(3, 2, ceil_mode=True)
            modules.append(pool)
            size = -(-size // 2)
        bypass = config.get("bypass", False)
        modules.append(Fire(channels, squeeze, expand, momentum, bypass=bypass))
        channels = 2 * expand
    return TorchNetwork(nn.Sequential(*modules), channels, size, config)


def mobilenet(config: Mapping[str, Any]) -> TorchNetwork:
    """Build the equivalent of `nodules.models.mobilenet` from the same configuration."""
    momentum = config["batch_norm_momentum"]
    channels, stride = config["stem_filters"], config["stem_stride"]
    size = PATCH_SIZE - 2 * config.get("margin", 0)
    modules: list[nn.Module] = [
        *_framed(config, stride),
        nn.Conv2d(1, channels, 3, stride, bias=False),
        _normalised(channels, momentum),
        nn.ReLU6(inplace=True),
    ]
    size = -(-size // stride)
    for filters, stride in config["blocks"]:
        modules.append(Separable(channels, filters, stride, momentum, config.get("bypass", False)))
        size = size if stride == 1 else (size - 2) // stride + 1
        channels = filters
    return TorchNetwork(nn.Sequential(*modules), channels, size, config)


def build_torch_network(entry: ModelParams) -> TorchNetwork:
    """Build the PyTorch equivalent of an entry of `models` in params.yaml."""
    return {"squeezenet": squeezenet, "mobilenet": mobilenet}[entry.builder](entry.config)


def _framed(config: Mapping[str, Any], stride: int) -> list[nn.Module]:
    """Crop a patch by its margin, then pad it for a 3x3 window as TensorFlow does."""
    margin = config.get("margin", 0)
    padding = nn.ZeroPad2d(_same_padding(PATCH_SIZE - 2 * margin, stride))
    return [nn.ZeroPad2d(-margin), padding]


def _same_padding(size: int, stride: int) -> tuple[int, int, int, int]:
    """Return TensorFlow's "same" padding (left, right, top, bottom) for a 3x3 window."""
    total = max((-(-size // stride) - 1) * stride + 3 - size, 0)
    before, after = total // 2, total - total // 2
    return before, after, before, after


def _normalised(channels: int, momentum: float | None) -> nn.Module:
    if momentum is None:
        return nn.Identity()
    # PyTorch's momentum weights the new batch, Keras's the running statistics.
    return nn.BatchNorm2d(channels, EPSILON, 1 - momentum)


def parameter_count(network: TorchNetwork) -> int:
    """Count weights as Keras does: with running statistics, without batch counters."""
    buffers = (buffer for buffer in network.buffers() if buffer.is_floating_point())
    return sum(tensor.numel() for tensor in itertools.chain(network.parameters(), buffers))


def load_weights(network: TorchNetwork, weights: Sequence[NDArray[np.float32]]) -> None:
    """Load weights in the order of `get_weights` of the Keras model.

    Raises
    ------
    ValueError
        If the number or shapes of the weights differ.
    """
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)
    tensors: list[Any] = []
    for module in network.modules():
        if isinstance(module, kinds):
            tensors += [module.weight, module.bias]
        if isinstance(module, nn.BatchNorm2d):
            tensors += [module.running_mean, module.running_var]
    present = [tensor for tensor in tensors if tensor is not None]
    for tensor, values in zip(present, weights, strict=True):
        arranged = _arranged(values, tuple(tensor.shape))
        tensor.data.copy_(torch.from_numpy(arranged))


def _arranged(values: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Transpose Keras weights to PyTorch's axis order: filters first."""
    # Vector, dense kernel, convolution kernel, depthwise kernel.
    orders = [(0,), (1, 0), (3, 2, 0, 1), (2, 3, 0, 1)]
    for order in orders:
        if len(order) != values.ndim:
            continue
        arranged = values.transpose(order)
        if arranged.shape == shape:
            return np.ascontiguousarray(arranged)
    raise ValueError(f"found weights of shape {values.shape}, expected some that fit {shape}")


def probabilities(network: TorchNetwork, patches: NDArray[np.float32]) -> NDArray[np.float32]:
    """Score (batch, 50, 50, 1) float32 patches in 0..255 without dropout, as (batch, 2)."""
    network.eval()
    with torch.no_grad():
        scored = torch.softmax(network(torch.from_numpy(patches).permute(0, 3, 1, 2)), dim=1)
    network.train()
    return scored.numpy()


@dataclass(frozen=True)
class Mode:
    """PyTorch settings: memory layout, precision of the convolutions, compiled or eager."""

    channels_last: bool
    bfloat16: bool
    compiled: bool

    def __str__(self) -> str:
        layout = "channels last" if self.channels_last else "channels first"
        precision = "bfloat16" if self.bfloat16 else "float32"
        return f"{layout}, {precision}, {'compiled' if self.compiled else 'eager'}"


MODES = [Mode(*switches) for switches in itertools.product((False, True), repeat=3)]


def training_step(
    entry: ModelParams,
    recipe: Recipe,
    patches: NDArray[np.float32],
    one_hot: NDArray[np.float32],
    mode: Mode,
) -> Callable[[], float]:
    """Return a function that takes one training step on a fixed batch in memory.

    Parameters
    ----------
    entry
        Network to build and train.
    recipe
        Optimizer, weight decay and weight averaging; the learning rate stays at its peak.
    patches
        Patches, (batch, 50, 50, 1) float32 in 0..255.
    one_hot
        One-hot labels, (batch, 2) float32.
    mode
        PyTorch settings.

    Returns
    -------
    Callable
        Returns the loss before the step. In compiled modes, the first call compiles.
    """
    layout = torch.channels_last if mode.channels_last else torch.contiguous_format
    network = build_torch_network(entry).to(memory_format=layout)
    batch = torch.from_numpy(patches).permute(0, 3, 1, 2).contiguous(memory_format=layout)
    labels = torch.from_numpy(one_hot.argmax(axis=1))
    optimizer = _optimizer(network, recipe)
    average = None
    if recipe.average:
        # The averaging window does not affect the speed.
        average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn())

    def loss_of_batch() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=mode.bfloat16):
            logits = network(batch)
        return functional.cross_entropy(
            logits.float(), labels, label_smoothing=recipe.label_smoothing
        )

    loss_function = torch.compile(loss_of_batch) if mode.compiled else loss_of_batch

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_function()
        loss.backward()
        optimizer.step()
        if average is not None:
            average.update_parameters(network)
        return loss.item()

    return step


def _optimizer(network: TorchNetwork, recipe: Recipe) -> torch.optim.Optimizer:
    kernels = [weights for weights in network.parameters() if weights.ndim > 1]
    others = [weights for weights in network.parameters() if weights.ndim == 1]
    groups = [
        {"params": kernels, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    rate = recipe.learning_rate
    match recipe.optimizer:
        case "adam" | "adamw":
            # Adam is AdamW without weight decay.
            return torch.optim.AdamW(groups, rate, fused=True)
        case "sgd":
            return torch.optim.SGD(groups, rate, momentum=0.9, nesterov=True, fused=True)
