"""Looking through a `.keras` archive before it is loaded: without TensorFlow, and running nothing.

Keras's safe mode refuses code as well. This refuses more, sooner and by one rule: what the train
stage does not write is not loaded.
"""

import io
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import h5py

from nodules.errors import ModelFileError
from nodules.self_contained import DAMAGE, link_problem, reason, shown, storage_problem

MEMBERS = ["config.json", "metadata.json", "model.weights.h5"]

# The networks here take 0.1 MB. JSON of this size takes a hundred times as much once it is parsed.
MOST_CONFIG_BYTES = 16 * 2**20

# What runs code of its own, or reads files that the archive names.
UNSAFE = {
    "__lambda__",
    "FlaxLayer",
    "IntegerLookup",
    "JaxLayer",
    "Lambda",
    "StringLookup",
    "TFSMLayer",
    "TextVectorization",
    "TorchModuleWrapper",
}


def check_archive(path: Path) -> None:
    """Refuse a file that is no `.keras` archive as the train stage writes it.

    Raises
    ------
    ModelFileError
        If there is no such file, it is no zip archive of exactly the three members, a member is
        compressed, the network has layers that are not Keras's own, run code or read files, or the
        weights are not all in the archive.
    """
    try:
        if not path.is_file():
            raise ModelFileError(path, "no such file, expected a model saved by the train stage")
        problem = _problem(path)
    except (*DAMAGE, zipfile.BadZipFile, zlib.error, EOFError) as error:
        problem = reason(error)
    if problem:
        raise ModelFileError(path, f"not a loadable .keras model ({problem})")


def _problem(path: Path) -> str:
    if path.suffix != ".keras":
        return f"found the suffix {shown(path.suffix) or 'of none'}, expected .keras"
    with zipfile.ZipFile(path) as archive:
        members = sorted(archive.infolist(), key=lambda member: member.filename)
        names = [member.filename for member in members]
        if names != MEMBERS:
            found = ", ".join(shown(name) for name in names[:10]) or "nothing"
            return f"found {found} in it, expected {', '.join(MEMBERS)}"
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED:
                return f"found {member.filename} compressed, expected it stored as it is"
            # Members may overlap, but each has to be there.
            if member.file_size > path.stat().st_size:
                return f"found {member.file_size:,} bytes of {member.filename}, more than the file"
        if archive.getinfo("config.json").file_size > MOST_CONFIG_BYTES:
            return f"found a config.json above {MOST_CONFIG_BYTES:,} bytes"
        config = json.loads(archive.read("config.json"))
        return _config_problem(config) or _weights_problem(archive.read("model.weights.h5"))


def _config_problem(config: Any) -> str:
    stack = [config]
    while stack:
        part = stack.pop()
        if isinstance(part, list):
            stack += part
        elif isinstance(part, dict):
            stack += part.values()
            name, module = part.get("class_name"), part.get("module")
            if isinstance(name, str) and name in UNSAFE:
                return f"found {name}, which runs code or reads files, expected plain layers"
            if name is not None and module is not None and str(module).split(".")[0] != "keras":
                return f"found {shown(f'{module}.{name}')}, expected Keras's own layers"
    return ""


def _weights_problem(content: bytes) -> str:
    problems: list[str] = []

    def check_link(name: str, _: Any) -> None:
        problems.append(link_problem(file, name))

    def check_data(_: str, found: h5py.Group | h5py.Dataset) -> None:
        if isinstance(found, h5py.Dataset) and found.shape is not None:
            problems.append(storage_problem(found))

    with h5py.File(io.BytesIO(content), "r") as file:
        file.visititems_links(check_link)
        if not any(problems):
            file.visititems(check_data)
    return next((f"weights: {problem}" for problem in problems if problem), "")
