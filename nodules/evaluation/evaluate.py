"""Evaluate a trained model on every split: metrics, curves, figures and predictions."""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from dvclive import Live
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from nodules.errors import FileError, ScoringError
from nodules.evaluation import figures
from nodules.evaluation.dvc_lock import trained_recipe
from nodules.evaluation.metrics import (
    calibration_curve,
    calibration_line,
    choose_threshold,
    predictive_values,
    score,
    sensitivity_at_specificity,
    threshold_text,
)
from nodules.evaluation.params import EvaluateParams
from nodules.evaluation.predictions import COLUMNS, new_table, source_name, write_split
from nodules.inference.constant_predictions import constant_predictions
from nodules.inference.folding import fold_batch_norm
from nodules.inference.probabilities import nodule_probabilities
from nodules.models.archive import read_archive
from nodules.models.file import load_model
from nodules.patches.layout import CLASSES, SPLITS, Groups, Labels
from nodules.patches.reader import PatchFile, PatchRows, open_patches
from nodules.statistics.decision import called
from nodules.statistics.intervals import score_intervals

# Predictions on the train split are of little use and would make the table five times as long.
PREDICTED_SPLITS = ("val", "test")
WITH_INTERVALS = ("auc", "average_precision", "accuracy", "sensitivity", "specificity")


@dataclass(frozen=True)
class ScoredSplit:
    """A split with the model's probabilities.

    Attributes
    ----------
    patches
        (N, 50, 50) uint8, on disk.
    labels
        (N,) uint8.
    groups
        (N,) or None.
    index
        (N,) int64 rows in the data set.
    probabilities
        (N,) float32.
    sources
        (N,) each: `file` and `candidate`, as far as the data set has them.
    irrelevant
        (N,) whether the data set calls a patch irrelevant.
    """

    patches: PatchRows
    labels: Labels
    groups: Groups | None
    index: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    sources: dict[str, NDArray]
    irrelevant: NDArray[np.bool_]


@dataclass(frozen=True)
class EvaluationFiles:
    """The files that an evaluation reads and writes: model and splits, then the outputs."""

    model: Path
    splits: Path
    log: Path
    figures: Path
    predictions: Path


def evaluate(params: EvaluateParams, seed: int, files: EvaluationFiles) -> None:
    """Score the splits; write metrics, plot data, figures and predictions.

    Prints a warning to stderr if all patches get practically the same probability.

    Parameters
    ----------
    params
        Parameters of the evaluation.
    seed
        Seed of the sample patches in the figure.
    files
        Files to read and write.

    Raises
    ------
    FileError, PatchFileError
        If a file is not an output of an earlier stage, or the model's outputs are not
        probabilities.
    """
    scored = _score_splits(files, params)
    val, test = scored["val"], scored["test"]
    threshold = choose_threshold(val.labels, val.probabilities, params.threshold)
    metrics: dict[str, float] = {"threshold": threshold}
    for name, split in scored.items():
        subsets = {name: np.full(len(split.labels), True)}
        relevant = ~split.irrelevant
        if not relevant.all() and len(np.unique(split.labels[relevant])) == 2:
            subsets[f"{name}/relevant"] = relevant
        for prefix, rows in subsets.items():
            subset = _metrics(split, rows, threshold, params, name in PREDICTED_SPLITS)
            metrics |= {f"{prefix}/{key}": value for key, value in subset.items()}
    intervals = {
        name: (metrics[f"{name}/auc_low"], metrics[f"{name}/auc_high"]) for name in PREDICTED_SPLITS
    }
    with Live(str(files.log), dvcyaml=None, save_dvc_exp=False) as live:
        for name, value in metrics.items():
            live.log_metric(name, value, plot=False)
        for name in PREDICTED_SPLITS:
            _log_curves(live, name, scored[name], params.calibration_bins)
        _log_confusion(live, test, threshold)
    curves = {
        name: figures.RocCurve(
            scored[name].labels, scored[name].probabilities, metrics[f"{name}/auc"], intervals[name]
        )
        for name in PREDICTED_SPLITS
    }
    title = _training_text(files.model)
    figures.roc(curves, threshold, params.confidence, title, files.figures / "roc.png")
    samples = {name: (split.patches, split.labels) for name, split in scored.items()}
    figures.samples(samples, seed, files.figures / "samples.png")
    figures.hardest(
        test.patches,
        test.labels,
        test.probabilities,
        test.index,
        threshold,
        params.hardest,
        files.figures / "hardest.png",
        _file_names(test),
    )
    with new_table(files.predictions, (*COLUMNS, *test.sources)) as table:
        for name in PREDICTED_SPLITS:
            split = scored[name]
            columns = split.index, split.groups, split.labels, split.probabilities
            write_split(table, name, *columns, split.sources)
    predicted = np.concatenate([scored[name].probabilities for name in PREDICTED_SPLITS])
    if problem := constant_predictions(predicted, f"{' and '.join(PREDICTED_SPLITS)} patches"):
        advice = "train it for more epochs or on more patches"
        print(f"warning: {files.model}: {problem}; {advice}", file=sys.stderr)
    low, high = intervals["test"]
    print(
        f"test AUC {metrics['test/auc']:.3f} ({100 * params.confidence:g}% interval {low:.3f} to "
        f"{high:.3f}); threshold {threshold:.3f}, {threshold_text(params.threshold)}: sensitivity "
        f"{metrics['test/sensitivity']:.3f}, specificity {metrics['test/specificity']:.3f}"
        f"{_predictive_text(metrics, params.prevalence)}; curves in {files.figures / 'roc.png'}"
    )


