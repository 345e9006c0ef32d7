"""The paired bootstrap: the scores of several classifiers on the same resamples of the patches."""

import numpy as np
from numpy.typing import NDArray

from nodules.comparison.estimate import Estimate
from nodules.patches import Groups, Labels

# Resamples are drawn and scored in blocks whose arrays have about this many elements, so that they
# stay in the processor's cache.
BLOCK_ELEMENTS = 2**16

# By name of the score, a row for each classifier and a column for each resample.
Resamples = dict[str, NDArray[np.float64]]


def resampled_scores(
    labels: Labels,
    groups: Groups | None,
    probabilities: NDArray[np.floating],
    thresholds: NDArray[np.floating],
    *,
    resamples: int,
    seed: int,
) -> Resamples:
    """Score every classifier on the same resamples.

    Patches of one scan resemble each other, so whole groups are drawn where there are groups (the
    cluster bootstrap; Davison and Hinkley (1997), "Bootstrap methods and their application",
    section 3.8). A resample is a row of weights, how often it holds each group: scores that are
    ratios of sums are products of matrices, and those that depend on the ranking are cumulative
    sums.

    Parameters
    ----------
    labels
        (N,) of 0 and 1.
    groups
        (N,) group of each patch; None draws single patches.
    probabilities
        (K, N): of K classifiers.
    thresholds
        (K,): each classifier's own; a patch at or above it is called a nodule.
    resamples
        How many to draw, R.
    seed
        Of the drawing.

    Returns
    -------
    dict of str to (K, R) float64
        `auc`, `average_precision`, `sensitivity`, `specificity`, `accuracy` and `brier`; NaN where
        a resample lacks a class.
    """
    units = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    sums = _UnitSums(labels, units, probabilities, thresholds)
    rankings = [_Ranking(labels, units, row) for row in probabilities]
    rng = np.random.default_rng(seed)
    at_once = max(1, BLOCK_ELEMENTS // len(labels))
    blocks = []
    for first in range(0, resamples, at_once):
        copies = _draw(rng, min(at_once, resamples - first), int(units.max()) + 1)
        ranked = [ranking.scores(copies) for ranking in rankings]
        aucs, precisions = (np.stack(scores) for scores in zip(*ranked, strict=True))
        blocks.append({"auc": aucs, "average_precision": precisions, **sums.scores(copies)})
    return {name: np.concatenate([block[name] for block in blocks], axis=1) for name in blocks[0]}


def percentile_estimate(
    value: float, resampled: NDArray[np.float64], *, confidence: float
) -> Estimate:
    """Put the percentile interval of its resamples around a score or a difference of scores."""
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(resampled, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))


def _draw(rng: np.random.Generator, resamples: int, units: int) -> NDArray[np.float64]:
    """Draw `units` units with replacement, (resamples, units) times each."""
    draws = rng.integers(units, size=(resamples, units)) + units * np.arange(resamples)[:, None]
    counts = np.bincount(draws.ravel(), minlength=resamples * units)
    return counts.reshape(resamples, units).astype(np.float64)


class _UnitSums:
    """Scores that are ratios of sums over patches, with the sums taken once for each unit."""

    def __init__(
        self,
        labels: Labels,
        units: NDArray[np.intp],
        probabilities: NDArray[np.floating],
        thresholds: NDArray[np.floating],
    ) -> None:
        def by_unit(values: NDArray) -> NDArray[np.float64]:
            """Sum (..., N) over patches into (..., units)."""
            rows = values.reshape(-1, len(units))
            return np.stack([np.bincount(units, row) for row in rows]).reshape(
                *values.shape[:-1], -1
            )

        nodule = labels == 1
        called = probabilities >= thresholds[:, None]
        self._parts = {
            "sensitivity": (by_unit(called & nodule), by_unit(nodule)),
            "specificity": (by_unit(~called & ~nodule), by_unit(~nodule)),
            "accuracy": (by_unit(called == nodule), by_unit(np.ones(len(labels)))),
            "brier": (by_unit((probabilities - labels) ** 2), by_unit(np.ones(len(labels)))),
        }

    def scores(self, copies: NDArray[np.float64]) -> Resamples:
        """Score the (R, units) resamples: (K, R) each."""
        return {
            name: _ratio(part @ copies.T, whole @ copies.T)
            for name, (part, whole) in self._parts.items()
        }


class _Ranking:
    """The patches in the order in which a classifier would call them nodules."""

    def __init__(
        self, labels: Labels, units: NDArray[np.intp], probabilities: NDArray[np.floating]
    ) -> None:
        order = np.argsort(-probabilities, kind="stable")
        self._units = units[order]
        self._nodule = labels[order].astype(np.float64)
        falls = np.diff(probabilities[order]) < 0
        # Patches of equal probability are called together.
        self._ends = np.flatnonzero(np.append(falls, True))

    def scores(
        self, copies: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Compute the (R,) AUCs and average precisions of (R, units) resamples.

        The AUC is the area under the ROC by trapezes, the average precision the sum of the
        precisions weighted by the gain of recall; both as in scikit-learn.
        """
        ordered = copies[:, self._units]
        called = np.cumsum(ordered, axis=1)[:, self._ends]
        true = np.cumsum(ordered * self._nodule, axis=1)[:, self._ends]
        false = called - true
        gained = np.diff(true, axis=1, prepend=0)
        wins = (np.diff(false, axis=1, prepend=0) * (true - gained / 2)).sum(axis=1)
        precision = np.divide(true, called, out=np.zeros_like(true), where=called > 0)
        nodules, others = true[:, -1], false[:, -1]
        return _ratio(wins, nodules * others), _ratio((gained * precision).sum(axis=1), nodules)


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    whole = np.broadcast_to(whole, part.shape)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
