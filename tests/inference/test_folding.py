"""The folded model gives the same outputs as the network, without batch normalisation."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import KerasTensor, layers

from nodules.inference.folding import fold_batch_norm, refold
from nodules.models.file import save_model
from nodules.models.registry import build_model
from nodules.params import read_params
from tests.support.small_training import REPOSITORY

PARAMS = read_params(REPOSITORY / "params.yaml")

# Functions from (batch, 50, 50, 1) to a feature map.
Wiring = Callable[[KerasTensor], KerasTensor]


def shaken(model: keras.Model, patches: np.ndarray, seed: int = 0) -> keras.Model:
    """Set the normalisation statistics from patches, randomise scales, and spread the outputs."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
            for variable in (layer.gamma, layer.beta):
                if variable is not None:
                    variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    model(patches[..., np.newaxis].astype(np.float32), training=True)
    logits = model.get_layer("logits")
    kernel, _ = logits.get_weights()
    found = outputs(keras.Model(model.input, logits.output), patches)
    scale = 4 / np.ptp(found[:, 1] - found[:, 0])
    logits.set_weights([scale * kernel, -scale * found.mean(axis=0)])
    return model


def network(name: str, precision: str = "float32") -> keras.Model:
    entry = PARAMS.models[name]
    return build_model(name, entry.builder, entry.config, seed=3, precision=precision)


def short_mobilenet() -> keras.Model:
    """Build the MobileNet of params.yaml with only its first two blocks."""
    entry = PARAMS.models["mobilenet"]
    config = entry.config | {"blocks": [[48, 2], [96, 1]]}
    return build_model("mobilenet", entry.builder, config, seed=3)


def small(wiring: Wiring) -> keras.Model:
    inputs = keras.Input((50, 50, 1))
    pooled = layers.GlobalAveragePooling2D()(wiring(layers.Rescaling(1 / 255)(inputs)))
    return keras.Model(inputs, layers.Softmax()(layers.Dense(2, name="logits")(pooled)))


def chain(*parts: layers.Layer) -> Wiring:
    def wiring(x: KerasTensor) -> KerasTensor:
        for layer in parts:
            x = layer(x)
        return x

    return wiring


def joint(*parts: layers.Layer) -> Wiring:
    return lambda x: layers.BatchNormalization()(layers.Concatenate()([each(x) for each in parts]))


def normalisations(model: keras.Model) -> int:
    return sum(isinstance(layer, layers.BatchNormalization) for layer in model.layers)


def outputs(model: keras.Model, patches: np.ndarray) -> np.ndarray:
    return model(patches[..., np.newaxis].astype(np.float32), training=False).numpy()


@pytest.mark.parametrize("name", ["squeezenet", "mobilenet", "mobilenet_published"])
def test_all_normalisations_of_the_networks_are_folded_and_outputs_unchanged(
    name: str, random_patches
) -> None:
    patches = random_patches(8)
    model = shaken(network(name), patches)
    copy, expected = fold_batch_norm(model), outputs(model, patches)
    assert normalisations(model) > 10
    assert normalisations(copy) == 0
    assert np.ptp(expected) > 0.1
    assert outputs(copy, patches) == pytest.approx(expected, abs=1e-4)


def test_a_copy_is_renewed_when_the_model_has_been_trained_further(random_patches) -> None:
    patches = random_patches(8)
    model = shaken(short_mobilenet(), patches)
    copy = fold_batch_norm(model)
    other = shaken(short_mobilenet(), patches, seed=1)
    model.set_weights(other.get_weights())
    expected = outputs(model, patches)
    assert outputs(copy, patches) != pytest.approx(expected, abs=1e-2)
    refold(model, copy)
    assert outputs(copy, patches) == pytest.approx(expected, abs=1e-4)


def test_a_network_in_half_precision_keeps_it(random_patches) -> None:
    patches = random_patches(8)
    model = shaken(network("squeezenet", "mixed_bfloat16"), patches)
    copy, expected = fold_batch_norm(model), outputs(model, patches)
    assert np.ptp(expected) > 0.5
    assert normalisations(copy) == 0
    assert copy.get_layer("stem").compute_dtype == "bfloat16"
    assert outputs(copy, patches) == pytest.approx(expected, abs=0.15)


def test_a_copy_leaves_no_trace_in_the_saved_model(random_patches, tmp_path: Path) -> None:
    model = shaken(short_mobilenet(), random_patches(2))
    paths = [tmp_path / "before.keras", tmp_path / "after.keras"]
    save_model(model, paths[0])
    fold_batch_norm(model)
    save_model(model, paths[1])
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_network_without_normalisations_is_its_own_copy() -> None:
    model = network("squeezenet_published")
    assert fold_batch_norm(model) is model
    refold(model, model)


