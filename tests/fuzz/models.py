"""Damaged and malicious model files: rejected, or scored as Keras would score them.

The scores of an accepted file must be those of its network and weights. While a file is read, the
program must not deserialise objects, run code, connect to a network, or open files outside the
temporary folder and the installed packages.
"""

import contextlib
import io
import json
import os
import resource
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import h5py
import keras
import numpy as np
import tensorflow as tf
from numpy.random import Generator

from nodules.errors import FileError
from nodules.models import archive as model_archive
from nodules.models.archive import MEMBERS, check_archive
from nodules.models.file import load_model, save_model
from nodules.models.registry import build_model
from nodules.runtime import be_deterministic
from tests.support import REPOSITORY

MAX_SECONDS = 90  # allows for load; the probe process gets 2 of its own
MAX_MEGABYTES = 3000

NETWORKS: dict[str, dict[str, Any]] = {
    "squeezenet": {
        "margin": 0,
        "stem_filters": 2,
        "stem_stride": 4,
        "fires": [[1, 1]],
        "pool_before": [0],
        "bypass": True,
        "batch_norm": True,
        "batch_norm_momentum": 0.99,
        "pooling": "average",
        "dropout": 0.5,
    },
    "mobilenet": {
        "margin": 0,
        "stem_filters": 2,
        "stem_stride": 4,
        "blocks": [[2, 1]],
        "bypass": False,
        "batch_norm_momentum": 0.9,
        "pooling": "depthwise",
        "dropout": 0.5,
    },
}

# Names in a file that a vulnerable reader would look up, open, download or call.
NAMES = [
    "__lambda__", "Activation", "Lambda", "TFSMLayer", "TorchModuleWrapper", "StringLookup",
    "builtins", "exec", "function", "get_file", "keras.config", "keras.datasets", "keras.layers",
    "keras.ops", "keras.saving", "keras.utils", "load_model", "mnist", "nodules.models.registry",
    "os", "subprocess", "system", "tensorflow", "../../etc/passwd", "/etc/passwd", "/dev/zero",
    "gs://bucket/saved", "https://127.0.0.1:9/x", "hf://x/y", "resnet", "squeezenet", "\ud800",
    "a\nb\x1b[31m", "%s%n", "", "x" * 5000,
]  # fmt: skip
NUMBERS = [
    0, 1, -1, 2, 7, 255, 10**5, 10**9, 2**31, 2**63, 10**40, True, 0.0, -0.0, 0.5, 1.0, 1e-300,
    1e308, float("nan"), float("inf"), -float("inf"),
]  # fmt: skip
VALUES = [0.0, -0.0, 1e-40, 1.0, -1.0, 1e4, 1e38, -3e38, np.nan, np.inf, -np.inf]

Members = dict[str, bytes]


class FindingError(BaseException):
    """A forbidden action of the program; must not be caught by it."""


def prepare(folder: Path) -> Callable[[Generator], str]:
    """Save a small network of each builder and return the attempt."""
    be_deterministic()
    model_archive.SECONDS = 2
    bases = []
    for builder, config in NETWORKS.items():
        path = folder / f"{builder}.keras"
        save_model(build_model("tiny", builder, config, seed=3), path)
        with zipfile.ZipFile(path) as archive:
            bases.append({name: archive.read(name) for name in archive.namelist()})
    patches = np.random.default_rng(0).uniform(0, 255, (4, 50, 50, 1)).astype(np.float32)
    scores = [load_model(folder / f"{builder}.keras")(patches).numpy() for builder in NETWORKS]
    canary = folder / "canary.weights.h5"
    with h5py.File(canary, "w") as file:
        file["x"] = np.zeros(1000, np.float32)
    path = folder / "model.keras"
    guard = _Guard(folder)

    def attempt(rng: Generator) -> str:
        which = int(rng.integers(len(bases)))
        content, broken = _mutated(rng, bases[which], canary)
        path.write_bytes(content)
        try:
            with guard.closed():
                # Reads as `load_model` does, but in a separate process that may crash, which is
                # slower.
                if broken:
                    check_archive(path)
                model = load_model(path)
        except FileError as error:
            _check_sentence(str(error), path)
            return _kind(str(error))
        finally:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            if peak > MAX_MEGABYTES:
                raise FindingError(f"took {peak} MB")
        found = model(patches).numpy()
        if not np.array_equal(found, keras.models.load_model(path)(patches), equal_nan=True):
            raise FindingError("accepted a file that Keras scores otherwise")
        with zipfile.ZipFile(path) as archive:
            same = archive.read(MEMBERS[2]) == bases[which][MEMBERS[2]]
        if not same:
            return "accepted with other weights"
        if not np.array_equal(found, scores[which]):
            raise FindingError("accepted a file that scores otherwise than the one it was made of")
        return "accepted with equal scores"

    return attempt


def _check_sentence(sentence: str, path: Path) -> None:
    if not sentence.startswith(f"{path}: ") or not sentence.isprintable() or len(sentence) > 1000:
        raise FindingError(f"refused with {sentence!r}")


