"""MetaImage: valid files match SimpleITK, and missing voxels are never invented."""

import gzip
import os
import resource
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray

from nodules.errors import FileError
from nodules.importers.metaimage import ELEMENT_TYPES, read_header, read_slices

SHAPE = (4, 3, 5)  # z, y, x
HEADER = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False",
    "TransformMatrix": "0.8 0.6 0 -0.6 0.8 0 0 0 1",
    "Offset": "-1.5 0.1 1e2",
    "CenterOfRotation": "0 0 0",
    "AnatomicalOrientation": "RAI",
    "ElementSpacing": "0.703125 0.7 2.50000001",
    "DimSize": "5 3 4",
    "ElementType": "MET_SHORT",
    "ElementDataFile": "scan.raw",
}


def voxels(dtype: str = "<i2") -> NDArray:
    numbers = np.random.default_rng(0).integers(-1000, 3000, SHAPE)
    return numbers.astype(dtype)


def write(folder: Path, data: bytes | None = None, local: bytes = b"", **changes: Any) -> Path:
    header = HEADER | changes
    header["ElementDataFile"] = header.pop("ElementDataFile")  # the last
    lines = [f"{key} = {value}\n" for key, value in header.items() if value is not None]
    path = folder / "scan.mhd"
    path.write_bytes("".join(lines).encode() + local)
    (folder / "scan.raw").write_bytes(voxels().tobytes() if data is None else data)
    return path


def read(path: Path) -> NDArray:
    image = read_header(path)
    return read_slices(image, np.arange(image.size[2]))[0]


def assert_as_simpleitk(path: Path) -> None:
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("MetaImageIO")
    reader.SetFileName(str(path))
    expected = reader.Execute()
    header, found = read_header(path), read(path)
    assert header.spacing == expected.GetSpacing()
    assert header.origin == expected.GetOrigin()
    assert header.direction.ravel().tolist() == list(expected.GetDirection())
    array = SimpleITK.GetArrayFromImage(expected)
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)


def deflate(data: bytes) -> bytes:
    return zlib.compress(data)


