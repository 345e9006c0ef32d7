"""The bootstrap over groups of patches: scores of one or several classifiers on the same resamples.

Patches of one scan are correlated, so whole groups are drawn where there are groups (the cluster
bootstrap; Davison and Hinkley (1997), "Bootstrap methods and their application", section 3.8).
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nodules.patches.layout import Groups, Labels
from nodules.statistics.estimate import Estimate

# Resamples are drawn and scored in blocks whose arrays have about this many elements, so that they
# stay in the processor's cache.
BLOCK_ELEMENTS = 2**16

Floats = NDArray[np.float64]


class Resampling:
    """Resamples of N patches, drawn with replacement by group.

    Parameters
    ----------
    count
        Number of patches, N.
    groups
        (N,) group of each patch; None draws single patches.

    Attributes
    ----------
    units
        (N,) index of what is drawn with each patch: its group or itself.
    unit_count
        Number of distinct units, which is also the number drawn per resample.
    """

    def __init__(self, count: int, groups: Groups | None) -> None:
        self.units = (
            np.arange(count) if groups is None else np.unique(groups, return_inverse=True)[1]
        )
        self.unit_count = int(self.units.max()) + 1

    def draw(self, resamples: int, seed: int) -> Iterator[Floats]:
        """Yield blocks of resamples as (rows, units): how often each resample holds each unit."""
        rng = np.random.default_rng(seed)
        rows = max(1, BLOCK_ELEMENTS // len(self.units))
        for first in range(0, resamples, rows):
            size = (min(rows, resamples - first), self.unit_count)
            draws = rng.integers(self.unit_count, size=size)
            draws += self.unit_count * np.arange(len(draws))[:, None]
            yield np.bincount(draws.ravel(), minlength=draws.size).reshape(size).astype(np.float64)


class PairedScores:
    """The scores of K classifiers on the same N patches, and on resamples of these.

    A resample is a row of weights, how often it holds each group: scores that are ratios of sums
    are products of matrices, and those that depend on the ranking are cumulative sums.

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
        self._resampling = Resampling(len(labels), groups)
        units = self._resampling.units
        self._rankings = [_Ranking(labels, units, row) for row in probabilities]
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
        once = np.ones((1, self._resampling.unit_count))
        return {name: scores[:, 0] for name, scores in self._scores(once).items()}

    def resampled(self, resamples: int, seed: int) -> dict[str, Floats]:
        """Score every classifier on the same resamples.

        Parameters
        ----------
        resamples
            Number of bootstrap resamples, R.
        seed
            Seed of the resampling.

        Returns
        -------
        dict of str to (K, R) float64
            `auc`, `average_precision`, `sensitivity`, `specificity`, `accuracy` and `brier`; NaN
            where a resample lacks a class.
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
        """Sum (K, N) over patches into (K, units)."""
        units, count = self._resampling.units, self._resampling.unit_count
        return np.stack([np.bincount(units, row, count) for row in values])


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


def auc_interval(
    labels: Labels,
    probabilities: NDArray[np.floating],
    groups: Groups | None,
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the AUC.

    A resample that lacks a class has no AUC and is left out.

    Parameters
    ----------
    labels
        (N,) of 0 and 1.
    probabilities
        (N,) probability of a nodule.
    groups
        (N,) group of each patch; None draws single patches.
    resamples
        Number of bootstrap resamples.
    confidence
        Confidence level, in 0..1.
    seed
        Seed of the resampling.

    Returns
    -------
    low, high : float
    """
    resampling = Resampling(len(labels), groups)
    ranking = _Ranking(labels, resampling.units, probabilities)
    aucs = [ranking.scores(copies)[0] for copies in resampling.draw(resamples, seed)]
    low, high = _percentiles(np.concatenate(aucs), confidence)
    return low, high


def percentile_estimate(value: float, resampled: Floats, *, confidence: float) -> Estimate:
    """Return a score, or a difference of scores, with the percentile interval of its resamples."""
    return Estimate(float(value), *_percentiles(resampled, confidence))


def _percentiles(resampled: Floats, confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(resampled, [tail, 1 - tail])
    return float(low), float(high)


def _ratio(part: Floats, whole: Floats) -> Floats:
    whole = np.broadcast_to(whole, part.shape)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
