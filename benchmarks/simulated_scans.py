"""Scores of networks whose true AUC is known, on patches that are clustered by scan."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from nodules.patches.layout import Groups, Labels


class SimulatedTest(NamedTuple):
    """Patches of a test split with the scores of K networks.

    Attributes
    ----------
    labels
        (N,) labels 0 and 1, at least one of each.
    groups
        (N,) scan of each patch, from 0.
    scores
        (K, N) scores in 0..1.
    """

    labels: Labels
    groups: Groups
    scores: NDArray[np.float64]


def simulate_test(
    rng: np.random.Generator,
    aucs: tuple[float, ...],
    *,
    scans: int,
    scans_with_nodules: int | None = None,
    patches_per_scan: int = 25,
    nodule_fraction: float = 0.17,
    scan_effect: float = 0.5,
    correlation: float = 0.5,
) -> SimulatedTest:
    """Draw a test split from a binormal model with random effects of scans.

    A score is the sum of a constant for nodules, an effect of the scan and an effect of the patch,
    taken through the normal distribution function. Both effects are normal, and each is partly
    common to all networks.

    Parameters
    ----------
    rng
        Source of random numbers.
    aucs
        True AUC of each network, in 0.5..1, over patches of any scans.
    scans
        Number of scans.
    scans_with_nodules
        Number of scans that may hold nodules; they hold as many as all scans would. None for all.
    patches_per_scan
        Patches in a scan.
    nodule_fraction
        Expected fraction of nodules.
    scan_effect
        Standard deviation of the effect of the scan; that of the patch is 1.
    correlation
        Correlation of two networks' effects.

    Returns
    -------
    SimulatedTest
        Draws without two patches of each class are drawn again.
    """
    patches = scans * patches_per_scan
    groups = np.repeat(np.arange(scans), patches_per_scan)
    holders = scans if scans_with_nodules is None else scans_with_nodules
    chance = np.where(groups < holders, min(nodule_fraction * scans / holders, 0.8), 0)
    while True:
        labels = (rng.random(patches) < chance).astype(np.uint8)
        if 1 < labels.sum() < patches - 1:
            break
    networks = len(aucs)

    def effects(count: int) -> NDArray[np.float64]:
        common, own = rng.standard_normal(count), rng.standard_normal((networks, count))
        return np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own

    spread = np.sqrt(1 + scan_effect**2)
    shift = norm.ppf(np.array(aucs)) * np.sqrt(2) * spread
    scores = scan_effect * effects(scans)[:, groups] + effects(patches) + shift[:, None] * labels
    return SimulatedTest(labels, groups, norm.cdf((scores - shift[:, None] / 2) / spread))