@pytest.mark.parametrize("pack", [None, zlib.compress, gzip.compress], ids=["raw", "zlib", "gzip"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("element", ELEMENT_TYPES)
def test_valid_voxels_are_those_that_simpleitk_reads(
    tmp_path: Path, element: str, order: str, pack: Callable[[bytes], bytes] | None
) -> None:
    data = voxels(order + ELEMENT_TYPES[element]).tobytes()
    path = write(
        tmp_path,
        data if pack is None else pack(data),
        ElementType=element,
        BinaryDataByteOrderMSB=str(order == ">"),
        CompressedData=str(pack is not None),
    )
    assert_as_simpleitk(path)


def write_local(folder: Path) -> Path:
    return write(folder, b"", voxels().tobytes(), ElementDataFile="LOCAL")


def write_local_compressed(folder: Path) -> Path:
    data = deflate(voxels().tobytes())
    size: dict[str, Any] = {"CompressedDataSize": str(len(data))}
    return write(folder, b"", data, ElementDataFile="LOCAL", CompressedData="True", **size)


def write_slices(folder: Path, names: list[str], pack: Callable[[bytes], bytes] = bytes) -> None:
    for name, data in zip(names, voxels(), strict=True):
        (folder / name).write_bytes(pack(data.tobytes()))


def write_list(folder: Path) -> Path:
    names = ["b.raw", "a.raw", "slice 3.raw", "Schädel.raw"]
    write_slices(folder, names)
    return write(folder, b"", "\n".join(names).encode() + b"\n", ElementDataFile="LIST")


def write_pattern(folder: Path) -> Path:
    write_slices(folder, [f"s{i:03d}.raw" for i in range(1, 9, 2)])
    return write(folder, b"", ElementDataFile="s%03d.raw 1 7 2")


def write_compressed_pattern(folder: Path) -> Path:
    write_slices(folder, [f"s{i}.zraw" for i in range(1, 5)], deflate)
    return write(folder, b"", ElementDataFile="s%d.zraw", CompressedData="True")


def write_synonyms(folder: Path) -> Path:
    names: dict[str, Any] = {"TransformMatrix": None, "Offset": None, "ElementSpacing": None}
    other: dict[str, Any] = {
        "Rotation": "0 0 1 1 0 0 0 1 0",
        "Position": "1 2 3",
        "ElementSize": "3 2 1",
    }
    order: dict[str, Any] = {"BinaryDataByteOrderMSB": None, "ElementByteOrderMSB": "True"}
    return write(folder, **names, **other, **order)


def write_minimal(folder: Path) -> Path:
    lines = "NDims = 3\r\nDimSize: 5 3 4\r\nElementType  =MET_SHORT  \r\n"
    path = write(folder)
    path.write_text(f"{lines}\r\nElementDataFile = scan.raw", newline="")
    return path


@pytest.mark.parametrize(
    "write_scan",
    [
        write_local,
        write_local_compressed,
        write_list,
        write_pattern,
        write_compressed_pattern,
        write_synonyms,
        write_minimal,
        lambda folder: write(folder, b"123456" + voxels().tobytes(), HeaderSize="6"),
        lambda folder: write(folder, b"123456" + voxels().tobytes(), HeaderSize="-1"),
        lambda folder: write(folder, Comment="a : b = c", ElementMin="-5", Patient="M\u00fcller"),
    ],
)
def test_valid_headers_are_read_as_simpleitk_does(
    tmp_path: Path, write_scan: Callable[[Path], Path]
) -> None:
    assert_as_simpleitk(write_scan(tmp_path))


@pytest.mark.parametrize("compressed", [False, True])
def test_files_written_by_simpleitk_are_read(tmp_path: Path, compressed: bool) -> None:
    image = SimpleITK.GetImageFromArray(np.random.default_rng(0).normal(0, 500, (9, 70, 80)))
    image.SetSpacing((1 / 3, 0.1, 1e-3))
    path = tmp_path / "scan.mhd"
    SimpleITK.WriteImage(image, str(path), useCompression=compressed)
    assert_as_simpleitk(path)


def test_only_the_wanted_slices_are_kept_and_extremes_are_of_all(tmp_path: Path) -> None:
    header = read_header(write(tmp_path))
    volume, extremes = read_slices(header, np.array([3, 1, 3]))
    assert np.array_equal(volume[[1, 3]], voxels()[[1, 3]])
    assert not volume[[0, 2]].any()
    assert extremes == (voxels().min(), voxels().max())


def refused(path: Path, *parts: str) -> None:
    with pytest.raises(FileError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    for part in parts:
        assert part in message


WHOLE = zlib.compress(voxels().tobytes())


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        *((WHOLE[:length], "damaged voxels") for length in (0, 1, 2, 20, len(WHOLE) - 1)),
        (WHOLE[:40] + bytes(8) + WHOLE[48:], "damaged voxels"),
        (WHOLE[:-1] + b"\0", "incorrect data check"),
        (WHOLE + b"\0", "more bytes after the stream"),
        (WHOLE + WHOLE, "more bytes after the stream"),
        (b"<!DOCTYPE html><html>Quota exceeded</html>", "incorrect header check"),
        (voxels().tobytes(), "damaged voxels"),
        (zlib.compress(voxels().tobytes() + b"\0"), "continues after the last voxel"),
        (zlib.compress(voxels().tobytes()[:-1]), "ends too early"),
        (gzip.compress(voxels().tobytes())[:-5], "ends too early"),
    ],
)
def test_damaged_compressed_voxels_are_refused(tmp_path: Path, data: bytes, problem: str) -> None:
    path = write(tmp_path, data, CompressedData="True")
    refused(path, "scan.raw: found damaged voxels (", problem, "stream of 120 bytes")


@pytest.mark.parametrize("size", ["1", str(len(WHOLE) - 1), str(len(WHOLE) + 1), "99999999999"])
def test_a_wrong_compressed_size_is_refused(tmp_path: Path, size: str) -> None:
    path = write(tmp_path, WHOLE, CompressedData="True", CompressedDataSize=size)
    refused(path, f"scan.raw: found {len(WHOLE)} bytes, expected {int(size):,} as CompressedDat")


@pytest.mark.parametrize("data", [b"", voxels().tobytes()[:-1], voxels().tobytes() + b"\0"])
def test_raw_voxels_of_another_length_are_refused(tmp_path: Path, data: bytes) -> None:
    found = f"found {len(data)} bytes of voxels, expected 120"
    refused(write(tmp_path, data), f"scan.raw: {found}")
    refused(write(tmp_path, b"", data, ElementDataFile="LOCAL"), f"scan.mhd: {found}")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("NDims", None),
        ("NDims", "2"),
        ("ObjectType", "Mesh"),
        ("DimSize", None),
        ("DimSize", "5 3"),
        ("DimSize", "5 3 4 1"),
        ("DimSize", "5 3 -4"),
        ("DimSize", "5 3 0"),
        ("DimSize", "5 3 4.5"),
        ("DimSize", "5 3 1e400"),
        ("DimSize", "5 3 99999999999999999999"),
        ("DimSize", "30000 30000 30000"),
        ("ElementType", None),
        ("ElementType", "MET_HALF"),
        ("ElementType", "MET_SHORT_ARRAY"),
        ("ElementNumberOfChannels", "2"),
        ("BinaryData", "False"),
        ("BinaryDataByteOrderMSB", "maybe"),
        ("ElementByteOrderMSB", "True"),
        ("CompressedData", "gzip"),
        ("CompressedDataSize", "-1"),
        ("HeaderSize", "-2"),
        ("HeaderSize", "1 2"),
        ("TransformMatrix", "1 0 0 0 1 0 0 0"),
        ("Rotation", "1 0 0 0 1 0 0 0 1"),
        ("Offset", "0 0 nan"),
        ("Offset", "0 0 0x10"),
        ("Position", "0 0 0"),
        ("ElementSpacing", "1,5 1 1"),
        ("DistanceUnits", "um"),
        ("ElementToIntensityFunctionSlope", "2"),
        ("ElementToIntensityFunctionOffset", "-1024"),
    ],
)
def test_headers_that_are_wrong_or_ambiguous_are_refused(
    tmp_path: Path, key: str, value: str | None
) -> None:
    changes: dict[str, Any] = {key: value}
    refused(write(tmp_path, **changes), f"scan.mhd: {key}: found ")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\0" * 2_000_000,
        b"<!DOCTYPE html>\n<html>",
        b"NDims = 3\n" * 200_000,
        b"ElementDataFile = a\0.raw",
        b"x = \x1b[31m\xff\n\x1b[31m\xff",
        b"NDims = 3\nDimSize = 5\x1c3 4\nElementType = MET_SHORT\nElementDataFile = scan.raw",
        "NDims = 3\nDimSize = 5\u00a03 4\nElementType = MET_SHORT\nElementDataFile = x".encode(),
        b"ObjectType = Image\nNDims = 3\nNDims = 2\nElementDataFile = scan.raw",
    ],
)
def test_files_that_are_no_header_are_refused(tmp_path: Path, text: bytes) -> None:
    path = write(tmp_path)
    path.write_bytes(text)
    with pytest.raises(FileError) as caught:
        read_header(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.fixture
def decoy(tmp_path: Path) -> Path:
    """Return a folder for a scan, next to a file of the right size that must not be read."""
    (tmp_path / "decoy.raw").write_bytes(voxels().tobytes())
    for name in ("1.raw", "2.raw", "3.raw", "4.raw"):
        (tmp_path / name).write_bytes(voxels()[0].tobytes())
    folder = tmp_path / "scan"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "{up}/decoy.raw",
        "../decoy.raw",
        "./scan.raw",
        "sub/../../decoy.raw",
        "..\\decoy.raw",
        "..",
        ".",
        "",
        "/dev/zero",
        "%s%s%n.raw 1 4 1",
        "%n",
        "%d%d.raw",
        "%99999999d.raw",
        "../%d.raw",
        "{up}/%d.raw 1 4 1",
        "%d.raw 1 99999999999 1",
        "%d.raw 1 999999999 1",
        "%d.raw 1 4 0",
        "%d.raw 4 1 1",
        "LIST\n../1.raw\n../2.raw\n../3.raw\n../4.raw",
        "LIST\n{up}/1.raw\n{up}/2.raw\n{up}/3.raw\n{up}/4.raw",
        "LIST\nscan.raw\nscan.raw\nscan.raw\nscan.raw",
        "LIST\na.raw\nb.raw",
        "LIST\na.raw\nb.raw\nc.raw\nd.raw\ne.raw",
        "LIST",
        "LIST 3\nscan.raw",
        "scan.raw\nOffset = 9 9 9",
    ],
)
def test_a_header_cannot_name_files_outside_its_folder(decoy: Path, name: str) -> None:
    path = write(decoy, ElementDataFile=name.format(up=decoy.parent))
    refused(path, "ElementDataFile: found ")