def _metrics(
    split: ScoredSplit,
    rows: NDArray[np.bool_],
    threshold: float,
    params: EvaluateParams,
    with_intervals: bool,
) -> dict[str, float]:
    """Return the metrics of some rows of a split by name."""
    labels, probabilities = split.labels[rows], split.probabilities[rows]
    scores = score(
        labels, probabilities, threshold=threshold, calibration_bins=params.calibration_bins
    )
    metrics = scores._asdict()
    metrics["sensitivity_at_specificity"] = sensitivity_at_specificity(
        labels, probabilities, params.at_specificity
    )
    if line := calibration_line(labels, probabilities):
        metrics |= {"calibration_slope": line.slope, "calibration_intercept": line.intercept}
    if params.prevalence is not None:
        values = predictive_values(scores.sensitivity, scores.specificity, params.prevalence)
        metrics |= {"ppv_at_prevalence": values.ppv, "npv_at_prevalence": values.npv}
    if with_intervals:
        groups = None if split.groups is None else split.groups[rows]
        estimates = score_intervals(
            labels, groups, probabilities, threshold=threshold, confidence=params.confidence
        )
        for key in WITH_INTERVALS:
            metrics |= {f"{key}_low": estimates[key].low, f"{key}_high": estimates[key].high}
    return metrics


def _predictive_text(metrics: dict[str, float], prevalence: float | None) -> str:
    if prevalence is None:
        return ""
    return (
        f", at a prevalence of {prevalence:g} positive predictive value "
        f"{metrics['test/ppv_at_prevalence']:.3f}, negative {metrics['test/npv_at_prevalence']:.3f}"
    )


def _training_text(model: Path) -> str:
    """Return the network of a model file, and the recipe of its training if dvc.lock says so."""
    recipe = trained_recipe(model)
    return read_archive(model).spec.entry + (f", recipe {recipe}" if recipe else "")


def _score_splits(files: EvaluationFiles, params: EvaluateParams) -> dict[str, ScoredSplit]:
    model = fold_batch_norm(load_model(files.model))
    scored = {}
    for name in SPLITS:
        with open_patches(files.splits / f"{name}.h5") as split:
            patches = split.on_disk()
            try:
                probabilities = nodule_probabilities(
                    model, patches, batch_size=params.batch_size, views=params.views
                )
            except ScoringError as error:
                raise FileError(files.model, f"{name}: {error}") from None
            scored[name] = ScoredSplit(
                patches,
                split.labels,
                split.groups,
                split.read_index(),
                probabilities,
                split.read_sources(),
                _irrelevant(split),
            )
    return scored


def _irrelevant(split: PatchFile) -> NDArray[np.bool_]:
    marked = split.read_irrelevant()
    return np.full(len(split), False) if marked is None else marked


def _file_names(split: ScoredSplit) -> list[str] | None:
    """Return the names of the patches' files without their folders, if known."""
    files = split.sources.get("file")
    return None if files is None else [source_name(file, "") for file in files]


def _log_curves(live: Live, name: str, split: ScoredSplit, bins: int) -> None:
    """Log the ROC, precision-recall and calibration curves of a split as plot data."""
    labels, probabilities = split.labels, split.probabilities
    fpr, tpr, thresholds = roc_curve(labels, probabilities)
    # At the first point, nothing is called a nodule: its threshold is infinite. JSON has no
    # infinity, and Vega refuses a file that contains one.
    finite = [None, *thresholds[1:].tolist()]
    live.log_plot(
        f"roc_{name}", _points(fpr=fpr.tolist(), tpr=tpr.tolist(), threshold=finite), "fpr", "tpr"
    )
    precision, recall, thresholds = precision_recall_curve(
        labels, probabilities, drop_intermediate=True
    )
    finite = [*thresholds.tolist(), None]
    points = _points(recall=recall.tolist(), precision=precision.tolist(), threshold=finite)
    live.log_plot(f"precision_recall_{name}", points, "recall", "precision")
    points = [bin_._asdict() for bin_ in calibration_curve(labels, probabilities, bins)]
    live.log_plot(f"calibration_{name}", points, "probability", "nodule_fraction")


def _points(**columns: list[float | None]) -> list[dict[str, float | None]]:
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def _log_confusion(live: Live, split: ScoredSplit, threshold: float) -> None:
    predicted = called(split.probabilities, threshold).astype(int)
    points = [
        {"actual": CLASSES[actual], "predicted": CLASSES[call]}
        for actual, call in zip(split.labels, predicted, strict=True)
    ]
    live.log_plot("confusion_test", points, "actual", "predicted", template="confusion")
