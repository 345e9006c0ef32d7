"""Save equal models as equal files, and load model files safely.

A model file holds the specification of the network and its weights. Loading rebuilds the network
with the registered builder and reads the weights; nothing in the file determines which code runs.
Keras can also open the file, from its own description of the network. A file whose description
differs from the builder's network is refused.
"""

import json
import math
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from nodules.errors import FileError
from nodules.models.archive import (
    CONFIG,
    METADATA,
    WEIGHTS,
    ArchiveError,
    ArrayInfo,
    ModelArchive,
    read_archive,
    stored_arrays,
)
from nodules.models.feature_maps import largest_feature_map
from nodules.models.registry import BuildError, build_from_spec, builder_names, spec_of
from nodules.models.spec import ModelSpec
from nodules.system.atomic import replacing
from nodules.system.streams import error_text, printable

# The earliest time that a zip archive can hold.
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
SHARED_OBJECT = "shared_object_id"

# Parameters and arrays that a network may have beyond those of its file: a few kinds of layers have
# some that Keras does not save, such as the factors of LoRA.
SPARE_PARAMETERS = 2**18
SPARE_ARRAYS = 100
# Values of the largest feature map of a single patch: 128 MB as float32.
MAX_FEATURE_MAP = 2**25


def save_model(model: keras.Model, path: Path) -> None:
    """Write a `.keras` archive that depends only on the model.

    Keras stores the time of saving in the archive's metadata and members, and identifies shared
    objects by memory address, so DVC would see a new model after every run. This function omits
    times and numbers shared objects. The metadata hold the specification of the network.

    Parameters
    ----------
    model
        Model of `build_model` or `load_model`, with any weights.
    path
        File to write, with the suffix `.keras`.
    """
    with replacing(path) as temporary:
        members = _members(model, spec_of(model), temporary)
        with zipfile.ZipFile(temporary, "w") as archive:
            for name, content in sorted(members.items()):
                archive.writestr(zipfile.ZipInfo(name, ZIP_EPOCH), content)


def load_model(path: Path) -> keras.Model:
    """Read a model file and build its network; see `model_of`.

    On some damaged files the HDF5 library crashes or never returns; call `check_archive` first.

    Raises
    ------
    FileError
        If the file is missing or not a valid archive, or as in `model_of`.
    """
    return model_of(read_archive(path))


def model_of(archive: ModelArchive) -> keras.Model:
    """Rebuild the network of a model file with its registered builder, and read its weights.

    Returns
    -------
    keras.Model
        Uncompiled model with finite weights.

    Raises
    ------
    FileError
        If the builder is not registered, or the description or the weights do not match the network
        that it builds.
    """
    try:
        model = _built(archive)
        with tempfile.TemporaryDirectory() as folder:
            members = _members(model, archive.spec, Path(folder) / "model.keras")
        if members[CONFIG] != archive.config:
            raise ArchiveError(f"{CONFIG}: {_other_network(archive)}")
        if problem := _array_problem(archive.arrays, stored_arrays(members[WEIGHTS])):
            raise ArchiveError(f"{WEIGHTS}: {problem}")
        _load_weights(model, archive.weights)
        if problem := _weight_problem(model):
            raise ArchiveError(f"{WEIGHTS}: {problem}")
    except ArchiveError as error:
        raise FileError(archive.path, f"not a loadable .keras model ({error})") from None
    return model


def _built(archive: ModelArchive) -> keras.Model:
    spec = archive.spec
    parameters = sum(math.prod(array.shape) for array in archive.arrays.values())
    try:
        with _parameter_limit(parameters, len(archive.arrays)):
            model = build_from_spec(spec)
    except BuildError as error:
        note = ""
        if spec.builder not in builder_names():
            note = "; scoring needs the file of nodules/models that registers it"
        raise ArchiveError(
            f"{METADATA}: network.{error.key}: {printable(error.problem, 200)}{note}"
        ) from None
    # Builders check their arguments, but not for every size that Keras or TensorFlow refuses.
    except Exception as error:
        raise ArchiveError(f"{METADATA}: network.config: {error_text(error)}") from None
    if (found := largest_feature_map(model)) > MAX_FEATURE_MAP:
        raise ArchiveError(
            f"found a feature map of {found:,} values for one patch, expected at most "
            f"{MAX_FEATURE_MAP:,}"
        )
    return model


