"""Import of HDF5 files with patches of other sizes."""

import os
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from nodules.__main__ import main
from nodules.commands.next_steps import next_steps
from nodules.errors import FileError, PatchFileError
from nodules.importers import stack
from nodules.importers.hdf5 import import_hdf5
from nodules.importers.window import Window
from nodules.patches.reader import open_patches
from tests.support.triangle_filter import assert_grey, filtered

RNG = np.random.default_rng(3)
SQUARE = RNG.integers(0, 256, (6, 64, 64), np.uint8)
COLUMNS: dict[str, Any] = {
    "Y": np.eye(2)[[0, 1, 0, 1, 1, 0]],
    "group": ["a", "a", "b", "b", "c", "c"],
    "split": ["train", "train", "val", "val", "test", "test"],
}


@pytest.mark.parametrize(
    ("stored", "low", "high", "window"),
    [
        (SQUARE, 0, 255, None),
        (SQUARE[..., None], 0, 255, None),
        (SQUARE / np.float32(255), 0, 1, None),
        (SQUARE[:, :28, :28] / 255, 0, 1, None),
        (SQUARE.astype(np.int16) * 8 - 1000, -1000, 400, Window(-1000, 400)),
        (SQUARE * 7.5 - 900, -160, 240, Window(-160, 240)),
    ],
    ids=["uint8", "one channel", "float32", "float64, smaller", "int16 HU", "float HU"],
)
def test_patches_are_resampled_and_their_columns_carried_over(
    patch_file,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stored: np.ndarray,
    low: float,
    high: float,
    window: Window | None,
) -> None:
    monkeypatch.setattr(stack, "BLOCK_BYTES", 4 * stored[0].nbytes)  # blocks of four, then two
    path = patch_file(X=stored, **COLUMNS)
    lines = import_hdf5(path, tmp_path / "out.h5", window=window)
    size = stored.shape[1]
    assert lines == [f"6 patches from {size}x{size} pixels"]
    with open_patches(tmp_path / "out.h5") as patches:
        for patch, image in zip(patches.read(0, 6), stored.reshape(6, size, size), strict=True):
            assert_grey(patch, filtered(image), low, high)
        assert patches.labels.tolist() == [0, 1, 0, 1, 1, 0]
        assert patches.groups is not None
        assert patches.groups.tolist() == COLUMNS["group"]
        assert patches.split is not None
        assert patches.split.tolist() == COLUMNS["split"]


def test_patches_of_the_right_size_stay_as_they_are(
    patch_file, random_patches, tmp_path: Path
) -> None:
    patches = random_patches(5)
    for stored in (patches, (patches[..., None] / 255).astype(np.float32)):
        path = patch_file(X=stored, Y=[0, 1, 0, 1, 0], group=[1, 1, 2, 3, 3])
        assert import_hdf5(path, tmp_path / "out.h5") == ["5 patches from 50x50 pixels"]
        with open_patches(tmp_path / "out.h5") as written:
            assert np.array_equal(written.read(0, 5), patches)
            assert written.groups is not None
            assert written.groups.tolist() == [1, 1, 2, 3, 3]
            assert written.split is None


def test_cropping_and_dropped_columns_are_reported(patch_file, tmp_path: Path) -> None:
    path = patch_file(X=SQUARE[:, :, 8:58], Y=COLUMNS["Y"], diameter_mm=np.arange(6))
    assert import_hdf5(path, tmp_path / "out.h5") == [
        "6 patches from 64x50 pixels",
        "X holds images of 64x50 pixels: only the central 50x50 are used",
        "left out: diameter_mm",
    ]
    with open_patches(tmp_path / "out.h5") as patches:
        assert np.array_equal(patches.read(0, 6), SQUARE[:, 7:57, 8:58])


def test_names_that_are_not_utf8_are_left_out_like_others(patch_file, tmp_path: Path) -> None:
    path = patch_file(X=SQUARE, Y=COLUMNS["Y"])
    with h5py.File(path, "r+") as file:
        file["notes"] = 1
        file.id.links.move(b"notes", file.id, b"M\xfcller")
    assert import_hdf5(path, tmp_path / "out.h5")[-1] == "left out: M\udcfcller"


