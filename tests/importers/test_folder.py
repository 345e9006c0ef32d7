"""Import of image folders: PNG, JPEG, TIFF and DICOM files, their grey values and order."""

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

from nodules.__main__ import main
from nodules.commands.next_steps import next_steps
from nodules.errors import FileError, NodulesError
from nodules.importers import folder as folder_module
from nodules.importers import image_rows, path_pattern
from nodules.importers.folder import import_folder
from nodules.importers.image_patches import image_patch
from nodules.importers.resampling import resample
from nodules.importers.window import Window
from nodules.patches.reader import open_patches
from nodules.system.streams import printable
from tests.support.triangle_filter import assert_grey, filtered, grey_levels

Draw = Callable[..., NDArray]


@pytest.fixture
def draw() -> Draw:
    """Return a function that draws random images from size, lowest and highest value."""
    rng = np.random.default_rng(5)

    def draw(size: Any = 50, low: int = 0, high: int = 255, dtype: Any = np.uint8) -> NDArray:
        shape = (size, size) if isinstance(size, int) else size
        return rng.integers(low, high, shape, dtype, endpoint=True)

    return draw


def write(path: Path, image: NDArray | Image.Image, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = image if isinstance(image, Image.Image) else Image.fromarray(image)
    made.save(path, **options)
    return path


def write_dicom(
    path: Path, stored: NDArray, photometric: str = "MONOCHROME2", **attributes: Any
) -> Path:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = Dataset()
    data.file_meta = meta
    data.set_pixel_data(stored, photometric, stored.dtype.itemsize * 8)
    for name, value in attributes.items():
        setattr(data, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def images(tmp_path: Path, draw: Draw) -> Path:
    """Return a folder of four PNG images, two per class."""
    for name in ("nodule/p1_a.png", "nodule/p2_a.png", "non_nodule/p1_b.png", "non_nodule/p3.png"):
        write(tmp_path / "images" / name, draw())
    return tmp_path / "images"


def import_one(
    tmp_path: Path, make: Callable[[Path], Path], window: Window | None = None
) -> NDArray[np.uint8]:
    """Import one image and return its patch."""
    return image_patch(make(tmp_path / "one"), window).patch


@pytest.mark.parametrize("size", [1, 2, 20, 49, 50, 51, 64, 97, 224])
def test_images_are_resampled_by_a_triangle_filter(draw: Draw, size: int) -> None:
    image = draw(size, -1000, 3000, np.int16)
    assert np.allclose(resample(image), filtered(image), rtol=0, atol=1e-2)


def test_resampling_does_not_alias() -> None:
    stripes = np.tile([0.0, 255.0], (200, 100))
    assert np.allclose(resample(stripes)[:, 1:-1], 127.5)


@pytest.mark.parametrize(("height", "width"), [(64, 90), (90, 64), (50, 71)])
def test_an_oblong_image_is_cropped_to_its_centre(draw: Draw, height: int, width: int) -> None:
    image = draw((height, width))
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    if (height + width) % 2:
        # The centre is offset by half a pixel; a linear filter averages both neighbours.
        twice = np.repeat(image, 2, axis=1).astype(float)
        centre = twice[:, width - side : width + side]
        expected = centre.reshape(side, side, 2).mean(axis=2)
        assert np.allclose(resample(image)[:, 1:-1], expected[:, 1:-1], atol=1e-3)
        return
    expected = filtered(image[top : top + side, left : left + side])
    assert np.allclose(resample(image)[2:-2, 2:-2], expected[2:-2, 2:-2], atol=1e-3)


def test_rows_follow_the_paths_and_carry_class_file_and_group(tmp_path: Path, draw: Draw) -> None:
    folder = tmp_path / "images"
    names = ["nodule/p2_a.png", "nodule/deep/er/p1_b.TIFF", "non_nodule/p10.jpg", "nodule/p10.png"]
    for name in names:
        write(folder / name, draw())
    for junk in ("nodule/Thumbs.db", "labels.csv", "nodule/.hidden.png", ".cache/x.png"):
        (folder / junk).parent.mkdir(exist_ok=True)
        (folder / junk).write_bytes(b"no image")
    lines = import_folder(folder, tmp_path / "out.h5", group=r"(p\d+)[^/]*$")
    assert lines == [
        "3 nodules (nodule) and 1 other (non_nodule)",
        "files left out, not images of a class: 2, first labels.csv",
    ]
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["file"].asstr()[:].tolist() == sorted(names)
    with open_patches(tmp_path / "out.h5") as patches:
        assert patches.labels.tolist() == [1, 1, 1, 0]
        assert patches.groups is not None
        assert patches.groups.tolist() == ["p1", "p10", "p2", "p10"]
        for row, name in enumerate(sorted(names)):
            with Image.open(folder / name) as image:
                assert np.array_equal(patches.read(row, row + 1)[0], np.asarray(image)), name


def test_images_are_written_a_block_at_a_time(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_folder(images, tmp_path / "whole.h5", group="(p.)")
    monkeypatch.setattr(image_rows, "BLOCK_IMAGES", 3)
    import_folder(images, tmp_path / "blocks.h5", group="(p.)")
    with h5py.File(tmp_path / "whole.h5") as whole, h5py.File(tmp_path / "blocks.h5") as blocks:
        assert {*whole} == {*blocks} == {"X", "Y", "file", "group"}
        for name in whole:
            assert np.array_equal(whole[name][:], blocks[name][:])


def as_rgb(grey: NDArray) -> NDArray:
    return np.repeat(grey[..., None], 3, axis=2)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("x.png", Image.fromarray),
        ("x.tif", Image.fromarray),
        ("x.png", as_rgb),
        ("x.tiff", as_rgb),
        ("x.png", lambda grey: Image.fromarray(grey).convert("RGBA")),
        ("x.png", lambda grey: Image.fromarray(grey).convert("LA")),
        ("x.png", lambda grey: Image.fromarray(grey).convert("P")),
        ("x.png", lambda grey: Image.fromarray(grey > 127)),
    ],
    ids=["PNG", "TIFF", "RGB", "RGB TIFF", "RGBA", "grey with alpha", "palette", "bilevel"],
)
def test_eight_bit_grey_values_stay_as_they_are(
    tmp_path: Path, draw: Draw, name: str, form: Callable
) -> None:
    grey = draw()
    image = form(grey)
    expected = np.where(grey > 127, 255, 0) if getattr(image, "mode", "") == "1" else grey
    patch = import_one(tmp_path, lambda folder: write(folder / name, image))
    assert np.array_equal(patch, expected)


def write_jpeg(image: NDArray, folder: Path) -> Path:
    return write(folder / "x.jpg", image, quality=95)


def test_a_jpeg_is_grey_whether_it_holds_one_channel_or_three(tmp_path: Path) -> None:
    grey = np.add.outer(np.arange(50), np.arange(50)).astype(np.uint8)
    for image in (grey, as_rgb(grey)):
        patch = import_one(tmp_path, partial(write_jpeg, image))
        assert np.abs(patch.astype(int) - grey).max() <= 3


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_sixteen_bits_keep_their_full_range_and_a_line_says_so(
    tmp_path: Path, draw: Draw, name: str
) -> None:
    stored = draw(80, 12, 4095, np.uint16)
    stored[0, 0], stored[1, 1] = 12, 4095
    patch = import_one(tmp_path, lambda folder: write(folder / name, stored))
    assert_grey(patch, filtered(stored), 0, 65535)
    write(tmp_path / "images/0/other.png", np.zeros((50, 50), np.uint8))
    write(tmp_path / "images/1" / name, stored)
    lines = import_folder(tmp_path / "images", tmp_path / "out.h5")
    assert lines[1:] == [
        "16-bit images: 1, values 12..4095; 0..65535 became grey 0..255 (--window "
        "sets another range)"
    ]


@pytest.mark.parametrize(
    ("name", "low", "high", "dtype"),
    [
        ("x.png", 0, 65535, np.uint16),
        ("x.tif", 0, 65535, np.uint16),
        ("x.tif", -2000, 3000, np.int32),
        ("x.tif", -2000, 3000, np.float32),
        ("x.png", 0, 255, np.uint8),
    ],
)
def test_a_window_holds_for_every_type(
    tmp_path: Path, draw: Draw, name: str, low: int, high: int, dtype: type
) -> None:
    stored: NDArray = draw(50, low, high, np.int64).astype(dtype)
    window = Window(low + (high - low) * 0.25, low + (high - low) * 0.5)
    patch = import_one(tmp_path, lambda folder: write(folder / name, stored), window=window)
    assert_grey(patch, stored, window.low, window.high)


def test_a_tiff_in_which_zero_is_white_is_inverted(tmp_path: Path, draw: Draw) -> None:
    stored = draw(50, 0, 65535, np.uint16)
    patch = import_one(tmp_path, lambda folder: write(folder / "x.tif", stored, tiffinfo={262: 0}))
    assert np.array_equal(patch, 255 - grey_levels(stored, 0, 65535))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("name", "dtype", "slope", "intercept", "window"),
    [
        ("x.dcm", np.uint16, 1, -1024, None),
        ("IM0001", np.int16, 0.5, -100.25, None),
        ("1.2.840.113619", np.uint16, 2.5, -3000, Window(-160, 240)),
        ("x.DCM", np.int16, None, None, Window(-1400, 200)),
    ],
)
def test_dicom_is_rescaled_windowed_and_inverted(
    tmp_path: Path,
    draw: Draw,
    name: str,
    photometric: str,
    dtype: type,
    slope: float | None,
    intercept: float | None,
    window: Window | None,
) -> None:
    stored = draw(64, 0 if dtype is np.uint16 else -2000, 2500, dtype)
    rescale = {} if slope is None else {"RescaleSlope": slope, "RescaleIntercept": intercept}
    patch = import_one(
        tmp_path,
        lambda folder: write_dicom(folder / name, stored, photometric, **rescale, Modality="CT"),
        window=window,
    )
    hu = filtered(stored.astype(float) * (slope or 1) + (intercept or 0))
    low, high = (-1000, 400) if window is None else (window.low, window.high)
    assert_grey(255 - patch if photometric == "MONOCHROME1" else patch, hu, low, high)


