"""The paired bootstrap: the scores of several classifiers on the same resamples of the patches."""

import numpy as np
from numpy.typing import NDArray

from nodules.patches.layout import Groups, Labels
from nodules.statistics.estimate import Estimate

# Resamples are drawn and scored in blocks whose arrays have about this many elements, so that they
# stay in the processor's cache.
BLOCK_ELEMENTS = 2**16

Floats = NDArray[np.float64]


class PairedScores:
    """The scores of K classifiers on the same N patches, and on resamples of these.

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
        (K, N).
    thresholds
        (K,): each classifier's own; a patch at or above it is called a nodule.
    """

    def __init__(
        self,
        labels: Labels,
        groups: Groups | None,
        probabilities: NDArray[np.floating],
        thresholds: NDArray[np.floating],
    ) -> None:
        self._units = (
            np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
        )
        self._unit_count = int(self._units.max()) + 1
        self._rankings = [_Ranking(labels, self._units, row) for row in probabilities]
        nodule = labels == 1
        called = probabilities >= thresholds[:, None]
        each = np.ones(len(labels))
        parts_and_wholes = {
            "sensitivity": (called & nodule, nodule),
            "specificity": (~called & ~nodule, ~nodule),
            "accuracy": (called == nodule, each),
            "brier": ((probabilities - labels) ** 2, each),
        }
        self._ratios = {
            name: (self._by_unit(part), self._by_unit(whole[None]))
            for name, (part, whole) in parts_and_wholes.items()
        }

    def observed(self) -> dict[str, Floats]:
        """Score the patches themselves: (K,) by name, as `resampled` names them."""
        once = np.ones((1, self._unit_count))
        return {name: scores[:, 0] for name, scores in self._scores(once).items()}

    def resampled(self, resamples: int, seed: int) -> dict[str, Floats]:
        """Score every classifier on the same resamples.

        Parameters
        ----------
        resamples
            How many to draw, R.
        seed
            Of the drawing.

        Returns
        -------
        dict of str to (K, R) float64
            `auc`, `average_precision`, `sensitivity`, `specificity`, `accuracy` and `brier`; NaN
            where a resample lacks a class.
        """
        rng = np.random.default_rng(seed)
        at_once = max(1, BLOCK_ELEMENTS // len(self._units))
        blocks = [
            self._scores(self._draw(rng, min(at_once, resamples - first)))
            for first in range(0, resamples, at_once)
        ]
        return {name: np.concatenate([each[name] for each in blocks], axis=1) for name in blocks[0]}

    def _draw(self, rng: np.random.Generator, resamples: int) -> Floats:
        """Draw as many units as there are, with replacement: (resamples, units) times each."""
        size = (resamples, self._unit_count)
        draws = rng.integers(self._unit_count, size=size)
        draws += self._unit_count * np.arange(resamples)[:, None]
        counts = np.bincount(draws.ravel(), minlength=resamples * self._unit_count)
        return counts.reshape(size).astype(np.float64)

    def _scores(self, copies: Floats) -> dict[str, Floats]:
        ranked = [ranking.scores(copies) for ranking in self._rankings]
        aucs, precisions = (np.stack(scores) for scores in zip(*ranked, strict=True))
        ratios = {
            name: _ratio(part @ copies.T, whole @ copies.T)
            for name, (part, whole) in self._ratios.items()
        }
        return {"auc": aucs, "average_precision": precisions, **ratios}

    def _by_unit(self, values: NDArray) -> Floats:
        """Sum (K, N) over patches into (K, units)."""
        return np.stack([np.bincount(self._units, row, self._unit_count) for row in values])


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

    def scores(self, copies: Floats) -> tuple[Floats, Floats]:
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


def percentile_estimate(value: float, resampled: Floats, *, confidence: float) -> Estimate:
    """Put the percentile interval of its resamples around a score or a difference of scores."""
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(resampled, [tail, 1 - tail])
    return Estimate(float(value), float(low), float(high))


def _ratio(part: Floats, whole: Floats) -> Floats:
    whole = np.broadcast_to(whole, part.shape)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