TORN = ["train", "val", "val", "val", "test", "test"]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"X": None}, "X: found Y, group, split; expected a data set of this name"),
        ({"X": np.zeros((6, 4096), np.uint8)}, "X: found shape (6, 4096), expected (N, height, w"),
        ({"X": np.zeros((6, 64, 64, 3), np.uint8)}, "X: found shape (6, 64, 64, 3), expected (N,"),
        ({"X": np.zeros((0, 64, 64), np.uint8)}, "X: found shape (0, 64, 64), expected at least"),
        ({"X": np.zeros((6, 64, 64), np.int16)}, "X: found int16, expected uint8 in 0..255 or fl"),
        ({"X": SQUARE.astype(float)}, "X: row 0: found "),
        ({"Y": [0, 1, 0, 1, 2, 0]}, "Y: row 4: found 2, expected 0 or 1"),
        ({"Y": [0, 1]}, "Y: found shape (2,), expected (6,) or (6, 2) to match X"),
        ({"group": np.zeros(6)}, "group: found float64, expected integers or strings"),
        ({"split": ["train"] * 5 + ["tset"]}, "split: row 5: found 'tset', expected one of train"),
        ({"split": TORN}, "group: row 1: found a in train and val, expected one split per group"),
    ],
)
def test_what_a_patch_file_may_not_hold_is_refused_here_too(
    patch_file, tmp_path: Path, changed: dict[str, Any], expected: str
) -> None:
    path = patch_file(**({"X": SQUARE} | COLUMNS | changed))
    with pytest.raises(PatchFileError) as caught:
        import_hdf5(path, tmp_path / "made/out.h5")
    assert str(caught.value).startswith(f"{path}: {expected}")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("made/*"))


@pytest.mark.parametrize("number", [np.inf, 1e300, -1e300])
def test_a_window_rejects_numbers_that_resampling_cannot_handle(
    patch_file, tmp_path: Path, number: float
) -> None:
    stored = SQUARE.astype(float)
    stored[3, 5, 5] = number
    path = patch_file(X=stored)
    with pytest.raises(PatchFileError, match=r"X: row 3: found .*, expected numbers up to 1e\+30"):
        import_hdf5(path, tmp_path / "out.h5", window=Window(0, 255))


def test_a_file_that_is_no_hdf5_is_one_line(tmp_path: Path, patch_file) -> None:
    with pytest.raises(PatchFileError, match="no such file"):
        import_hdf5(tmp_path / "none.h5", tmp_path / "out.h5")
    path = patch_file(X=SQUARE, **COLUMNS)
    os.truncate(path, 1000)
    with pytest.raises(PatchFileError, match="not a readable HDF5 file") as caught:
        import_hdf5(path, tmp_path / "out.h5")
    assert "\n" not in str(caught.value)
    with pytest.raises(FileError, match="found the same file as input"):
        import_hdf5(path, path)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["nodules", *map(str, arguments)])
    main()


def test_the_error_for_another_size_names_the_command_that_fixes_it(
    patch_file,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, out = patch_file(X=SQUARE, **COLUMNS), tmp_path / "out.h5"
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, "inspect", path)
    assert stop.value.code == 1
    assert capsys.readouterr().err == (
        f"error: {path}: X: found shape (6, 64, 64), expected (N, 50, 50) or (N, 50, 50, 1) "
        "(nodules import hdf5 resizes)\n"
    )
    run(monkeypatch, "import", "hdf5", path, "--out", out)
    assert capsys.readouterr().out.splitlines() == [
        f"wrote {out}: 6 patches from 64x64 pixels",
        "groups (scans or patients): 3 of 2 patches each",
        *next_steps(out, labelled=True),
    ]
    run(monkeypatch, "inspect", out)
    assert "train 2, val 2, test 2" in capsys.readouterr().out


def test_patches_to_score_need_no_labels(
    patch_file,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, out = patch_file(X=SQUARE * 4.0 - 900, group=COLUMNS["group"]), tmp_path / "out.h5"
    run(monkeypatch, "import", "hdf5", path, "--window", -1000, 400, "--out", out)
    assert capsys.readouterr().out.splitlines()[1:] == [
        "groups (scans or patients): 3 of 2 patches each",
        "next:",
        f"  nodules predict models/model.keras {out} --out scores.csv",
    ]
    with open_patches(out, labelled=False) as patches:
        assert patches.known_labels is None
        assert_grey(patches.read(5, 6)[0], filtered(SQUARE[5] * 4.0 - 900), -1000, 400)
        assert patches.groups is not None
        assert patches.groups.tolist() == COLUMNS["group"]
    with h5py.File(out) as file:
        assert {*file} == {"X", "group"}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
