"""Cluster bootstrap of the scores of one or several classifiers, on the same resamples.

Patches of one scan are correlated, so whole groups are resampled if there are groups (Davison and
Hinkley (1997), "Bootstrap methods and their application", section 3.8).
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nodules.patches.layout import Groups, Labels
from nodules.statistics.decision import called
from nodules.statistics.estimate import Estimate
from nodules.statistics.units import independent_units, sum_by_unit

# Resamples are drawn and scored in blocks whose arrays have about this many elements, to fit in the
# processor's cache.
BLOCK_ELEMENTS = 2**16

Floats = NDArray[np.float64]


class Resampling:
    """Bootstrap resamples of N patches, drawn with replacement by group.

    Parameters
    ----------
    count
        Number of patches, N.
    groups
        (N,) group of each patch. None resamples single patches.

    Attributes
    ----------
    units
        (N,) index of the sampling unit of each patch: its group, or the patch itself.
    unit_count
        Number of units, which is also the number drawn per resample.
    """

    def __init__(self, count: int, groups: Groups | None) -> None:
        self.units = independent_units(count, groups)
        self.unit_count = int(self.units.max()) + 1

    def draw(self, resamples: int, seed: int) -> Iterator[Floats]:
        """Yield blocks of resamples: (rows, units) counts of each unit in each resample."""
        rng = np.random.default_rng(seed)
        rows = max(1, BLOCK_ELEMENTS // len(self.units))
        for first in range(0, resamples, rows):
            size = (min(rows, resamples - first), self.unit_count)
            draws = rng.integers(self.unit_count, size=size)
            draws += self.unit_count * np.arange(len(draws))[:, None]
            yield np.bincount(draws.ravel(), minlength=draws.size).reshape(size).astype(np.float64)


class PairedScores:
    """The scores of K classifiers on the same N patches and on bootstrap resamples of them.

    A resample is a row of counts, one per unit. Scores that are ratios of sums are computed as
    matrix products, and scores that depend on the ranking as cumulative sums.

    Parameters
    ----------
    labels
        (N,) labels 0 and 1.
    groups
        (N,) group of each patch. None resamples single patches.
    probabilities
        (K, N) predicted probabilities of a nodule.
    thresholds
        (K,) decision threshold of each classifier. A patch at or above it is called a nodule.
    """

    def __init__(
        self,
        labels: Labels,
        groups: Groups | None,
        probabilities: NDArray[np.floating],
        thresholds: NDArray[np.floating],
    ) -> None:
        self._resampling = Resampling(len(labels), groups)
        units = self._resampling.units
        self._rankings = [_Ranking(labels, units, row) for row in probabilities]
        nodule = labels == 1
        calls = called(probabilities, thresholds[:, None])
        each = np.ones(len(labels))
        parts_and_wholes = {
            "sensitivity": (calls & nodule, nodule),
            "specificity": (~calls & ~nodule, ~nodule),
            "accuracy": (calls == nodule, each),
            "brier": ((probabilities - labels) ** 2, each),
        }
        self._ratios = {
            name: (self._by_unit(part), self._by_unit(whole[None]))
            for name, (part, whole) in parts_and_wholes.items()
        }

    def observed(self) -> dict[str, Floats]:
        """Return the (K,) scores of the original patches by name, as in `resampled`."""
        once = np.ones((1, self._resampling.unit_count))
        return {name: scores[:, 0] for name, scores in self._scores(once).items()}

    def resampled(self, resamples: int, seed: int) -> dict[str, Floats]:
        """Return the scores of all classifiers on the same resamples.

        Parameters
        ----------
        resamples
            Number of bootstrap resamples, R.
        seed
            Seed of the resampling.

        Returns
        -------
        dict of str to (K, R) float64
            `auc`, `average_precision`, `sensitivity`, `specificity`, `accuracy` and `brier`. NaN if
            a resample lacks a class.
        """
        blocks = [self._scores(copies) for copies in self._resampling.draw(resamples, seed)]
        return {name: np.concatenate([each[name] for each in blocks], axis=1) for name in blocks[0]}

    def _scores(self, copies: Floats) -> dict[str, Floats]:
        ranked = [ranking.scores(copies) for ranking in self._rankings]
        aucs, precisions = (np.stack(scores) for scores in zip(*ranked, strict=True))
        ratios = {
            name: _ratio(part @ copies.T, whole @ copies.T)
            for name, (part, whole) in self._ratios.items()
        }
        return {"auc": aucs, "average_precision": precisions, **ratios}

    def _by_unit(self, values: NDArray) -> Floats:
        """Sum (K, N) values of patches within each unit into (K, units)."""
        units, count = self._resampling.units, self._resampling.unit_count
        return sum_by_unit(values, units, count)


class _Ranking:
    """The patches in descending order of a classifier's probability."""

    def __init__(
        self, labels: Labels, units: NDArray[np.intp], probabilities: NDArray[np.floating]
    ) -> None:
        order = np.argsort(-probabilities, kind="stable")
        self._units = units[order]
        self._nodule = labels[order].astype(np.float64)
        falls = np.diff(probabilities[order]) < 0
        # Patches of equal probability share one point of the curve.
        self._ends = np.flatnonzero(np.append(falls, True))

    def scores(self, copies: Floats) -> tuple[Floats, Floats]:
        """Return the (R,) AUCs and average precisions of (R, units) resamples.

        The AUC is the trapezoidal area under the ROC curve. The average precision is the sum of
        the precisions weighted by the increase in recall. Both are as in scikit-learn.
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
    """Return a score, or a difference of scores, with its percentile bootstrap interval."""
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(resampled, [tail, 1 - tail])
    return Estimate(float(value), float(low), float(high))


def _ratio(part: Floats, whole: Floats) -> Floats:
    whole = np.broadcast_to(whole, part.shape)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
