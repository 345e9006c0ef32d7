"""Sample formats of PNG, JPEG and TIFF, and decompression bombs."""

import io
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from nodules.errors import FileError
from nodules.importers.image_patches import image_patch, image_patches
from nodules.importers.images import MAX_FILE_BYTES, read_image
from nodules.importers.window import Window
from nodules.system.limited_process import call_each_limited
from tests.support.image_files import DEFLATE, UNCOMPRESSED, WHITE_IS_ZERO, chunk, png, tiff
from tests.support.image_readers import read_badly
from tests.support.triangle_filter import grey_levels

INTEGERS = ("u1", "i1", "u2", "i2", "u4", "i4")


def ramp(dtype: str) -> NDArray:
    """Return (50, 50) values over the full range of a type, from darkest to brightest."""
    kind = np.dtype(dtype)
    low, high = (-2000, 3000) if kind.kind == "f" else (np.iinfo(kind).min, np.iinfo(kind).max)
    return np.linspace(low, high, 2500).astype(kind).reshape(50, 50)


@pytest.mark.parametrize("dtype", [*INTEGERS, "f4"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [UNCOMPRESSED, DEFLATE])
@pytest.mark.parametrize("photometric", [1, WHITE_IS_ZERO])
def test_a_tiff_is_read_as_it_says_or_refused(
    tmp_path: Path, dtype: str, order: Literal["<", ">"], compression: int, photometric: int
) -> None:
    stored, path = ramp(dtype), tmp_path / "x.tif"
    path.write_bytes(tiff(stored, order=order, compression=compression, photometric=photometric))
    low, high = float(stored.min()), float(stored.max())
    kind = np.dtype(dtype)
    inverted = photometric == WHITE_IS_ZERO
    pillow_reads = kind != "u4" or order == "<"
    if inverted:
        pillow_reads = dtype in ("u1", "f4") or (dtype, order) == ("u2", "<")
    if not pillow_reads:
        with pytest.raises(FileError, match=r"\(Pillow cannot read a .* TIFF of .* integers of"):
            read_image(path)
        return
    patch = image_patch(path, Window(low, high)).patch
    grey = grey_levels(stored.astype(np.float32), low, high)
    assert np.abs(patch - (255.0 - grey if inverted else grey)).max() <= 1


def test_a_window_is_of_stored_values_whatever_their_size(tmp_path: Path) -> None:
    patches = []
    for dtype in ("u1", "u2"):
        path = tmp_path / f"{dtype}.tif"
        path.write_bytes(tiff(ramp("u1").astype(dtype), photometric=WHITE_IS_ZERO))
        patches.append(image_patch(path, Window(0, 200)).patch)
    assert np.array_equal(patches[0], patches[1])
    assert patches[0].min() == 0  # stored values of 200 or more are black


@pytest.mark.parametrize("dtype", ["i1", "u4", "i2", "f4"])
def test_samples_without_a_range_of_their_own_need_a_window(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "x.tif"
    path.write_bytes(tiff(ramp(dtype)))
    with pytest.raises(FileError, match=r"x\.tif: found .*; expected --window LOW HIGH"):
        image_patch(path, None)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({273: ("I", [8])}, "StripOffsets: found 1 strips, expected 3"),
        ({279: ("I", [10, 10, 10])}, "found 30 bytes of pixels, expected 2,500"),
        ({278: ("I", [0])}, "found strips of no rows"),
        ({259: ("H", [34925])}, "found a TIFF compressed by LZMA"),
        ({256: ("I", [60000]), 257: ("I", [60000])}, "found more pixels than 33,554,432"),
        ({256: ("I", [10000]), 257: ("I", [5000])}, "found 10,000 x 5,000 pixels, expected at"),
    ],
)
def test_a_tiff_that_lacks_pixels_is_refused(tmp_path: Path, tags: Any, expected: str) -> None:
    path = tmp_path / "x.tif"
    path.write_bytes(tiff(ramp("u1"), tags=tags))
    with pytest.raises(FileError) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: {expected}")


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_pixels_that_contradict_their_checksum_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    Image.fromarray(ramp("u1")).save(path, compression="tiff_adobe_deflate")
    read_image(path)
    whole = path.read_bytes()
    start = whole.index(b"\x78")  # start of the zlib stream
    inflater = zlib.decompressobj()
    inflater.decompress(whole[start:])
    for place in range(start, len(whole) - len(inflater.unused_data)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        with pytest.raises(FileError):
            read_image(path)


def test_libraries_print_nothing_about_a_damaged_image(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.tif"
    Image.fromarray(ramp("u1")).save(path, compression="tiff_lzw")
    whole = path.read_bytes()
    path.write_bytes(
        whole[:8] + bytes([255]) * 50 + whole[58:]
    )  # libtiff prints more messages about these
    with pytest.raises(FileError, match="not a readable PNG, JPEG or TIFF image"):
        list(image_patches([path], None))
    assert capfd.readouterr() == ("", "")


def test_large_tiles_of_a_small_tiff_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    tags = {322: ("I", [60000]), 323: ("I", [60000]), 324: ("I", [8]), 325: ("I", [2500])}
    made = tiff(ramp("u1"), compression=DEFLATE, tags=tags)
    # Strips are removed, since they would be read instead.
    path.write_bytes(made.replace(b"\x11\x01\x04\0", b"\xf1\xff\x04\0", 1))
    with pytest.raises(FileError, match=r"x\.tif: found tiles of 60,000 x 60,000"):
        read_image(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.tif"])
def test_orientation_holds_for_every_format(tmp_path: Path, name: str, orientation: int) -> None:
    stored = np.zeros((40, 60), np.uint8)
    stored[:20, :30] = 255
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.T,
        6: np.rot90(stored, -1),
        7: np.rot90(stored, 2).T,
        8: np.rot90(stored),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / name, exif=exif, quality=100)
    assert np.abs(read_image(tmp_path / name).values.astype(int) - upright).max() <= 10


def scan_lines(values: NDArray) -> bytes:
    return b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in values)


@pytest.mark.parametrize(("dtype", "bits"), [("u1", 8), ("u2", 16)])
def test_a_grey_value_that_means_transparent_is_refused(
    tmp_path: Path, dtype: str, bits: int
) -> None:
    path, stored = tmp_path / "x.png", ramp(dtype)
    for value, refused in ((int(stored[3, 3]), True), (1, False)):
        stored[stored == 1] = 0
        transparent = chunk(b"tRNS", value.to_bytes(2, "big"))
        path.write_bytes(png(scan_lines(stored), 50, 50, bits=bits, chunks=transparent))
        if refused:
            with pytest.raises(FileError, match="found transparent pixels"):
                read_image(path)
        else:
            assert np.array_equal(read_image(path).values, stored)


BOMB = zlib.compress(bytes(100_000_000), 9)


@pytest.mark.parametrize(
    ("width", "height", "chunks", "expected"),
    [
        (13000, 13000, b"", "found 13,000 x 13,000 pixels, expected at most 33,554,432 in all"),
        (20000, 20000, b"", "found more pixels than 33,554,432"),
        (50, 50, chunk(b"zTXt", b"a\0\0" + BOMB), "not a readable PNG"),
        (50, 50, chunk(b"iTXt", b"a\0\1\0\0\0" + BOMB), "not a readable PNG"),
        (50, 50, chunk(b"iCCP", b"a\0\0" + BOMB), "not a readable PNG"),
    ],
    ids=["169 megapixels", "400 megapixels", "zTXt", "iTXt", "iCCP"],
)
def test_a_png_of_gigabytes_is_refused_before_decompression(
    tmp_path: Path, width: int, height: int, chunks: bytes, expected: str
) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png(bytes(51 * 50), width, height, chunks=chunks))
    with pytest.raises(FileError) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: {expected}")


