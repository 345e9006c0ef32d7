"""Vega-Lite specifications of the report's charts, each with the curves of all revisions."""

from typing import Any

from pydantic import TypeAdapter, ValidationError
from sklearn.metrics import precision_recall_curve, roc_curve

from nodules.comparison.revisions import Revision
from nodules.errors import RevisionError
from nodules.evaluation.metrics import ROC_CORNER, calibration_curve
from nodules.evaluation.params import CalibrationBins
from nodules.report.content import Report
from nodules.schema import PARAMS_FILE, first_problem
from nodules.system.streams import printable

# Colour-blind safe, on light and dark backgrounds.
COLOURS = ["#3b8fd0", "#e69f00", "#1fa27c", "#cc6fa8", "#e0662a", "#8f8f8f"]
LEGEND_CHARACTERS = 40

# Titles of the training charts by metric and by the splits of their curves.
TRAINING_TITLES = {
    ("loss", "train", "val"): "Loss per epoch (train: as trained; val: plain)",
    ("accuracy", "train", "val"): "Accuracy per epoch (train: as trained; val: plain)",
    ("loss", "val"): "Validation loss per epoch",
    ("accuracy", "val"): "Validation accuracy per epoch",
    ("auc", "val"): "Validation AUC per epoch",
}

Spec = dict[str, Any]
Rows = list[dict[str, Any]]


def charts(report: Report) -> dict[str, Spec]:
    """Return the ROC, precision-recall, calibration and training charts.

    Returns
    -------
    dict of str to dict
        Vega-Lite specifications by title. Training charts are included if any revision has
        training curves.

    Raises
    ------
    RevisionError
        If the parameters of the baseline hold no valid `evaluate.calibration_bins`.
    """
    specs = {
        **roc_charts(report),
        "Precision-recall": _precision_recall(report),
        "Calibration": _calibration(report),
    }
    return specs | _training(report)


def roc_charts(report: Report) -> dict[str, Spec]:
    """Return the chart of the ROC, and that of its upper left corner, by title."""
    rows: Rows = []
    for revision in report.revisions:
        predictions = revision.predictions
        fpr, tpr, thresholds = roc_curve(predictions.labels, predictions.probabilities)
        # The first threshold is infinite, which JSON cannot represent.
        rows += _rows(
            printable(revision.name), fpr=fpr, tpr=tpr, threshold=[None, *thresholds[1:].tolist()]
        )
    points: Rows = [
        {
            "revision": printable(revision.name),
            "fpr": 1 - scores["specificity"].value,
            "tpr": scores["sensitivity"].value,
            "threshold": revision.threshold,
        }
        for revision, scores in zip(report.revisions, report.compared.scores, strict=True)
    ]
    chance = [{"fpr": 0, "tpr": 0}, {"fpr": 1, "tpr": 1}]

    def part(size: float, diagonal: Rows | None) -> Spec:
        x = _axis("fpr", "False positive rate (1 - specificity)", 0, size)
        y = _axis("tpr", "Sensitivity", 1 - size, 1)
        shown = [point for point in points if point["fpr"] <= size and point["tpr"] >= 1 - size]
        tooltip = ["threshold"]
        return _chart(report, rows, x, y, tooltip=tooltip, diagonal=diagonal, points=shown)

    return {"ROC": part(1, chance), "ROC, upper left corner": part(ROC_CORNER, None)}


def _precision_recall(report: Report) -> Spec:
    rows: Rows = []
    for revision in report.revisions:
        predictions = revision.predictions
        precision, recall, thresholds = precision_recall_curve(
            predictions.labels, predictions.probabilities, drop_intermediate=True
        )
        rows += _rows(
            printable(revision.name),
            recall=recall,
            precision=precision,
            threshold=[*thresholds.tolist(), None],
        )
    x, y = _axis("recall", "Recall (sensitivity)"), _axis("precision", "Precision")
    return _chart(report, rows, x, y, tooltip=["threshold"])


def _calibration(report: Report) -> Spec:
    bins = _calibration_bins(report.baseline)
    rows = [
        {"revision": printable(revision.name), **bin_._asdict()}
        for revision in report.revisions
        for bin_ in calibration_curve(
            revision.predictions.labels, revision.predictions.probabilities, bins
        )
    ]
    x = _axis("probability", "Mean predicted probability")
    y = _axis("nodule_fraction", "Observed fraction of nodules")
    perfect = [{"probability": 0, "nodule_fraction": 0}, {"probability": 1, "nodule_fraction": 1}]
    return _chart(report, rows, x, y, tooltip=["patches"], diagonal=perfect, dots=True)


def _calibration_bins(baseline: Revision) -> int:
    """Return the number of bins with which `evaluate` drew the baseline, for all curves."""
    key = "evaluate.calibration_bins"
    try:
        return TypeAdapter(CalibrationBins).validate_python(baseline.params.get(key), strict=True)
    except ValidationError as error:
        _, problem = first_problem(error)
        raise RevisionError(baseline.name, f"{PARAMS_FILE}: {key}: {problem}") from None


