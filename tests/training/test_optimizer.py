"""Optimizers and schedules, compared with their formulas."""

import math
from typing import Any

import keras
import numpy as np
import pytest

from nodules.training.optimizer import new_optimizer
from tests.support.small_training import small_params

RATE, DECAY = 0.1, 0.01
GRADIENTS = [0.5, -0.2, 0.3]
Weights = tuple[float, float]  # a kernel, and a bias, which does not decay


def adam(weight: float, rate: float, decay: float = 0.0) -> float:
    """Return a weight after the steps of AdamW (Loshchilov and Hutter, 2019)."""
    mean = square = 0.0
    for step, gradient in enumerate(GRADIENTS, 1):
        weight -= rate * decay * weight
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        corrected = mean / (1 - 0.9**step), square / (1 - 0.999**step)
        weight -= rate * corrected[0] / (math.sqrt(corrected[1]) + 1e-7)
    return weight


def sgd(weight: float, rate: float, decay: float) -> float:
    """Return a weight after the steps of Nesterov's momentum, with decoupled decay."""
    velocity = 0.0
    for gradient in GRADIENTS:
        weight -= rate * decay * weight
        velocity = 0.9 * velocity - rate * gradient
        weight += 0.9 * velocity - rate * gradient
    return weight


def optimizer(**recipe: Any) -> keras.optimizers.Optimizer:
    """Return the optimizer of a recipe of four epochs with ten steps each."""
    recipe = {"learning_rate": RATE, "weight_decay": DECAY, "warmup_epochs": 0.0} | recipe
    return new_optimizer(small_params(**recipe).chosen_recipe, 10)


@pytest.mark.parametrize(
    ("name", "decay", "expected"),
    [
        ("adam", 0.0, (adam(2.0, RATE), adam(2.0, RATE))),
        ("adamw", DECAY, (adam(2.0, RATE, DECAY), adam(2.0, RATE))),
        ("sgd", DECAY, (sgd(2.0, RATE, DECAY), sgd(2.0, RATE, 0.0))),
    ],
)
def test_steps_follow_the_formula_and_only_kernels_decay(
    name: str, decay: float, expected: Weights
) -> None:
    weights = [keras.Variable(2.0, name=name) for name in ("kernel", "bias")]
    chosen = optimizer(optimizer=name, weight_decay=decay)
    for gradient in GRADIENTS:
        chosen.apply([keras.ops.convert_to_tensor(gradient)] * 2, weights)
    found = [float(weight) for weight in weights]
    assert found == pytest.approx(expected, rel=1e-5)
    assert (found[0] != pytest.approx(found[1], rel=1e-4)) == bool(decay)


def test_after_a_linear_warm_up_the_rate_stays_or_falls_to_zero_along_a_cosine() -> None:
    for name in ("constant", "cosine"):
        chosen = optimizer(schedule=name, warmup_epochs=1.0)
        rates = [float(chosen._learning_rate(step)) for step in range(41)]
        assert rates[:11] == pytest.approx(np.linspace(0, RATE, 11))
        after = (
            np.full(31, RATE)
            if name == "constant"
            else RATE * (1 + np.cos(np.pi * np.arange(31) / 30)) / 2
        )
        assert rates[10:] == pytest.approx(after, abs=1e-7)


def test_without_a_warm_up_a_schedule_starts_at_the_full_rate() -> None:
    assert float(optimizer(schedule="constant").learning_rate) == pytest.approx(RATE)
    cosine = optimizer(schedule="cosine")._learning_rate
    assert [float(cosine(step)) for step in (0, 20, 40)] == pytest.approx([RATE, RATE / 2, 0])