def test_other_modalities_need_a_window(tmp_path: Path, draw: Draw) -> None:
    stored = draw(50, 0, 4095, np.uint16)
    stored[0, :2] = 0, 4095

    def make(folder: Path) -> Path:
        return write_dicom(folder / "x.dcm", stored, Modality="DX")

    with pytest.raises(FileError, match=r"x\.dcm: found DICOM of modality DX, 0\.\.4095; exp"):
        import_one(tmp_path, make)
    assert_grey(import_one(tmp_path, make, window=Window(0, 4095)), stored, 0, 4095)


@pytest.mark.parametrize(
    ("nodule", "other"),
    [
        ("nodule", "non_nodule"),
        ("Nodules", "non-nodules"),
        ("1", "0"),
        ("positive", "negative"),
        ("malignant", "benign"),
        ("TRUE", "false"),
    ],
)
def test_class_folder_names_identify_the_nodules(
    tmp_path: Path, draw: Draw, nodule: str, other: str
) -> None:
    write(tmp_path / "images" / nodule / "x.png", draw())
    write(tmp_path / "images" / other / "x.png", draw())
    import_folder(tmp_path / "images", tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        labels = dict(zip(file["file"].asstr()[:], file["Y"][:].tolist(), strict=True))
    assert labels == {f"{nodule}/x.png": 1, f"{other}/x.png": 0}


def test_an_option_overrides_the_class_folder_names(images: Path, tmp_path: Path) -> None:
    lines = import_folder(images, tmp_path / "out.h5", nodule="non_nodule")
    assert lines == ["2 nodules (non_nodule) and 2 others (nodule)"]
    with open_patches(tmp_path / "out.h5") as patches:
        assert patches.labels.tolist() == [0, 0, 1, 1]


def rename(old: str, new: str) -> Callable[[Path], object]:
    return lambda folder: (folder / old).rename(folder / new)


def into_splits(folder: Path) -> None:
    rename("nodule", "train")(folder)
    rename("non_nodule", "val")(folder)


def emptied(folder: Path) -> None:
    for path in (folder / "nodule").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "options", "error", "parts"),
    [
        (rename("nodule", "../gone"), {}, FileError, ["found 1 sub-folders (non_nodule)", "two"]),
        (lambda d: (d / "else").mkdir(), {}, FileError, ["found 3 sub-folders (else, nodule, no"]),
        (
            rename("non_nodule", "vessel"),
            {},
            FileError,
            ["(nodule, vessel)", "expected --nodule nodule or --nodule vessel"],
        ),
        (rename("nodule", "2"), {"nodule": "1"}, FileError, ["(2, non_nodule) and --nodule 1"]),
        (into_splits, {}, FileError, ["(train, val)", "import each split alone", "import legacy"]),
        (emptied, {}, FileError, ["images/nodule: found no image"]),
        (rename("", "../moved"), {}, FileError, ["images: no such folder"]),
        (str, {"group": "^(p1)"}, FileError, ["p2_a.png: found no match of '^(p1)'"]),
        (str, {"group": "^p(x?)"}, FileError, ["p1_a.png: found no match"]),
        (str, {"group": "p1"}, NodulesError, ["--group: 'p1' has no group"]),
        (str, {"group": "(p1"}, NodulesError, ["--group: '(p1' is not a regular expression"]),
        (str, {"group": "(" * 5000 + ")" * 5000}, NodulesError, ["...' is not a regular"]),
        (str, {"group": "(a{9999999999999999999})"}, NodulesError, ["is not a regular expression"]),
    ],
)
def test_a_folder_of_another_layout_is_one_line_and_leaves_nothing(
    images: Path,
    tmp_path: Path,
    spoil: Callable[[Path], object],
    options: dict[str, Any],
    error: type[NodulesError],
    parts: list[str],
) -> None:
    spoil(images)
    with pytest.raises(error) as caught:
        import_folder(images, tmp_path / "made/out.h5", **options)
    sentence = printable(caught.value)  # as every command prints it
    for part in parts:
        assert part in sentence
    assert not (tmp_path / "made").exists()


