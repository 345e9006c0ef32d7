"""DICOM files with damaged bytes, values, lengths and types: rejected or read correctly.

Accepted files are compared with an independent computation from the damaged file: NumPy reads the
stored values from the bytes, pydicom parses slope and intercept. Compressed files are compared only
if their pixels are intact.
"""

import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import FileDataset, config, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)
from pydicom.valuerep import STANDARD_VR

from nodules.errors import FileError
from nodules.importers.images import read_image

MAX_SECONDS = 10

ROWS, COLUMNS = 24, 20
IMAGE_GROUPS = (0x0028, 0x5200, 0x7FE0)  # tags that affect the values, and the class and modality
DECIDING = {0x00080016, 0x00080060, 0x00020010}


@dataclass(frozen=True)
class Sample:
    """A valid file, its values and the positions of its elements.

    Attributes
    ----------
    content
        Content of the file.
    values
        Expected result of `read_image`, (ROWS, COLUMNS).
    stored
        Stored values, before slope and intercept.
    elements
        Tag, value offset and value length of each top-level element.
    """

    content: bytes
    values: NDArray[np.floating]
    stored: NDArray[np.integer]
    elements: list[tuple[int, int, int]]


def prepare(folder: Path) -> Callable[[np.random.Generator], str]:
    """Write valid files and return the attempt."""
    samples = [_sample(folder / f"valid{n}.dcm", *kind) for n, kind in enumerate(_KINDS)]
    path = folder / "fuzzed.dcm"

    def attempt(rng: np.random.Generator) -> str:
        sample = samples[rng.integers(len(samples))]
        content, harmless = _MUTATIONS[rng.integers(len(_MUTATIONS))](sample, rng)
        path.write_bytes(content)
        try:
            image = read_image(path)
        except FileError as error:
            sentence = str(error)
            assert sentence.startswith(f"{path}: "), sentence
            assert sentence.isprintable(), sentence
            assert len(sentence) < 600, sentence
            assert not harmless, sentence
            return "refused"
        assert np.isfinite(image.values).all()
        if harmless:
            assert np.array_equal(image.values, sample.values)
            return "harmless"
        expected = _expected(content, sample)
        if expected is None:
            return "accepted"
        assert image.values.shape == expected.shape, (image.values.shape, expected.shape)
        assert np.array_equal(image.values, expected)
        return "equal"

    return attempt


_KINDS = (
    (ExplicitVRLittleEndian, "u2", 16, "MONOCHROME2"),
    (ImplicitVRLittleEndian, "i2", 16, "MONOCHROME2"),
    (ExplicitVRLittleEndian, "i2", 12, "MONOCHROME1"),
    (ExplicitVRBigEndian, "u2", 12, "MONOCHROME2"),
    (ImplicitVRLittleEndian, "u1", 8, "MONOCHROME1"),
    (DeflatedExplicitVRLittleEndian, "u2", 16, "MONOCHROME2"),
    (RLELossless, "u2", 16, "MONOCHROME2"),
    (JPEG2000Lossless, "u2", 16, "MONOCHROME2"),
    (ExplicitVRLittleEndian, "u2", 16, "enhanced"),
    (ImplicitVRLittleEndian, "i2", 16, "enhanced"),
)


