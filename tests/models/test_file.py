"""Model files load as the builder's network with the stored weights, or are rejected."""

import hashlib
import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from nodules.errors import FileError, ScoringError
from nodules.evaluation.evaluate import EvaluationFiles, evaluate
from nodules.evaluation.predict_file import predict_file
from nodules.inference import probabilities as inference
from nodules.inference.probabilities import nodule_probabilities
from nodules.models import archive as model_archive
from nodules.models import file as model_file
from nodules.models import registry
from nodules.models.archive import MAX_METADATA_BYTES, check_archive, read_archive
from nodules.models.feature_maps import largest_feature_map
from nodules.models.file import load_model, model_of, save_model
from nodules.models.registry import build_from_spec, build_model, register
from nodules.models.spec import ModelSpec
from nodules.params import read_params
from tests.support.small_training import REPOSITORY, SMALLEST_CONFIG, write_discs

KERNEL = "layers/conv2d/vars/0"  # of the stem
VARIANCE = "layers/batch_normalization/vars/3"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    save_model(build_model("small", "squeezenet", SMALLEST_CONFIG, seed=3), path)
    return path


@pytest.fixture
def model_path(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(saved, tmp_path))


def members_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_archive(
    path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED
) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def tamper(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    """Replace or add members of an archive."""
    write_archive(path, members_of(path) | members, compression)


def change_network(path: Path, **changes: Any) -> None:
    """Change the network metadata."""
    metadata = json.loads(members_of(path)["metadata.json"])
    metadata["network"] |= changes
    tamper(path, {"metadata.json": json.dumps(metadata).encode()})


def change_weights(path: Path, change: Callable[[h5py.File], object]) -> None:
    content = io.BytesIO(members_of(path)["model.weights.h5"])
    with h5py.File(content, "a") as file:
        change(file)
    tamper(path, {"model.weights.h5": content.getvalue()})


def refusal(path: Path) -> str:
    with pytest.raises(FileError) as error:
        load_model(path)
    message = str(error.value)
    assert message.startswith(f"{path}: not a loadable .keras model (")
    assert message.isprintable()
    assert len(message) < len(str(path)) + 500
    return message


def test_a_model_file_says_what_built_the_network_and_keras_opens_it_too(model_path: Path) -> None:
    metadata = json.loads(members_of(model_path)["metadata.json"])
    assert metadata == {
        "keras_version": keras.__version__,
        "network": {
            "entry": "small",
            "builder": "squeezenet",
            "config": SMALLEST_CONFIG,
            "seed": 3,
            "precision": "float32",
        },
    }
    check_archive(model_path)
    patches = np.random.default_rng(0).uniform(0, 255, (5, 50, 50, 1))
    ours, kerass = load_model(model_path), keras.models.load_model(model_path)
    assert np.array_equal(ours(patches), kerass(patches))
    assert ours.name == kerass.name == "small"


def test_a_model_that_was_read_is_not_affected_by_one_that_replaces_it(
    model_path: Path, tmp_path: Path
) -> None:
    content, expected = model_path.read_bytes(), load_model(model_path)
    archive = read_archive(model_path)
    other = tmp_path / "other.keras"
    save_model(build_model("small", "squeezenet", SMALLEST_CONFIG, seed=4), other)
    other.replace(model_path)
    assert archive.md5 == hashlib.md5(content, usedforsecurity=False).hexdigest()
    patches = np.random.default_rng(0).uniform(0, 255, (5, 50, 50, 1))
    assert np.array_equal(model_of(archive)(patches), expected(patches))


def test_a_loaded_model_is_saved_as_the_same_file(model_path: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.keras"
    save_model(load_model(model_path), again)
    assert again.read_bytes() == model_path.read_bytes()


def test_the_order_of_a_configs_keys_does_not_change_the_file(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.keras"
    reordered = dict(reversed(SMALLEST_CONFIG.items()))
    save_model(build_model("small", "squeezenet", reordered, seed=3), path)
    assert path.read_bytes() == saved.read_bytes()


def test_a_model_that_no_builder_made_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no registered builder"):
        save_model(keras.Sequential([keras.Input((3,)), layers.Dense(2)]), tmp_path / "m.keras")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def new_builder() -> Iterator[Callable[[registry.Builder], str]]:
    """Yield a function that registers a builder under a unique name until the test ends."""
    before = dict(registry._builders)

    def add(builder: registry.Builder) -> str:
        register(builder.__name__)(builder)
        return builder.__name__

    yield add
    registry._builders.clear()
    registry._builders.update(before)


def mixture(*, seed: int) -> keras.Model:
    """Build a network of unusual layers: unnamed, shared, random, adapted, with LoRA."""
    inputs = keras.Input((50, 50, 1))
    scale = layers.Normalization()
    scale.adapt(np.linspace(1, 200, 2500).reshape(1, 50, 50, 1))
    shared = layers.Conv2D(3, 5, strides=5, padding="same", lora_rank=2)
    x = layers.RandomRotation(0.1, seed=seed)(scale(inputs))
    x = layers.Add()([shared(x), shared(layers.GaussianNoise(0.1, seed=seed)(x))])
    x = layers.Bidirectional(layers.LSTM(3))(layers.Reshape((10, 30))(x))
    x = layers.MultiHeadAttention(2, 2)(*[layers.Reshape((3, 2))(x)] * 2)
    x = layers.Dense(4, activation="gelu", kernel_initializer="orthogonal")(layers.Flatten()(x))
    x = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.BatchNormalization()])(x)
    return keras.Model(inputs, layers.Dense(2, activation="softmax", dtype="float32")(x))


def test_a_network_of_any_layers_can_be_saved_and_loaded(new_builder, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    model = build_model("mine", new_builder(mixture), {}, seed=4, precision="mixed_bfloat16")
    rng = np.random.default_rng(0)
    # Changed as training would.
    model.set_weights(
        [each + rng.uniform(0, 1, each.shape).astype(each.dtype) for each in model.get_weights()]
    )
    save_model(model, path)
    check_archive(path)
    patches = rng.uniform(0, 255, (3, 50, 50, 1)).astype(np.float32)
    expected = keras.models.load_model(path)(patches).numpy()
    found = load_model(path)(patches).numpy()
    assert np.array_equal(found, expected)
    assert np.ptp(found) > 0
    registry._builders.pop("mixture")
    assert (
        "metadata.json: network.builder: found 'mixture', expected one of mobilenet, squeezenet; "
        "scoring needs the file of nodules/models that registers it"
    ) in refusal(path)


def test_a_config_that_json_cannot_hold_is_refused_before_training(new_builder) -> None:
    def odd(*, weights: Any, seed: int) -> keras.Model:
        raise AssertionError

    name = new_builder(odd)
    for value in (float("nan"), {1: 2}, (1, 2)):
        with pytest.raises(registry.ParamsError, match=r"models\.mine\.config\.weights"):
            build_model("mine", name, {"weights": value}, seed=0)


def test_code_in_a_model_is_not_run(model_path: Path, tmp_path: Path) -> None:
    mark, evil = tmp_path / "mark", tmp_path / "evil.keras"
    code = f"lambda x: (__import__('pathlib').Path({str(mark)!r}).touch(), x)[1]"
    parts = [keras.Input((50, 50, 1)), layers.Lambda(eval(code)), layers.Flatten()]
    keras.Sequential([*parts, layers.Dense(2)]).save(evil)
    mark.unlink()
    tamper(model_path, {"config.json": members_of(evil)["config.json"]})
    assert "config.json: found another network than squeezenet builds" in refusal(model_path)
    assert not mark.exists()
    keras.models.load_model(evil, safe_mode=False)
    assert mark.exists()  # confirms that the code would run


def test_nothing_of_a_model_is_deserialised(model_path: Path, monkeypatch) -> None:
    def forbidden(*arguments: object, **named: object) -> None:
        raise AssertionError

    monkeypatch.setattr("keras.src.saving.saving_lib.deserialize_keras_object", forbidden)
    with pytest.raises(AssertionError):
        keras.models.load_model(model_path)
    load_model(model_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"negative_slope": 0.0', '"negative_slope": 0.1'),
        ('"class_name": "ReLU"', '"class_name": "function"'),
        ('"rate": 0.5', '"rate": 0.4'),
        ("{", "{ "),
    ],
)
def test_a_config_of_keras_that_was_changed_is_refused(
    model_path: Path, old: str, new: str
) -> None:
    config = members_of(model_path)["config.json"].decode()
    assert old in config
    tamper(model_path, {"config.json": config.replace(old, new, 1).encode()})
    assert "config.json: found another network than squeezenet builds from metadata.json" in (
        refusal(model_path)
    )


def test_a_model_of_another_keras_is_refused_with_both_versions(model_path: Path) -> None:
    members = members_of(model_path)
    metadata = members["metadata.json"].replace(keras.__version__.encode(), b"3.0.1")
    tamper(model_path, {"metadata.json": metadata})
    load_model(model_path)  # nothing relevant has changed
    tamper(model_path, {"config.json": members["config.json"] + b" "})
    assert f"Keras 3.0.1 wrote it, and {keras.__version__} is installed" in refusal(model_path)


NOT_JSON = "metadata.json: not valid JSON"


@pytest.mark.parametrize(
    ("metadata", "found"),
    [
        (b"", NOT_JSON),
        (b"{", NOT_JSON),
        (b"\xff", NOT_JSON),
        (b"[" * 100_000, NOT_JSON),
        (b'{"network": NaN}', f"{NOT_JSON}: found NaN, expected finite numbers"),
        (b'{"network": 1, "network": 2}', f"{NOT_JSON}: found a key twice"),
        (b'{"network": ' + b"9" * 5000 + b"}", NOT_JSON),
        (b"7", "metadata.json: found 7, expected"),
        (b'{"keras_version": "3.15.1"}', "metadata.json: found no network, expected its builder"),
        (b'{"network": {}}', "metadata.json: keras_version: missing"),
        (b" " * (MAX_METADATA_BYTES + 1), "found a metadata.json above 262,144 bytes"),
    ],
)
def test_invalid_metadata_are_refused(model_path: Path, metadata: bytes, found: str) -> None:
    tamper(model_path, {"metadata.json": metadata})
    assert found in refusal(model_path)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"builder": "resnet\n\x1b[31m"}, "network.builder: found 'resnet"),
        ({"builder": 7}, "network.builder: found 7, expected a valid string"),
        ({"entry": "../mine"}, "network.entry: found '../mine', expected"),
        ({"seed": -1}, "network.seed: found -1, expected"),
        ({"seed": 1.0}, "network.seed: found 1.0, expected a valid integer"),
        ({"precision": "float16"}, "network.precision: found 'float16', expected 'float32' or"),
        ({"code": "import os"}, "network.code: unknown key"),
        ({"config": {}}, "network.config.margin: missing"),
        ({"config": SMALLEST_CONFIG | {"seed": 1}}, "network.config.seed: found 1, expected none"),
        (
            {"config": SMALLEST_CONFIG | {"dropout": 1.5}},
            "network.config.dropout: found 1.5, expected",
        ),
        ({"config": SMALLEST_CONFIG | {"dropout": 1e308 * 10}}, NOT_JSON),
        (
            {"config": SMALLEST_CONFIG | {"pool_before": [9]}},
            "network.config: pool_before: found [9]",
        ),
        (
            {"config": SMALLEST_CONFIG | {"depth": ["x" * 9999]}},
            "network.config.depth: unknown key",
        ),
        ({"config": SMALLEST_CONFIG | {"bypass": False}}, "config.json: found another network"),
        ({"entry": "other"}, "config.json: found another network"),
        ({"seed": 4}, "config.json: found another network"),
    ],
)
def test_a_network_that_no_builder_makes_is_refused(
    model_path: Path, changes: dict, found: str
) -> None:
    change_network(model_path, **changes)
    assert found in refusal(model_path)


