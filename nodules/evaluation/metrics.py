"""How good a set of predictions is: one set of scores for every split, and an honest interval."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from nodules.params import ThresholdParams
from nodules.patches.layout import Groups, Labels

Probabilities = NDArray[np.floating]

# Resamples are drawn and scored in blocks, so that memory does not grow with their number.
RESAMPLES_AT_ONCE = 64


class Scores(NamedTuple):
    """The scores of one split, each in 0..1; higher is better but for `brier` and `ece`.

    A ratio whose denominator is zero (the precision where nothing is called a nodule) counts as 0.
    """

    auc: float
    accuracy: float
    average_precision: float
    sensitivity: float
    specificity: float
    precision: float
    npv: float
    f1: float
    brier: float
    ece: float


class CalibrationBin(NamedTuple):
    """Patches whose probability lies in one bin: their mean probability and share of nodules."""

    probability: float
    nodule_fraction: float
    patches: int


def score(
    labels: Labels, probabilities: Probabilities, *, threshold: float, calibration_bins: int
) -> Scores:
    """Score the predictions of one split.

    Parameters
    ----------
    labels
        (N,) of 0 and 1, both present.
    probabilities
        (N,) in 0..1: the probability of a nodule.
    threshold
        A patch at or above it is called a nodule.
    calibration_bins
        Number of bins of the expected calibration error.

    Returns
    -------
    Scores
    """
    (tn, fp), (fn, tp) = confusion_matrix(labels, probabilities >= threshold, labels=[0, 1])
    bins = calibration_curve(labels, probabilities, calibration_bins)
    return Scores(
        auc=float(roc_auc_score(labels, probabilities)),
        accuracy=_ratio(tp + tn, len(labels)),
        average_precision=float(average_precision_score(labels, probabilities)),
        sensitivity=_ratio(tp, tp + fn),
        specificity=_ratio(tn, tn + fp),
        precision=_ratio(tp, tp + fp),
        npv=_ratio(tn, tn + fn),
        f1=_ratio(2 * tp, 2 * tp + fp + fn),
        brier=float(brier_score_loss(labels, probabilities)),
        ece=expected_calibration_error(bins),
    )


def calibration_curve(
    labels: Labels, probabilities: Probabilities, bins: int
) -> list[CalibrationBin]:
    """Compare probabilities with frequencies over equal-width bins.

    Parameters
    ----------
    labels, probabilities
        As for `score`.
    bins
        How many; empty ones are left out.

    Returns
    -------
    list of CalibrationBin
        In order of probability.
    """
    position = np.minimum((probabilities * bins).astype(int), bins - 1)
    return [
        CalibrationBin(
            probability=float(np.mean(probabilities[mine], dtype=np.float64)),
            nodule_fraction=float(labels[mine].mean()),
            patches=int(mine.sum()),
        )
        for mine in (position == number for number in range(bins))
        if mine.any()
    ]


def expected_calibration_error(bins: list[CalibrationBin]) -> float:
    """Average the gap between probability and frequency over patches.

    The binary form of equation 3 in Guo et al. (2017), "On calibration of modern neural
    networks", https://arxiv.org/abs/1706.04599: the probability of a nodule takes the place of
    the confidence.
    """
    patches = sum(bin_.patches for bin_ in bins)
    gaps = (abs(bin_.probability - bin_.nodule_fraction) * bin_.patches for bin_ in bins)
    return sum(gaps) / patches


def choose_threshold(
    labels: Labels, probabilities: Probabilities, params: ThresholdParams
) -> float:
    """Pick the operating point.

    Parameters
    ----------
    labels, probabilities
        As for `score`; of the validation split.
    params
        The rule.

    Returns
    -------
    float
        One of the probabilities, or the fixed value. Of several as good, the highest.
    """
    if params.rule == "fixed":
        return params.value
    if params.rule == "f1":
        precision, recall, thresholds = precision_recall_curve(labels, probabilities)
        f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
        best = np.flatnonzero(f1[:-1] == f1[:-1].max())[-1]
        return float(thresholds[best])
    fpr, tpr, thresholds = roc_curve(labels, probabilities, drop_intermediate=False)
    # The first threshold is infinite: nothing is called a nodule. No patch's probability is that.
    fpr, tpr, thresholds = fpr[1:], tpr[1:], thresholds[1:]
    match params.rule:
        case "youden":
            best = int(np.argmax(tpr - fpr))
        case "sensitivity":
            best = int(np.argmax(_reaches(tpr, params.value)))
        case "specificity":
            # If even the highest probability belongs to a non-nodule, that is as near as it gets.
            best = int(np.argmax(np.where(_reaches(1 - fpr, params.value), tpr, -1)))
    return float(thresholds[best])


def sensitivity_at_specificity(
    labels: Labels, probabilities: Probabilities, specificity: float
) -> float:
    """Read the ROC at a specificity: the largest sensitivity that a threshold reaches there.

    Parameters
    ----------
    labels, probabilities
        As for `score`.
    specificity
        In 0..1; the thresholds considered reach at least this much.

    Returns
    -------
    float
        In 0..1. It flatters a little, since the threshold is chosen on the patches it is read off.
    """
    fpr, tpr, _ = roc_curve(labels, probabilities, drop_intermediate=False)
    return float(tpr[_reaches(1 - fpr, specificity)].max())


def _reaches(rates: NDArray[np.floating], wanted: float) -> NDArray[np.bool_]:
    """Compare shares with a number as if they were exact: 1 - 0.07 falls short of 0.93."""
    return rates >= wanted * (1 - 1e-12)


def auc_interval(
    labels: Labels,
    probabilities: Probabilities,
    groups: Groups | None,
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> tuple[float, float]:
    """Put a confidence interval around the AUC by the percentile bootstrap.

    Patches of one scan resemble each other, so whole groups are drawn where there are groups
    (the cluster bootstrap; Davison and Hinkley (1997), "Bootstrap methods and their application",
    section 3.8). A resample that lacks a class has no AUC and is left out.

    Parameters
    ----------
    labels, probabilities
        As for `score`.
    groups
        (N,) group of each patch; None draws single patches.
    resamples
        How many to draw.
    confidence
        Level, in 0..1.
    seed
        Of the drawing.

    Returns
    -------
    low, high : float
    """
    count = len(labels)
    units = np.arange(count) if groups is None else np.unique(groups, return_inverse=True)[1]
    unit_count = int(units.max()) + 1
    rng = np.random.default_rng(seed)
    _, rank = np.unique(probabilities, return_inverse=True)
    order = np.argsort(rank, kind="stable")
    rank, units, nodule = rank[order], units[order], labels[order].astype(np.float64)
    starts = np.flatnonzero(np.append(True, np.diff(rank) > 0))
    aucs = []
    for first in range(0, resamples, RESAMPLES_AT_ONCE):
        drawn = min(RESAMPLES_AT_ONCE, resamples - first)
        draws = rng.integers(unit_count, size=(drawn, unit_count))
        copies = np.stack([np.bincount(draw, minlength=unit_count) for draw in draws])[:, units]
        aucs.append(_weighted_aucs(copies, nodule, starts))
    values = np.concatenate(aucs)
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _weighted_aucs(
    copies: NDArray[np.integer], nodule: NDArray[np.float64], starts: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Compute the AUC of resamples, each given by how often it holds each patch.

    Parameters
    ----------
    copies
        (R, N), patches in ascending order of probability.
    nodule
        (N,) 1.0 for a nodule.
    starts
        First patch of each run of equal probabilities.

    Returns
    -------
    (R,) float64
        The Mann-Whitney statistic: the share of pairs of a nodule and a non-nodule in which the
        nodule has the higher probability, ties counting half; NaN where a class is missing.
    """
    positives = np.add.reduceat(copies * nodule, starts, axis=1)
    negatives = np.add.reduceat(copies * (1 - nodule), starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives
    wins = (positives * (below + negatives / 2)).sum(axis=1)
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    return np.divide(wins, pairs, out=np.full(len(wins), np.nan), where=pairs > 0)


def _ratio(part: int, whole: int) -> float:
    return float(part / whole) if whole else 0.0
