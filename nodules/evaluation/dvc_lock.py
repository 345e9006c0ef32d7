"""What dvc.lock records of the stages of a repository."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from nodules.system.regular_file import open_regular
from nodules.system.streams import printable

# Place of the model in a repository of the pipeline.
MODEL = Path("models/model.keras")
LOCK = Path("dvc.lock")

# Far more than any real file of these has.
MAX_BYTES = 1_000_000


class NotRecordedError(Exception):
    """A repository does not record what is asked for; the message says why."""


def trained_recipe(model: Path, lock: Path = LOCK) -> str | None:
    """Return the name of the recipe with which a model was trained.

    Parameters
    ----------
    model
        Model file.
    lock
        The dvc.lock of its repository.

    Returns
    -------
    str or None
        None unless the lock records that `train` wrote exactly this model.
    """
    try:
        stage = recorded_stage(lock, "train")
        if recorded_md5(stage, "outs", MODEL) == md5(model):
            return printable(stage["params"]["params.yaml"]["recipe"], 60)
    except (NotRecordedError, KeyError, TypeError):
        pass
    return None


def recorded_stage(lock: Path, name: str) -> Mapping[str, Any]:
    """Return the entry of a stage, of unchecked content.

    Raises
    ------
    NotRecordedError
        If there is none, or the file cannot be read.
    """
    try:
        stage = YAML(typ="safe").load(content(lock))["stages"][name]
    except (YAMLError, KeyError, TypeError, ValueError, RecursionError):
        stage = None
    if not isinstance(stage, Mapping):
        raise NotRecordedError(f"{printable(lock)} records no {name}")
    return stage


def recorded_md5(stage: Mapping[str, Any], kind: str, path: Path) -> str | None:
    """Return the MD5 of one of the `deps` or `outs` of a stage; None if it has no such entry."""
    entries = stage.get(kind)
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, Mapping) and entry.get("path") == path.as_posix():
            return str(entry.get("md5"))
    return None


def md5(path: Path) -> str:
    """Return the MD5 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def content(path: Path) -> bytes:
    """Return the content of a small file.

    Raises
    ------
    NotRecordedError
        If it is missing, no regular file, or too large.
    """
    try:
        with open_regular(path) as file:
            found = file.read(MAX_BYTES + 1)
    except OSError:
        raise NotRecordedError(f"{printable(path)} is missing or cannot be read") from None
    if len(found) > MAX_BYTES:
        raise NotRecordedError(f"{printable(path)} has more than {MAX_BYTES:,} bytes")
    return found