def _training(report: Report) -> dict[str, Spec]:
    rows: dict[str, Rows] = {}
    for revision in report.revisions:
        for point in revision.training_curves():
            row = {"revision": printable(revision.name), "epoch": point.epoch, "value": point.value}
            rows.setdefault(point.metric, []).append({**row, "split": printable(point.split)})
    last = max((row["epoch"] for points in rows.values() for row in points), default=0)
    ticks = {"tickCount": min(last, 8), "format": "d"}
    x = {"field": "epoch", "type": "quantitative", "title": "Epoch (from 0)", "axis": ticks}
    specs = {}
    for metric in sorted(rows):
        name = "AUC" if metric == "auc" else printable(metric)
        y = {"field": "value", "type": "quantitative", "title": name, "scale": {"zero": False}}
        splits = sorted({row["split"] for row in rows[metric]})
        title = TRAINING_TITLES.get((metric, *splits), f"Training: {name} ({', '.join(splits)})")
        specs[title] = _chart(report, rows[metric], x, y, tooltip=["split"])
    return specs


def _rows(revision: str, **columns: Any) -> Rows:
    return [
        {"revision": revision, **dict(zip(columns, map(_float_or_none, values), strict=True))}
        for values in zip(*columns.values(), strict=True)
    ]


def _float_or_none(value: Any) -> float | None:
    return None if value is None else float(value)


def _axis(field: str, title: str, low: float = 0, high: float = 1) -> Spec:
    scale = {"domain": [low, high]}
    return {"field": field, "type": "quantitative", "title": title, "scale": scale}


def _chart(
    report: Report,
    rows: Rows,
    x: Spec,
    y: Spec,
    *,
    tooltip: list[str],
    diagonal: Rows | None = None,
    points: Rows | None = None,
    dots: bool = False,
) -> Spec:
    """Return a chart with one line per revision.

    Clicking the legend highlights a revision. A tooltip describes the point nearest to the pointer.
    """
    encoding: Spec = {
        "x": x,
        "y": y,
        # Draw points in row order: ROC and precision-recall curves have several points at one x.
        "order": None,
        "color": _revision_colour([printable(revision.name) for revision in report.revisions]),
        "opacity": {"condition": {"param": "picked", "value": 1}, "value": 0.12},
    }
    details = {
        "tooltip": [_tooltip_field(name) for name in ("revision", x["field"], y["field"], *tooltip)]
    }
    pick = {"name": "picked", "select": {"type": "point", "fields": ["revision"]}, "bind": "legend"}
    pointer = {"type": "point", "on": "pointerover", "nearest": True, "clear": "pointerout"}
    near = {"param": "near", "empty": False, "value": 1}
    layers: list[Spec] = [
        {
            # Mitred joins produce spikes on a jagged precision-recall curve.
            "mark": {"type": "line", "clip": True, "strokeJoin": "round"},
            "params": [pick],
            "encoding": encoding | _split_dashes(rows),
        },
        {
            "mark": {"type": "point", "filled": True, "size": 60, "clip": not dots},
            "params": [{"name": "near", "select": pointer}],
            "encoding": encoding
            | details
            | {"opacity": {"condition": near, "value": 0.7 if dots else 0}},
        },
    ]
    if diagonal:
        mark = {"type": "line", "color": "#999", "strokeDash": [4, 4], "strokeWidth": 1}
        layers.insert(0, {"data": {"values": diagonal}, "mark": mark, "encoding": {"x": x, "y": y}})
    if points:
        mark = {"type": "point", "filled": True, "size": 90, "stroke": "white"}
        layers.append({"data": {"values": points}, "mark": mark, "encoding": encoding | details})
    return {"data": {"values": rows}, "width": "container", "height": 300, "layer": layers}


def _revision_colour(names: list[str]) -> Spec:
    # Number of names that fit in one row below a phone-width chart.
    columns = max(1, LEGEND_CHARACTERS // max(len(name) + 4 for name in names))
    return {
        "field": "revision",
        "type": "nominal",
        "title": None,
        "legend": {"columns": columns},
        "scale": {"domain": names, "range": COLOURS[: len(names)]},
    }


def _split_dashes(rows: Rows) -> Spec:
    """Return an encoding that dashes the training split, if there are two splits."""
    splits = sorted({row["split"] for row in rows if "split" in row})
    if len(splits) < 2:
        return {}
    scale = {"domain": splits, "range": [[5, 3], [1, 0]]}
    return {"strokeDash": {"field": "split", "type": "nominal", "title": None, "scale": scale}}


def _tooltip_field(field: str) -> Spec:
    if field in ("revision", "split"):
        return {"field": field, "type": "nominal"}
    return {"field": field, "type": "quantitative", "format": ".4~f"}
