"""DICOM: detection of Hounsfield units, rejected files, and resource limits."""

import io
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    LegacyConvertedEnhancedCTImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from nodules.errors import FileError
from nodules.importers import dicom
from nodules.importers.image_patches import image_patch
from nodules.importers.images import read_image
from nodules.importers.window import HOUNSFIELD, Window
from tests.fuzz import dicom as fuzz
from tests.support.image_files import ct
from tests.support.triangle_filter import grey_levels

STORED = np.linspace(24, 1424, 2500).astype(np.uint16).reshape(50, 50)  # -1000..400 HU
GREY = grey_levels(STORED.astype(float) - 1024, -1000, 400)


def test_another_compression_is_named(tmp_path: Path) -> None:
    data = ct(STORED)
    data.file_meta.TransferSyntaxUID = JPEGLSLossless
    data.PixelData = encapsulate([b"\xff\xd8\xff\xf7"])
    with pytest.raises(FileError, match=r"not readable JPEG-LS Lossless .*, expected JPEG, JPEG 2"):
        read_image(save(tmp_path, data))


def save(folder: Path, data: Dataset) -> Path:
    path = folder / "x.dcm"
    data.save_as(path, enforce_file_format=True)
    return path


def groups(shared: bool, **rescale: str) -> dict[str, Any]:
    transformation, group = Dataset(), Dataset()
    for name, value in rescale.items():
        setattr(transformation, name, value)
    group.PixelValueTransformationSequence = [transformation]
    return {
        "NumberOfFrames": 1,
        "RescaleSlope": None,
        "RescaleIntercept": None,
        "SharedFunctionalGroupsSequence": [group if shared else Dataset()],
        "PerFrameFunctionalGroupsSequence": [Dataset() if shared else group],
    }


HU = {"RescaleSlope": "1", "RescaleIntercept": "-1024", "RescaleType": "HU"}


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"RescaleType": "HU"},
        {"SOPClassUID": EnhancedCTImageStorage, **groups(True, **HU)},
        {"SOPClassUID": EnhancedCTImageStorage, **groups(False, **HU)},
        {"SOPClassUID": LegacyConvertedEnhancedCTImageStorage, **groups(True, **HU)},
    ],
    ids=["top level", "with a type", "shared", "per frame", "legacy converted"],
)
def test_hounsfield_units_are_found_wherever_ct_keeps_them(
    tmp_path: Path, attributes: dict[str, Any]
) -> None:
    path = save(tmp_path, ct(STORED, **attributes))
    assert read_image(path).window == HOUNSFIELD
    assert np.array_equal(image_patch(path, None).patch, GREY)


@pytest.mark.parametrize(
    ("attributes", "found"),
    [
        ({"RescaleSlope": None, "RescaleIntercept": None}, "CT without RescaleSlope and Rescale"),
        ({"RescaleSlope": None}, "CT without RescaleSlope, 24..1424"),
        ({"RescaleSlope": ""}, "CT without RescaleSlope, 24..1424"),
        ({"RescaleIntercept": ""}, "CT without RescaleIntercept, 24..1424"),
        (groups(True), "CT without RescaleSlope and RescaleIntercept"),
        ({"SOPClassUID": SecondaryCaptureImageStorage}, "CT of class Secondary Capture Image"),
        ({"RescaleType": "US"}, "CT of RescaleType US, -1000..400"),
        ({"RescaleType": "HU_MOD"}, "CT of RescaleType HU_MOD"),
        ({"Modality": ""}, "no modality, -1000..400"),
        ({"Modality": None}, "no modality"),
        ({"Modality": "MR"}, "modality MR"),
        ({"Modality": "C?\x1b[31m"}, r"modality C?\x1b[31m"),
    ],
)
def test_values_other_than_hounsfield_units_need_a_window(
    tmp_path: Path, attributes: dict[str, Any], found: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the escape code
        path = save(tmp_path, ct(STORED, **attributes))
    with pytest.raises(FileError) as caught:
        image_patch(path, None)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path}: found DICOM of ")
    assert found in sentence
    assert "; expected --window LOW HIGH, the values that become grey 0 and 255" in sentence
    assert sentence.isprintable()
    values = read_image(path).values
    window = Window(float(values.min()), float(values.max()))
    assert np.array_equal(
        image_patch(path, window).patch, grey_levels(values, window.low, window.high)
    )


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"RescaleSlope": "0"}, "RescaleSlope: found 0, expected a nonzero number"),
        ({"RescaleSlope": ["1", "2"]}, "RescaleSlope: found 2 numbers, expected one"),
        ({"RescaleSlope": "1e300"}, "found 2.4e+301..1.424e+303, expected numbers up to 1e+30"),
        ({"NumberOfFrames": 2}, "found 2 frames, expected one"),
        ({"Rows": 25}, "found 5,000 bytes of pixels, expected 2,500 for 25 x 50 of 16 bits"),
        ({"Rows": 100}, "found 5,000 bytes of pixels, expected 10,000 for 100 x 50 of 16 bits"),
        ({"Rows": 0}, "found 50 x 0 pixels, expected at least one"),
        ({"Rows": 65535, "Columns": 65535}, "found 65,535 x 65,535 pixels, expected at most"),
        ({"Rows": None}, "Rows: found none, expected a whole number"),
        ({"BitsStored": 8, "HighBit": 7}, "found stored values 24..1424, expected 0..255 of Bits"),
        ({"BitsStored": 12}, "HighBit: found 15, expected 11 for 12 bits"),
        ({"BitsStored": 17, "HighBit": 16}, "BitsStored: found 17, expected 1 to 16"),
        ({"SamplesPerPixel": 3}, "SamplesPerPixel: found 3, expected 1 of MONOCHROME2"),
        ({"PhotometricInterpretation": "RGB"}, "found RGB, expected MONOCHROME1 or MONOCHROME2"),
        (
            {**groups(True, **HU), "RescaleSlope": "2", "RescaleIntercept": "0"},
            "found 2 different rescales, expected one",
        ),
    ],
)
def test_a_header_that_contradicts_itself_or_its_pixels_is_refused(
    tmp_path: Path, attributes: dict[str, Any], expected: str
) -> None:
    path = save(tmp_path, ct(STORED, **attributes))
    with pytest.raises(FileError) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: {expected}")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("unused", ["sign", "zero"])
