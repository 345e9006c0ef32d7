"""Coverage of the confidence intervals of the scores, alongside the percentile bootstrap.

python -m benchmarks.coverage --runs 1000

The test splits are those of `benchmarks.simulated_scans`: 25 patches per scan, 17% nodules. An
interval above or below the true value misses it. The bootstrap draws scans.
"""

import argparse
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from benchmarks import new_parser
from benchmarks.simulated_scans import simulate_test
from nodules.statistics.bootstrap import PairedScores, percentile_estimate
from nodules.statistics.intervals import score_intervals

SCANS = (10, 23, 60)
AUCS = (0.86, 0.96, 0.98, 0.998)
THRESHOLD = 0.5
CONFIDENCE = 0.95
NODULE_FRACTION = 0.17
SCORES = ("auc", "average_precision", "sensitivity", "specificity", "accuracy")

Floats = NDArray[np.float64]


def true_scores(auc: float) -> dict[str, float]:
    """Return the scores of a simulated network on infinitely many scans."""
    shift = norm.ppf(auc) * np.sqrt(2)
    right = float(norm.cdf(shift / 2))
    thresholds = np.linspace(-10, 10 + shift, 100_000)
    found = norm.sf(thresholds - shift)
    nodules, others = NODULE_FRACTION * found, (1 - NODULE_FRACTION) * norm.sf(thresholds)
    precision = nodules / (nodules + others)
    average = float(np.trapezoid(precision[::-1], found[::-1]))
    return dict(zip(SCORES, (auc, average, right, right, right), strict=True))


def one_run(auc: float, scans: int, scan_effect: float, resamples: int, seed: int) -> Floats:
    """Return the intervals of one test split: (scores, 2 methods, low and high)."""
    rng = np.random.default_rng([seed, scans, round(auc * 1000)])
    labels, groups, scores = simulate_test(
        rng, (auc,), scans=scans, nodule_fraction=NODULE_FRACTION, scan_effect=scan_effect
    )
    new = score_intervals(labels, groups, scores[0], threshold=THRESHOLD, confidence=CONFIDENCE)
    paired = PairedScores(labels, groups, scores, np.array([THRESHOLD]))
    observed, resampled = paired.observed(), paired.resampled(resamples, seed)
    old = {
        name: percentile_estimate(observed[name][0], resampled[name][0], confidence=CONFIDENCE)
        for name in observed
    }
    return np.array([[each[name][1:] for each in (new, old)] for name in SCORES])


def cells(intervals: Floats, truth: float) -> str:
    """Return coverage, fractions above and below, and mean width of (R, 2) intervals as cells."""
    low, high = intervals.T
    above, below = np.mean(low > truth), np.mean(high < truth)
    return f"{1 - above - below:.3f} | {above:.3f} | {below:.3f} | {np.mean(high - low):.4f}"


def grid(arguments: argparse.Namespace) -> Iterable[tuple[int, float, Floats]]:
    """Yield scans, AUC and the (R, scores, 2, 2) intervals of all runs."""
    with ProcessPoolExecutor() as pool:
        for scans in SCANS:
            for auc in AUCS:
                run = partial(one_run, auc, scans, arguments.scan_effect, arguments.resamples)
                yield scans, auc, np.array(list(pool.map(run, range(arguments.runs), chunksize=25)))


def main() -> None:
    """Print two Markdown tables."""
    parser = new_parser("benchmarks.coverage", __doc__)
    parser.add_argument("--runs", type=int, default=1000, help="test splits per row")
    parser.add_argument("--resamples", type=int, default=200, help="of the bootstrap")
    parser.add_argument("--scan-effect", type=float, default=0.5, help="in SD of a patch's")
    head = "| scans | AUC | coverage | above | below | width | bootstrap | above | below | width |"
    print(head)
    print("| ---: " * 10 + "|")
    rows = []
    for scans, auc, intervals in grid(parser.parse_args()):
        truth = true_scores(auc)
        new, old = (cells(intervals[:, 0, method], auc) for method in (0, 1))
        print(f"| {scans} | {auc} | {new} | {old} |", flush=True)
        coverage = {
            name: [cells(intervals[:, score, method], truth[name])[:5] for method in (0, 1)]
            for score, name in enumerate(SCORES)
        }
        others = " | ".join("{} ({})".format(*coverage[name]) for name in SCORES[1:])
        rows.append(f"| {scans} | {auc} | {others} |")
    print(f"\n| scans | AUC | {' | '.join(SCORES[1:])} |")
    print("| ---: " * 6 + "|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
