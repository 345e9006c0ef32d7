"""The patch file: reading of each layout, and errors for invalid files."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from nodules.errors import PatchFileError
from nodules.patches.reader import open_patches
from nodules.patches.writer import new_patch_file


def test_both_layouts_of_x_and_y_read_the_same(patch_file, random_patches) -> None:
    patches = random_patches(6)
    labels = np.array([0, 1, 1, 0, 0, 1])
    plain = patch_file("plain.h5", X=patches, Y=labels)
    legacy = patch_file(
        "legacy.h5", X=(patches[..., None] / 255).astype(np.float32), Y=np.eye(2)[labels]
    )
    for path in (plain, legacy):
        with open_patches(path) as file:
            assert len(file) == 6
            assert file.labels.tolist() == labels.tolist()
            assert np.array_equal(file.read(0, 6), patches)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_rounded_to_the_nearest_grey_level(patch_file, dtype) -> None:
    levels = np.linspace(0, 1, 2500).reshape(1, 50, 50).astype(dtype)
    with open_patches(patch_file(X=levels, Y=[1])) as file:
        read = file.read(0, 1)
    assert np.abs(read / 255 - levels.astype(np.float64)).max() <= 0.5 / 255 + 1e-3


@pytest.mark.parametrize("size", [1, 3, 100])
def test_blocks_are_all_patches_in_order(patch_file, random_patches, size: int) -> None:
    patches = random_patches(7)
    with open_patches(patch_file(X=patches, Y=[0] * 7)) as file:
        blocks = list(file.blocks(size))
    assert np.array_equal(np.concatenate([block for _, block in blocks]), patches)
    assert [start for start, _ in blocks] == list(range(0, 7, size))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    patches=arrays(np.uint8, st.tuples(st.integers(1, 5), st.just(50), st.just(50))),
    data=st.data(),
)
def test_written_patches_are_read_back_unchanged(tmp_path: Path, patches, data) -> None:
    count = len(patches)
    labels = data.draw(arrays(np.uint8, count, elements=st.integers(0, 1)))
    names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
    groups = np.array(data.draw(st.lists(names, min_size=count, max_size=count)), dtype=object)
    path = tmp_path / "written.h5"
    with new_patch_file(path, count, {"group": groups.dtype}) as file:
        file.append(patches[:1], labels[:1], group=groups[:1])
        file.append(patches[1:], labels[1:], group=groups[1:])
    with open_patches(path) as file:
        assert np.array_equal(file.read(0, count), patches)
        assert np.array_equal(file.on_disk()[:], patches)
        assert file.labels.tolist() == labels.tolist()
        assert file.groups is not None
        assert file.groups.tolist() == groups.tolist()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, random_patches) -> None:
    path = tmp_path / "kept.h5"
    path.write_bytes(b"old")

    def fail_half_way() -> None:
        with new_patch_file(path, 4) as file:
            file.append(random_patches(2), np.zeros(2, np.uint8))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_half_way()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


GOOD_X = np.zeros((3, 50, 50), np.uint8)
FLOAT_X = GOOD_X.astype(np.float32)
GOOD_Y = np.array([0, 1, 0])


def with_value(values: np.ndarray, place: tuple[int, ...], value: float) -> np.ndarray:
    """Return a copy of `values` with one value replaced."""
    copy = values.copy()
    copy[place] = value
    return copy


def assert_refused(path: Path, sentence: str) -> None:
    with pytest.raises(PatchFileError) as error, open_patches(path) as file:
        list(file.blocks())
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert sentence in message
    assert message.isprintable()


@pytest.mark.parametrize(
    ("data_sets", "sentence"),
    [
        ({"X": None}, "X: found Y; expected a data set of this name"),
        ({"Y": None}, "Y: found X; expected a data set of this name"),
        (
            {"X": np.zeros((3, 64, 64), np.uint8)},
            "X: found shape (3, 64, 64), expected (N, 50, 50)",
        ),
        ({"X": np.zeros((3, 2500), np.uint8)}, "X: found shape (3, 2500), expected (N, 50, 50)"),
        ({"X": np.zeros((0, 50, 50), np.uint8), "Y": []}, "X: found no patches"),
        ({"X": np.zeros((3, 50, 50), np.int16)}, "X: found int16, expected uint8 in 0..255"),
        ({"X": with_value(FLOAT_X, (1, 2, 3), np.nan)}, "X: row 1: found NaN, expected float"),
        ({"X": with_value(FLOAT_X, (2, 0, 0), np.inf)}, "X: row 2: found infinity, expected float"),
        (
            {"X": with_value(FLOAT_X, (0, 0, 0), 255)},
            "X: row 0: found 0..255, expected float intensities in 0..1: they look like 0..255, so "
            "divide them by 255 or store uint8",
        ),
        ({"X": with_value(FLOAT_X, (1, 0, 0), -1000)}, "X: row 1: found -1000..0, expected float"),
        ({"X": ["a", "b", "c"]}, "X: found shape (3,), expected (N, 50, 50)"),
        ({"X": np.full((3, 50, 50), b"a")}, "X: found text, expected uint8 in 0..255 or float"),
        ({"X": np.array(5)}, "X: found shape (), expected (N, 50, 50)"),
        ({"Y": 1}, "Y: found shape (), expected (3,) or (3, 2)"),
        ({"Y": [0.0, np.nan, 1.0]}, "Y: row 1: found nan, expected 0 or 1"),
        ({"Y": [0.0, 0.0, 0.5]}, "Y: row 2: found 0.5, expected 0 or 1"),
        ({"Y": [[0, 0], [1, 0], [0, 1]]}, "Y: row 0: found (0, 0), expected one-hot"),
        ({"group": [b"a", b"\xff", b"c"]}, "group: row 1: found bytes that are not UTF-8 text"),
        ({"group": ["a", "b" * 2000, "c"]}, "group: row 1: found a text of 2,000 characters"),
        ({"split": ["train", "a\nb\x1b" + "c" * 500, "val"]}, r"split: row 1: found 'a\nb\x1bccc"),
        ({"a\nname": [1], "Y": None}, r"Y: found X, a\nname; expected a data set of this name"),
        ({"Y": [0, 1]}, "Y: found shape (2,), expected (3,) or (3, 2)"),
        (
            {"Y": np.eye(3)},
            "Y: found shape (3, 3), expected (3,) or (3, 2) to match X: these are 3 classes, "
            "expected two",
        ),
        ({"Y": [0, 1, 2]}, "Y: row 2: found 2, expected 0 or 1"),
        ({"Y": [[1, 0], [1, 1], [0, 1]]}, "Y: row 1: found (1, 1), expected one-hot"),
        ({"Y": [b"a", b"b", b"c"]}, "Y: found text, expected numbers"),
        ({"group": [1, 2]}, "group: found shape (2,), expected (3,)"),
        ({"group": [1.0, 2.0, 3.0]}, "group: found float64, expected integers or strings"),
        ({"split": [0, 1, 2]}, "split: found int64, expected strings"),
        (
            {"split": ["train", "train", "val"], "group": ["a", "b", "a"]},
            "group: row 2: found a in train and val, expected one split per group",
        ),
        ({"X": h5py.Empty("u1")}, "X: found no data, expected an array"),
        ({"split": ["train", "val", "dev"]}, "split: row 2: found 'dev', expected one of train"),
    ],
)
def test_a_broken_file_is_refused_in_one_line(patch_file, data_sets, sentence: str) -> None:
    assert_refused(patch_file(**({"X": GOOD_X, "Y": GOOD_Y} | data_sets)), sentence)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"not HDF5", "not a readable HDF5 file (it has no HDF5 signature)"),
        (b"", "not a readable HDF5 file (it is empty)"),
        (b"\x89HDF\r\n\x1a\n" + bytes(500), "not a readable HDF5 file ("),
    ],
)
def test_a_file_that_is_not_hdf5_is_refused(tmp_path: Path, content, sentence: str) -> None:
    path = tmp_path / "text.h5"
    path.write_bytes(content)
    assert_refused(path, sentence)


def test_a_truncated_file_is_refused_with_its_sizes(patch_file) -> None:
    path = patch_file(X=GOOD_X, Y=GOOD_Y)
    whole = path.read_bytes()
    path.write_bytes(whole[:4000])
    assert_refused(path, f"truncated: found 4,000 bytes of {len(whole):,}")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path, "found a folder, expected a patch file (HDF5)")
    assert_refused(tmp_path / "none.h5", "no such file, expected a patch file (HDF5)")
    os.mkfifo(tmp_path / "pipe.h5")
    assert_refused(tmp_path / "pipe.h5", "found a device or a pipe, expected a patch file")


@pytest.fixture
def secret(patch_file) -> Path:
    path = patch_file(X=GOOD_X, Y=GOOD_Y)
    path.chmod(0)
    return path


def test_a_file_that_may_not_be_read_is_refused(secret: Path, unprivileged: None) -> None:
    assert_refused(secret, "cannot be opened (permission denied), expected a patch file")


def test_a_group_in_the_place_of_a_data_set_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "group.h5"
    with h5py.File(path, "w") as file:
        file.create_group("X")
    with pytest.raises(PatchFileError, match="X: found X; expected a data set"), open_patches(path):
        pass


def test_a_damaged_chunk_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "damaged.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("X", data=GOOD_X, chunks=(3, 50, 50), compression="gzip")
        place = data.id.get_chunk_info(0).byte_offset
        file["Y"] = GOOD_Y
    content = bytearray(path.read_bytes())
    content[place : place + 8] = b"damaged!"
    path.write_bytes(content)
    with open_patches(path) as patches, pytest.raises(PatchFileError, match="X: cannot be read"):
        patches.read(0, 3)


def test_labels_are_needed_only_where_they_are_asked_for(patch_file) -> None:
    path = patch_file(X=GOOD_X)
    with open_patches(path, labelled=False) as file:
        assert file.known_labels is None
        with pytest.raises(PatchFileError, match="Y: found no such data set"):
            _ = file.labels


def test_patches_on_disk_are_indexed_as_an_array_is(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    patches = rng.integers(0, 256, (40, 50, 50), dtype=np.uint8)
    path = tmp_path / "patches.h5"
    with new_patch_file(path, 40) as file:
        file.append(patches, np.zeros(40, np.uint8))
    with open_patches(path) as opened:
        stored = opened.on_disk()
    assert len(stored) == 40
    for rows in (slice(None), slice(5, 9), slice(38, 99), slice(9, 9), slice(0, 40, 7)):
        assert np.array_equal(stored[rows], patches[rows])
    runs = np.array([39, 0, 1, 2, 2, 3, 17, 16, 15])
    for order in (runs, rng.permutation(40), np.array([], np.int64)):
        assert np.array_equal(stored[order], patches[order])
    for outside in (40, -1):
        with pytest.raises(IndexError, match=f"found row {outside}, expected 0 to 39"):
            stored[np.array([outside])]
    path.write_bytes(path.read_bytes()[:-2500])
    with pytest.raises(PatchFileError, match="truncated while"):
        stored[np.array([39])]


def test_only_contiguous_patches_are_read_from_disk_by_rows(tmp_path: Path) -> None:
    path = tmp_path / "chunked.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("X", data=GOOD_X, chunks=(1, 50, 50))
        file["Y"] = GOOD_Y
    with open_patches(path) as patches, pytest.raises(PatchFileError, match="written by `split`"):
        patches.on_disk()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rounding_errors_outside_the_unit_range_are_clipped(patch_file, dtype: type) -> None:
    patches: NDArray = np.zeros((2, 50, 50), dtype)
    patches[0, 0, 0] = 1 + 2 * max(np.finfo(dtype).eps, np.finfo(np.float32).eps)
    patches[1, 0, 0] = -2 * np.finfo(dtype).eps
    with open_patches(patch_file(X=patches, Y=[0, 1])) as file:
        read = file.read(0, 2)
    assert read[:, 0, 0].tolist() == [255, 0]
    assert read.max(axis=(1, 2)).tolist() == [255, 0]


@pytest.mark.parametrize(
    ("values", "advice"),
    [
        ([0, 1.1, 0.5], ": an overshoot, as of interpolation, so clip them to 0..1 (numpy.clip)"),
        ([-0.1, 1.1, 0.5], ": an overshoot, as of interpolation, so clip them to 0..1 (numpy.cl"),
        ([1.5, 200, 0], ": they look like 0..255, so divide them by 255 or store uint8"),
        ([0.5, 0.7, 251], ""),
        ([0, 5, 3], ""),
        ([0, 40_000, 65_535], ""),
        ([0.5, -1000, 400], ""),
    ],
)
def test_the_advice_fits_the_range_of_all_patches(patch_file, values: list, advice: str) -> None:
    patches = np.zeros((3, 50, 50), np.float32)
    patches[:, 0, 0] = values
    path = patch_file(X=patches, Y=GOOD_Y)
    with open_patches(path) as file, pytest.raises(PatchFileError) as caught:
        file.read(0, 3)
    _, expected, found = str(caught.value).partition("expected float intensities in 0..1")
    assert expected
    assert found.startswith(advice)
    assert bool(found) == bool(advice)


def test_a_value_just_above_one_is_printed_as_such(patch_file) -> None:
    patches = np.full((1, 50, 50), 1.000004, np.float32)
    path = patch_file(X=patches)
    problem = r"found 1\.00000405\.\.1\.00000405, expected"
    with open_patches(path, labelled=False) as file, pytest.raises(PatchFileError, match=problem):
        file.read(0, 1)


@pytest.mark.parametrize(
    ("shape", "dtype", "hint"),
    [
        ((3, 64, 64), np.uint8, True),
        ((3, 64, 64, 1), np.float32, True),
        ((3, 64, 64, 3), np.uint8, False),
        ((3, 4096), np.uint8, False),
        ((0, 64, 64), np.uint8, False),
        ((3, 64, 64), np.int16, False),
    ],
)
def test_resizing_is_offered_only_where_it_works(
    patch_file, shape: tuple[int, ...], dtype: type, hint: bool
) -> None:
    path = patch_file(X=np.zeros(shape, dtype), Y=GOOD_Y)
    with pytest.raises(PatchFileError, match="found shape") as caught, open_patches(path):
        pass
    assert ("import hdf5 resizes" in str(caught.value)) is hint


def test_labels_may_be_a_column(patch_file) -> None:
    with open_patches(patch_file(X=GOOD_X, Y=np.array([[0], [1], [1]]))) as file:
        assert file.labels.tolist() == [0, 1, 1]
    assert_refused(patch_file(X=GOOD_X, Y=[[0], [1], [2]]), "Y: row 2: found 2, expected 0 or 1")


def test_a_file_that_is_being_written_is_refused_as_such(tmp_path: Path) -> None:
    path = tmp_path / "busy.h5"
    code = "import h5py, sys; f = h5py.File(sys.argv[1], 'w'); f['X'] = 1; f.flush(); print(1); "
    process = subprocess.Popen(
        [sys.executable, "-c", f"{code}sys.stdout.flush(); sys.stdin.read()", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"HDF5_USE_FILE_LOCKING": "TRUE"},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        assert_refused(path, "found a file that another process is writing and has locked, expect")
    finally:
        process.kill()
        process.communicate()


def test_sources_are_read_where_they_name_each_patch(patch_file) -> None:
    names = ["p1/a.png", "p1/b.png", "ä.png"]
    path = patch_file(X=GOOD_X, file=names, candidate=[7, 8, 9], index=[1.5])
    with open_patches(path, labelled=False) as file:
        found = file.read_sources()
    assert {name: column.tolist() for name, column in found.items()} == {
        "file": names,
        "candidate": [7, 8, 9],
    }
    for others in ({"file": 3}, {"candidate": [0.5] * 3}, {"file": ["a"]}, {"file": [1, 2, 3]}):
        path = patch_file(X=GOOD_X, **others)
        with open_patches(path, labelled=False) as file:
            assert file.read_sources() == {}
    with h5py.File(path, "r+") as file:
        del file["file"]
        file.create_group("file")
    with open_patches(path, labelled=False) as file:
        assert file.read_sources() == {}


def test_a_file_without_labels_is_written(tmp_path: Path) -> None:
    path = tmp_path / "unlabelled.h5"
    with new_patch_file(path, 3, labelled=False) as file:
        file.append(GOOD_X, None)
    with h5py.File(path) as stored:
        assert {*stored} == {"X"}