def test_negative_values_of_12_bits_are_read_whatever_the_unused_bits_hold(
    tmp_path: Path, unused: str
) -> None:
    signed = (STORED.astype(np.int16) - 1424).astype(np.int16)
    stored = signed if unused == "sign" else signed & np.int16(0xFFF)
    data = ct(stored, BitsStored=12, HighBit=11, RescaleIntercept="0")
    assert np.array_equal(read_image(save(tmp_path, data)).values, signed)


@pytest.mark.parametrize(
    ("photometric", "padding", "black"),
    [("MONOCHROME2", 63536, -1000), ("MONOCHROME2", 0, -1000), ("MONOCHROME1", 0, 400)],
)
def test_padding_is_black_whatever_its_value(
    tmp_path: Path, photometric: str, padding: int, black: int
) -> None:
    stored = STORED.copy()
    stored[:, :20] = padding
    data = ct(stored, PhotometricInterpretation=photometric, PixelPaddingValue=padding)
    patch = image_patch(save(tmp_path, data), None).patch
    assert (patch[:, :20] == 0).all()
    expected = 255 - GREY if photometric == "MONOCHROME1" else GREY
    assert np.array_equal(patch[:, 20:], expected[:, 20:])


def jpeg(pixels: NDArray) -> bytes:
    made = io.BytesIO()
    Image.fromarray(pixels).save(made, "JPEG", quality=100)
    return made.getvalue()


def j2k(pixels: NDArray) -> bytes:
    made = io.BytesIO()
    Image.fromarray(pixels).save(made, "JPEG2000")
    return made.getvalue()[made.getvalue().index(b"\xff\x4f\xff\x51") :]


def deflated() -> Dataset:
    return ct(STORED, DeflatedExplicitVRLittleEndian)


def run_length_encoded() -> Dataset:
    data = ct(STORED)
    data.compress(RLELossless)
    return data


def jpeg_2000() -> Dataset:
    return ct(STORED, JPEG2000Lossless, encapsulate([j2k(STORED)]))


@pytest.mark.parametrize("make", [deflated, run_length_encoded, jpeg_2000])
def test_compressed_pixels_are_read_whole_or_refused(
    tmp_path: Path, make: Callable[[], Dataset]
) -> None:
    data = make()
    assert np.array_equal(read_image(save(tmp_path, data)).values, STORED - 1024.0)
    # The same number of bytes, but another shape: half of the image, or the image cut into strips.
    for rows, columns in ((25, 50), (25, 100)):
        data.Rows, data.Columns = rows, columns
        if (make, columns) == (run_length_encoded, 100) or (make, columns) == (deflated, 100):
            continue  # not detectable from the file
        with pytest.raises(FileError):
            read_image(save(tmp_path, data))


def test_a_jpeg_inside_of_dicom_is_bounded_before_it_is_decoded(tmp_path: Path) -> None:
    pixels = encapsulate([jpeg(np.zeros((3000, 4000), np.uint8))])
    path = save(tmp_path, ct(STORED.astype(np.uint8), JPEGBaseline8Bit, pixels))
    with pytest.raises(FileError, match="found compressed pixels of 4000 x 3000, expected Colu"):
        read_image(path)


def test_deflated_data_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom, "MAX_FILE_BYTES", 1_000_000)
    path = save(tmp_path, ct(STORED, DeflatedExplicitVRLittleEndian, bytes(1_100_000)))
    assert path.stat().st_size < 3000
    with pytest.raises(FileError, match="found deflated data that expands to more than 1,000,000"):
        read_image(path)
    monkeypatch.undo()
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FileError, match="found deflated data that is truncated"):
        read_image(path)


@pytest.mark.parametrize("depth", [3, 5000])
def test_nested_sequences_are_read_or_refused(tmp_path: Path, depth: int) -> None:
    path = save(tmp_path, ct(STORED))
    made = path.read_bytes()
    start = made.index(struct.pack("<HH", 0x0028, 0x0002))
    opening = struct.pack(
        "<HH2sHIHHI", 0x40, 0xA730, b"SQ", 0, 2**32 - 1, 0xFFFE, 0xE000, 2**32 - 1
    )
    closing = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    path.write_bytes(made[:start] + opening * depth + closing * depth + made[start:])
    if depth == 3:
        assert np.array_equal(read_image(path).values, STORED - 1024.0)
    else:
        with pytest.raises(FileError, match="not a readable DICOM image"):
            read_image(path)


def test_lengths_of_gigabytes_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path, ct(STORED))
    made = path.read_bytes()
    start = made.index(struct.pack("<HH", 0x0028, 0x0002))
    element = struct.pack("<HH2sHI", 0x0021, 0x1001, b"OB", 0, 4_000_000_000)
    path.write_bytes(made[:start] + element + made[start:])
    with pytest.raises(FileError):
        read_image(path)


def test_damaged_dicom_is_refused_or_read_correctly(tmp_path: Path) -> None:
    attempt = fuzz.prepare(tmp_path)
    ends = {attempt(np.random.default_rng([0, number])) for number in range(100)}
    assert {"refused", "equal"} <= ends
