"""Vega-Lite specifications of the report's charts: the curves of all revisions on one picture."""

from typing import Any

from sklearn.metrics import precision_recall_curve, roc_curve

from nodules.evaluation.metrics import calibration_curve
from nodules.report.content import Report
from nodules.system.streams import printable

# Told apart by colour-blind readers, on white and on black.
COLOURS = ["#3b8fd0", "#e69f00", "#1fa27c", "#cc6fa8", "#e0662a", "#8f8f8f"]
CALIBRATION_BINS = 10
LEGEND_LETTERS = 40

Spec = dict[str, Any]
Rows = list[dict[str, Any]]


def charts(report: Report) -> dict[str, Spec]:
    """Draw ROC, precision-recall, calibration and training curves.

    Returns
    -------
    dict of str to dict
        Vega-Lite specifications by title; curves of training only where a revision has any.
    """
    drawn = {
        "ROC": _roc(report),
        "Precision and recall": _precision_recall(report),
        "Calibration": _calibration(report),
    }
    return drawn | _training(report)


def _roc(report: Report) -> Spec:
    rows: Rows = []
    for each in report.revisions:
        predictions = each.predictions
        fpr, tpr, thresholds = roc_curve(predictions.labels, predictions.probabilities)
        # The first threshold is infinite, which JSON lacks: nothing is called a nodule.
        rows += _rows(
            printable(each.name), fpr=fpr, tpr=tpr, threshold=[None, *thresholds[1:].tolist()]
        )
    points = [
        {
            "revision": printable(each.name),
            "fpr": 1 - scores["specificity"].value,
            "tpr": scores["sensitivity"].value,
            "threshold": each.threshold,
        }
        for each, scores in zip(report.revisions, report.compared.scores, strict=True)
    ]
    x, y = _unit("fpr", "False positive rate (1 - specificity)"), _unit("tpr", "Sensitivity")
    chance = [{"fpr": 0, "tpr": 0}, {"fpr": 1, "tpr": 1}]
    return _chart(report, rows, x, y, tooltip=["threshold"], diagonal=chance, points=points)


def _precision_recall(report: Report) -> Spec:
    rows: Rows = []
    for each in report.revisions:
        predictions = each.predictions
        precision, recall, thresholds = precision_recall_curve(
            predictions.labels, predictions.probabilities, drop_intermediate=True
        )
        rows += _rows(
            printable(each.name),
            recall=recall,
            precision=precision,
            threshold=[*thresholds.tolist(), None],
        )
    x, y = _unit("recall", "Recall (sensitivity)"), _unit("precision", "Precision")
    return _chart(report, rows, x, y, tooltip=["threshold"])


def _calibration(report: Report) -> Spec:
    rows = [
        {"revision": printable(each.name), **bin_._asdict()}
        for each in report.revisions
        for bin_ in calibration_curve(
            each.predictions.labels, each.predictions.probabilities, CALIBRATION_BINS
        )
    ]
    x = _unit("probability", "Mean predicted probability")
    y = _unit("nodule_fraction", "Share of nodules")
    perfect = [{"probability": 0, "nodule_fraction": 0}, {"probability": 1, "nodule_fraction": 1}]
    return _chart(report, rows, x, y, tooltip=["patches"], diagonal=perfect, dots=True)


def _training(report: Report) -> dict[str, Spec]:
    rows: dict[str, Rows] = {}
    for each in report.revisions:
        for point in each.training_curves():
            row = {"revision": printable(each.name), "epoch": point.epoch, "value": point.value}
            rows.setdefault(point.metric, []).append({**row, "split": printable(point.split)})
    last = max((row["epoch"] for found in rows.values() for row in found), default=0)
    ticks = {"tickCount": min(last, 8), "format": "d"}
    x = {"field": "epoch", "type": "quantitative", "title": "Epoch (from 0)", "axis": ticks}
    drawn = {}
    for metric in sorted(rows):
        name = "AUC" if metric == "auc" else printable(metric)
        y = {"field": "value", "type": "quantitative", "title": name, "scale": {"zero": False}}
        drawn[f"Training: {name}"] = _chart(report, rows[metric], x, y, tooltip=["split"])
    return drawn


def _rows(revision: str, **columns: Any) -> Rows:
    return [
        {"revision": revision, **dict(zip(columns, map(_number, values), strict=True))}
        for values in zip(*columns.values(), strict=True)
    ]


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _unit(field: str, title: str) -> Spec:
    return {"field": field, "type": "quantitative", "title": title, "scale": {"domain": [0, 1]}}


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
    """Overlay a line for each revision.

    The legend picks a revision; the point nearest to the pointer says what it is.
    """
    encoding: Spec = {
        "x": x,
        "y": y,
        # In the order of the rows: ROC and precision-recall turn corners at the same x.
        "order": None,
        "color": _colour([printable(each.name) for each in report.revisions]),
        "opacity": {"condition": {"param": "picked", "value": 1}, "value": 0.12},
    }
    details = {
        "tooltip": [_detail(name) for name in ("revision", x["field"], y["field"], *tooltip)]
    }
    pick = {"name": "picked", "select": {"type": "point", "fields": ["revision"]}, "bind": "legend"}
    pointer = {"type": "point", "on": "pointerover", "nearest": True, "clear": "pointerout"}
    near = {"param": "near", "empty": False, "value": 1}
    layers: list[Spec] = [
        {
            # Mitred, the teeth of a precision-recall curve grow thorns.
            "mark": {"type": "line", "clip": True, "strokeJoin": "round"},
            "params": [pick],
            "encoding": encoding | _dashes(rows),
        },
        {
            "mark": {"type": "point", "filled": True, "size": 60},
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


def _colour(names: list[str]) -> Spec:
    # As many names in a row as fit below a chart at phone width.
    columns = max(1, LEGEND_LETTERS // max(len(name) + 4 for name in names))
    return {
        "field": "revision",
        "type": "nominal",
        "title": None,
        "legend": {"columns": columns},
        "scale": {"domain": names, "range": COLOURS[: len(names)]},
    }


def _dashes(rows: Rows) -> Spec:
    """Tell train from val by dashes, where both are there."""
    splits = sorted({row["split"] for row in rows if "split" in row})
    if len(splits) < 2:
        return {}
    scale = {"domain": splits, "range": [[5, 3], [1, 0]]}
    return {"strokeDash": {"field": "split", "type": "nominal", "title": None, "scale": scale}}


def _detail(field: str) -> Spec:
    if field in ("revision", "split"):
        return {"field": field, "type": "nominal"}
    return {"field": field, "type": "quantitative", "format": ".4~f"}