def nested(depth: int) -> list:
    return [nested(depth - 1)] if depth else []


@pytest.mark.parametrize("depth", [100, 400])
def test_metadata_of_nested_lists_are_refused(model_path: Path, depth: int) -> None:
    change_network(model_path, config=SMALLEST_CONFIG | {"fires": nested(depth)})
    assert "metadata.json: " in refusal(model_path)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"stem_filters": 10**9}, "found more parameters than the"),
        ({"stem_filters": 10**30}, "found more parameters than the"),
        ({"fires": [[10**5, 10**5]] * 2}, "found more parameters than the"),
        ({"fires": [[1, 1]] * 20_000}, "found more arrays of weights than the"),
    ],
)
def test_a_network_larger_than_its_weights_is_refused_before_it_is_allocated(
    model_path: Path, changes: dict, found: str
) -> None:
    change_network(model_path, config=SMALLEST_CONFIG | changes)
    assert f"network.config: {found}" in refusal(model_path)
    assert keras.layers.Layer.add_weight.__name__ == "add_weight"


def test_a_network_whose_feature_maps_are_enormous_is_refused(
    model_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(model_file, "MAX_FEATURE_MAP", 2499)
    assert "found a feature map of 2,500 values for one patch" in refusal(model_path)


def test_large_feature_maps_make_small_batches(saved: Path, monkeypatch, random_patches) -> None:
    model, patches = load_model(saved), random_patches(10)
    expected = nodule_probabilities(model, patches)
    sizes = []
    predict_on_batch = model.predict_on_batch

    def counted(batch: np.ndarray) -> np.ndarray:
        sizes.append(len(batch))
        return predict_on_batch(batch)

    monkeypatch.setattr(model, "predict_on_batch", counted)
    monkeypatch.setattr(inference, "MAX_BATCH_VALUES", 3 * largest_feature_map(model))
    assert nodule_probabilities(model, patches) == pytest.approx(expected, abs=1e-6)
    assert sorted(sizes) == [1, 3, 3, 3]


def put(name: str, values: Any, **options: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, data=values, **options)

    return change


def link(name: str, target: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        if name in file:
            del file[name]
        file[name] = file[target] if isinstance(target, str) else target

    return change


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((3, 3, 1, 4), np.float32)
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (3, 3, 1, 4))
    del file[KERNEL]
    file.create_virtual_dataset(KERNEL, layout)


def external(file: h5py.File) -> None:
    del file[KERNEL]
    file.create_dataset(KERNEL, (3, 3, 1, 4), np.float32, external=[("/etc/passwd", 0, 144)])


def absent(file: h5py.File) -> None:
    del file[KERNEL]
    file.create_dataset(KERNEL, (10**6, 10**6), np.float32)


STEM = np.full((3, 3, 1, 4), 0.1, np.float32)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (put(KERNEL, STEM * np.nan), "stem/kernel: found NaN or infinity"),
        (put(KERNEL, STEM * np.inf), "stem/kernel: found NaN or infinity"),
        (put(VARIANCE, -STEM[0, 0, 0]), "stem_norm/moving_variance: found -0.1, expected no neg"),
        (put(KERNEL, STEM.astype(np.float64)), "found float64 of shape (3, 3, 1, 4), expected"),
        (put(KERNEL, STEM.astype(">f4")), f"{KERNEL}: found >f4 of shape"),
        (put(KERNEL, STEM[:2]), "found float32 of shape (2, 3, 1, 4), expected float32 of shape"),
        (put(KERNEL, STEM, chunks=True), f"{KERNEL}: found chunks, expected one contiguous array"),
        (put(KERNEL, STEM, compression="gzip"), f"{KERNEL}: found chunks"),
        (put(KERNEL, ["a", "b"]), f"{KERNEL}: found the type object, expected numbers"),
        (put(KERNEL, h5py.Empty("f4")), f"{KERNEL}: found no array"),
        (lambda file: file.pop(KERNEL), f"{KERNEL}: found none, expected float32 of shape (3, 3"),
        (lambda file: file.create_dataset("a", data=1), "a: found an array that the network does"),
        (link("layers/x", h5py.SoftLink("/layers")), "layers/x: found a link"),
        (link(KERNEL, h5py.ExternalLink("/etc/passwd", "x")), f"{KERNEL}: found a link"),
        (link("layers/x", "layers"), "layers/x: found a second name for the same data"),
        (link("layers/x", KERNEL), "found a second name for the same data"),
        (lambda file: file.create_group("/".join("g" * 50)), "nested more than 32 deep"),
        (virtual, f"{KERNEL}: found data stored in other files"),
        (external, f"{KERNEL}: found data stored in other files"),
        (absent, f"{KERNEL}: found 0 bytes stored, expected 4,000,000,000,000 for shape"),
    ],
)
def test_weights_that_the_network_does_not_have_are_refused(
    model_path: Path, change: Callable, found: str
) -> None:
    change_weights(model_path, change)
    message = refusal(model_path)
    assert "model.weights.h5: " in message
    assert found in message


