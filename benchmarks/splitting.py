"""Time and accuracy of dealing groups to splits, beside scikit-learn's StratifiedGroupKFold.

python -m benchmarks.splitting --groups 1000 20000

Groups hold 2 to 40 patches. The folds of the baseline are 5% each, in random order: 14 for train,
and 3 each for val and test.
"""

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from benchmarks import new_parser
from nodules.splitting.assignment import deal_units

FOLDS = (14, 3, 3)
TARGETS = np.array(FOLDS) / sum(FOLDS)


def main() -> None:
    """Print a table in Markdown."""
    parser = new_parser("benchmarks.splitting", __doc__)
    parser.add_argument("--groups", type=int, nargs="+", default=[1000, 20_000])
    arguments = parser.parse_args()
    print("| groups | largest error | of folds | seconds | of folds | ratio |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    for count in arguments.groups:
        rng = np.random.default_rng(0)
        group = np.repeat(np.arange(count), rng.integers(2, 41, count))
        labels = (rng.random(len(group)) < rng.beta(1, 5, count)[group]).astype(np.int64)
        ours, seconds = _timed(_deal, group, labels)
        folds, fold_seconds = _timed(_fold, group, labels)
        print(
            f"| {count:,} | {ours:.4f} | {folds:.4f} | {seconds:.2f} | {fold_seconds:.2f} "
            f"| {fold_seconds / seconds:.0f} |",
            flush=True,
        )


def _timed(
    divide: Callable[[NDArray, NDArray], NDArray], group: NDArray, labels: NDArray
) -> tuple[float, float]:
    """Return the largest error of a fraction of patches or nodules, and the seconds."""
    began = time.perf_counter()
    homes = divide(group, labels)
    seconds = time.perf_counter() - began
    found = [np.bincount(part) / len(part) for part in (homes, homes[labels == 1])]
    return float(np.abs(np.array(found) - TARGETS).max()), seconds


def _deal(group: NDArray, labels: NDArray) -> NDArray:
    units = np.stack(
        [np.bincount(group[labels == label], minlength=group[-1] + 1) for label in (0, 1)]
    )
    return deal_units(units.T, TARGETS, seed=0)[group]


def _fold(group: NDArray, labels: NDArray) -> NDArray:
    owner = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], FOLDS))
    folds = StratifiedGroupKFold(n_splits=len(owner), shuffle=True, random_state=0)
    homes = np.empty(len(group), dtype=np.int64)
    for split, (_, rows) in zip(owner, folds.split(group, labels, group), strict=True):
        homes[rows] = split
    return homes


if __name__ == "__main__":
    main()
