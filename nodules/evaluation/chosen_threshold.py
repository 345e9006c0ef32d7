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
    recorded_md5,
    recorded_stage,
)
from nodules.system.streams import printable

# Place of the metrics in a repository of the pipeline.
METRICS = Path("metrics/evaluate/metrics.json")


class Threshold(NamedTuple):
    """The smallest probability that is called a nodule, and where it comes from."""

    value: float
    origin: str


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
    if recorded_md5(stage, "deps", MODEL) != md5:
        raise NotRecordedError(f"evaluate scored another model, says {printable(root / LOCK)}")
    metrics = content(root / METRICS)
    found = hashlib.md5(metrics, usedforsecurity=False).hexdigest()
    if recorded_md5(stage, "outs", METRICS) != found:
        problem = f"{printable(root / METRICS)} is not the file that evaluate wrote"
        raise NotRecordedError(f"{problem}, says {printable(root / LOCK)}")
    origin = f"{_rule(stage, views)}, {printable(root / METRICS)}"
    try:
        return Threshold(threshold_in(metrics), origin)
    except ValueError as error:
        raise NotRecordedError(f"{printable(root / METRICS)}: {error}") from None


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