COLOUR = np.random.default_rng(0).integers(0, 256, (50, 50, 4), np.uint8)


def truncated(path: Path) -> None:
    write(path, COLOUR[..., 0])
    os.truncate(path, path.stat().st_size // 2)


def truncated_dicom(path: Path) -> None:
    write_dicom(path, COLOUR[..., 0])
    os.truncate(path, path.stat().st_size - 100)


def without_pixels(path: Path) -> None:
    write_dicom(path, COLOUR[..., 0])
    from pydicom import dcmread

    data = dcmread(path)
    del data.PixelData
    data.save_as(path)


def colour_dicom(path: Path) -> None:
    write_dicom(path, COLOUR[..., :3], "RGB", PlanarConfiguration=0)


def frames(path: Path) -> None:
    pages = [Image.fromarray(COLOUR[..., i]) for i in range(3)]
    write(path, pages[0], save_all=True, append_images=pages[1:])


def with_nan(path: Path) -> None:
    write(path, np.full((50, 50), np.nan, np.float32))


@pytest.mark.parametrize(
    ("name", "make", "expected"),
    [
        ("x.png", lambda path: path.write_bytes(b""), "not a readable PNG, JPEG or TIFF image"),
        ("x.jpg", lambda path: path.write_text("no image"), "not a readable PNG, JPEG or TIFF"),
        ("x.png", truncated, "not a readable PNG, JPEG or TIFF image ("),
        ("x.jpg", truncated, "not a readable PNG, JPEG or TIFF image ("),
        ("x.tif", truncated, "not a readable PNG, JPEG or TIFF image ("),
        ("x.tif", frames, "found 3 frames, expected one"),
        ("x.png", lambda path: write(path, COLOUR[..., :3]), "found colour, expected grey values"),
        ("x.png", lambda path: write(path, COLOUR), "found transparent pixels"),
        ("x.jpg", lambda path: write(path, Image.new("CMYK", (50, 50))), "found CMYK"),
        ("x.tif", lambda path: write(path, COLOUR[..., 0] / np.float32(2)), "found floats, 0.."),
        ("x.tif", with_nan, "found NaN or infinity"),
        ("x.dcm", lambda path: path.write_text("no image"), "found no DICOM header"),
        ("x.dcm", truncated_dicom, "found 2,400 bytes of pixels, expected 2,500"),
        ("x.dcm", without_pixels, "found no PixelData, expected an image"),
        ("x.dcm", colour_dicom, "found RGB, expected MONOCHROME1 or MONOCHROME2"),
        (
            "x.dcm",
            lambda path: write_dicom(path, np.zeros((3, 50, 50), np.uint8), NumberOfFrames=3),
            "found 3 frames, expected one",
        ),
    ],
)
def test_a_broken_image_is_one_line_that_names_it(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    name: str,
    make: Callable[[Path], object],
    expected: str,
) -> None:
    broken = tmp_path / name
    make(broken)
    with pytest.raises(FileError) as caught:
        image_patch(broken, None)
    assert str(caught.value).startswith(f"{broken}: {expected}")
    assert "\n" not in str(caught.value)
    # Decoders may also print warnings.
    assert capfd.readouterr().err == ""


def test_a_broken_image_leaves_nothing_behind(
    images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    truncated(images / "non_nodule/x.png")
    with pytest.raises(FileError, match=r"x\.png: not a readable PNG, JPEG or TIFF"):
        import_folder(images, tmp_path / "made/out.h5")
    assert not list(tmp_path.glob("made/*"))
    shown = capfd.readouterr().err.splitlines()
    assert [line for line in shown if line and not line.startswith("import:")] == []


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda d: os.mkfifo(d / "x.png"), "x.png: found a device or a pipe, expected a file"),
        (lambda d: (d / "x.dcm").symlink_to("/dev/zero"), "x.dcm: found a device or a pipe"),
        (lambda d: (d / "x.png").symlink_to("gone.png"), "x.png: cannot be read (no such file"),
        (lambda d: (d / "x").symlink_to("gone"), "x: cannot be read (no such file"),
        (lambda d: (d / "up").symlink_to(".."), "up: found a link to a parent folder"),
        (lambda d: (d / "a\x1b[31m\n.png").write_text(""), r"a\x1b[31m\n.png: not a readable PNG"),
        (
            lambda d: Path(os.fsdecode(os.fsencode(d) + b"/M\xfcller_1.png")).touch(),
            r"M\xfcller_1.png: found a name that is not UTF-8, expected UTF-8 (convmv",
        ),
    ],
)
def test_what_is_no_file_or_has_no_name_is_one_line(
    images: Path, tmp_path: Path, spoil: Callable[[Path], object], problem: str
) -> None:
    spoil(images / "nodule")
    with pytest.raises(FileError) as caught:
        import_folder(images, tmp_path / "made/out.h5")
    assert f"nodule/{problem}" in printable(caught.value)  # as every command prints it
    assert not list(tmp_path.glob("made/*"))


