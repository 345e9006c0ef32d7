"""Check TIFF files before Pillow decodes them, and correct what it decodes wrongly.

Pillow 13 returns signed 8-bit samples as unsigned, and unsigned 32-bit samples as signed. It
applies `WhiteIsZero` only to samples of up to 8 bits, and fills missing strips with black. In
compressed big-endian files, it swaps the bytes of signed, 32-bit and floating-point samples.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from PIL import Image, TiffTags
from PIL.TiffImagePlugin import PREFIXES, ImageFileDirectory_v2, TiffImageFile

from nodules.errors import FileError

# Tags, named as in TIFF 6.0.
_COMPRESSION = 259
_PHOTOMETRIC = 262
_STRIP_OFFSETS = 273
_ROWS_PER_STRIP = 278
_STRIP_BYTE_COUNTS = 279
_PLANAR = 284
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_BYTE_COUNTS = 322, 323, 324, 325
_BITS_PER_SAMPLE, _SAMPLES_PER_PIXEL, _SAMPLE_FORMAT = 258, 277, 339

_UNSIGNED, _SIGNED = 1, 2
_FORMATS = {_UNSIGNED: "unsigned integers", _SIGNED: "signed integers", 3: "floats"}
_UNCOMPRESSED = 1
_LZMA = 34925  # its decoder allocates as much memory as the file declares
_DEFLATE = (8, 32946)
_SEPARATE_PLANES = 2

_INFLATED_BYTES = 2**20

# A tile is decoded whole, even if the image is small. The largest in use are 4096 x 4096 pixels.
_MAX_TILE_PIXELS = 2**24

# Raw modes of Pillow for samples in native byte order, in which libtiff returns them.
_NATIVE = {
    "I;16S": "I;16NS",
    "I;16BS": "I;16NS",
    "I;32S": "I;32NS",
    "I;32BS": "I;32NS",
    "F;32F": "F;32NF",
    "F;32BF": "F;32NF",
}


@dataclass(frozen=True)
class Samples:
    """Sample format of a TIFF.

    Attributes
    ----------
    bits
        Bits per sample.
    unsigned, signed
        Whether samples are unsigned or signed integers; both False for floats.
    white_is_zero
        Whether low values are displayed as white.
    """

    bits: int
    unsigned: bool
    signed: bool
    white_is_zero: bool


def tiff_samples(path: Path, image: Image.Image) -> Samples | None:
    """Return the sample format of an open TIFF; None for other file formats.

    Raises
    ------
    FileError
        If the TIFF does not declare whether low values are black or white.
    """
    if not isinstance(image, TiffImageFile):
        return None
    tags = image.tag_v2
    if _PHOTOMETRIC not in tags:
        raise FileError(path, "found no PhotometricInterpretation, expected that tag in a TIFF")
    formats = tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))
    return Samples(
        bits=tags.get(_BITS_PER_SAMPLE, (1,))[0],
        unsigned=formats[0] == _UNSIGNED,
        signed=formats[0] == _SIGNED,
        white_is_zero=tags[_PHOTOMETRIC] == 0,
    )


def tiff_kind(file: BinaryIO) -> str:
    """Describe a TIFF that Pillow cannot read; return an empty string for other files."""
    file.seek(0)
    header = file.read(8)
    if not header.startswith(tuple(PREFIXES)):
        return ""
    try:
        if header[2] == 43:  # BigTIFF
            header += file.read(8)
        tags = ImageFileDirectory_v2(header)
        file.seek(tags.next)
        tags.load(file)
        kind = _FORMATS.get(tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0], "samples")
        bits = "+".join(map(str, tags.get(_BITS_PER_SAMPLE, (1,))[:8]))
        order = "big-endian" if tags.prefix == b"MM" else "little-endian"
        photometric = tags.get(_PHOTOMETRIC)
    except Exception:  # a damaged file can raise almost any exception
        return "damaged TIFF"
    return f"{order} TIFF of {kind} of {bits} bits, PhotometricInterpretation {photometric}"


def check_strips(path: Path, file: BinaryIO, image: Image.Image) -> None:
    """Check that a TIFF holds all strips or tiles that its size requires, undamaged.

    Parameters
    ----------
    path, file, image
        The TIFF: its path for error messages, its open file, and its image opened by Pillow.

    Raises
    ------
    FileError
        If strips or tiles are missing or damaged, or the compression is LZMA.
    """
    tags = cast(TiffImageFile, image).tag_v2
    compression = tags.get(_COMPRESSION, _UNCOMPRESSED)
    if compression == _LZMA:
        raise FileError(path, "found a TIFF compressed by LZMA, expected another compression")
    # Size as stored, before a tag such as Orientation rotates the image.
    width, height = tags[256], tags[257]
    samples = tags.get(_SAMPLES_PER_PIXEL, 1)
    separate = tags.get(_PLANAR, 1) == _SEPARATE_PLANES
    if _TILE_OFFSETS in tags and _STRIP_OFFSETS not in tags:
        across, down = tags[_TILE_WIDTH], tags[_TILE_LENGTH]
        offsets, counts, what = _TILE_OFFSETS, _TILE_BYTE_COUNTS, "tiles"
        if not 0 < across * down <= _MAX_TILE_PIXELS:
            problem = f"found tiles of {across:,} x {down:,}, expected at most {_MAX_TILE_PIXELS:,}"
            raise FileError(path, f"{problem} pixels")
        needed = across * down * math.ceil(width / across) * math.ceil(height / down)
    else:
        across, down = width, min(tags.get(_ROWS_PER_STRIP, height), height)
        offsets, counts, what = _STRIP_OFFSETS, _STRIP_BYTE_COUNTS, "strips"
        if down < 1:
            raise FileError(path, "found strips of no rows, expected at least one row in each")
        needed = width * height
    expected = math.ceil(width / across) * math.ceil(height / down) * (samples if separate else 1)
    found = len(tags.get(offsets, ()))
    if found != expected:
        name = TiffTags.lookup(offsets).name
        raise FileError(path, f"{name}: found {found:,} {what}, expected {expected:,}")
    stored = sum(tags.get(counts, ()))
    bits = sum(tags.get(_BITS_PER_SAMPLE, (1,))) if samples > 1 else tags.get(258, (1,))[0]
    if compression == _UNCOMPRESSED and counts in tags and stored < needed * bits // 8:
        problem = f"found {stored:,} bytes of pixels, expected {needed * bits // 8:,}"
        raise FileError(path, problem)
    if compression in _DEFLATE:
        sizes = tags.get(counts, ())
        if len(sizes) != expected:
            name = TiffTags.lookup(counts).name
            raise FileError(path, f"{name}: found {len(sizes):,} values, expected {expected:,}")
        _check_deflated(path, file, tags[offsets], sizes)


def _check_deflated(
    path: Path, file: BinaryIO, offsets: Sequence[int], counts: Sequence[int]
) -> None:
    """Check the checksum of each strip or tile, which libtiff ignores."""
    place = file.tell()
    for number, (offset, count) in enumerate(zip(offsets, counts, strict=True)):
        file.seek(offset)
        inflater = zlib.decompressobj()
        data = file.read(count)
        try:
            while data and not inflater.eof:
                inflater.decompress(data, _INFLATED_BYTES)
                data = inflater.unconsumed_tail
            problem = "" if inflater.eof else "its deflate stream ends too early"
        except zlib.error as error:
            problem = str(error)
        if problem:
            raise FileError(path, f"strip or tile {number}: damaged ({problem})")
    file.seek(place)


def use_native_byte_order(image: Image.Image) -> None:
    """Make Pillow unpack libtiff's samples in native byte order, in which libtiff returns them."""
    image = cast(TiffImageFile, image)
    for number, tile in enumerate(image.tile):
        if tile.codec_name == "libtiff" and isinstance(tile.args, tuple):
            mode, *others = tile.args
            image.tile[number] = tile._replace(args=(_NATIVE.get(mode, mode), *others))