def _sample(path: Path, syntax: UID, dtype: str, bits: int, kind: str) -> Sample:
    rng = np.random.default_rng(bits)
    signed = dtype.startswith("i")
    low = -(2 ** (bits - 1)) if signed else 0
    stored = rng.integers(low, low + 2**bits, (ROWS, COLUMNS))
    enhanced = kind == "enhanced"
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = (
        ExplicitVRLittleEndian if syntax == RLELossless else syntax  # compressed below
    )
    data.SOPClassUID = EnhancedCTImageStorage if enhanced else CTImageStorage
    data.SOPInstanceUID = "1.2.3"
    data.StudyDate = "20260101"
    data.Modality = "CT"
    data.PatientName = "Name^Of^Nobody"
    data.PatientID = "1234567890"
    data.StudyDescription = "A description of some length"
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2" if enhanced else kind
    data.Rows, data.Columns = ROWS, COLUMNS
    data.BitsAllocated = 8 * np.dtype(dtype).itemsize
    data.BitsStored, data.HighBit = bits, bits - 1
    data.PixelRepresentation = int(signed)
    rescale = Dataset()
    rescale.RescaleIntercept, rescale.RescaleSlope = "-1024", "0.5"
    if enhanced:
        data.NumberOfFrames = 1
        rescale.RescaleType = "HU"
        group = Dataset()
        group.PixelValueTransformationSequence = [rescale]
        data.SharedFunctionalGroupsSequence = [group]
        data.PerFrameFunctionalGroupsSequence = [Dataset()]
    else:
        data.update(rescale)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    pixels = stored.astype(f"{order}{dtype}")
    data.PixelData = pixels.tobytes()
    data["PixelData"].VR = "OB" if dtype.endswith("1") else "OW"
    if syntax == RLELossless:
        data.compress(RLELossless)
    elif syntax == JPEG2000Lossless:
        data.PixelData = encapsulate([_codestream(pixels)])
        data["PixelData"].VR = "OB"
    data.save_as(path, enforce_file_format=True)
    elements = [
        (int(element.tag), element.value_tell, element.length)
        for element in [*dcmread(path).file_meta.elements(), *dcmread(path).elements()]
        if isinstance(element, RawDataElement) and element.length != 0xFFFFFFFF
    ]
    if syntax == DeflatedExplicitVRLittleEndian:  # offsets refer to the inflated data
        elements = [element for element in elements if element[0] >> 16 == 2]
    values = stored * 0.5 - 1024
    assert np.array_equal(read_image(path).values, values)
    return Sample(path.read_bytes(), values, stored, elements)


def _codestream(pixels: NDArray) -> bytes:
    from PIL import Image

    boxes = BytesIO()
    Image.fromarray(pixels).save(boxes, "JPEG2000")
    return boxes.getvalue()[boxes.getvalue().index(b"\xff\x4f\xff\x51") :]


def _flip_bytes(sample: Sample, rng: np.random.Generator) -> tuple[bytes, bool]:
    content = bytearray(sample.content)
    for _ in range(rng.integers(1, 9)):
        # Mostly in the header, where changes matter more.
        end = len(content) if rng.random() < 0.2 else min(len(content), 1200)
        content[rng.integers(128, end)] = rng.integers(256)
    return bytes(content), False


def _cut_or_grow(sample: Sample, rng: np.random.Generator) -> tuple[bytes, bool]:
    content, place = sample.content, int(rng.integers(len(sample.content)))
    piece = rng.bytes(int(rng.integers(1, 40)))
    ways = (
        content[:place],
        content[:place] + content[place + len(piece) :],
        content[:place] + piece + content[place:],
        content + piece,
    )
    return ways[rng.integers(len(ways))], False


def _change_value(sample: Sample, rng: np.random.Generator) -> tuple[bytes, bool]:
    tag, place, length = sample.elements[rng.integers(len(sample.elements))]
    content = bytearray(sample.content)
    letters = rng.choice([rng.bytes(length), bytes(rng.choice(_LETTERS, length))])
    content[place : place + length] = bytes(letters).ljust(length, b"\0")[:length]
    # Another length, VR or text in these does not affect the image.
    return bytes(content), tag >> 16 not in (*IMAGE_GROUPS, 2) and tag not in DECIDING


_LETTERS = np.frombuffer(b"0123456789.-+eE \\\0\nnaif", np.uint8)