def normalised_constants() -> layers.Normalization:
    """Return a layer that uses a constant derived from its weights when it was built."""
    layer = layers.Normalization()
    layer.adapt(np.linspace(1, 3, 2500).reshape(1, 50, 50, 1))
    return layer


def by_name(x: KerasTensor) -> KerasTensor:
    return layers.BatchNormalization()(inputs=layers.Conv2D(3, 3)(inputs=x))


# Description: (number of normalisations left after folding, network).
NETWORKS: dict[str, tuple[int, Wiring]] = {
    "a bias": (0, chain(layers.Conv2D(3, 3), layers.BatchNormalization())),
    "neither scale nor offset": (
        0,
        chain(layers.Conv2D(3, 3), layers.BatchNormalization(scale=False, center=False)),
    ),
    "a depth multiplier": (
        0,
        chain(
            layers.Conv2D(4, 3),
            layers.DepthwiseConv2D(3, depth_multiplier=2),
            layers.BatchNormalization(),
        ),
    ),
    "groups": (
        0,
        chain(layers.Conv2D(4, 3), layers.Conv2D(6, 3, groups=2), layers.BatchNormalization()),
    ),
    "parts of unequal width": (0, joint(layers.Conv2D(2, 3), layers.Conv2D(5, 3))),
    "arguments by name": (0, by_name),
    "an initializer that no bias can have": (
        0,
        chain(
            layers.Conv2D(3, 3, use_bias=False, bias_initializer="orthogonal"),
            layers.BatchNormalization(),
        ),
    ),
    "constants": (
        0,
        chain(normalised_constants(), layers.Conv2D(3, 3), layers.BatchNormalization()),
    ),
    "an operation that is no layer": (
        1,
        lambda x: layers.BatchNormalization()(
            layers.Conv2D(3, 3)(layers.BatchNormalization()(layers.Conv2D(3, 3)(x))) * 2
        ),
    ),
    "an activation": (
        1,
        chain(layers.Conv2D(3, 3, activation="relu"), layers.BatchNormalization()),
    ),
    "a ReLU between": (
        1,
        chain(layers.Conv2D(3, 3), layers.ReLU(), layers.BatchNormalization()),
    ),
    "a ReLU in one part": (
        1,
        joint(layers.Conv2D(2, 3), layers.Conv2D(5, 3, activation="relu")),
    ),
    "nothing before": (1, chain(layers.BatchNormalization(), layers.Conv2D(3, 3))),
    "over rows": (1, chain(layers.Conv2D(48, 3), layers.BatchNormalization(axis=1))),
    "two precisions": (
        1,
        chain(layers.Conv2D(3, 3, dtype="mixed_bfloat16"), layers.BatchNormalization()),
    ),
    "more weights than a kernel and a bias": (
        1,
        chain(layers.Conv2D(3, 3, lora_rank=2), layers.BatchNormalization()),
    ),
}


@pytest.mark.parametrize(("left", "wiring"), NETWORKS.values(), ids=NETWORKS)
def test_folding_any_network_preserves_its_outputs(
    left: int, wiring: Wiring, random_patches, tmp_path: Path
) -> None:
    patches, path = random_patches(8), tmp_path / "model.keras"
    shaken(small(wiring), patches).save(path)
    model = keras.models.load_model(path)
    copy, expected = fold_batch_norm(model), outputs(model, patches)
    assert normalisations(model) > 0
    assert normalisations(copy) == left
    assert np.ptp(expected) > 0.1
    assert outputs(copy, patches) == pytest.approx(expected, abs=1e-4)


def test_a_convolution_with_several_consumers_is_not_folded() -> None:
    def wiring(x: KerasTensor) -> KerasTensor:
        seen = layers.Conv2D(3, 3)(x)
        return layers.Add()([seen, layers.BatchNormalization()(seen)])

    model = small(wiring)
    assert fold_batch_norm(model) is model


def test_a_convolution_that_is_a_model_output_is_not_folded() -> None:
    inputs = keras.Input((50, 50, 1))
    given = layers.Conv2D(3, 3)(inputs)
    model = keras.Model(inputs, [given, layers.BatchNormalization()(given)])
    assert fold_batch_norm(model) is model


def test_a_normalisation_shared_by_two_convolutions_is_not_folded() -> None:
    def wiring(x: KerasTensor) -> KerasTensor:
        normalisation = layers.BatchNormalization()
        return layers.Add()([normalisation(layers.Conv2D(3, 3)(x)) for _ in range(2)])

    model = small(wiring)
    assert fold_batch_norm(model) is model


def test_a_sequential_model_is_not_folded() -> None:
    parts = [layers.Conv2D(3, 3), layers.BatchNormalization()]
    model = keras.Sequential([keras.Input((50, 50, 1)), *parts])
    assert fold_batch_norm(model) is model
