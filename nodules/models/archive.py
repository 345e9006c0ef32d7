"""Read a `.keras` archive without Keras, so that nothing in it is turned into objects or code.

`config.json` is a program in Keras's serialisation language: it may name classes, functions, files
and addresses. It is therefore never parsed. `metadata.json` names the builder of the network and
its arguments; the weights are plain arrays.
"""

import hashlib
import io
import json
import math
import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
from pydantic import ValidationError

from nodules.errors import FileError
from nodules.models.spec import ModelSpec
from nodules.patches.hdf5_checks import DAMAGE, link_problem
from nodules.patches.hdf5_storage import StorageError, check_sizes
from nodules.schema import Block, first_problem
from nodules.system.limited_process import call_limited
from nodules.system.regular_file import irregular_kind
from nodules.system.streams import error_text, printable

CONFIG, METADATA, WEIGHTS = MEMBERS = ("config.json", "metadata.json", "model.weights.h5")

# The networks of this repository have 0.1 MB of configuration and 1 kB of metadata.
MAX_CONFIG_BYTES = 16 * 2**20
MAX_METADATA_BYTES = 2**18
# Keras nests a group for each level of layers within layers.
MAX_DEPTH = 32

# CPU time limit of the check in a separate process. A model of 100 MB takes less than a second.
SECONDS = 20
BYTES_PER_SECOND = 20_000_000
MEMORY = 2**29


class ArrayInfo(NamedTuple):
    """Description of an array in the weights file.

    Attributes
    ----------
    shape
        Shape.
    dtype
        NumPy's name of the type, including the byte order.
    mark
        Type that Keras records because HDF5 lacks it, such as bfloat16; else empty.
    """

    shape: tuple[int, ...]
    dtype: str
    mark: str


@dataclass(frozen=True)
class ModelArchive:
    """The contents of a model file.

    Attributes
    ----------
    path
        Path of the file.
    md5
        MD5 of the file, as in dvc.lock.
    spec
        Specification of the network.
    keras_version
        Version of Keras that wrote the file.
    config
        `config.json`: Keras's description of the network, not parsed.
    weights
        `model.weights.h5`.
    arrays
        Arrays in the weights by their path.
    """

    path: Path
    md5: str
    spec: ModelSpec
    keras_version: str
    config: bytes
    weights: bytes
    arrays: dict[str, ArrayInfo]


class _Metadata(Block):
    keras_version: str
    network: ModelSpec


class ArchiveError(Exception):
    """A problem with an archive: what was found and what was expected."""


def check_archive(path: Path) -> None:
    """Read a model file in a separate process, with limits on time and memory.

    On some damaged files the HDF5 library crashes or loops forever. Commands that read a user's
    model call this first. It does not import TensorFlow.

    Raises
    ------
    FileError
        If `read_archive` refuses the file, or the process crashes or exceeds a limit.
    """
    size = path.stat().st_size if path.is_file() else 0
    call_limited(
        read_archive,
        path,
        seconds=SECONDS + size // BYTES_PER_SECOND,
        memory=MEMORY + 4 * size,
        failure=FileError,
    )


def read_archive(path: Path) -> ModelArchive:
    """Read a model file written by `save_model`, refusing any other file.

    Parameters
    ----------
    path
        Zip archive of exactly three uncompressed members: `config.json`, `metadata.json` and
        `model.weights.h5`.

    Returns
    -------
    ModelArchive
        Contents of the file. All arrays are stored in the file, contiguously and under one name.

    Raises
    ------
    FileError
        If the file is missing or breaks this layout.
    """
    try:
        if kind := irregular_kind(path):
            raise FileError(path, f"found {kind}, expected a model saved by the train stage")
        return _read(path)
    except (FileNotFoundError, NotADirectoryError):
        expected = "expected a model saved by the train stage"
        raise FileError(path, f"no such file, {expected}") from None
    except ArchiveError as error:
        problem = str(error)
    except (*DAMAGE, zipfile.BadZipFile, zlib.error, EOFError) as error:
        problem = error_text(error)
    raise FileError(path, f"not a loadable .keras model ({problem})")


def stored_arrays(weights: bytes) -> dict[str, ArrayInfo]:
    """Return descriptions of the arrays of a `model.weights.h5` by path, after reading each array.

    Raises
    ------
    ArchiveError
        If the file holds anything but arrays stored in the file itself, each under one name.
    Exception
        Any of `hdf5_checks.DAMAGE` if HDF5 cannot read the file.
    """
    with h5py.File(io.BytesIO(weights), "r") as file:
        return _arrays_in(file, len(weights))


