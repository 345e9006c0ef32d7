"""Saving a model so that equal models are equal files, and loading one safely."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import keras

from nodules.atomic import replacing
from nodules.errors import ModelFileError
from nodules.model_archive import check_archive
from nodules.patches import CLASSES, PATCH_SIZE
from nodules.self_contained import reason

# The earliest time that a zip archive can hold.
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
SHARED_OBJECT = "shared_object_id"


def save_model(model: keras.Model, path: Path) -> None:
    """Write a `.keras` archive that depends on the model alone.

    Keras notes the time of saving in the archive's metadata and on each of its members, and marks
    objects that layers share by their address in memory, so that DVC would see a new model after
    every run. Here the times are left out and shared objects are numbered.
    """
    with replacing(path) as temporary:
        model.save(temporary)
        _make_canonical(io.BytesIO(temporary.read_bytes()), temporary)


def load_model(path: Path) -> keras.Model:
    """Load a model for prediction, in Keras's safe mode: no code from the file is run.

    Raises
    ------
    ModelFileError
        If the file is missing, is no archive that `check_archive` lets pass, cannot be loaded, or
        holds a model of other shapes.
    """
    check_archive(path)
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
        shapes = (model.input_shape, model.output_shape)
    # Keras lets through whatever a layer raises on arguments that nobody checked.
    except Exception as error:
        raise ModelFileError(path, f"not a loadable .keras model ({reason(error)})") from None
    expected = ((None, PATCH_SIZE, PATCH_SIZE, 1), (None, len(CLASSES)))
    if shapes != expected:
        raise ModelFileError(path, f"found input and output {shapes}, expected {expected}")
    return model


def _make_canonical(source: BinaryIO, target: Path) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in sorted(old.namelist()):
            content = old.read(name)
            if name == "metadata.json":
                metadata = json.loads(content)
                del metadata["date_saved"]
                content = json.dumps(metadata).encode()
            elif name == "config.json":
                content = _shared_objects_numbered(content)
            new.writestr(zipfile.ZipInfo(name, ZIP_EPOCH), content)


def _shared_objects_numbered(config: bytes) -> bytes:
    numbers: dict[int, int] = {}

    def number(mapping: dict[str, Any]) -> dict[str, Any]:
        if SHARED_OBJECT in mapping:
            address = mapping[SHARED_OBJECT]
            mapping[SHARED_OBJECT] = numbers.setdefault(address, len(numbers) + 1)
        return mapping

    return json.dumps(json.loads(config, object_hook=number)).encode()
