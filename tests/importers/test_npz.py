"""Import of NumPy archives in MedMNIST's layout."""

import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nodules.__main__ import main
from nodules.errors import FileError, PatchFileError
from nodules.importers import stack
from nodules.importers.npz import import_npz
from nodules.importers.stack import Stack
from nodules.patches.reader import open_patches
from tests.support.triangle_filter import assert_grey, filtered

COUNTS = {"train": 7, "val": 4, "test": 3}
Arrays = dict[str, Any]


def medmnist(size: int = 28) -> Arrays:
    rng = np.random.default_rng(size)
    arrays: Arrays = {}
    for split, count in COUNTS.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, size, size), np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2).astype(np.uint8)[:, None]
    return arrays


def save(path: Path, arrays: Arrays, *, compressed: bool = True) -> Path:
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


def imported(out: Path) -> tuple[NDArray, NDArray, list[str]]:
    with open_patches(out) as patches:
        assert patches.split is not None
        return patches.read(0, len(patches)), patches.labels, patches.split.tolist()


@pytest.mark.parametrize("size", [28, 64, 224])
@pytest.mark.parametrize("compressed", [True, False])
def test_images_are_resampled_and_the_split_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, compressed: bool
) -> None:
    arrays = medmnist(size)
    path = save(tmp_path / "set.npz", arrays, compressed=compressed)
    monkeypatch.setattr(stack, "BLOCK_BYTES", 3 * size * size)  # blocks of three images
    lines = import_npz(path, tmp_path / "out.h5")
    assert lines == ["train 7, val 4, test 3; 6 nodules (label 1)"]
    patches, labels, splits = imported(tmp_path / "out.h5")
    assert splits == [split for split, count in COUNTS.items() for _ in range(count)]
    images = np.concatenate([arrays[f"{split}_images"] for split in COUNTS])
    assert labels.tolist() == [i % 2 for count in COUNTS.values() for i in range(count)]
    for patch, image in zip(patches, images, strict=True):
        assert_grey(patch, filtered(image), 0, 255)


def test_the_option_selects_the_nodule_label(tmp_path: Path) -> None:
    path = save(tmp_path / "set.npz", medmnist())
    assert import_npz(path, tmp_path / "out.h5", nodule=0) == [
        "train 7, val 4, test 3; 8 nodules (label 0)"
    ]
    assert imported(tmp_path / "out.h5")[1].tolist()[:3] == [1, 0, 1]


def test_members_need_no_suffix(tmp_path: Path) -> None:
    arrays = medmnist()
    import_npz(save(tmp_path / "set.npz", arrays), tmp_path / "set.h5")
    with zipfile.ZipFile(tmp_path / "bare.npz", "w") as archive:
        for name, array in arrays.items():
            archive.writestr(name, npy(array))
    import_npz(tmp_path / "bare.npz", tmp_path / "bare.h5")
    assert (tmp_path / "bare.h5").read_bytes() == (tmp_path / "set.h5").read_bytes()


@pytest.mark.parametrize("channels", [1, 3])
def test_equal_channels_are_one(tmp_path: Path, channels: int) -> None:
    arrays = medmnist()
    import_npz(save(tmp_path / "grey.npz", arrays), tmp_path / "grey.h5")
    for split in COUNTS:
        images = arrays[f"{split}_images"]
        arrays[f"{split}_images"] = np.repeat(images[..., None], channels, axis=3)
    import_npz(save(tmp_path / "rgb.npz", arrays), tmp_path / "rgb.h5")
    assert (tmp_path / "rgb.h5").read_bytes() == (tmp_path / "grey.h5").read_bytes()


def test_floats_flat_labels_and_no_test_split_are_read(tmp_path: Path) -> None:
    arrays = medmnist(50)
    expected = np.concatenate([arrays["train_images"], arrays["val_images"]])
    for split in ("train", "val"):
        arrays[f"{split}_images"] = (arrays[f"{split}_images"] / 255).astype(np.float32)
        arrays[f"{split}_labels"] = arrays[f"{split}_labels"].ravel().astype(bool)
    del arrays["test_images"], arrays["test_labels"]
    import_npz(save(tmp_path / "set.npz", arrays), tmp_path / "out.h5")
    patches, _, splits = imported(tmp_path / "out.h5")
    assert np.array_equal(patches, expected)
    assert splits == ["train"] * 7 + ["val"] * 4


