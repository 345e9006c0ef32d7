"""False verdicts on networks that are equal on average, each trained with several seeds.

python -m benchmarks.training_luck --runs 1000

A training is better or worse than the next one by luck. The table shows how often two networks of
the same mean AUC are called different: by comparing one training of each, and by the multi-reader
test over all trainings, with Hillis's degrees of freedom and with those that also count the scans.
"""

import sys

import numpy as np
from scipy.stats import norm, t
from tqdm import tqdm

from benchmarks import new_parser
from benchmarks.simulated_scans import simulate_test
from nodules.statistics.auc_tests import correlated_aucs, degrees_of_freedom
from nodules.statistics.multi_reader import multi_reader_test

AUC = 0.97
ALPHA = 0.05


def main() -> None:
    """Print the rate of false verdicts for each number of scans, seeds, and spread of the AUC."""
    parser = new_parser("benchmarks.training_luck", __doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--scans", type=int, nargs="+", default=[10, 23, 60, 160])
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5, 10])
    parser.add_argument("--luck", type=float, nargs="+", default=[0.0, 0.003, 0.01])
    arguments = parser.parse_args()
    print("| scans | seeds | SD of the AUC by luck | one training | Hillis | with scans |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for scans in arguments.scans:
        for luck in arguments.luck:
            for seeds in arguments.seeds:
                rates = false_verdicts(scans, seeds, luck, arguments.runs)
                cells = " | ".join(f"{rate:.1%}" for rate in rates)
                print(f"| {scans} | {seeds} | {luck} | {cells} |", flush=True)


def false_verdicts(scans: int, seeds: int, luck: float, runs: int) -> np.ndarray:
    """Return the rates of p < 0.05: one training each, Hillis, and with the scans' freedom."""
    rng = np.random.default_rng(0)
    found = np.zeros(3)
    # An AUC is a shift in standard deviations; the derivative converts their spreads.
    shift = norm.ppf(AUC)
    spread = luck / norm.pdf(shift)
    for _ in tqdm(range(runs), file=sys.stderr, leave=False, disable=None):
        aucs = norm.cdf(shift + spread * rng.standard_normal(2 * seeds))
        test = simulate_test(rng, tuple(aucs), scans=scans, correlation=0.7)
        measured = correlated_aucs(test.labels, test.scores, test.groups)
        freedom = degrees_of_freedom(test.labels, test.groups)
        found += [
            one_training(measured.aucs, measured.covariance, seeds, freedom) < ALPHA,
            *(
                multi_reader_test(
                    measured.aucs.reshape(2, seeds), measured.covariance, cases_df=cases_df
                ).p_value
                < ALPHA
                for cases_df in (np.inf, freedom)
            ),
        ]
    return found / runs


def one_training(aucs: np.ndarray, covariance: np.ndarray, seeds: int, freedom: int) -> float:
    """Return the p-value of the first training of each network, which ignores all others."""
    contrast = np.zeros(len(aucs))
    contrast[[0, seeds]] = 1, -1
    statistic = contrast @ aucs / np.sqrt(contrast @ covariance @ contrast)
    return float(2 * t.sf(abs(statistic), freedom))


if __name__ == "__main__":
    main()
