"""The networks: sizes, outputs and configuration errors."""

import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from ruamel.yaml import YAML

from nodules.errors import FileError, ParamsError
from nodules.models import registry
from nodules.models.file import load_model, save_model
from nodules.models.registry import build_model, builder_names
from nodules.params import read_params
from nodules.training.accelerated_model import accelerate
from tests.support import REPOSITORY

ENTRIES = read_params(REPOSITORY / "params.yaml").models

SMALL = {
    "margin": 0,
    "stem_filters": 4,
    "stem_stride": 2,
    "fires": [[2, 4], [2, 4]],
    "pool_before": [1],
    "bypass": False,
    "batch_norm": True,
    "batch_norm_momentum": 0.9,
    "pooling": "average",
    "dropout": 0.5,
}


MOBILE = {
    "margin": 0,
    "stem_filters": 4,
    "stem_stride": 2,
    "blocks": [[8, 2], [8, 1]],
    "bypass": False,
    "batch_norm_momentum": 0.9,
    "pooling": "average",
    "dropout": 0.5,
}


@cache
def build(entry: str) -> keras.Model:
    """Build a model of params.yaml, once; the full-sized ones take seconds."""
    return build_model(entry, ENTRIES[entry].builder, ENTRIES[entry].config, seed=0)


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_model_gives_two_probabilities_for_each_patch(entry: str) -> None:
    model = build(entry)
    probabilities = model(np.full((3, 50, 50, 1), 128.0)).numpy()
    assert probabilities.shape == (3, 2)
    assert probabilities.dtype == np.float32
    assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-6)
    assert model.name == entry


@pytest.mark.parametrize(("entry", "most"), [("squeezenet", 750_000), ("mobilenet", 3_300_000)])
def test_the_models_are_compact(entry: str, most: int) -> None:
    assert build(entry).count_params() <= most


def test_mobilenet_as_published_is_the_one_of_keras_applications() -> None:
    reference = keras.applications.MobileNet((50, 50, 1), include_top=False, weights=None)
    ours = build("mobilenet_published")
    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)

    def convolutions(model: keras.Model) -> list[tuple]:
        found = [layer for layer in model.layers if isinstance(layer, kinds)]
        return [(type(a), a.kernel.shape, a.strides, a.output.shape) for a in found]

    assert convolutions(ours) == convolutions(reference)
    classifier = 1024 * 2 + 2
    assert ours.count_params() - classifier == reference.count_params()


def test_squeezenet_as_published_has_the_parameters_counted_by_hand() -> None:
    def fire(channels: int, squeeze: int, expand: int) -> int:
        return (channels + 1) * squeeze + (squeeze + 1) * expand + (9 * squeeze + 1) * expand

    total, channels = 9 * 96 + 96, 96
    for squeeze, expand in [
        (s * f, e * f) for s, e in [(16, 64)] for f in (1, 1, 2, 2, 3, 3, 4, 4)
    ]:
        total += fire(channels, squeeze, expand)
        channels = 2 * expand
    assert build("squeezenet_published").count_params() == total + 512 * 2 + 2


def test_the_seed_alone_decides_on_weights_and_names() -> None:
    first = build_model("small", "squeezenet", SMALL, seed=1)
    build_model("mobile", "mobilenet", MOBILE, seed=5)
    again, other = (build_model("small", "squeezenet", SMALL, seed=seed) for seed in (1, 2))
    assert [layer.name for layer in first.layers] == [layer.name for layer in again.layers]
    for one, two in zip(first.get_weights(), again.get_weights(), strict=True):
        assert np.array_equal(one, two)
    assert not np.array_equal(first.get_weights()[0], other.get_weights()[0])


