"""Malicious patch files are rejected with a one-line error and no side effects."""

import struct
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from nodules.commands.inspect import describe
from nodules.errors import PatchFileError
from nodules.evaluation.predict_file import predict_file
from nodules.importers.hdf5 import import_hdf5
from nodules.importers.legacy import import_legacy
from nodules.params import read_params
from nodules.patches import probe
from nodules.patches.layout import PATCH_SIZE
from nodules.patches.reader import open_patches
from nodules.splitting.split import split_patches
from tests.support import REPOSITORY

HDF5_FAILS = "cannot be read: damaged, and the library that reads it crashes or never returns"
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
    """Return a readable file outside the data set that must not be read."""
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
        (by_virtual_data_set, "found data stored in other files"),
        (by_external_storage, "found data stored in other files"),
    ],
)
def test_data_of_other_files_is_not_read(
    patch_file, tmp_path: Path, elsewhere: Path, hide: Hide, found: str, name: str
) -> None:
    path = patch_file(**(GOOD | {name: None}))
    with h5py.File(path, "a") as file:
        hide(file, name, elsewhere)
    with h5py.File(path) as file:
        assert file[name].shape == GOOD[name].shape  # other readers would follow it
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


def test_patches_compressed_more_than_a_hundredfold_are_refused(patch_file) -> None:
    path = patch_file(Y=np.zeros(30_000, np.uint8))
    with h5py.File(path, "a") as file:
        zeros = np.zeros((30_000, 50, 50), np.uint8)
        file.create_dataset("X", data=zeros, chunks=(5000, 50, 50), compression="gzip")
    assert path.stat().st_size < zeros.nbytes / 200
    assert "bytes that expand to 75,000,000, expected at most 100 times as many" in refusal(path)


def test_patches_that_hold_nothing_but_compress_well_are_read(patch_file) -> None:
    path = patch_file(**(GOOD | {"X": None}))
    with h5py.File(path, "a") as file:
        file.create_dataset("X", data=GOOD["X"], chunks=SHAPE, compression="gzip")
    with open_patches(path) as patches:
        assert np.array_equal(patches.read(0, len(patches)), GOOD["X"])


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
    # The global heap has a 16-byte header; the size of its first object is 8 bytes further.
    place = content.index(b"GCOL") + 24
    assert struct.unpack_from("<Q", content, place) == (1,)
    struct.pack_into("<Q", content, place, 0)
    path.write_bytes(content)
    with pytest.raises(PatchFileError) as error:
        probe.probe(path, seconds=1)
    assert str(error.value) == f"{path}: {HDF5_FAILS}"


def test_the_probe_reports_the_same_error(patch_file) -> None:
    text = np.array([b"a" * 2000, b"b", b"c"])
    good, bad = patch_file(**GOOD), patch_file("bad.h5", **(GOOD | {"group": text}))
    probe.probe(good)
    with pytest.raises(PatchFileError) as error:
        probe.probe(bad)
    assert str(error.value) == refusal(bad)


def test_hdf5_files_from_outside_are_probed_before_opening(
    patch_file, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: int) -> None:
        raise PatchFileError(path, "tried")

    monkeypatch.setattr(probe, "_probe_once", refuse)
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


def test_only_the_probing_module_opens_hdf5_to_read() -> None:
    modules = [*REPOSITORY.glob("nodules/**/*.py"), *REPOSITORY.glob("stages/*.py")]
    opening = [path.name for path in modules for _ in path.read_text().split("h5py.File(")[1:]]
    # Exceptions: a writer, and weights in memory.
    assert sorted(opening) == ["archive.py", "hdf5_file.py", "writer.py"]


def test_no_module_reads_pickles() -> None:
    folders = [REPOSITORY / name for name in ("nodules", "stages", "benchmarks")]
    modules = [path for folder in folders for path in folder.rglob("*.py")]
    ways = ("pickle.load", "import pickle", "allow_pickle=True", "joblib.load", "safe_mode=False")
    assert len(modules) > 50
    assert [(path, way) for path in modules for way in ways if way in path.read_text()] == []