def _kind(sentence: str) -> str:
    for part in ("never returns", "not finished after", "memory", *MEMBERS):
        if part in sentence:
            return f"refused ({part})"
    return "refused"


class _Guard:
    """Raises on actions that reading a model must never perform."""

    def __init__(self, folder: Path) -> None:
        self._closed = False
        installed = [*sysconfig.get_paths().values(), sys.prefix, sys.base_prefix]
        own = [
            str(REPOSITORY),
            tempfile.gettempdir(),
            str(folder),
            os.devnull,
            "/proc",
        ]
        self._allowed = tuple(str(Path(place).resolve()) for place in [*installed, *own])
        sys.addaudithook(self._look)

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._closed:
            return
        if event == "open" and isinstance(arguments[0], str | bytes):
            name = os.fsdecode(arguments[0])
            if not str(Path(name).resolve()).startswith(self._allowed):
                self._found(f"opened {name}")
        elif event == "subprocess.Popen":
            if "nodules.system.limited_process" not in arguments[1]:
                self._found(f"ran {arguments[1]}")
        elif event.startswith(("socket.", "os.system", "os.exec", "urllib", "ctypes.dlopen")):
            self._found(event)

    def _found(self, what: str) -> None:
        self._closed = False
        raise FindingError(what)

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Monitor all actions in the `with` block."""

        def forbidden(*arguments: object, **named: object) -> None:
            raise FindingError(f"called with {arguments} and {named}")

        with (
            patch("keras.src.saving.saving_lib.deserialize_keras_object", forbidden),
            patch.object(tf.saved_model, "load", forbidden),
            patch.object(keras.layers.TFSMLayer, "__init__", forbidden),
            patch.object(keras.utils, "get_file", forbidden),
        ):
            self._closed = True
            try:
                yield
            finally:
                self._closed = False


def _mutated(rng: Generator, base: Members, canary: Path) -> tuple[bytes, bool]:
    """Return an archive with a few mutations, and whether HDF5 may crash on it."""
    members = dict(base)
    compression = zipfile.ZIP_STORED
    config, metadata, weights = MEMBERS
    kind = int(rng.integers(9))
    match kind:
        case 0:
            return _damaged(rng, _archive(members)), True
        case 1:
            members, compression = _other_members(rng, members)
        case 2 | 3:
            members[metadata] = _changed_json(rng, members[metadata])
        case 4:
            members[config] = _changed_json(rng, members[config])
        case 5:
            members = _consistently_changed(rng, members)
        case 6:
            members[weights] = _damaged(rng, members[weights])
        case 7:
            members[weights] = _changed_weights(rng, members[weights], canary)
        case 8:
            members[weights] = _changed_weights(rng, members[weights], canary)
            members[metadata] = _changed_json(rng, members[metadata])
            members[config] = _changed_json(rng, members[config])
    return _archive(members, compression), kind == 6


def _archive(members: Members, compression: int = zipfile.ZIP_STORED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return content.getvalue()


def _damaged(rng: Generator, content: bytes) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        # The metadata is at the start or at the end.
        place = int(rng.choice([rng.integers(len(damaged) or 1), rng.integers(2000)]))
        place = min(place, len(damaged)) if rng.random() < 0.7 else max(0, len(damaged) - place)
        size = int(rng.choice([1, 2, 4, 8]))
        match rng.integers(4):
            case 0:
                damaged[place : place + size] = rng.bytes(size)
            case 1:
                damaged[place : place + size] = bytes([int(rng.choice([0, 255]))] * size)
            case 2:
                del damaged[place : place + int(rng.choice([size, 1000]))]
            case 3:
                damaged[place:place] = rng.bytes(size)
    return bytes(damaged)


def _other_members(rng: Generator, members: Members) -> tuple[Members, int]:
    names, compression = list(members), zipfile.ZIP_STORED
    name = str(rng.choice(names))
    match rng.integers(5):
        case 0:
            del members[name]
        case 1:
            members[str(rng.choice(["../x", "/tmp/x", "assets/x", "variables", "x.pkl"]))] = b"x"
        case 2:
            members[name] = bytes(int(rng.integers(100_000)))
        case 3:
            compression = zipfile.ZIP_DEFLATED
        case 4:
            members[name], members[names[0]] = members[names[0]], members[name]
    return members, compression


def _consistently_changed(rng: Generator, members: Members) -> Members:
    """Consistently change values used only in training; the file stays valid."""
    rate = str(rng.choice(["0.25", "0.125", "0.0", "1.5"])).encode()
    return {
        "metadata.json": members["metadata.json"].replace(b'"dropout": 0.5', b'"dropout": ' + rate),
        "config.json": members["config.json"].replace(b'"rate": 0.5', b'"rate": ' + rate),
        "model.weights.h5": members["model.weights.h5"],
    }


def _changed_json(rng: Generator, content: bytes) -> bytes:
    if rng.random() < 0.15:
        return _damaged(rng, content)
    parsed = json.loads(content)
    for _ in range(rng.integers(1, 4)):
        parsed = _changed(rng, parsed)
    text = json.dumps(parsed)
    if rng.random() < 0.1:
        text = text.replace('"', '"network": 1, "', 1) if rng.random() < 0.5 else "[" * 10**5 + text
    return text.encode()


def _changed(rng: Generator, part: Any) -> Any:
    """Return JSON with one value replaced, at any depth."""
    keys = list(part) if isinstance(part, dict) else list(range(len(part)))
    if not keys:
        return _anything(rng)
    key = keys[rng.integers(len(keys))]
    if isinstance(part[key], dict | list) and rng.random() < 0.8:
        part[key] = _changed(rng, part[key])
        return part
    match rng.integers(6):
        case 0:
            del part[key]
        case 1 if isinstance(part, dict):
            part[str(rng.choice(NAMES[:-8]))] = part.pop(key)
        case 1 | 2 if isinstance(part, list):
            part[:] = part[::-1] if rng.random() < 0.5 else part * int(rng.integers(2, 400))
        case _:
            part[key] = _anything(rng, part[key])
    return part


def _anything(rng: Generator, instead_of: Any = None) -> Any:
    if isinstance(instead_of, int | float) and rng.random() < 0.5:
        return NUMBERS[rng.integers(len(NUMBERS))]
    match rng.integers(6):
        case 0:
            return NUMBERS[rng.integers(len(NUMBERS))]
        case 1:
            return NAMES[rng.integers(len(NAMES))]
        case 2:
            return [instead_of] * int(rng.integers(1, 50))
        case 3:
            nested = instead_of
            for _ in range(
                rng.integers(1, 300)
            ):  # may occur three times per file and must be JSON-serialisable
                nested = [nested] if rng.random() < 0.5 else {"config": nested}
            return nested
        case 4:
            return None
    name, module = (NAMES[index] for index in rng.integers(len(NAMES), size=2))
    return {
        "class_name": name,
        "module": module,
        "registered_name": NAMES[rng.integers(len(NAMES))],
        "config": {"filepath": "/etc/passwd", "activation": instead_of, "name": "x"},
        "inbound_nodes": [{"args": [], "kwargs": {"inputs": "/etc/passwd"}}],
    }


def _changed_weights(rng: Generator, weights: bytes, canary: Path) -> bytes:
    content = io.BytesIO(weights)
    with h5py.File(content, "a") as file:
        names: list[str] = []
        groups: list[str] = ["/"]
        file.visititems(
            lambda name, found: (names if isinstance(found, h5py.Dataset) else groups).append(name)
        )
        for _ in range(rng.integers(1, 4)):
            # A second change may conflict with the first.
            with contextlib.suppress(KeyError, ValueError, OSError, RuntimeError, TypeError):
                _change_weights(rng, file, str(rng.choice(names)), str(rng.choice(groups)), canary)
    return content.getvalue()


def _change_weights(rng: Generator, file: h5py.File, name: str, group: str, canary: Path) -> None:
    data = file[name][()]
    match rng.integers(13):
        case 0 | 1:
            values = rng.normal(0, 10.0 ** rng.integers(-3, 6), data.shape)
            file[name][()] = values.astype(data.dtype)
        case 2:
            file[name][()] = np.asarray(VALUES[rng.integers(len(VALUES))]).astype(data.dtype)
        case 3:
            del file[name]
            kind = rng.choice(["f2", "f8", ">f4", "i4", "u1", "S4", "bool", "c8"])
            file[name] = data.astype(kind)
        case 4:
            del file[name]
            shape = tuple(int(size) for size in rng.integers(0, 4, rng.integers(0, 5)))
            file[name] = np.zeros(shape, data.dtype)
        case 5:
            del file[name]
            shape = tuple(int(size) for size in 10 ** rng.integers(0, 12, rng.integers(1, 4)))
            file.create_dataset(name, shape, data.dtype, fillvalue=1)
        case 6:
            del file[name]
            options = {"chunks": True} if rng.random() < 0.5 else {"compression": "gzip"}
            file.create_dataset(name, data=data, **options)
        case 7:
            del file[name]
            file[name] = h5py.ExternalLink(str(canary), "x")
        case 8:
            del file[name]
            file[name] = h5py.SoftLink("/" + name)
        case 9:
            del file[name]
            external = [(str(canary), 2048, data.nbytes)]
            file.create_dataset(name, data.shape, data.dtype, external=external)
        case 10:
            del file[name]
            layout = h5py.VirtualLayout(data.shape, data.dtype)
            layout[...] = h5py.VirtualSource(str(canary), "x", data.shape)
            file.create_virtual_dataset(name, layout)
        case 11:
            depth = int(rng.choice([1, 5, 40, 300]))
            file[group].create_group("/".join("g" * depth))
            file[f"{group}/again"] = file[str(rng.choice(["/", group, name]))]
        case 12:
            file[name].attrs["dtype"] = str(rng.choice(["bfloat16", "float8", "x" * 9999]))
