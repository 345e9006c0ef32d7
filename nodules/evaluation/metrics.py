"""Metrics of predictions, the same for every split."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    confusion_matrix_at_thresholds,
    roc_auc_score,
)

from nodules.evaluation.params import ThresholdParams
from nodules.patches.layout import Labels
from nodules.statistics.decision import called

Probabilities = NDArray[np.floating]

# Good networks differ in a corner of the ROC, which figures enlarge: false positive rates of at
# most this, and true positive rates of at least 1 minus this.
ROC_CORNER = 0.2
# Part of the ROC whose area `partial_auc` is: good networks differ where few others are called.
MAX_FALSE_POSITIVE_RATE = 0.1
# Single precision holds no probability that is closer to 1 and below it.
CLOSEST_TO_CERTAIN = 1e-7


class Scores(NamedTuple):
    """The scores of one split, each in 0..1; higher is better except for `brier` and `ece`.

    A ratio with a zero denominator, such as the precision without positive calls, is 0.
    `precision`, `npv`, `f1`, `average_precision`, `accuracy`, `brier` and `ece` depend on the
    split's fraction of nodules. `partial_auc` is the area at specificities of at least 0.9,
    standardised: 1 is perfect and 0.5 is chance.
    """

    auc: float
    partial_auc: float
    accuracy: float
    average_precision: float
    sensitivity: float
    specificity: float
    precision: float
    npv: float
    f1: float
    brier: float
    ece: float


class CalibrationLine(NamedTuple):
    """Log odds of a nodule as a linear function of the predicted log odds.

    Slope 1 and intercept 0 are perfect. A slope below 1 means probabilities that are too extreme,
    a negative intercept probabilities that are too high.
    """

    slope: float
    intercept: float


class PredictiveValues(NamedTuple):
    """Fraction of nodules among positive calls, and of others among negative calls."""

    ppv: float
    npv: float


class CalibrationBin(NamedTuple):
    """The patches in one bin of probabilities: mean probability and fraction of nodules."""

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
        Smallest probability that is called a nodule.
    calibration_bins
        Number of bins of the expected calibration error.

    Returns
    -------
    Scores
    """
    calls = called(probabilities, threshold)
    (tn, fp), (fn, tp) = confusion_matrix(labels, calls, labels=[0, 1])
    bins = calibration_curve(labels, probabilities, calibration_bins)
    return Scores(
        auc=float(roc_auc_score(labels, probabilities)),
        # Standardised as by McClish (1989), "Analyzing a portion of the ROC curve", Medical
        # Decision Making 9:190-195.
        partial_auc=float(roc_auc_score(labels, probabilities, max_fpr=MAX_FALSE_POSITIVE_RATE)),
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
        As in `score`.
    bins
        Number of bins.

    Returns
    -------
    list of CalibrationBin
        Non-empty bins in order of probability.
    """
    # In double precision, like the probabilities that are read back from a table.
    position = np.minimum((probabilities.astype(np.float64) * bins).astype(int), bins - 1)
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
    """Return the gap between probability and frequency, averaged over patches.

    The binary form of equation 3 in Guo et al. (2017), "On calibration of modern neural
    networks", https://arxiv.org/abs/1706.04599: the probability of a nodule takes the place of
    the confidence.
    """
    patches = sum(bin_.patches for bin_ in bins)
    gaps = (abs(bin_.probability - bin_.nodule_fraction) * bin_.patches for bin_ in bins)
    return sum(gaps) / patches


def calibration_line(labels: Labels, probabilities: Probabilities) -> CalibrationLine | None:
    """Fit the calibration line of Cox.

    Cox (1958), "Two further applications of a model for binary regression", Biometrika 45:562-565.

    Parameters
    ----------
    labels, probabilities
        As in `score`. Probabilities closer than 1e-7 to 0 or 1 count as 1e-7 from them.

    Returns
    -------
    CalibrationLine or None
        None if a threshold separates the classes, or all probabilities are equal: no line, or
        none with a finite slope, fits best.
    """
    nodule = labels == 1
    for above, below in ((nodule, ~nodule), (~nodule, nodule)):
        if probabilities[above].min() >= probabilities[below].max():
            return None
    clipped = np.clip(probabilities.astype(np.float64), CLOSEST_TO_CERTAIN, 1 - CLOSEST_TO_CERTAIN)
    # An infinite C is no penalty.
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-9)
    model.fit(logit(clipped)[:, None], nodule)
    return CalibrationLine(float(model.coef_[0, 0]), float(model.intercept_[0]))


def predictive_values(
    sensitivity: float, specificity: float, prevalence: float
) -> PredictiveValues:
    """Return the predictive values at another prevalence, by Bayes' theorem.

    Parameters
    ----------
    sensitivity, specificity
        In 0..1, at one threshold.
    prevalence
        Fraction of nodules, in 0..1.

    Returns
    -------
    PredictiveValues
        0 if nothing is called positive, or nothing negative.

    Examples
    --------
    >>> ppv, npv = predictive_values(0.9, 0.9, 0.1)
    >>> round(ppv, 3), round(npv, 3)
    (0.5, 0.988)
    """
    found, missed = sensitivity * prevalence, (1 - sensitivity) * prevalence
    dismissed, false = specificity * (1 - prevalence), (1 - specificity) * (1 - prevalence)
    return PredictiveValues(_ratio(found, found + false), _ratio(dismissed, dismissed + missed))


def choose_threshold(
    labels: Labels, probabilities: Probabilities, params: ThresholdParams
) -> float:
    """Choose the operating point.

    Parameters
    ----------
    labels, probabilities
        Labels and probabilities of the validation split, as in `score`.
    params
        Rule of the choice.

    Returns
    -------
    float
        One of the probabilities, or the fixed value; the highest among ties.
    """
    if params.rule == "fixed":
        return params.value
    true, false, thresholds = _called_at_each_threshold(labels, probabilities)
    nodules, others = true[-1], false[-1]
    match params.rule:
        case "youden":
            # Sensitivity - false positive rate, times both denominators, which keeps it whole.
            best = np.argmax(true * others - false * nodules)
        case "f1":
            # One division of whole numbers rounds equal ratios alike, unlike sums of ratios.
            best = np.argmax(2 * true / (true + false + nodules))
        case "sensitivity":
            best = np.argmax(true >= _fewest(params.value, nodules))
        case "specificity":
            # If the highest probability belongs to a non-nodule, it is the closest choice.
            reached = others - false >= _fewest(params.value, others)
            best = np.argmax(np.where(reached, true, -1))
    return float(thresholds[best])


def threshold_text(params: ThresholdParams) -> str:
    """Return where the threshold comes from, as text.

    Examples
    --------
    >>> threshold_text(ThresholdParams(rule="sensitivity", value=0.95))
    'chosen on val for sensitivity >= 0.95'
    """
    match params.rule:
        case "fixed":
            return "fixed in params.yaml"
        case "youden":
            return "chosen on val for the largest Youden index"
        case "f1":
            return "chosen on val for the largest F1"
    return f"chosen on val for {params.rule} >= {params.value:g}"


def sensitivity_at_specificity(
    labels: Labels, probabilities: Probabilities, specificity: float
) -> float:
    """Return the largest sensitivity on the ROC at a minimum specificity.

    Parameters
    ----------
    labels, probabilities
        As in `score`.
    specificity
        Minimum specificity, in 0..1.

    Returns
    -------
    float
        Sensitivity in 0..1. It is slightly optimistic, since the threshold is chosen on the same
        patches.
    """
    true, false, _ = _called_at_each_threshold(labels, probabilities)
    nodules, others = int(true[-1]), int(false[-1])
    reached = others - false >= _fewest(specificity, others)
    return _ratio(int(true[reached].max(initial=0)), nodules)


def _called_at_each_threshold(
    labels: Labels, probabilities: Probabilities
) -> tuple[NDArray[np.int64], NDArray[np.int64], Probabilities]:
    """Return the numbers of nodules and of others called, at each threshold from the highest."""
    _, false, _, true, thresholds = confusion_matrix_at_thresholds(labels, probabilities)
    return true.astype(np.int64), false.astype(np.int64), thresholds


def _fewest(rate: float, whole: int) -> int:
    """Return the fewest of `whole` that reach a rate up to its rounding: 0.93 of 100 is 93."""
    return math.ceil(rate * whole * (1 - 1e-12))


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0