def _read(path: Path) -> ModelArchive:
    if path.suffix != ".keras":
        raise ArchiveError(
            f"found the suffix {printable(path.suffix, 60) or 'of none'}, expected .keras"
        )
    # One open file: a model that replaces it meanwhile does not mix with it.
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        members = sorted(archive.infolist(), key=lambda member: member.filename)
        names = [member.filename for member in members]
        if names != list(MEMBERS):
            found = ", ".join(printable(name, 60) for name in names[:10]) or "nothing"
            raise ArchiveError(f"found {found} in it, expected {', '.join(MEMBERS)}")
        for member, limit in zip(
            members, (MAX_CONFIG_BYTES, MAX_METADATA_BYTES, None), strict=True
        ):
            if member.compress_type != zipfile.ZIP_STORED:
                raise ArchiveError(f"found {member.filename} compressed, expected it uncompressed")
            if limit is not None and member.file_size > limit:
                raise ArchiveError(f"found a {member.filename} above {limit:,} bytes")
        total = sum(member.file_size for member in members)
        if total > os.fstat(file.fileno()).st_size:
            raise ArchiveError(f"found members of {total:,} bytes, more than the file")
        config, metadata, weights = (archive.read(member) for member in members)
        file.seek(0)
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    parsed = _parsed(metadata)
    try:
        arrays = stored_arrays(weights)
    except ArchiveError as error:
        raise ArchiveError(f"{WEIGHTS}: {error}") from None
    return ModelArchive(
        path, digest.hexdigest(), parsed.network, parsed.keras_version, config, weights, arrays
    )


def _parsed(metadata: bytes) -> _Metadata:
    """Parse metadata strictly: refuse JSON on which parsers disagree."""
    try:
        content = json.loads(
            metadata,
            object_pairs_hook=_without_duplicates,
            parse_constant=_no_number,
        )
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"{METADATA}: not valid JSON: {error_text(error)}") from None
    if isinstance(content, dict) and "network" not in content:
        raise ArchiveError(
            f"{METADATA}: found no network, expected its builder and arguments, which models of "
            "earlier versions lack: train it again with `dvc repro`"
        )
    try:
        return _Metadata.model_validate(content)
    except ValidationError as error:
        key, problem = first_problem(error)
        place = f"{METADATA}: {printable(key, 60)}" if key else METADATA
        raise ArchiveError(f"{place}: {printable(problem, 200)}") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("found a key twice in one object")
    return content


def _no_number(text: str) -> float:
    raise ValueError(f"found {text}, expected finite numbers")


def _arrays_in(file: h5py.File, size: int) -> dict[str, ArrayInfo]:
    arrays: dict[str, ArrayInfo] = {}
    seen = {_address(file)}
    stored = 0
    groups: list[tuple[str, h5py.Group]] = [("", file)]
    while groups:
        folder, group = groups.pop()
        for name in group:
            path = f"{folder}/{name}" if folder else name
            if path.count("/") >= MAX_DEPTH:
                raise ArchiveError(f"found groups nested more than {MAX_DEPTH} deep")
            if problem := link_problem(group, name):
                raise ArchiveError(f"{printable(path, 60)}: {problem}")
            found = group[name]
            # A group with two names may contain itself; an array with two names is counted twice.
            if _address(found) in seen:
                raise ArchiveError(f"{printable(path, 60)}: found a second name for the same data")
            seen.add(_address(found))
            if isinstance(found, h5py.Group):
                groups.append((path, found))
                continue
            arrays[path] = array = _array_at(path, found)
            stored += math.prod(array.shape) * found.dtype.itemsize
            if stored > size:
                raise ArchiveError(f"found arrays of more than the {size:,} bytes of the file")
            found[()]
    return arrays


def _address(found: h5py.Group | h5py.Dataset) -> int:
    return int(h5py.h5o.get_info(found.id).addr)


def _array_at(path: str, data: h5py.Dataset) -> ArrayInfo:
    """Describe an array without reading it; refuse it unless it is stored contiguously."""
    place = printable(path, 60)
    if not isinstance(data, h5py.Dataset) or data.shape is None:
        raise ArchiveError(f"{place}: found no array")
    if data.chunks is not None:
        raise ArchiveError(f"{place}: found chunks, expected one contiguous array")
    if data.dtype.kind not in "bfiuV" or data.dtype.fields or data.dtype.subdtype:
        raise ArchiveError(f"{place}: found the type {printable(data.dtype, 60)}, expected numbers")
    try:
        check_sizes(data)
    except StorageError as error:
        raise ArchiveError(f"{place}: {error}") from None
    if data.id.get_offset() is None and data.size:
        raise ArchiveError(f"{place}: found a compact array, expected a contiguous one")
    mark = str(data.attrs["dtype"]) if "dtype" in data.attrs else ""
    return ArrayInfo(data.shape, data.dtype.str, mark)