class Unpickled:
    """Creates a file when it is unpickled."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path("unpickled"),)


def put(**arrays: Any) -> Callable[[Arrays], None]:
    return lambda old: old.update(arrays)


def colour(arrays: Arrays) -> None:
    images = np.repeat(arrays["val_images"][..., None], 3, axis=3)
    images[2, 5, 5, 1] ^= 1
    arrays["val_images"] = images


NOT_FINITE = np.zeros((4, 28, 28), np.float32)
NOT_FINITE[1, 3, 3] = np.nan


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (colour, "val_images: row 2: found colour, expected grey images, or RGB with"),
        (put(val_labels=np.array([[0], [1], [6], [0]])), "val_labels: row 2: found label 6, exp"),
        (put(val_labels=np.zeros((4, 14), np.uint8)), "val_labels: found uint8 of shape (4, 14)"),
        (put(val_labels=np.array(["a", "b", "a", "b"])), "val_labels: found <U1 of shape (4,)"),
        (put(val_labels=np.array([0, 1, 0])), "val_images: found 4 images, expected 3"),
        (put(val_images=np.zeros((4, 28, 28, 28), np.uint8)), "val_images: found shape (4, 28, 2"),
        (put(val_images=np.zeros((4, 0, 28), np.uint8)), "val_images: found shape (4, 0, 28), ex"),
        (put(val_images=np.zeros((4, 28, 28), np.int16)), "val_images: found int16, expected ui"),
        (put(val_images=NOT_FINITE), "val_images: row 1: found NaN, expected float intensities"),
        (put(val_images=NOT_FINITE[:0].repeat(4, 0)), "val_images: found 0 images, expected 4"),
        (put(val_images=np.full((4, 28, 28), 2.0)), "val_images: row 0: found 2..2, expected fl"),
        (put(val_images=np.zeros((4, 28, 28), np.uint8).T.copy().T), "val_images: found column"),
        (put(val_labels=np.array([Unpickled()] * 4)), "val_labels: found Python objects, which"),
        (put(val_images=np.array([Unpickled()] * 4)), "val_images: found Python objects, which"),
        (lambda arrays: arrays.pop("val_labels"), "found test_images, test_labels, train_images"),
        (lambda arrays: arrays.clear(), "found nothing; expected train_images, train_labels, val"),
    ],
)
def test_a_set_that_is_not_binary_and_grey_is_one_line_and_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Arrays], object],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    arrays = medmnist()
    spoil(arrays)
    path = save(tmp_path / "set.npz", arrays)
    with pytest.raises(PatchFileError) as caught:
        import_npz(path, tmp_path / "made/out.h5")
    assert str(caught.value).startswith(f"{path}: {expected}")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("made/*"))
    assert not Path("unpickled").exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def damage(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[200:260] = bytes(60)
    path.write_bytes(raw)


def no_array(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"no array")


def shortened(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, raw in members.items():
            archive.writestr(name, raw[:-5] if name == "val_images.npy" else raw)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda path: path.write_bytes(b"no archive"), "cannot be read (File is not a zip file)"),
        (lambda path: path.unlink(), "cannot be read (no such file or directory), expected a Num"),
        (cut, "cannot be read ("),
        (damage, "cannot be read ("),
        (shortened, "val_images: found 3,131 bytes of data, expected 3,136 for shape (4, 28, 28)"),
        (no_array, "train_labels: found no NumPy array ("),
    ],
)
def test_a_broken_archive_is_one_line_and_leaves_nothing(
    tmp_path: Path, spoil: Callable[[Path], object], expected: str
) -> None:
    path = save(tmp_path / "set.npz", medmnist())
    spoil(path)
    with pytest.raises(PatchFileError) as caught:
        import_npz(path, tmp_path / "made/out.h5")
    assert str(caught.value).startswith(f"{path}: {expected}")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("made/*"))


def test_the_archive_is_never_overwritten(tmp_path: Path) -> None:
    path = save(tmp_path / "set.npz", medmnist())
    before = path.read_bytes()
    with pytest.raises(FileError, match="found the same file as input"):
        import_npz(path, path)
    assert path.read_bytes() == before


def test_the_command_says_what_to_do_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = save(tmp_path / "set.npz", medmnist()), tmp_path / "out.h5"
    command = ["nodules", "import", "npz", str(path), "--out", str(out), "--nodule", "0"]
    monkeypatch.setattr(sys, "argv", command)
    main()
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == f"wrote {out}: train 7, val 4, test 3; 8 nodules (label 0)"
    assert shown[-1] == "  dvc exp run --set-param dataset=data/out.h5"
    cut(path)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {path}: cannot be read")


def npy(values: NDArray, shape: str | None = None, version: bytes = b"\1\0") -> bytes:
    """Return an array as an .npy member with the given header."""
    descr = np.lib.format.dtype_to_descr(values.dtype)
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape or values.shape}, }}\n"
    length = len(header).to_bytes(2 if version == b"\1\0" else 4, "little")
    return b"\x93NUMPY" + version + length + header.encode() + values.tobytes()


def replace_member(path: Path, name: str, content: bytes, method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {each: archive.read(each) for each in archive.namelist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for each, old in members.items():
            archive.writestr(each, content if each == name else old)


@pytest.mark.parametrize("version", [b"\1\0", b"\2\0", b"\3\0"])
def test_arrays_of_python_2_and_of_each_format_are_read_without_warnings(
    tmp_path: Path, version: bytes, recwarn: pytest.WarningsRecorder
) -> None:
    arrays = medmnist()
    path = save(tmp_path / "set.npz", arrays)
    import_npz(path, tmp_path / "expected.h5")
    images = arrays["val_images"]
    shape = "(4L, 28L, 28L)" if version < b"\3" else "(4, 28, 28)"
    replace_member(path, "val_images.npy", npy(images, shape, version))
    replace_member(path, "val_labels.npy", npy(arrays["val_labels"].astype(">i8")))
    import_npz(path, tmp_path / "out.h5")
    assert (tmp_path / "out.h5").read_bytes() == (tmp_path / "expected.h5").read_bytes()
    assert not recwarn.list


LABELS = np.array([0, 1, 0, 1], np.uint8)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (npy(LABELS, "(400000000000,)"), "found 4 bytes of data, expected 400,000,000,000 for sh"),
        (npy(LABELS, "(-2, -2)"), "found 4 bytes of data, expected 4 for shape (-2, -2)"),
        (npy(LABELS) + b"more", "found 8 bytes of data, expected 4 for shape (4,)"),
        (npy(LABELS, "(4"), "found no NumPy array ("),
        (npy(LABELS, "[" * 5000), "found no NumPy array ("),
        (npy(LABELS, version=b"\7\0"), "found no NumPy array (format version 7.0, expected"),
        (b"\x93NUMPY\2\0\xff\xff\xff\x7f", "found no NumPy array (a header of 2,147,483,647 byt"),
        (npy(LABELS)[:40], "found no NumPy array ("),
    ],
)
def test_a_header_that_does_not_fit_its_member_is_refused(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    path = save(tmp_path / "set.npz", medmnist())
    replace_member(path, "val_labels.npy", content)
    with pytest.raises(PatchFileError) as caught:
        import_npz(path, tmp_path / "out.h5")
    assert str(caught.value).startswith(f"{path}: val_labels: {expected}")


@pytest.mark.parametrize(
    ("method", "size", "expected"),
    [
        (zipfile.ZIP_DEFLATED, 7 * 10**7, r"bytes that expand to 70,000,\d+, expected at most 100"),
        (zipfile.ZIP_LZMA, 7, "that NumPy never uses, expected none or deflate"),
    ],
)
def test_members_of_unbounded_size_are_refused(
    tmp_path: Path, method: int, size: int, expected: str
) -> None:
    path = save(tmp_path / "set.npz", medmnist())
    replace_member(path, "train_labels.npy", npy(np.zeros(size, np.uint8)), method)
    with pytest.raises(PatchFileError, match=f"train_labels: .*{expected}"):
        import_npz(path, tmp_path / "out.h5")


def test_members_of_one_name_or_in_one_place_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "set.npz", medmnist(), compressed=False)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        places = [each.header_offset for each in archive.infolist()[:2]]
    path.write_bytes(
        whole.replace(places[1].to_bytes(4, "little"), places[0].to_bytes(4, "little"))
    )
    with pytest.raises(PatchFileError, match="found bytes that also belong to another member"):
        import_npz(path, tmp_path / "out.h5")
    path.write_bytes(whole)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("val_labels.npy", npy(LABELS))
    with pytest.raises(PatchFileError, match="val_labels: found twice in the archive"):
        import_npz(path, tmp_path / "out.h5")
    path.write_bytes(whole)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("val_labels", npy(LABELS))
    with pytest.raises(PatchFileError, match="val_labels: found twice in the archive"):
        import_npz(path, tmp_path / "out.h5")


def test_pipes_folders_and_devices_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    for path, found in ((tmp_path / "pipe.npz", "a device or a pipe"), (tmp_path, "a folder")):
        with pytest.raises(PatchFileError, match=f"found {found}, expected a NumPy archive"):
            import_npz(path, tmp_path / "out.h5")


def test_images_of_too_many_bytes_are_refused_by_their_bytes(tmp_path: Path) -> None:
    path, shape = tmp_path / "mine.npz", (2, 4000, 4000, 3)
    with pytest.raises(PatchFileError, match="found images of 384,000,000 bytes, expected at most"):
        Stack(path, "train_images", shape, np.dtype(np.float64))
