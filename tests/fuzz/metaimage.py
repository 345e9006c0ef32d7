"""Damaged and malicious MetaImage scans: rejected, or imported as SimpleITK reads them.

Accepted scans must be complete and unambiguous; SimpleITK reads such files correctly. Files with
known voxels lie outside the scan's folder as decoys for mutated headers. Their voxels must never be
returned.
"""

import gzip
import io
import os
import re
import shutil
import warnings
import zlib
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import SimpleITK
from numpy.random import Generator
from numpy.typing import NDArray

from nodules.errors import NodulesError
from nodules.importers.luna16.importer import Luna16, import_luna16
from nodules.importers.luna16.scans import Crop, read_scan
from nodules.importers.metaimage import MetaImage, read_slices
from nodules.importers.window import HOUNSFIELD, Window
from nodules.patches.reader import open_patches

MAX_SECONDS = 20

SHAPE = (4, 12, 10)  # z, y, x
SLICE = SHAPE[1] * SHAPE[2] * 2
DECOY = b"\xde\x0c" * (np.prod(SHAPE).item() * 4)
WINDOWS = (None, Window(-1000, 400), Window(0, 4000))
TAGS = (
    b"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
    b"CompressedData = %s\n%sTransformMatrix = 0.8 0.6 0 -0.6 0.8 0 0 0 1\n"
    b"Offset = -103.7 88.2 -301.5\nCenterOfRotation = 0 0 0\nAnatomicalOrientation = RAI\n"
    b"ElementSpacing = 0.8 0.65 2.5\nDimSize = 10 12 4\nElementType = MET_SHORT\n"
    b"ElementDataFile = %s\n"
)
KEYS = (
    *("ObjectType", "NDims", "BinaryData", "BinaryDataByteOrderMSB", "ElementByteOrderMSB"),
    *("CompressedData", "CompressedDataSize", "TransformMatrix", "Rotation", "Orientation"),
    *("Offset", "Position", "Origin", "ImagePosition", "ElementSpacing", "ElementSize", "DimSize"),
    *("ElementType", "ElementDataFile", "HeaderSize", "ElementNumberOfChannels", "Modality"),
    *("ElementToIntensityFunctionSlope", "DistanceUnits", "ElementNBits", "Comment"),
)
VOXEL_KEYS = "|".join(set(KEYS[1:]) - {"NDims", "ElementNBits", "Comment", "Modality"}).encode()
VALUES = (
    *("", "0", "1", "-1", "2", "3", "4", "1e308", "-1e-320", "nan", "inf", "99999999999999999999"),
    *("True", "False", "t", "Image", "MET_MOD_MR", "MET_MOD_CT", "mm", "um", "%", "%n", "%s%s%s"),
    *("MET_UCHAR", "MET_CHAR", "MET_USHORT", "MET_INT", "MET_FLOAT", "MET_DOUBLE", "MET_SHORT"),
    *("MET_LONG", "MET_LONG_LONG", "MET_SHORT_ARRAY", "LOCAL", "LIST", "LIST 2", "LIST 3"),
    *("10 12 4", "10 12 2", "10 12 8", "12 10 4", "4 12 10", "20 12 4", "5 12 4", "1 1 480"),
    *("1 1 1", "0 0 0", "-1 1 1", "0.8 0.65 2.5", "1 0 0 0 1 0 0 0 1", "0 0 1 1 0 0 0 1 0"),
    *("1000000000 1000000000 1000000000", "65536 65536 1", "30000 30000 1", "2147483647 2 1"),
    *("../decoy.raw", "./scan.raw", "{up}/decoy.raw", "link", "pipe", "scan.mhd", "scan.raw", "."),
    *("s%d.raw", "s%03d.raw 1 4 1", "../%d.raw", "s%d.raw 1 999999999 1", "s%d.raw 4 1 1"),
    *("LIST\n../1.raw\n../2.raw\n../3.raw\n../4.raw", "LIST\ns1.raw\ns2.raw\ns3.raw\ns4.raw"),
)


