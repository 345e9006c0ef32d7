"""The accelerated model matches the original network on every ghost batch."""

from functools import cache
from itertools import pairwise
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from nodules.models.registry import build_model
from nodules.params import read_params
from nodules.training.accelerated_model import (
    AcceleratedModel,
    FusedBatchNormalization,
    WeightedSum,
    accelerate,
)
from nodules.training.running_statistics import WINDOW_FRACTION
from tests.support.small_training import REPOSITORY, small_params

PARAMS = read_params(REPOSITORY / "params.yaml")
SMALL_CONFIG = small_params().chosen_model.config


def small_model(**changes) -> keras.Model:
    config: dict[str, Any] = {**SMALL_CONFIG, "dropout": 0.0, **changes}
    return build_model("small", "squeezenet", config, seed=3)


@cache
def network(name: str) -> keras.Model:
    entry = PARAMS.models[name]
    return build_model(name, entry.builder, {**entry.config, "dropout": 0.0}, seed=3)


def gradients(model: keras.Model, patches: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the training outputs and the gradients of the mean probability of class 0."""
    with tf.GradientTape() as tape:
        outputs = model(patches, training=True)
        mean = tf.reduce_mean(outputs[:, 0])
    return outputs.numpy(), [g.numpy() for g in tape.gradient(mean, model.trainable_variables)]


def intensities(random_patches, count: int) -> np.ndarray:
    return random_patches(count)[..., np.newaxis].astype(np.float32)


@pytest.mark.parametrize("name", ["squeezenet", "mobilenet", "mobilenet_published"])
def test_outputs_and_gradients_match_keras_layers(name, random_patches) -> None:
    model = network(name)
    patches = intensities(random_patches, 6)
    outputs, found = gradients(accelerate(model), patches)
    expected_outputs, expected = gradients(model, patches)
    # Rounding decides the gradient of a ReLU near zero.
    assert outputs == pytest.approx(expected_outputs, abs=1e-3)
    for variable, mine, theirs in zip(model.trainable_variables, found, expected, strict=True):
        difference = np.linalg.norm(mine - theirs) / np.linalg.norm(theirs)
        assert difference < 0.05, variable.path


def test_the_tuned_networks_use_the_faster_layers() -> None:
    for name in ("squeezenet", "mobilenet"):
        kinds = {type(layer) for layer in accelerate(network(name)).network.layers}
        assert {FusedBatchNormalization, WeightedSum} <= kinds
        assert keras.layers.BatchNormalization not in kinds


@pytest.mark.parametrize("parts", [2, 3])
def test_ghost_batches_are_normalised_separately(parts: int, random_patches) -> None:
    model = small_model()
    patches = intensities(random_patches, 7)
    outputs, found = gradients(accelerate(model, ghost_batches=parts), patches)
    bounds = [7 * part // parts for part in range(parts + 1)]
    alone = [gradients(accelerate(model), patches[start:stop]) for start, stop in pairwise(bounds)]
    assert outputs == pytest.approx(np.concatenate([each for each, _ in alone]), abs=1e-6)
    shares = np.diff(bounds) / 7
    for number, gradient in enumerate(found):
        pieces = [share * each[number] for share, (_, each) in zip(shares, alone, strict=True)]
        assert gradient == pytest.approx(sum(pieces), abs=1e-6)


def test_ghost_batches_do_not_affect_a_network_without_normalisation(random_patches) -> None:
    model = small_model(batch_norm=False)
    patches = intensities(random_patches, 8)
    whole, parts = (gradients(accelerate(model, ghost_batches=n), patches) for n in (1, 4))
    assert parts[0] == pytest.approx(whole[0], abs=1e-6)
    for one, other in zip(whole[1], parts[1], strict=True):
        assert other == pytest.approx(one, abs=1e-6)


def train_on(copy: AcceleratedModel, batches: list[np.ndarray]) -> None:
    """Take one step per batch, with a learning rate too small to change the weights."""
    copy.compile(keras.optimizers.SGD(0.0), "mse")
    copy.optimizer.build(copy.trainable_variables)
    for batch in batches:
        outputs = copy.network.output.shape[1:]
        copy.train_on_batch(batch, np.zeros((len(batch), *outputs), np.float32))


def normalised(shape: tuple[int, ...], **options: Any) -> keras.Model:
    inputs = keras.Input(shape)
    return keras.Model(inputs, keras.layers.BatchNormalization(name="norm", **options)(inputs))


# The first normalisation is fused, the others are Keras layers.
NORMALISATIONS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "fused": ((2, 2, 3), {}),
    "no scale": ((2, 2, 3), {"scale": False}),
    "dense": ((3,), {}),
}


@pytest.mark.parametrize(("shape", "options"), NORMALISATIONS.values(), ids=NORMALISATIONS.keys())
@pytest.mark.parametrize("ghost_batches", [1, 4])
def test_running_statistics_are_the_weighted_mean_of_the_batches(
    shape: tuple[int, ...], options: dict[str, Any], ghost_batches: int
) -> None:
    copy = accelerate(normalised(shape, momentum=0.9, **options), ghost_batches=ghost_batches)
    rng = np.random.default_rng(0)
    # Parts of equal size, so that their mean statistics are those of the batch.
    batches = [
        np.tile(rng.normal(step, 1 + step, (25, *shape)), (4, *[1] * len(shape)))
        for step in range(60)
    ]
    train_on(copy, [batch.astype(np.float32) for batch in batches])
    axes = tuple(range(len(shape)))
    mean, variance = np.zeros(3), np.ones(3)
    for step, batch in enumerate(batches, 1):
        rate = max(1 - 0.9, 1 / (1 + WINDOW_FRACTION * (step - 1)))
        mean = (1 - rate) * mean + rate * batch.mean(axis=axes)
        variance = (1 - rate) * variance + rate * batch.var(axis=axes)
    norm = copy.network.get_layer("norm")
    assert norm.moving_mean.numpy() == pytest.approx(mean, rel=1e-4)
    # The fused operation returns the unbiased variance.
    assert norm.moving_variance.numpy() == pytest.approx(variance, rel=0.05)


def test_initial_running_statistics_are_discarded_after_one_step() -> None:
    values = np.tile(np.array([[7.0, 8.0, 9.0]], np.float32), (8, 1))
    copy = accelerate(normalised((3,), momentum=0.99))
    train_on(copy, [values])
    norm = copy.network.get_layer("norm")
    assert norm.moving_mean.numpy() == pytest.approx(values[0])
    assert norm.moving_variance.numpy() == pytest.approx(0, abs=1e-5)


def test_after_many_steps_the_running_statistics_match_keras() -> None:
    rng = np.random.default_rng(0)
    batches = [rng.normal(step / 100, 1, (8, 3)).astype(np.float32) for step in range(500)]
    model = normalised((3,), momentum=0.97)
    copy = accelerate(model)
    train_on(copy, batches)
    for batch in batches:
        model(batch, training=True)
    for mine, kerass in zip(copy.network.weights, model.weights, strict=True):
        assert mine.numpy() == pytest.approx(kerass.numpy(), rel=1e-3)


def test_weights_fit_the_model_in_its_order(random_patches) -> None:
    model = small_model(pooling="depthwise")
    copy = accelerate(model, ghost_batches=2)
    for mine, theirs in zip(copy.get_weights(), model.get_weights(), strict=True):
        assert np.array_equal(mine, theirs)


def test_fused_normalisation_trains_as_keras_does() -> None:
    rng = np.random.default_rng(0)
    patches = rng.uniform(0, 255, (16, 50, 50, 1)).astype(np.float32)
    labels = np.eye(2, dtype=np.float32)[np.arange(16) % 2]
    plain = small_model()
    fused = accelerate(plain)
    kinds = [type(layer).__name__ for layer in fused.network.layers]
    assert "BatchNormalization" not in kinds
    assert kinds.count("FusedBatchNormalization") == 5
    losses = []
    for model in (plain, fused):
        model.compile(keras.optimizers.SGD(0.01), "categorical_crossentropy")
        losses.append([float(model.train_on_batch(patches, labels)) for _ in range(3)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    # The running statistics differ: those of the copy no longer depend on their initial values.
    for one, two in zip(plain.trainable_weights, fused.trainable_weights, strict=True):
        assert two.numpy() == pytest.approx(one.numpy(), rel=0.02, abs=1e-3)
    plain.set_weights(fused.get_weights())
    assert plain(patches).numpy() == pytest.approx(fused(patches).numpy(), abs=1e-5)


def test_bfloat16_keeps_weights_and_averages_in_float32(random_patches) -> None:
    patches = intensities(random_patches, 16)
    labels = np.eye(2, dtype=np.float32)[np.arange(16) % 2]
    options = {**SMALL_CONFIG, "dropout": 0.0, "pooling": "depthwise"}
    mixed = build_model("small", "squeezenet", options, seed=3, precision="mixed_bfloat16")
    copy = accelerate(mixed, ghost_batches=2, average=0.5)
    _, found = gradients(copy, patches)
    _, expected = gradients(accelerate(small_model(pooling="depthwise"), ghost_batches=2), patches)
    cosine = [
        np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b)
        for a, b in zip(found, expected, strict=True)
    ]
    assert np.median(cosine) > 0.95
    copy.compile(keras.optimizers.SGD(0.01), "categorical_crossentropy")
    assert np.isfinite(copy.train_on_batch(patches, labels))
    assert {weight.dtype for weight in copy.averaged_weights()} == {np.dtype("float32")}
    mixed.set_weights(copy.averaged_weights())
    assert {weight.dtype for weight in mixed.weights} == {"float32"}


def test_a_frozen_normalisation_keeps_its_statistics(random_patches) -> None:
    model = small_model()
    norm = model.get_layer("stem_norm")
    norm.moving_mean.assign(np.arange(norm.moving_mean.shape[0], dtype=np.float32))
    norm.trainable = False
    copy = accelerate(model, ghost_batches=2)
    copy.compile(keras.optimizers.SGD(0.01), "categorical_crossentropy")
    copy.train_on_batch(intensities(random_patches, 8), np.eye(2)[np.arange(8) % 2])
    kept = copy.network.get_layer("stem_norm").moving_mean
    assert np.array_equal(kept, norm.moving_mean)


@pytest.mark.parametrize(
    ("shape", "options"),
    [((50, 50, 3), {"scale": False}), ((50, 50, 3), {"center": False}), ((7,), {})],
)
def test_a_normalisation_that_cannot_be_fused_is_trained_as_it_is(
    shape: tuple[int, ...], options: dict
) -> None:
    inputs = keras.Input(shape)
    x = keras.layers.BatchNormalization(name="norm", **options)(inputs)
    outputs = keras.layers.Dense(2, "softmax", name="dense")(keras.layers.Flatten(name="flat")(x))
    copy = accelerate(keras.Model(inputs, outputs))
    copy.compile(keras.optimizers.SGD(0.01), "categorical_crossentropy")
    values = np.random.default_rng(0).normal(size=(8, *shape)).astype(np.float32)
    assert np.isfinite(copy.train_on_batch(values, np.eye(2)[np.arange(8) % 2]))
