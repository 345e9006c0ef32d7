"""The threshold that `evaluate` chose for a model file, if dvc.lock vouches for it."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from nodules.system.regular_file import open_regular
from nodules.system.streams import printable

# Place of the model and the metrics in a repository of the pipeline.
MODEL = Path("models/model.keras")
METRICS = Path("metrics/evaluate/metrics.json")
LOCK = Path("dvc.lock")

# Far more than any real file of these has.
MAX_BYTES = 1_000_000


class Threshold(NamedTuple):
    """The smallest probability that is called a nodule, and where it comes from."""

    value: float
    origin: str


class NoThresholdError(Exception):
    """There is no threshold for a model; the message says why."""


def chosen_threshold(model: Path, md5: str, views: int) -> Threshold:
    """Return the threshold that the repository of a model chose for it.

    The file must be `models/model.keras` of a repository whose dvc.lock records that `evaluate`
    scored exactly this model and wrote exactly these metrics.

    Parameters
    ----------
    model
        Model file.
    md5
        MD5 of its content.
    views
        Number of views with which new patches are scored.

    Raises
    ------
    NoThresholdError
        If there is no such repository, dvc.lock records another model or other metrics, or the
        threshold was chosen with another number of views.
    """
    place = Path(os.path.abspath(model))  # noqa: PTH100 - links, as DVC makes them, must stay
    if place.parts[-2:] != MODEL.parts:
        raise NoThresholdError(f"{printable(model)} is not {MODEL} of a repository")
    # Parent folders as the user gave them, for the message.
    root = Path(os.path.relpath(place.parents[1]))
    if len(root.parts) and root.parts[0] == "..":
        root = place.parents[1]
    stage = _evaluate_stage(root / LOCK)
    if _recorded(stage, "deps", MODEL) != md5:
        raise NoThresholdError(f"evaluate scored another model, says {printable(root / LOCK)}")
    metrics = _content(root / METRICS)
    if _recorded(stage, "outs", METRICS) != hashlib.md5(metrics, usedforsecurity=False).hexdigest():
        problem = f"{printable(root / METRICS)} is not the file that evaluate wrote"
        raise NoThresholdError(f"{problem}, says {printable(root / LOCK)}")
    origin = f"{_rule(stage, views)}, {printable(root / METRICS)}"
    try:
        return Threshold(threshold_in(metrics), origin)
    except ValueError as error:
        raise NoThresholdError(f"{printable(root / METRICS)}: {error}") from None


def threshold_in(metrics: str | bytes) -> float:
    """Return the threshold in the text of a metrics.json that `evaluate` wrote.

    Raises
    ------
    ValueError
        If it holds none in 0..1; the message says what was found and what was expected.
    """
    expected = "expected a number in 0..1"
    try:
        found = json.loads(metrics)["threshold"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"found no threshold, {expected}") from None
    if isinstance(found, bool) or not isinstance(found, float | int) or not 0 <= found <= 1:
        raise ValueError(f"threshold: found {printable(repr(found), 60)}, {expected}")
    return float(found)


def _content(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError:
        raise NoThresholdError(f"{printable(path)} is missing or cannot be read") from None
    if len(content) > MAX_BYTES:
        raise NoThresholdError(f"{printable(path)} has more than {MAX_BYTES:,} bytes")
    return content


def _evaluate_stage(lock: Path) -> Mapping[str, Any]:
    try:
        stage = YAML(typ="safe").load(_content(lock))["stages"]["evaluate"]
    except (YAMLError, KeyError, TypeError, ValueError, RecursionError):
        stage = None
    if not isinstance(stage, Mapping):
        raise NoThresholdError(f"{printable(lock)} records no evaluate")
    return stage


def _recorded(stage: Mapping[str, Any], kind: str, path: Path) -> str | None:
    """Return the MD5 that dvc.lock records for a dependency or an output of `evaluate`."""
    entries = stage.get(kind)
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, Mapping) and entry.get("path") == path.as_posix():
            return str(entry.get("md5"))
    return None


def _rule(stage: Mapping[str, Any], views: int) -> str:
    """Return how the threshold was chosen."""
    try:
        params = stage["params"]["params.yaml"]["evaluate"]
        fixed, chosen_with = params["threshold"]["rule"] == "fixed", params["views"]
    except (KeyError, TypeError):
        return "chosen on val"
    if fixed:
        return "fixed in params.yaml"
    if chosen_with != views:
        raise NoThresholdError(f"evaluate chose it with --views {printable(chosen_with, 20)}")
    return "chosen on val"