def test_equal_models_are_equal_files_and_predict_the_same_when_loaded(tmp_path: Path) -> None:
    paths = [tmp_path / "one.keras", tmp_path / "two.keras"]
    for path in paths:
        model = build_model("small", "squeezenet", SMALL, seed=3)
        save_model(model, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    patches = np.random.default_rng(0).uniform(0, 255, (5, 50, 50, 1))
    loaded = load_model(paths[0])
    assert np.array_equal(loaded(patches).numpy(), model(patches).numpy())
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_the_pipelines_seed_is_no_part_of_a_config() -> None:
    with pytest.raises(ParamsError, match=r"models\.small\.config\.seed: found 3, expected none"):
        build_model("small", "squeezenet", SMALL | {"seed": 3}, seed=0)


@pytest.mark.parametrize(("builder", "config"), [("squeezenet", SMALL), ("mobilenet", MOBILE)])
def test_pixels_in_the_margin_do_not_affect_the_output(builder: str, config: dict) -> None:
    patches = np.random.default_rng(0).uniform(0, 255, (4, 50, 50, 1))
    framed = patches.copy()
    framed[:, :4] = framed[:, -4:] = 0
    framed[:, :, :4] = framed[:, :, -4:] = 255
    whole = build_model("whole", builder, config, seed=3)
    assert not np.array_equal(whole(framed), whole(patches))
    cropped = build_model("cropped", builder, config | {"margin": 4}, seed=3)
    assert np.array_equal(cropped(framed), cropped(patches))
    assert not np.array_equal(cropped(patches[:, :, ::-1]), cropped(patches))


@pytest.mark.parametrize(("builder", "config"), [("squeezenet", SMALL), ("mobilenet", MOBILE)])
def test_a_bypass_adds_the_input_of_what_keeps_its_shape(builder: str, config: dict) -> None:
    plain = build_model("plain", builder, config, seed=3)
    bypassed = build_model("bypassed", builder, config | {"bypass": True}, seed=3)
    sums = [layer for layer in bypassed.layers if isinstance(layer, keras.layers.Add)]
    assert len(sums) == 1
    assert bypassed.count_params() == plain.count_params()
    patches = np.random.default_rng(0).uniform(0, 255, (4, 50, 50, 1))
    assert not np.array_equal(bypassed(patches), plain(patches))


def test_depthwise_pooling_starts_as_the_mean() -> None:
    rng = np.random.default_rng(0)
    patches = rng.uniform(0, 100, (64, 50, 50, 1)).astype(np.float32)
    mean = build_model("small", "squeezenet", SMALL, seed=3)
    weighted = build_model("small", "squeezenet", SMALL | {"pooling": "depthwise"}, seed=3)
    assert weighted(patches).numpy() == pytest.approx(mean(patches).numpy(), abs=1e-6)
    # 13 x 13 positions of 8 channels.
    assert weighted.count_params() == mean.count_params() + 13 * 13 * 8


def test_mixed_precision_computes_in_bfloat16_and_returns_float32(tmp_path: Path) -> None:
    patches = np.random.default_rng(0).uniform(0, 255, (16, 50, 50, 1)).astype(np.float32)
    full = build_model("small", "squeezenet", SMALL, seed=3)
    mixed = build_model("small", "squeezenet", SMALL, seed=3, precision="mixed_bfloat16")
    assert full.get_layer("stem").compute_dtype == "float32"
    assert mixed.get_layer("stem").compute_dtype == "bfloat16"
    assert {weight.dtype for weight in mixed.weights} == {"float32"}
    found, expected = mixed(patches), full(patches)
    assert found.dtype == expected.dtype == "float32"
    assert found.numpy() == pytest.approx(expected.numpy(), abs=0.02)
    assert not np.array_equal(found, expected)
    copy = accelerate(mixed)
    copy.compile(keras.optimizers.SGD(0.01), "categorical_crossentropy")
    assert np.isfinite(copy.train_on_batch(patches, np.eye(2)[np.arange(16) % 2]))
    save_model(mixed, tmp_path / "mixed.keras")
    assert np.array_equal(load_model(tmp_path / "mixed.keras")(patches), found)


def test_layers_that_do_not_fit_the_patch_are_one_line() -> None:
    config = ENTRIES["mobilenet"].config | {"blocks": [[8, 2]] * 7}
    with pytest.raises(ParamsError, match=r"models\.deep\.config: ") as error:
        build_model("deep", "mobilenet", config, seed=0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"dropout": 1.5}, "models.mine.config.dropout: found 1.5, expected less than 1"),
        ({"fires": [[16]]}, "models.mine.config.fires.0: found [16], expected"),
        (
            {"stem_filters": "many"},
            "models.mine.config.stem_filters: found 'many', expected a valid",
        ),
        (
            {"batch_norm_momentum": None},
            "models.mine.config: batch_norm_momentum: missing, expected a fraction",
        ),
        ({"depth": 3}, "models.mine.config.depth: unknown key"),
        (
            {"pool_before": [0, 2]},
            "models.mine.config: pool_before: found [0, 2], expected numbers",
        ),
    ],
)
def test_a_mistake_in_a_config_is_named(change, sentence: str) -> None:
    with pytest.raises(ParamsError) as error:
        build_model("mine", "squeezenet", SMALL | change, seed=0)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("entry", "key"), [(name, key) for name, entry in ENTRIES.items() for key in entry.config]
)
def test_a_missing_argument_is_named(entry: str, key: str) -> None:
    config = {name: value for name, value in ENTRIES[entry].config.items() if name != key}
    with pytest.raises(ParamsError, match=rf"models\.{entry}\.config(\.|: ){key}: missing"):
        build_model(entry, ENTRIES[entry].builder, config, seed=0)