def _change_length_or_type(sample: Sample, rng: np.random.Generator) -> tuple[bytes, bool]:
    _, place, length = sample.elements[rng.integers(len(sample.elements))]
    content = bytearray(sample.content)
    # The length is in the 2 or 4 bytes before the value, preceded by the VR, if any.
    number = int(rng.choice([0, 1, length + 1, 2 * length, 0xFFFE, 0xFFFF, 2**31, 2**32 - 1]))
    if rng.random() < 0.5:
        content[place - 4 : place - 2] = rng.choice(_TYPES)
    elif rng.random() < 0.5:
        content[place - 2 : place] = struct.pack("<H", number & 0xFFFF)
    else:
        content[place - 4 : place] = struct.pack("<I", number)
    return bytes(content), False


_TYPES = [str(vr).encode() for vr in (*STANDARD_VR, "ZZ")]


def _change_rescale(sample: Sample, rng: np.random.Generator) -> tuple[bytes, bool]:
    slope = rng.choice(
        [b"0.5 ", b"2   ", b"-1.5", b"1e3 ", b"0   ", b"    ", b"nan ", b"inf ", b"1\\2 "]
    )
    content = sample.content.replace(b"0.5 ", bytes(slope))
    intercept = rng.choice([b"-1024 ", b"0     ", b"      ", b"1e300 ", b"12.25 "])
    return content.replace(b"-1024 ", bytes(intercept)), False


def _drop_or_repeat(sample: Sample, rng: np.random.Generator) -> tuple[bytes, bool]:
    number = int(rng.integers(len(sample.elements) - 1))
    _, start, length = sample.elements[number]
    end, (_, other, _) = start + length, sample.elements[number + 1]
    # A whole element lies between the ends of two consecutive elements.
    after = other + sample.elements[number + 1][2]
    piece = sample.content[end:after]
    times = int(rng.choice([0, 2, 5]))
    return sample.content[:end] + piece * times + sample.content[after:], False


_MUTATIONS = (
    _flip_bytes,
    _cut_or_grow,
    _change_value,
    _change_length_or_type,
    _change_rescale,
    _drop_or_repeat,
)


def _expected(content: bytes, sample: Sample) -> NDArray[np.floating] | None:
    """Return the values encoded in a damaged file; None if unknown."""
    validation = config.settings.reading_validation_mode
    config.settings.reading_validation_mode = config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = dcmread(BytesIO(content))
            stored = _stored(data, sample)
            if stored is None or data.get("ModalityLUTSequence"):
                return None
            return _rescaled(data, stored)
    finally:
        config.settings.reading_validation_mode = validation


def _stored(data: FileDataset, sample: Sample) -> NDArray[np.integer] | None:
    if data.file_meta.TransferSyntaxUID.is_encapsulated:
        original = dcmread(BytesIO(sample.content))
        same = all(
            data.get(tag) == original.get(tag)
            for tag in (*range(0x00280002, 0x00280104), 0x7FE00010, 0x7FE00001)
        )
        return sample.stored if same else None
    if "PixelData" not in data or data.BitsAllocated not in (8, 16, 32):
        return None
    order = "<" if data.file_meta.TransferSyntaxUID.is_little_endian else ">"
    letter = "i" if data.PixelRepresentation else "u"
    dtype = np.dtype(f"{order}{letter}{data.BitsAllocated // 8}")
    count = data.Rows * data.Columns
    stored = np.frombuffer(data.PixelData, dtype, count).reshape(data.Rows, data.Columns)
    stored = stored.astype(np.int64) & (2**data.BitsStored - 1)
    if data.PixelRepresentation:
        stored = np.where(stored >= 2 ** (data.BitsStored - 1), stored - 2**data.BitsStored, stored)
    return stored


def _rescaled(data: Dataset, stored: NDArray[np.integer]) -> NDArray[np.floating]:
    places = [data]
    for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in data.get(keyword) or ():
            places.extend(group.get("PixelValueTransformationSequence") or ())
    for place in places:
        slope, intercept = place.get("RescaleSlope"), place.get("RescaleIntercept")
        if slope not in (None, "") and intercept not in (None, ""):
            return stored * float(slope) + float(intercept)
    return stored.astype(np.float64)