def test_a_file_larger_than_any_image_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(FileError, match=r"found 160,000,001 bytes, expected at most 160,000,000"):
        read_image(path)


def test_a_jpeg_of_many_scans_is_refused_undecoded(tmp_path: Path) -> None:
    made = io.BytesIO()
    Image.fromarray(ramp("u1")).save(made, "JPEG", progressive=True)
    jpeg = made.getvalue()
    last = jpeg.rindex(b"\xff\xda")
    path = tmp_path / "x.jpg"
    path.write_bytes(jpeg)
    read_image(path)
    path.write_bytes(jpeg[:last] + jpeg[last:-2] * 500 + jpeg[-2:])
    with pytest.raises(FileError, match=r"x\.jpg: found 5\d\d scans in a JPEG, expected at most"):
        read_image(path)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("endless.png", "cannot be read: damaged, and the library that reads it crashes or nev"),
        ("greedy.png", "cannot be read: it takes more than 500 MB of memory"),
        ("crash.png", "cannot be read: damaged, and the library that reads it crashes or never"),
    ],
)
def test_a_decoder_that_fails_for_good_is_one_line_that_names_the_image(
    tmp_path: Path, name: str, problem: str
) -> None:
    results = call_each_limited(
        read_badly,
        [tmp_path / "noisy.png", tmp_path / name, tmp_path / "never read.png"],
        seconds=1,
        memory=500_000_000,
        failure=FileError,
    )
    assert next(results) == b"noisy.png"
    with pytest.raises(FileError) as caught:
        next(results)
    assert str(caught.value).startswith(f"{tmp_path / name}: {problem}")