@contextmanager
def _parameter_limit(parameters: int, arrays: int) -> Iterator[None]:
    """Raise ValueError if layers request more weights than a file has, before they are allocated.

    A few bytes of configuration can request gigabytes. Keras has no hook for this, so the method
    with which layers create their weights is wrapped.
    """
    add_weight: Callable[..., Any] = keras.layers.Layer.add_weight
    max_parameters, max_arrays = 2 * parameters + SPARE_PARAMETERS, 2 * arrays + SPARE_ARRAYS
    taken = [0, 0]

    def counted(layer: keras.layers.Layer, shape: Any = None, *rest: Any, **named: Any) -> Any:
        taken[0] += shape if isinstance(shape, int) else math.prod(shape or ())
        taken[1] += 1
        if taken[0] > max_parameters:
            raise ValueError(f"found more parameters than the {parameters:,} of {WEIGHTS}")
        if taken[1] > max_arrays:
            raise ValueError(f"found more arrays of weights than the {arrays:,} of {WEIGHTS}")
        return add_weight(layer, shape, *rest, **named)

    keras.layers.Layer.add_weight = counted
    try:
        yield
    finally:
        keras.layers.Layer.add_weight = add_weight


def _other_network(archive: ModelArchive) -> str:
    builder = archive.spec.builder
    problem = f"found another network than {builder} builds from {METADATA}"
    if archive.keras_version == keras.__version__:
        return f"{problem}: the file was changed, or the builder has been since"
    version = printable(archive.keras_version, 60)
    return f"{problem}: Keras {version} wrote it, and {keras.__version__} is installed"


def _array_problem(found: dict[str, ArrayInfo], expected: dict[str, ArrayInfo]) -> str:
    if missing := sorted(expected.keys() - found.keys()):
        return f"{missing[0]}: found none, expected {_described(expected[missing[0]])}"
    if unknown := sorted(found.keys() - expected.keys()):
        return f"{printable(unknown[0], 60)}: found an array that the network does not have"
    for name, array in expected.items():
        if found[name] != array:
            return f"{name}: found {_described(found[name])}, expected {_described(array)}"
    return ""


def _described(array: ArrayInfo) -> str:
    return printable(f"{array.mark or np.dtype(array.dtype)} of shape {array.shape}", 60)


def _load_weights(model: keras.Model, weights: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / WEIGHTS
        file.write_bytes(weights)
        try:
            model.load_weights(file)
        # A layer may raise any exception while it reads its own data.
        except Exception as error:
            raise ArchiveError(f"{WEIGHTS}: {error_text(error)}") from None


def _weight_problem(model: keras.Model) -> str:
    """Return the first problem with the weights; empty if all are valid."""
    for variable in model.variables:
        values = np.asarray(variable).astype(np.float64)
        if not np.isfinite(values).all():
            return f"{variable.path}: found NaN or infinity, expected finite weights"
        if variable.name == "moving_variance" and (values < 0).any():
            return f"{variable.path}: found {values.min():.3g}, expected no negative variance"
    return ""


def _members(model: keras.Model, spec: ModelSpec, place: Path) -> dict[str, bytes]:
    """Return the members of a model's archive by name; Keras saves its version to `place`."""
    model.save(place)
    with zipfile.ZipFile(place) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    metadata = {"keras_version": keras.__version__, "network": spec.model_dump()}
    members[METADATA] = json.dumps(metadata, allow_nan=False).encode()
    members[CONFIG] = _shared_objects_numbered(members[CONFIG])
    return members


def _shared_objects_numbered(config: bytes) -> bytes:
    numbers: dict[int, int] = {}

    def number(mapping: dict[str, Any]) -> dict[str, Any]:
        if SHARED_OBJECT in mapping:
            address = mapping[SHARED_OBJECT]
            mapping[SHARED_OBJECT] = numbers.setdefault(address, len(numbers) + 1)
        return mapping

    return json.dumps(json.loads(config, object_hook=number)).encode()
