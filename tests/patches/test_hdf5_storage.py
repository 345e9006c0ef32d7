"""Reading HDF5 data directly: same values as h5py, and inflated sizes are rejected."""

import struct
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodules.commands.inspect import describe
from nodules.errors import PatchFileError
from nodules.importers.hdf5 import import_hdf5
from nodules.patches.probe import open_hdf5
from nodules.patches.reader import open_patches

RNG = np.random.default_rng(0)
ROWS = 300
PATCHES = RNG.integers(0, 256, (ROWS, 50, 50), np.uint8)
LABELS = (np.arange(ROWS) % 2).astype(np.uint8)


@st.composite
def layouts(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draw creation options of a file and of a data set in it."""
    shape = tuple(draw(st.lists(st.integers(1, 12), min_size=1, max_size=3)))
    dtype = draw(st.sampled_from(["u1", "i1", "<u2", ">u2", "<i8", "u8", "f2", "<f4", ">f8", "?"]))
    step = draw(st.sampled_from([1, 7, 1000]))
    values = (np.arange(np.prod(shape)) // 3 * step % 251).reshape(shape).astype(dtype)
    options: dict[str, Any] = {"data": values}
    if draw(st.booleans()):
        options["chunks"] = tuple(draw(st.integers(1, length)) for length in shape)
        options["compression"] = draw(st.sampled_from([None, "gzip", "lzf"]))
        options["shuffle"], options["fletcher32"] = draw(st.booleans()), draw(st.booleans())
        options["maxshape"] = draw(st.sampled_from([None, (None, *shape[1:])]))
    file = {
        "libver": draw(st.sampled_from(["earliest", "v110", "latest"])),
        "userblock_size": draw(st.sampled_from([0, 512])),  # as in MATLAB files
    }
    return file, options


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layout=layouts(), data=st.data())
def test_rows_are_those_that_h5py_reads(tmp_path: Path, layout, data) -> None:
    path = tmp_path / "data.h5"
    file_options, options = layout
    with h5py.File(path, "w", **file_options) as file:
        file.create_dataset("X", **options)
    with h5py.File(path) as file:
        expected = file["X"][:]
    start = data.draw(st.integers(0, len(expected)))
    stop = data.draw(st.integers(start, len(expected)))
    with open_hdf5(path) as opened:
        array = opened.data_set("X")
        array.check()
        assert np.array_equal(array.read(), expected)
        assert np.array_equal(array.read(start, stop), expected[start:stop])


def refusals(path: Path, out: Path) -> set[str]:
    """Return the error messages of different readers, all of which must reject the file."""
    said = set()
    for read in (lambda: describe(path), lambda: import_hdf5(path, out)):
        with pytest.raises(PatchFileError) as caught:
            read()
        said.add(str(caught.value))
    assert not out.exists()
    return said


def write_chunks(path: Path, name: str, values: np.ndarray, last: bytes, deflates: int) -> None:
    """Write a data set with valid chunks except for the last one, which is `last`."""
    rows = len(values) // 10
    with h5py.File(path, "a") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((rows, *values.shape[1:]))
        for _ in range(deflates):
            properties.set_deflate(1)
        dtype, space = h5py.h5t.py_create(values.dtype), h5py.h5s.create_simple(values.shape)
        data = h5py.h5d.create(file.id, name.encode(), dtype, space, properties)
        for start in range(0, len(values), rows):
            stored = values[start : start + rows].tobytes()
            for _ in range(deflates):
                stored = zlib.compress(stored)
            place = (start, *[0] * (values.ndim - 1))
            data.write_direct_chunk(place, last if start == len(values) - rows else stored)


def deflated(content: bytes, times: int) -> bytes:
    for _ in range(times):
        content = zlib.compress(content, 9)
    return content


@pytest.mark.parametrize("name", ["X", "Y", "group"])
@pytest.mark.parametrize(
    ("content", "deflates", "found"),
    [
        (bytes(2**24), 1, "inflates to more than the"),
        (bytes(2**24), 2, "inflates to more than the"),
        (bytes(17), 1, "found 17 bytes, expected"),
    ],
)
def test_a_chunk_of_another_size_than_it_declares_is_refused(
    tmp_path: Path, name: str, content: bytes, deflates: int, found: str
) -> None:
    path = tmp_path / "bomb.h5"
    columns = {"X": PATCHES, "Y": LABELS, "group": np.arange(ROWS)}
    write_chunks(path, name, columns.pop(name), deflated(content, deflates), deflates)
    with h5py.File(path, "a") as file:
        for other, values in columns.items():
            file[other] = values
    for said in refusals(path, tmp_path / "out.h5"):
        assert said.startswith(f"{path}: {name}: cannot be read: chunk 9: {found}")


def test_a_deflate_stream_that_is_too_short_or_too_long_is_refused(tmp_path: Path) -> None:
    whole = zlib.compress(PATCHES[-30:].tobytes())
    for number, last in enumerate((whole[:-1], whole + b"\0", whole[:-4] + b"adle")):
        path = tmp_path / f"{number}.h5"
        write_chunks(path, "X", PATCHES, last, 1)
        for said in refusals(path, tmp_path / "out.h5"):
            assert said.startswith(f"{path}: X: cannot be read: chunk 9: damaged (")


def move(path: Path, place: int, target: int) -> None:
    """Replace all pointers to one file offset by another offset."""
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<Q", place), struct.pack("<Q", target)))


def test_many_chunks_at_one_place_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "one_place.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("X", data=PATCHES, chunks=(10, 50, 50))
        places = [data.id.get_chunk_info(number).byte_offset for number in range(ROWS // 10)]
        file["Y"] = LABELS
    for place in places[1:]:
        move(path, place, places[0])
    expected = f"{path}: X: found pieces of data that share bytes, expected each in its own place"
    assert refusals(path, tmp_path / "out.h5") == {expected}


def test_data_sets_at_one_place_are_refused(tmp_path: Path, patch_file) -> None:
    path = patch_file(X=PATCHES, Y=LABELS)
    with h5py.File(path) as file:
        place, target = (file[name].id.get_offset() for name in ("Y", "X"))
    move(path, place, target)
    expected = f"{path}: Y: found pieces of data that share bytes, expected each in its own place"
    assert refusals(path, tmp_path / "out.h5") == {expected}


def test_a_filter_without_bounds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "offset.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("X", data=PATCHES, chunks=(10, 50, 50), scaleoffset=0)
    (said,) = refusals(path, tmp_path / "out.h5")
    assert "X: compressed by an unknown method (scaleoffset), expected none, gzip, lzf" in said


@pytest.mark.parametrize(
    "groups",
    [
        np.array([2**63, 2**64 - 1, 2**63, 5], "u8"),
        np.array([-(2**63), 2**63 - 1, 0, 0], "i8"),
        np.array([-128, 127, 0, 0], "i1"),
        np.array([-5, 2**30, 0, 0], ">i4"),
    ],
)
def test_integer_groups_are_exact(patch_file, groups: np.ndarray, tmp_path: Path) -> None:
    path = patch_file(X=PATCHES[:4], Y=LABELS[:4], group=groups)
    import_hdf5(path, tmp_path / "out.h5")
    for each in (path, tmp_path / "out.h5"):
        with open_patches(each) as patches:
            assert patches.groups is not None
            assert patches.groups.tolist() == groups.tolist()


@pytest.mark.parametrize(
    ("groups", "texts"),
    [
        (["a\r", "a\n", "a ", "a"], None),
        (["", "\r\n", "\x1b[31m", "\ufeffé"], None),
        (np.array(["é".encode(), b"a ", b"b\n", b""]), ["é", "a ", "b\n", ""]),
    ],
)
def test_text_groups_are_exact(patch_file, groups: Any, texts: Any, tmp_path: Path) -> None:
    path = patch_file(X=PATCHES[:4], Y=LABELS[:4], group=groups)
    import_hdf5(path, tmp_path / "out.h5")
    for each in (path, tmp_path / "out.h5"):
        with open_patches(each) as patches:
            assert patches.groups is not None
            assert patches.groups.tolist() == (texts or groups)


def test_groups_with_a_nul_are_refused(patch_file, tmp_path: Path) -> None:
    fixed = patch_file("fixed.h5", X=PATCHES[:3], group=np.array([b"a", b"b\0c", b"d"]))
    free = patch_file("free.h5", X=PATCHES[:3], group=["abcd", "efgh", "ijkl"])
    free.write_bytes(free.read_bytes().replace(b"efgh", b"e\0gh"))
    for path in (fixed, free):
        for said in refusals(path, tmp_path / "out.h5"):
            assert (
                said == f"{path}: group: row 1: found a text with a NUL character, expected a name"
            )
