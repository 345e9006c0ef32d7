"""The threshold that `evaluate` chose for a model file, if dvc.lock vouches for it."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from nodules.evaluation.dvc_lock import (
    LOCK,
    MODEL,
    NotRecordedError,
    content,
    md5,
    recorded_md5,
    recorded_stage,
)
from nodules.statistics.decision import is_threshold
from nodules.system.streams import printable

# Place of the metrics in a repository of the pipeline.
METRICS = Path("metrics/evaluate/metrics.json")


class Threshold(NamedTuple):
    """The smallest probability that is called a nodule, and where it comes from."""

    value: float
    origin: str


def chosen_threshold(model: Path, views: int) -> Threshold:
    """Return the threshold that the repository of a model chose for it.

    The file must be `models/model.keras` of a repository whose dvc.lock records that `evaluate`
    scored exactly this model and wrote exactly these metrics.

    Parameters
    ----------
    model
        Model file.
    views
        Number of views with which new patches are scored.

    Raises
    ------
    NotRecordedError
        If there is no such repository, dvc.lock records another model or other metrics, or the
        threshold was chosen with another number of views.
    """
    place = Path(os.path.abspath(model))  # noqa: PTH100 - links, as DVC makes them, must stay
    if place.parts[-2:] != MODEL.parts:
        raise NotRecordedError(f"{printable(model)} is not {MODEL} of a repository")
    # Parent folders as the user gave them, for the message.
    root = Path(os.path.relpath(place.parents[1]))
    if len(root.parts) and root.parts[0] == "..":
        root = place.parents[1]
    stage = recorded_stage(root / LOCK, "evaluate")
    if recorded_md5(stage, "deps", MODEL) != md5(model):
        raise NotRecordedError(f"evaluate scored another model, says {printable(root / LOCK)}")
    metrics = content(root / METRICS)
    found = hashlib.md5(metrics, usedforsecurity=False).hexdigest()
    if recorded_md5(stage, "outs", METRICS) != found:
        problem = f"{printable(root / METRICS)} is not the file that evaluate wrote"
        raise NotRecordedError(f"{problem}, says {printable(root / LOCK)}")
    origin = f"{_rule(stage, views)}, {printable(root / METRICS)}"
    return Threshold(_threshold(root / METRICS, metrics), origin)


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
        raise NotRecordedError(f"evaluate chose it with --views {printable(chosen_with, 20)}")
    return "chosen on val"


def _threshold(path: Path, metrics: bytes) -> float:
    try:
        found = json.loads(metrics)["threshold"]
    except (ValueError, KeyError, TypeError, RecursionError):
        found = None
    if not is_threshold(found):
        raise NotRecordedError(f"{printable(path)} holds no threshold in 0..1")
    return float(found)