def prepare(folder: Path) -> Callable[[Generator], str]:
    """Write the decoys and return the attempt."""
    (folder / "decoy.raw").write_bytes(DECOY)
    for number in range(1, 5):
        (folder / f"{number}.raw").write_bytes(DECOY[:SLICE])
    scan = folder / "scan"

    def attempt(rng: Generator) -> str:
        shutil.rmtree(scan, ignore_errors=True)
        scan.mkdir()
        _write(scan, rng)
        _damage(scan, rng)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a warning would be a second line on stderr
            return _import(scan, rng)

    return attempt


def _write(scan: Path, rng: Generator) -> None:
    """Write a valid scan in one of the supported formats."""
    voxels = rng.integers(-1600, 700, SHAPE).astype("<i2")
    # Such regular data remains valid when the size is mutated.
    data = voxels.tobytes() if rng.random() < 0.7 else b"\x11\xfc" * voxels.size
    packed = (zlib.compress, gzip.compress)[rng.integers(2)](data)
    size = b"CompressedDataSize = %d\n" % len(packed)
    slices = [data[i : i + SLICE] for i in range(0, len(data), SLICE)]
    way = rng.choice(["raw", "zraw", "sized", "local", "local z", "list", "pattern", "pattern z"])
    for number, part in enumerate(slices, start=1):
        if way in ("list", "pattern", "pattern z"):
            part = zlib.compress(part) if way == "pattern z" else part
            (scan / f"s{number}.raw").write_bytes(part)
    names = b"".join(b"s%d.raw\n" % number for number in range(1, 5))
    header, voxel_file = {
        "raw": (TAGS % (b"False", b"", b"scan.raw"), data),
        "zraw": (TAGS % (b"True", b"", b"scan.raw"), packed),
        "sized": (TAGS % (b"True", size, b"scan.raw"), packed),
        "local": (TAGS % (b"False", b"", b"LOCAL") + data, b""),
        "local z": (TAGS % (b"True", size, b"LOCAL") + packed, b""),
        "list": (TAGS % (b"False", b"", b"LIST") + names, b""),
        "pattern": (TAGS % (b"False", b"", b"s%d.raw 1 4 1"), b""),
        "pattern z": (TAGS % (b"True", b"", b"s%d.raw"), b""),
    }[str(way)]
    (scan / "scan.mhd").write_bytes(header)
    if voxel_file:
        (scan / "scan.raw").write_bytes(voxel_file)


def _damage(scan: Path, rng: Generator) -> None:
    header = scan / "scan.mhd"
    others = sorted(path for path in scan.iterdir() if path != header)
    for _ in range(rng.integers(0, 4)):
        if others and rng.random() < 0.3:
            path = others[rng.integers(len(others))]
            path.write_bytes(_damaged(path.read_bytes(), rng))
        elif rng.random() < 0.2:
            header.write_bytes(_damaged(header.read_bytes(), rng))
        else:
            header.write_bytes(_changed(header.read_bytes(), scan, rng))
    if rng.random() < 0.1:
        os.mkfifo(scan / "pipe")
        if others and rng.random() < 0.5:
            others[0].unlink()
            os.mkfifo(others[0])


def _damaged(data: bytes, rng: Generator) -> bytes:
    place, length = int(rng.integers(len(data) + 1)), int(rng.integers(1, 200))
    noise = rng.bytes(length)
    return [
        lambda: data[:place],
        lambda: data[place:],
        lambda: data[:place] + noise[:1] + data[place + 1 :],
        lambda: data[:place] + noise + data[place + length :],
        lambda: data[:place] + data[place + length :],
        lambda: data[:place] + noise + data[place:],
        lambda: data + noise,
        lambda: data + data,
        lambda: b"",
    ][rng.integers(9)]()


def _changed(data: bytes, scan: Path, rng: Generator) -> bytes:
    """Change, remove, repeat, move or add a line of a header."""
    lines = data.split(b"\n")
    last = next((n for n, line in enumerate(lines) if line.startswith(b"ElementData")), 0)
    place = int(rng.integers(last + 1))
    value = str(rng.choice(VALUES)).replace("{up}", str(scan.parent)).encode()
    key = lines[place].split(b"=")[0].strip() if rng.random() < 0.7 else rng.choice(KEYS).encode()
    line = key + rng.choice([b" = ", b"=", b": ", b" "], p=[0.85, 0.05, 0.05, 0.05]) + value
    change = rng.integers(6)
    if change < 3:
        lines[place] = line
    elif change == 3:
        lines.insert(place, line)
    elif change == 4:
        del lines[place]
    else:
        lines.insert(int(rng.integers(last + 1)), lines[place])
    return b"\n".join(lines)


