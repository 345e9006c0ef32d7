"""Patch files and models that somebody made to do harm: refused in one line, without effect."""

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from nodules import hdf5_file
from nodules.errors import ModelFileError, PatchFileError
from nodules.hdf5_file import try_reading
from nodules.importers.hdf5 import import_hdf5
from nodules.importers.legacy import import_legacy
from nodules.inspection import describe
from nodules.model_archive import MOST_CONFIG_BYTES, check_archive
from nodules.model_file import load_model
from nodules.params import read_params
from nodules.patches import PATCH_SIZE, open_patches
from nodules.prediction import predict_file
from nodules.splitting import split_patches

HDF5_FAILS = "cannot be read: damaged so that the library that reads it crashes or never ends"
REPOSITORY = Path(__file__).parent.parent
SHAPE = (3, PATCH_SIZE, PATCH_SIZE)
GOOD = {
    "X": np.zeros(SHAPE, np.uint8),
    "Y": np.array([0, 1, 0]),
    "group": np.array([1, 2, 3]),
    "split": np.array([b"train", b"val", b"test"]),
    "index": np.arange(3),
}


def read_all(path: Path) -> None:
    with open_patches(path) as patches:
        list(patches.blocks())
        patches.read_index()


def refusal(path: Path) -> str:
    with pytest.raises(PatchFileError) as error:
        read_all(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    return message


@pytest.fixture
def elsewhere(patch_file) -> Path:
    """Give a file that is none of the reader's business, though it could be read."""
    path = patch_file("elsewhere.h5", **GOOD)
    read_all(path)
    return path


Hide = Callable[[h5py.File, str, Path], None]


def by_external_link(file: h5py.File, name: str, elsewhere: Path) -> None:
    file[name] = h5py.ExternalLink(str(elsewhere), name)


def by_soft_link(file: h5py.File, name: str, elsewhere: Path) -> None:
    file["hop"] = h5py.ExternalLink(str(elsewhere), "/")
    file[name] = h5py.SoftLink(f"/hop/{name}")


def by_virtual_data_set(file: h5py.File, name: str, elsewhere: Path) -> None:
    layout = h5py.VirtualLayout(GOOD[name].shape, GOOD[name].dtype)
    layout[:] = h5py.VirtualSource(str(elsewhere), name, GOOD[name].shape)
    file.create_virtual_dataset(name, layout)


def by_external_storage(file: h5py.File, name: str, elsewhere: Path) -> None:
    external = [(str(elsewhere), 2048, GOOD[name].nbytes)]
    file.create_dataset(name, GOOD[name].shape, GOOD[name].dtype, external=external)


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize(
    ("hide", "found"),
    [
        (by_external_link, "found a link"),
        (by_soft_link, "found a link"),
        (by_virtual_data_set, "found data that lies in other files"),
        (by_external_storage, "found data that lies in other files"),
    ],
)
def test_data_of_other_files_is_not_read(
    patch_file, tmp_path: Path, elsewhere: Path, hide: Hide, found: str, name: str
) -> None:
    path = patch_file(**(GOOD | {name: None}))
    with h5py.File(path, "a") as file:
        hide(file, name, elsewhere)
    with h5py.File(path) as file:
        assert file[name].shape == GOOD[name].shape  # anybody else would follow it
    assert f"{name}: {found}, expected the data itself in this file" in refusal(path)


def test_a_link_to_nowhere_is_refused(patch_file) -> None:
    path = patch_file(**(GOOD | {"group": None}))
    with h5py.File(path, "a") as file:
        file["group"] = h5py.SoftLink("/group")
    assert "group: found a link" in refusal(path)


@pytest.mark.parametrize("chunks", [None, (64, 50, 50)])
def test_a_terabyte_that_is_not_there_is_refused(patch_file, chunks) -> None:
    path = patch_file(Y=GOOD["Y"])
    count = 400_000_000
    with h5py.File(path, "a") as file:
        file.create_dataset("X", (count, 50, 50), np.uint8, chunks=chunks, fillvalue=7)
    assert path.stat().st_size < 10_000
    found = "0 chunks" if chunks else "0 bytes"
    wanted = "6,250,000" if chunks else "1,000,000,000,000"
    expected = f"X: found {found} stored, expected {wanted} for shape ({count}, 50, 50)"
    assert expected in refusal(path)


@pytest.mark.parametrize("name", ["Y", "group", "split", "index"])
def test_columns_that_are_not_there_are_refused(patch_file, name: str) -> None:
    path = patch_file(**(GOOD | {name: None}))
    with h5py.File(path, "a") as file:
        file.create_dataset(name, (3,), GOOD[name].dtype, fillvalue=GOOD[name][0])
    assert f"{name}: found 0 bytes stored, expected" in refusal(path)


def test_names_of_a_gigabyte_each_are_refused(patch_file) -> None:
    path = patch_file(**(GOOD | {"group": None}))
    with h5py.File(path, "a") as file:
        file.create_dataset("group", (3,), "S1000000000", chunks=(1,), compression="gzip")
    assert "group: found 0 chunks stored, expected 3" in refusal(path)


def test_patches_that_unfold_to_a_hundred_times_their_size_are_refused(patch_file) -> None:
    path = patch_file(Y=np.zeros(30_000, np.uint8))
    with h5py.File(path, "a") as file:
        zeros = np.zeros((30_000, 50, 50), np.uint8)
        file.create_dataset("X", data=zeros, chunks=(5000, 50, 50), compression="gzip")
    assert path.stat().st_size < zeros.nbytes / 200
    assert "bytes that unfold to 75,000,000, expected at most 100 times as many" in refusal(path)


def test_patches_that_hold_nothing_but_compress_well_are_read(patch_file) -> None:
    path = patch_file(**(GOOD | {"X": None}))
    with h5py.File(path, "a") as file:
        file.create_dataset("X", data=GOOD["X"], chunks=SHAPE, compression="gzip")
    read_all(path)


def test_one_text_for_many_rows_is_refused_before_it_is_copied_for_each(patch_file) -> None:
    count, letters = 300, 1_000_000
    groups = np.array(["a" * letters] + [""] * (count - 1), dtype=object)
    patches, labels = np.zeros((count, 50, 50), np.uint8), np.zeros(count, np.uint8)
    path = patch_file(X=patches, Y=labels, group=groups)
    with h5py.File(path) as file:
        place = file["group"].id.get_offset()
    content = bytearray(path.read_bytes())
    content[place : place + 16 * count] = content[place : place + 16] * count
    path.write_bytes(content)
    assert "group: row 0: found a text of 1,000,000 characters" in refusal(path)


def test_a_file_on_which_hdf5_never_returns_is_refused(patch_file) -> None:
    path = patch_file(**(GOOD | {"group": ["a", "b", "c"]}))
    content = bytearray(path.read_bytes())
    # The heap of texts: a header of 16 bytes, then its first object, whose size is 8 bytes further.
    place = content.index(b"GCOL") + 24
    assert struct.unpack_from("<Q", content, place) == (1,)
    struct.pack_into("<Q", content, place, 0)
    path.write_bytes(content)
    with pytest.raises(PatchFileError) as error:
        try_reading(path, seconds=1)
    assert str(error.value) == f"{path}: {HDF5_FAILS}"


def test_what_a_trial_finds_wrong_is_said_in_the_same_words(patch_file) -> None:
    text = np.array([b"a" * 2000, b"b", b"c"])
    good, bad = patch_file(**GOOD), patch_file("bad.h5", **(GOOD | {"group": text}))
    try_reading(good)
    with pytest.raises(PatchFileError) as error:
        try_reading(bad)
    assert str(error.value) == refusal(bad)


def test_whatever_opens_hdf5_from_outside_tries_it_first(
    patch_file, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: int) -> None:
        raise PatchFileError(path, "tried")

    monkeypatch.setattr(hdf5_file, "_try_once", refuse)
    path, out = patch_file(**GOOD), tmp_path / "out"
    params = read_params(REPOSITORY / "params.yaml").split
    openers: list[Callable[[], object]] = [
        lambda: describe(path),
        lambda: import_hdf5(path, out),
        lambda: import_legacy({"train": path, "val": path}, out),
        lambda: split_patches(path, out, params, 0),
        lambda: predict_file(tmp_path / "model.keras", path, out),
    ]
    for opener in openers:
        with pytest.raises(PatchFileError, match="tried"):
            opener()


def test_no_module_opens_hdf5_to_read_but_the_one_that_tries_it() -> None:
    modules = [*REPOSITORY.glob("nodules/**/*.py"), *REPOSITORY.glob("stages/*.py")]
    opening = [path.name for path in modules for _ in path.read_text().split("h5py.File(")[1:]]
    # A writer, its own output without labels, and weights in memory.
    assert sorted(opening) == ["hdf5.py", "hdf5_file.py", "model_archive.py", "patches.py"]


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    model = keras.Sequential(
        [
            keras.Input((50, 50, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    path = tmp_path / "model.keras"
    model.save(path)
    load_model(path)
    return path


def tamper(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    """Replace or add members of an archive."""
    with zipfile.ZipFile(path) as old:
        kept = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w", compression) as new:
        for name, content in (kept | members).items():
            new.writestr(name, content)


def model_refusal(path: Path) -> str:
    with pytest.raises(ModelFileError) as error:
        check_archive(path)
    with pytest.raises(ModelFileError) as again:
        load_model(path)
    message = str(error.value)
    assert message == str(again.value)
    assert message.startswith(f"{path}: not a loadable .keras model (")
    assert message.isprintable()
    return message


def test_code_in_a_model_is_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = f"lambda x: (__import__('pathlib').Path({str(mark)!r}).touch(), x)[1]"
    layers = [keras.Input((50, 50, 1)), keras.layers.Lambda(eval(code)), keras.layers.Flatten()]
    path, legacy = tmp_path / "lambda.keras", tmp_path / "lambda.h5"
    model = keras.Sequential([*layers, keras.layers.Dense(2)])
    model.save(path)
    model.save(legacy)
    mark.unlink()
    assert "found Lambda, which runs code" in model_refusal(path)
    assert "expected .keras" in model_refusal(legacy)
    legacy.rename(tmp_path / "renamed.keras")
    assert "not a zip file" in model_refusal(tmp_path / "renamed.keras")
    assert not mark.exists()
    keras.models.load_model(path, safe_mode=False)
    assert mark.exists()  # so it would have run


@pytest.mark.parametrize(
    ("layer", "found"),
    [
        ({"class_name": "system", "module": "os", "config": "true"}, "found os.system"),
        ({"class_name": "Popen", "module": "subprocess", "config": {}}, "found subprocess.Popen"),
        ({"class_name": "L\n", "module": "keras_", "config": {}}, "found keras_.L, expected"),
        ({"class_name": "__lambda__", "config": {"value": "gASV"}}, "found __lambda__"),
        (
            {"class_name": "TFSMLayer", "module": "keras.layers", "config": {"filepath": "/"}},
            "found TFSMLayer, which runs code or reads files",
        ),
        (
            {
                "class_name": "StringLookup",
                "module": "keras.layers",
                "config": {"vocabulary": "/etc/passwd"},
            },
            "found StringLookup, which runs code or reads files",
        ),
    ],
)
def test_layers_that_are_no_plain_layers_of_keras_are_refused(
    model_path: Path, layer: dict, found: str
) -> None:
    with zipfile.ZipFile(model_path) as archive:
        config = json.loads(archive.read("config.json"))
    config["config"]["layers"].insert(1, layer)
    tamper(model_path, {"config.json": json.dumps(config).encode()})
    assert found in model_refusal(model_path)


@pytest.mark.parametrize(
    "name", ["../escaped", "/tmp/escaped-model", "assets/x", "model.weights.npz"]
)
def test_members_that_no_model_has_are_refused(model_path: Path, name: str) -> None:
    content = io.BytesIO()
    np.savez(content, evil=np.array([object], dtype=object))  # a pickle
    tamper(model_path, {name: content.getvalue()})
    found = f"found {', '.join(sorted(['config.json', 'metadata.json', 'model.weights.h5', name]))}"
    assert f"{found} in it, expected" in model_refusal(model_path)
    assert not Path(model_path.parent, name).exists()


def test_members_that_unfold_are_refused(model_path: Path) -> None:
    small = model_path.read_bytes()
    tamper(model_path, {"config.json": b" " * 10_000_000}, zipfile.ZIP_DEFLATED)
    assert "found config.json compressed, expected it stored" in model_refusal(model_path)
    model_path.write_bytes(small)
    tamper(model_path, {"config.json": b" " * (MOST_CONFIG_BYTES + 1)})
    assert "found a config.json above 16,777,216 bytes" in model_refusal(model_path)


@pytest.mark.parametrize("config", [b"[" * 100_000, b"{", b"\xff", b""])
def test_a_config_that_is_no_json_is_refused(model_path: Path, config: bytes) -> None:
    tamper(model_path, {"config.json": config})
    model_refusal(model_path)


@pytest.mark.parametrize("config", [b"{}", b"[]", b"7", b'{"class_name": "Dense", "config": 7}'])
def test_a_config_that_is_no_model_is_refused(model_path: Path, config: bytes) -> None:
    tamper(model_path, {"config.json": config})
    with pytest.raises(ModelFileError, match="not a loadable"):
        load_model(model_path)


@pytest.mark.parametrize("hide", [by_external_link, by_virtual_data_set, by_external_storage])
def test_weights_of_other_files_are_not_read(model_path: Path, elsewhere: Path, hide: Hide) -> None:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        hide(file, "X", elsewhere)
    tamper(model_path, {"model.weights.h5": content.getvalue()})
    assert "weights: found" in model_refusal(model_path)


def test_weights_that_are_not_there_are_refused(model_path: Path) -> None:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.create_dataset("layers/dense/vars/0", (10**6, 10**6), np.float32)
    tamper(model_path, {"model.weights.h5": content.getvalue()})
    assert "weights: found 0 bytes stored" in model_refusal(model_path)


def test_no_module_reads_pickles() -> None:
    folders = [REPOSITORY / name for name in ("nodules", "stages", "benchmarks")]
    modules = [path for folder in folders for path in folder.rglob("*.py")]
    ways = ("pickle.load", "import pickle", "allow_pickle=True", "joblib.load", "safe_mode=False")
    assert len(modules) > 50
    assert [(path, way) for path in modules for way in ways if way in path.read_text()] == []
