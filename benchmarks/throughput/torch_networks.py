"""The networks of params.yaml in PyTorch: the yardstick that `benchmarks.throughput` measures by.

A twin takes the same `config` as its Keras builder, has the same layers in the same order, and with
the same weights computes the same probabilities. It needs PyTorch and never imports TensorFlow: in
one process the two wait for each other's threads for ever.
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

# What Keras's batch normalisation adds to the variance; PyTorch's own default is 1e-5.
EPSILON = 1e-3


class Twin(nn.Module):
    """What `nodules.models.input_and_head` puts around the features of a network.

    From (batch, 1, 50, 50) float32 intensities in 0..255 to (batch, 2) logits.
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
        """Give the logits of a batch."""
        pooled = self.pooling(self.features(patches / 255)).flatten(1)
        return self.logits(self.dropout(pooled))


class Fire(nn.Module):
    """A fire module: a 1x1 squeeze, then 1x1 and 3x3 expansions side by side.

    Parameters
    ----------
    channels
        Of the input.
    squeeze, expand
        Filters of the squeeze and of each expansion.
    momentum
        Keras's momentum of the batch normalisation; None for none.
    bypass
        Whether the input is added where it has as many channels as the output.
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
        """Give (batch, 2 * expand, height, width)."""
        squeezed = self.squeezed(self.squeeze(x))
        both = torch.cat([self.expand1(squeezed), self.expand3(squeezed)], dim=1)
        expanded = self.expanded(both)
        return functional.relu(expanded + x if self.bypassed else expanded, inplace=True)


class Separable(nn.Module):
    """A 3x3 depthwise convolution, then a 1x1 convolution, each normalised, with ReLU6.

    Parameters
    ----------
    channels, filters
        Of the input; of the output.
    stride
        Of the depthwise convolution.
    momentum
        Keras's momentum of the batch normalisation.
    bypass
        Whether the input is added where it has the shape of the output.
    """

    def __init__(
        self, channels: int, filters: int, stride: int, momentum: float, bypass: bool
    ) -> None:
        super().__init__()
        self.bypassed = bypass and stride == 1 and channels == filters
        # As Keras's own MobileNet pads: an odd size is halved downwards.
        self.pad = nn.ZeroPad2d(1 if stride == 1 else (0, 1, 0, 1))
        self.depthwise = nn.Conv2d(channels, channels, 3, stride, groups=channels, bias=False)
        self.filtered = nn.Sequential(_normalised(channels, momentum), nn.ReLU6(inplace=True))
        self.pointwise = nn.Conv2d(channels, filters, 1, bias=False)
        self.combined = _normalised(filters, momentum)

    def forward(self, x: Tensor) -> Tensor:
        """Give (batch, filters, height, width), smaller by the stride."""
        filtered = self.filtered(self.depthwise(self.pad(x)))
        combined = self.combined(self.pointwise(filtered))
        return functional.relu6(combined + x if self.bypassed else combined, inplace=True)


def squeezenet(config: Mapping[str, Any]) -> Twin:
    """Build the twin of `nodules.models.squeezenet` from the same configuration."""
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
            # TensorFlow pads an odd size on both sides and an even one behind alone, which is what
            # rounding up comes to.
            pool = nn.MaxPool2d(3, 2, padding=1) if size % 2 else nn.MaxPool2d(3, 2, ceil_mode=True)
            modules.append(pool)
            size = -(-size // 2)
        bypass = config.get("bypass", False)
        modules.append(Fire(channels, squeeze, expand, momentum, bypass=bypass))
        channels = 2 * expand
    return Twin(nn.Sequential(*modules), channels, size, config)


def mobilenet(config: Mapping[str, Any]) -> Twin:
    """Build the twin of `nodules.models.mobilenet` from the same configuration."""
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
    return Twin(nn.Sequential(*modules), channels, size, config)


def build_twin(entry: ModelParams) -> Twin:
    """Build the twin of an entry of `models` in params.yaml."""
    return {"squeezenet": squeezenet, "mobilenet": mobilenet}[entry.builder](entry.config)


def _framed(config: Mapping[str, Any], stride: int) -> list[nn.Module]:
    """Crop a patch by its margin, then pad it for a 3x3 window as TensorFlow does."""
    margin = config.get("margin", 0)
    padding = nn.ZeroPad2d(_same_padding(PATCH_SIZE - 2 * margin, stride))
    return [nn.ZeroPad2d(-margin), padding]


def _same_padding(size: int, stride: int) -> tuple[int, int, int, int]:
    """Give the zeros (left, right, top, bottom) of TensorFlow's "same" for a 3x3 window."""
    total = max((-(-size // stride) - 1) * stride + 3 - size, 0)
    before, after = total // 2, total - total // 2
    return before, after, before, after


def _normalised(channels: int, momentum: float | None) -> nn.Module:
    if momentum is None:
        return nn.Identity()
    # PyTorch's momentum is the share of the new batch, Keras's that of the past.
    return nn.BatchNorm2d(channels, EPSILON, 1 - momentum)


def parameter_count(twin: Twin) -> int:
    """Count weights as Keras does: running statistics too, but not how many batches they saw."""
    buffers = (buffer for buffer in twin.buffers() if buffer.is_floating_point())
    return sum(tensor.numel() for tensor in itertools.chain(twin.parameters(), buffers))


def load_weights(twin: Twin, weights: Sequence[NDArray[np.float32]]) -> None:
    """Give a twin the weights that `get_weights` of its Keras model gives, in the same order.

    Raises
    ------
    ValueError
        Where their number or shapes differ.
    """
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)
    tensors: list[Any] = []
    for module in twin.modules():
        if isinstance(module, kinds):
            tensors += [module.weight, module.bias]
        if isinstance(module, nn.BatchNorm2d):
            tensors += [module.running_mean, module.running_var]
    present = [tensor for tensor in tensors if tensor is not None]
    for tensor, values in zip(present, weights, strict=True):
        arranged = _arranged(values, tuple(tensor.shape))
        tensor.data.copy_(torch.from_numpy(arranged))


def _arranged(values: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Order the axes of Keras's weights as PyTorch does: filters first."""
    # A vector; a dense kernel; a kernel of a convolution, and that of a depthwise one.
    orders = [(0,), (1, 0), (3, 2, 0, 1), (2, 3, 0, 1)]
    for order in orders:
        if len(order) != values.ndim:
            continue
        arranged = values.transpose(order)
        if arranged.shape == shape:
            return np.ascontiguousarray(arranged)
    raise ValueError(f"found weights of shape {values.shape}, expected some that fit {shape}")


def probabilities(twin: Twin, patches: NDArray[np.float32]) -> NDArray[np.float32]:
    """Score (batch, 50, 50, 1) float32 patches in 0..255 without dropout, as (batch, 2)."""
    twin.eval()
    with torch.no_grad():
        scored = torch.softmax(twin(torch.from_numpy(patches).permute(0, 3, 1, 2)), dim=1)
    twin.train()
    return scored.numpy()


@dataclass(frozen=True)
class Mode:
    """A way to run PyTorch: memory layout, precision of the convolutions, compiled or eager."""

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
    """Give a function that takes one step of a recipe on a batch that stays in memory.

    Parameters
    ----------
    entry
        The network, of which a new twin is trained.
    recipe
        Its optimizer, weight decay and average of the weights; the learning rate stays at
        its peak.
    patches
        (batch, 50, 50, 1) float32 in 0..255.
    one_hot
        (batch, 2) float32.
    mode
        How PyTorch is to run it.

    Returns
    -------
    Callable
        It gives the loss before the step. Where the mode says so its first call compiles.
    """
    layout = torch.channels_last if mode.channels_last else torch.contiguous_format
    twin = build_twin(entry).to(memory_format=layout)
    batch = torch.from_numpy(patches).permute(0, 3, 1, 2).contiguous(memory_format=layout)
    labels = torch.from_numpy(one_hot.argmax(axis=1))
    optimizer = _optimizer(twin, recipe)
    average = None
    if recipe.average:
        # Over how many steps makes no difference to the speed.
        average = AveragedModel(twin, multi_avg_fn=get_ema_multi_avg_fn())

    def loss_of_batch() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=mode.bfloat16):
            logits = twin(batch)
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
            average.update_parameters(twin)
        return loss.item()

    return step


def _optimizer(twin: Twin, recipe: Recipe) -> torch.optim.Optimizer:
    kernels = [weights for weights in twin.parameters() if weights.ndim > 1]
    others = [weights for weights in twin.parameters() if weights.ndim == 1]
    groups = [
        {"params": kernels, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    rate = recipe.learning_rate
    match recipe.optimizer:
        case "adam" | "adamw":
            # Without weight decay the two are the same.
            return torch.optim.AdamW(groups, rate, fused=True)
        case "sgd":
            return torch.optim.SGD(groups, rate, momentum=0.9, nesterov=True, fused=True)