def _import(scan: Path, rng: Generator) -> str:
    window = WINDOWS[rng.integers(len(WINDOWS))]
    crop = Crop(size_mm=None if rng.random() < 0.8 else 20.0, window=window)
    path = scan / "scan.mhd"
    try:
        header, _ = read_scan(path, crop)
        voxels, _ = read_slices(header, np.arange(header.size[2]))
    except NodulesError as error:
        _expect_one_line(error)
        return "refused"
    assert voxels.nbytes <= 100 * sum(file.stat().st_size for file in scan.iterdir())
    assert DECOY[:100] not in voxels.astype(header.dtype).tobytes()
    image = _read_with_simpleitk(scan, header)
    expected = SimpleITK.GetArrayFromImage(image)
    assert expected.dtype == voxels.dtype
    assert np.array_equal(voxels, expected, equal_nan=voxels.dtype.kind == "f")
    return _import_patches(scan, image, expected, crop, rng)


def _read_with_simpleitk(scan: Path, header: MetaImage) -> SimpleITK.Image:
    """Read an accepted scan through a copy of its header that MetaIO can parse.

    MetaIO requires NDims first, seeks the start of a compressed stream only if CompressedDataSize
    is given, and aborts on unreadable numbers in irrelevant keys.
    """
    data = (scan / "scan.mhd").read_bytes()
    start = re.search(rb"ElementDataFile *[=:][^\n]*\n?", data)
    assert start is not None
    lines = re.findall(rb"(?m)^\s*(?:%s)\s*[=:].*" % VOXEL_KEYS, data[: start.start()])
    if header.compressed and header.compressed_size is None and header.start:
        stored = (scan / header.files[0]).stat().st_size - header.start
        lines.insert(0, b"CompressedDataSize = %d" % stored)
    if header.files == ("scan.mhd",):  # the copy has another length
        lines = [line for line in lines if not line.lstrip().startswith(b"HeaderSize")]
    copy = scan / "copy.mhd"
    copy.write_bytes(b"\n".join([b"NDims = 3", *lines, data[start.start() :]]))
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("MetaImageIO")
    reader.SetFileName(str(copy))
    image = reader.Execute()
    copy.unlink()
    return image


def _import_patches(
    scan: Path, image: SimpleITK.Image, voxels: NDArray, crop: Crop, rng: Generator
) -> str:
    centres = np.unique(rng.integers(0, voxels.shape[::-1], (3, 3)), axis=0)
    table = scan.parent / "candidates.csv"
    rows = [image.TransformIndexToPhysicalPoint(centre.tolist()) for centre in centres]
    lines = [f"scan,{x!r},{y!r},{z!r},1" for x, y, z in rows]
    table.write_text("\n".join(["seriesuid,coordX,coordY,coordZ,class", *lines]))
    out = scan.parent / "out.h5"
    try:
        with redirect_stderr(io.StringIO()):  # the progress bar
            import_luna16(Luna16([scan], table), out, crop=crop, jobs=1)
    except NodulesError as error:
        _expect_one_line(error)
        return "patches refused"
    window = HOUNSFIELD if crop.window is None else crop.window
    padded = np.pad(voxels.astype(float), ((0, 0), (25, 25), (25, 25)), constant_values=window.low)
    if crop.size_mm is not None:
        return "accepted"
    with open_patches(out) as patches:
        found = patches.read(0, len(patches))
    if len(found) < len(centres):  # positions that are equal in floating point
        return "accepted"
    for patch, (x, y, z) in zip(found, centres, strict=True):
        assert np.array_equal(patch, window.grey(padded[z, y : y + 50, x : x + 50]))
    return "accepted"


def _expect_one_line(error: NodulesError) -> None:
    assert "\n" not in str(error), error
    assert len(str(error)) < 1000, error