def test_a_pattern_of_fewer_files_than_slices_is_refused(tmp_path: Path) -> None:
    path = write_pattern(tmp_path)
    (tmp_path / "s007.raw").unlink()
    refused(path, "s007.raw: cannot be read (no such file or directory)")
    (tmp_path / "s007.raw").write_bytes(b"short")
    refused(path, "s007.raw: found 5 bytes of voxels, expected 30")


@pytest.mark.parametrize("name", ["scan.mhd", "scan.raw"])
def test_a_pipe_or_a_device_is_not_waited_for(tmp_path: Path, name: str) -> None:
    path = write(tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    refused(path, "cannot be read (not a regular file)")
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    refused(path, "cannot be read (not a regular file)")


def test_a_link_that_a_person_made_is_followed(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "cache").mkdir()
    (tmp_path / "scan.raw").rename(tmp_path / "cache/0f3a")
    (tmp_path / "scan.raw").symlink_to("cache/0f3a")
    assert np.array_equal(read(path), voxels())


def test_kilobytes_that_decompress_to_gigabytes_are_refused_unread(tmp_path: Path) -> None:
    stream = zlib.compressobj(1)
    data = b"".join(stream.compress(bytes(2**20)) for _ in range(300)) + stream.flush()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    declared = write(tmp_path, data, CompressedData="True", DimSize="1024 1024 150")
    refused(declared, "scan.raw: found ", "bytes for 314,572,800 bytes of voxels")
    undeclared = write(tmp_path, data, CompressedData="True")
    refused(undeclared, "continues after the last voxel")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 100 * 1024  # kB


def test_keys_may_be_written_in_other_letters(tmp_path: Path) -> None:
    path = write(tmp_path)
    expected = read(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    keys = [line.partition(" ")[0] for line in lines]
    for change in (str.lower, str.upper):
        changed = [line.replace(key, change(key), 1) for line, key in zip(lines, keys, strict=True)]
        path.write_text("\n".join(changed) + "\n", encoding="utf-8")
        assert np.array_equal(read(path), expected)
    path.write_text("\n".join(["dimsize = 1 1 1", *lines]) + "\n", encoding="utf-8")
    with pytest.raises(FileError, match=r"DimSize: found .*, expected it once"):
        read_header(path)