def sequential(*layers_: layers.Layer) -> keras.Model:
    return keras.Sequential([keras.Input((50, 50, 1)), layers.Flatten(), *layers_])


@pytest.mark.parametrize(
    ("builder", "sentence"),
    [
        (lambda: sequential(), r"without the argument seed, expected `seed: int`"),
        (lambda *, seed: seed, r"returns int, expected a keras\.Model"),
        (
            lambda *, seed: sequential(layers.Dense(1)),
            r"from \(None, 50, 50, 1\) to \(None, 1\), expected from .* to \(None, 2\)",
        ),
        (
            lambda *, seed: sequential(layers.Dense(2, "sigmoid")),
            r"the outputs [0-9., ]+ for a patch, expected the probabilities of both",
        ),
        (lambda *, seed: sequential(layers.Dense(2)), r", which add up to 1 \(softmax\)"),
    ],
)
def test_what_is_no_network_of_two_probabilities_is_one_line(
    builder: Callable[..., Any], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_builders", {**registry._builders})
    registry.register("mine")(builder)
    with pytest.raises(ParamsError, match=rf"models\.mine\.builder: found .*?{sentence}") as error:
        build_model("mine", "mine", {}, seed=0)
    assert "\n" not in str(error.value)


def test_an_unknown_builder_is_named() -> None:
    with pytest.raises(ParamsError, match=r"found 'resnet', expected one of .*mobilenet"):
        build_model("mine", "resnet", {}, seed=0)
    assert {"mobilenet", "squeezenet"} <= set(builder_names())


def test_a_file_that_is_no_model_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with pytest.raises(FileError, match="no such file"):
        load_model(path)
    path.write_text("not a zip archive")
    with pytest.raises(FileError, match=r"not a loadable \.keras model"):
        load_model(path)
    keras.Sequential([keras.Input((50, 50, 1)), keras.layers.Flatten()]).save(path)
    with pytest.raises(FileError, match=r"metadata\.json: found no network, expected its"):
        load_model(path)


def test_the_network_of_the_guide_passes_the_linter_and_trains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    guide = (REPOSITORY / "docs/how-to/add-a-network.md").read_text()
    blocks = re.findall(r"```(python|yaml)\n(.*?)```", guide, re.DOTALL)
    (_, module), (_, entry) = ((kind, textwrap.dedent(text)) for kind, text in blocks)
    name = "nodules/models/yournet.py"
    for command in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--quiet", "--stdin-filename", name, "-"]
        subprocess.run(ruff, cwd=REPOSITORY, input=module, text=True, check=True)
    monkeypatch.setattr(registry, "_builders", {**registry._builders})
    exec(module, {"__name__": "yournet"})
    params = YAML(typ="safe", pure=True).load(entry)["yournet"]
    model = build_model("yournet", params["builder"], params["config"], seed=0)
    patches = np.random.default_rng(0).integers(0, 256, (4, 50, 50, 1)).astype(np.float32)
    accelerated = accelerate(model, ghost_batches=2, devices=1, average=0.1)
    assert np.allclose(accelerated(patches), model(patches), atol=1e-5)