@pytest.mark.parametrize("length", [0, 1, 100, 5000])
def test_weights_that_are_cut_are_refused(model_path: Path, length: int) -> None:
    tamper(model_path, {"model.weights.h5": members_of(model_path)["model.weights.h5"][:length]})
    refusal(model_path)


@pytest.mark.parametrize(
    "name", ["../escaped", "/tmp/escaped-model", "assets/x", "model.weights.npz", "config.json"]
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_that_no_model_has_are_refused(model_path: Path, name: str) -> None:
    content = io.BytesIO()
    np.savez(content, evil=np.array([object], dtype=object))  # a pickle
    with zipfile.ZipFile(model_path, "a") as archive:
        archive.writestr(name, content.getvalue())
    found = f"found {', '.join(sorted(['config.json', 'metadata.json', 'model.weights.h5', name]))}"
    assert f"{found} in it, expected" in refusal(model_path)
    assert name == "config.json" or not Path(model_path.parent, name).exists()


def test_members_that_are_compressed_or_damaged_are_refused(model_path: Path) -> None:
    content = model_path.read_bytes()
    tamper(model_path, {"config.json": b" " * 10_000_000}, zipfile.ZIP_DEFLATED)
    assert "found config.json compressed, expected it uncompressed" in refusal(model_path)
    model_path.write_bytes(content.replace(b'"ReLU"', b'"relu"', 1))
    assert "Bad CRC-32" in refusal(model_path)
    model_path.write_bytes(content[:-30])
    assert "not a zip file" in refusal(model_path)
    legacy = model_path.rename(model_path.with_suffix(".h5"))
    assert "found the suffix .h5, expected .keras" in refusal(legacy)


def test_the_probe_process_reports_the_same_error(model_path: Path) -> None:
    change_weights(model_path, put(KERNEL, STEM, chunks=True))
    with pytest.raises(FileError) as error:
        check_archive(model_path)
    assert str(error.value) == refusal(model_path)


def test_weights_on_which_hdf5_never_returns_are_refused(model_path: Path, monkeypatch) -> None:
    change_weights(model_path, lambda file: file[KERNEL].attrs.update(dtype="bfloat16"))
    weights = bytearray(members_of(model_path)["model.weights.h5"])
    # Size of the first object in the global heap that the attribute points to.
    for heap in re.finditer(b"GCOL", bytes(weights)):
        weights[heap.start() + 24 : heap.start() + 32] = bytes(8)
    tamper(model_path, {"model.weights.h5": bytes(weights)})
    monkeypatch.setattr(model_archive, "SECONDS", 1)
    with pytest.raises(FileError, match=r"model\.keras: cannot be read: damaged, and the"):
        check_archive(model_path)


def doubled(*, seed: int) -> keras.Model:
    inputs = keras.Input((50, 50, 1))
    twice = layers.Flatten()(layers.Concatenate(axis=0)([inputs, inputs]))
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(twice))