def test_pipes_and_odd_names_that_are_no_images_are_left_out_and_links_out_are_named(
    images: Path, tmp_path: Path, draw: Draw
) -> None:
    os.mkfifo(images / "nodule/pipe")
    Path(os.fsdecode(os.fsencode(images) + b"/M\xfcller.txt")).touch()
    write(tmp_path / "elsewhere/z.png", draw())
    (images / "nodule/linked").symlink_to(tmp_path / "elsewhere")
    lines = import_folder(images, tmp_path / "out.h5")
    assert lines == [
        "3 nodules (nodule) and 2 others (non_nodule)",
        f"images outside {images}, by links: 1, first nodule/linked/z.png is "
        f"{tmp_path}/elsewhere/z.png",
        r"files left out, not images of a class: 2, first M\xfcller.txt",
    ]


def test_a_folder_that_cannot_be_read_is_one_line(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(place: Path) -> Any:
        if place.name == "nodule":
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(FileError, match=r"images/nodule: cannot be read \(permission denied\)"):
        import_folder(images, tmp_path / "out.h5")


def test_an_image_that_vanishes_is_one_line(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def vanish(*arguments: Any) -> None:
        (images / "nodule/p1_a.png").unlink()

    monkeypatch.setattr(folder_module, "check_output", vanish)
    with pytest.raises(FileError, match=r"p1_a\.png: cannot be read \(no such file or directory"):
        import_folder(images, tmp_path / "out.h5")


def test_a_pattern_that_backtracks_for_ever_is_one_line(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path_pattern, "SECONDS", 0.1)
    rename("nodule/p1_a.png", f"nodule/{'a' * 40}.png")(images)
    with pytest.raises(NodulesError, match=r"'\^\(\(a\+\)\+\)\+\$' takes more than 0\.1 s of proc"):
        import_folder(images, tmp_path / "out.h5", group="^((a+)+)+$")


@pytest.mark.parametrize("name", ["p1\r_x.png", "p1\x1b[31m_x.png", " p1_x.png", "p1\u2028_x.png"])
def test_a_group_that_cannot_be_printed_is_refused(images: Path, tmp_path: Path, name: str) -> None:
    rename("nodule/p1_a.png", f"nodule/{name}")(images)
    with pytest.raises(FileError, match="expected a printable name without leading"):
        import_folder(images, tmp_path / "out.h5", group="^([^_.]+)")


def test_dicom_of_stored_values_among_rescaled_ones_is_named(
    images: Path, tmp_path: Path, draw: Draw
) -> None:
    stored = draw(50, 0, 2000, np.uint16)
    write_dicom(images / "nodule/x.dcm", stored, Modality="CT")
    write_dicom(images / "nodule/y.dcm", stored, RescaleSlope=1, RescaleIntercept=-1024)
    lines = import_folder(images, tmp_path / "out.h5", window=Window(-1000, 400))
    assert lines[1:] == [
        "DICOM images without slope and intercept: 1; --window was applied to their stored values, "
        "and to the rescaled values of the other 1"
    ]


def test_an_image_is_never_overwritten(images: Path) -> None:
    image = images / "nodule/p1_a.png"
    before = image.read_bytes()
    with pytest.raises(FileError, match="found the same file as input"):
        import_folder(images, image)
    with pytest.raises(FileError, match="found a folder"):
        import_folder(images, images)
    assert image.read_bytes() == before


def test_a_window_upside_down_is_refused() -> None:
    with pytest.raises(NodulesError, match="window: found 400 to -1000, expected LOW below HIGH"):
        Window(400, -1000)


def test_the_command_says_what_to_do_next(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out.h5"
    options = ["--nodule", "nodule", "--group", "^([^_.]+)", "--window", "0", "100"]
    command = ["nodules", "import", "folder", str(images), "--out", str(out), *options]
    monkeypatch.setattr(sys, "argv", command)
    main()
    assert capsys.readouterr().out.splitlines() == [
        f"wrote {out}: 2 nodules (nodule) and 2 others (non_nodule)",
        "groups (scans or patients): 3 of 1 to 2 patches",
        *next_steps(out, labelled=True),
    ]
    with open_patches(out) as patches, Image.open(images / "nodule/p1_a.png") as image:
        assert_grey(patches.read(0, 1)[0], np.asarray(image), 0, 100)
        assert patches.groups is not None
        assert patches.groups.tolist() == ["p1", "p2", "p1", "p3"]
    monkeypatch.setattr(sys, "argv", [*command, "--nodule", "vessel"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    shown = capsys.readouterr().err.splitlines()[-1]
    assert shown.startswith(f"error: {images}: found 2 sub-folders (nodule, non_nodule) and --nod")


def stored_groups(path: Path) -> dict[str, str]:
    with h5py.File(path) as file:
        names, groups = file["file"].asstr()[:].tolist(), file["group"].asstr()[:].tolist()
    return dict(zip(names, groups, strict=True))


@pytest.fixture
def cohort(tmp_path: Path, draw: Draw) -> Path:
    """Return a folder of two patients, each with a folder per class."""
    for name in ("P1/nodule/a.png", "P1/non_nodule/a.png", "P2/nodule/x/b.png", "P2/masks/a.png"):
        write(tmp_path / "cohort" / name, draw())
    return tmp_path / "cohort"


def test_class_folders_may_lie_below_those_of_patients(cohort: Path, tmp_path: Path) -> None:
    lines = import_folder(cohort, tmp_path / "out.h5", group_from_folder=True)
    assert lines == [
        "2 nodules (nodule) and 1 other (non_nodule)",
        "files left out, not images of a class: 1, first P2/masks/a.png",
    ]
    expected = {"P1/nodule/a.png": "P1", "P1/non_nodule/a.png": "P1", "P2/nodule/x/b.png": "P2"}
    assert stored_groups(tmp_path / "out.h5") == expected


def test_a_pattern_sees_the_path_without_the_class_folder(cohort: Path, tmp_path: Path) -> None:
    import_folder(cohort, tmp_path / "out.h5", group="^(P[0-9]/(x/)?[ab])")
    groups = stored_groups(tmp_path / "out.h5")
    assert [*groups.values()] == ["P1/a", "P1/a", "P2/x/b"]


@pytest.mark.parametrize(
    ("names", "nodule", "expected"),
    [
        (["nodule/1/a", "non_nodule/0/a"], None, [1, 0]),
        (["0/nodule/a", "1/non_nodule/a"], None, [1, 0]),
        (["0/nodule/a", "1/nodule/a", "2/non_nodule/a"], None, [1, 1, 0]),
        (["p/vessel/a", "q/tumour/a"], "tumour", [0, 1]),
        (["1/0/a", "0/1/a"], None, [1, 0]),
        (["nodule/positive/a", "normal/negative/a"], "nodule", [1, 0]),
    ],
)
def test_named_classes_are_told_from_numbered_patients(
    tmp_path: Path, draw: Draw, names: list[str], nodule: str | None, expected: list[int]
) -> None:
    for name in names:
        write(tmp_path / f"images/{name}.png", draw())
    import_folder(tmp_path / "images", tmp_path / "out.h5", nodule=nodule)
    with h5py.File(tmp_path / "out.h5") as file:
        labels = dict(zip(file["file"].asstr()[:], file["Y"][:].tolist(), strict=True))
    assert [labels[f"{name}.png"] for name in names] == expected


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["nodule/positive/a", "normal/negative/a"], "at several depths ("),
        (["0/a", "1/a", "2/a"], "found 3 sub-folders (0, 1, 2), expected two, one per class, or -"),
        (["p/0/a", "p/1/a", "p/2/a"], "found 1 sub-folders (p), expected two, one per class, or -"),
        (["train/nodule/a", "val/non_nodule/a"], "import each split alone"),
        (["a"], "found 0 sub-folders, expected two, one per class, or --unlabelled for images wi"),
        ([f"p{i:02}/a" for i in range(12)], "p08, p09, ...), expected two"),
        (["p/nodule/a", "p/normal/.a"], "images/*/normal: found no image"),
    ],
)
def test_folders_without_two_clear_classes_are_refused(
    tmp_path: Path, draw: Draw, names: list[str], problem: str
) -> None:
    for name in names:
        write(tmp_path / f"images/{name}.png", draw())
    with pytest.raises(FileError) as caught:
        import_folder(tmp_path / "images", tmp_path / "out.h5")
    assert problem in str(caught.value)


def test_an_image_without_a_patient_folder_is_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"p1_a\.png: found no folder besides that of a class"):
        import_folder(images, tmp_path / "out.h5", group_from_folder=True)
    assert not (tmp_path / "out.h5").exists()


def test_images_are_imported_without_labels(tmp_path: Path, draw: Draw) -> None:
    names = ["a.png", "p1/c.png", "p1/nodule/b.png", "p2/d.png"]
    for name in names:
        write(tmp_path / "images" / name, draw())
    (tmp_path / "images/Thumbs.db").write_bytes(b"no image")
    lines = import_folder(tmp_path / "images", tmp_path / "out.h5", unlabelled=True)
    assert lines == ["4 images without labels", "files left out, not images: 1, first Thumbs.db"]
    with h5py.File(tmp_path / "out.h5") as file:
        assert {*file} == {"X", "file"}
        assert file["file"].asstr()[:].tolist() == names


def test_dicom_files_without_an_image_are_left_out(
    images: Path, tmp_path: Path, draw: Draw
) -> None:
    write_dicom(images / "nodule/DICOM", draw(), RescaleSlope=1, RescaleIntercept=0, Modality="CT")
    for name, sop_class in (
        ("DICOMDIR", "1.2.840.10008.1.3.10"),  # Media Storage Directory
        ("nodule/report.dcm", "1.2.840.10008.5.1.4.1.1.88.33"),  # Comprehensive SR
        ("nodule/PR0001", "1.2.840.10008.5.1.4.1.1.11.1"),  # Grayscale Presentation State
    ):
        write_dicom(images / name, draw())
        data = dcmread(images / name)
        data.file_meta.MediaStorageSOPClassUID = UID(sop_class)
        for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated"):
            delattr(data, keyword)
        data.save_as(images / name)
    lines = import_folder(images, tmp_path / "out.h5")
    assert lines == [
        "3 nodules (nodule) and 2 others (non_nodule)",
        "files left out, DICOM without an image: 2, first nodule/PR0001",
        "files left out, not images of a class: 1, first DICOMDIR",
    ]


@pytest.mark.parametrize("length", [200, 400, 700])
def test_a_truncated_dicom_image_is_not_left_out(
    images: Path, tmp_path: Path, draw: Draw, length: int
) -> None:
    scan = images / "nodule/scan.dcm"
    write_dicom(scan, draw(), RescaleSlope=1, RescaleIntercept=0, Modality="CT")
    scan.write_bytes(scan.read_bytes()[:length])
    with pytest.raises(FileError, match=r"scan\.dcm: "):
        import_folder(images, tmp_path / "out.h5")


def test_the_command_warns_of_missing_groups(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["nodules", "import", "folder", str(images), "--out", str(tmp_path / "out.h5")]
    monkeypatch.setattr(sys, "argv", command)
    main()
    assert capsys.readouterr().err.splitlines()[-1] == (
        "warning: no groups: patches of one patient may end up in different splits; --group or "
        "--group-from names the patient of each image"
    )
    monkeypatch.setattr(sys, "argv", [*command, "--unlabelled"])
    main()
    captured = capsys.readouterr()
    assert "warning" not in captured.err
    assert captured.out.splitlines()[-1].startswith("  nodules predict models/model.keras ")