def unbounded(*, seed: int) -> keras.Model:
    inputs = keras.Input((50, 50, 1))
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(inputs)))


def overflowing(*, seed: int) -> keras.Model:
    inputs = keras.Input((50, 50, 1))
    x = layers.Dense(2, kernel_initializer=keras.initializers.Constant(1e38))(
        layers.Flatten()(inputs)
    )
    return keras.Model(inputs, layers.Softmax()(x))


@pytest.mark.parametrize(
    ("builder", "found"),
    [
        (doubled, "found outputs of shape (10, 2), expected (5, 2)"),
        (unbounded, "expected two probabilities for each patch, which add up to 1"),
        (overflowing, "found outputs of NaN or infinity, expected probabilities"),
    ],
)
def test_outputs_that_are_no_probabilities_are_refused_and_nothing_is_written(
    new_builder, patch_file, random_patches, tmp_path: Path, builder: Callable, found: str
) -> None:
    model, patches = tmp_path / "model.keras", random_patches(5)
    # `build_model` refuses most of them; a network may also become one in training.
    name = new_builder(builder)
    spec = ModelSpec(entry="mine", builder=name, config={}, seed=0, precision="float32")
    save_model(build_from_spec(spec), model)
    with pytest.raises(ScoringError, match=re.escape(found)):
        nodule_probabilities(load_model(model), patches)
    out, data = tmp_path / "scores.csv", patch_file(X=patches)
    with pytest.raises(FileError, match=re.escape(f"{model}: found outputs")):
        predict_file(model, data, out)
    for name in ("train", "val", "test"):
        write_discs(tmp_path / f"{name}.h5", 5, seed=0)
    before = sorted(tmp_path.iterdir())
    files = EvaluationFiles(
        model, tmp_path, tmp_path / "log", tmp_path / "plots", tmp_path / "predictions.csv"
    )
    with pytest.raises(FileError, match=re.escape(f"{model}: train: found outputs")):
        evaluate(read_params(REPOSITORY / "params.yaml").evaluate, 0, files)
    assert sorted(tmp_path.iterdir()) == before


def test_a_pipe_or_a_folder_is_no_model(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.keras")
    for path, found in ((tmp_path / "pipe.keras", "a device or a pipe"), (tmp_path, "a folder")):
        with pytest.raises(FileError) as error:
            load_model(path)
        expected = "expected a model saved by the train stage"
        assert str(error.value) == f"{path}: found {found}, {expected}"
