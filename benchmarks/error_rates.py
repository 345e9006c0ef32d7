"""False verdicts and power of `compare` on simulated test splits, alongside older methods.

python -m benchmarks.error_rates

The test splits are those of `benchmarks.simulated_scans`: 25 patches per scan, 17% nodules. False
verdicts are `better` or `worse` for two networks of equal true AUC; power is the fraction of runs
that show a candidate whose 1 - AUC is half as large. The older methods are the same statistic with
a normal distribution, which needs two scans that hold each class, and McNemar's exact test, which
ignores scans.
"""

from collections.abc import Callable

import numpy as np

from benchmarks import new_parser
from benchmarks.simulated_scans import SimulatedTest, simulate_test
from nodules.comparison.verdict import ALPHA, CONFIDENCE, MIN_UNITS, SEED
from nodules.statistics.auc_tests import (
    compare_aucs,
    compare_with_baseline,
    correlated_aucs,
    degrees_of_freedom,
)
from nodules.statistics.significance import clustered_mcnemar, mcnemar

# Numbers of scans, and of those that hold nodules.
SIZES = (
    *((scans, scans) for scans in (2, 3, 4, 5, 10, 23)),
    *((60, holders) for holders in (2, 3, 5, 60)),
)
SCAN_EFFECTS = (0.5, 1.0, 1.5)
MCNEMAR_SCANS = 23


def main() -> None:
    """Print two Markdown tables."""
    parser = new_parser("benchmarks.error_rates", __doc__)
    parser.add_argument("--runs", type=int, default=1000, help="test splits per figure")
    parser.add_argument("--aucs", type=float, nargs="+", default=[0.86, 0.96, 0.98])
    parser.add_argument("--scan-effect", type=float, default=0.5, help="in SD of a patch's")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    def rates(
        reject: Callable[[SimulatedTest], tuple[bool, bool]],
        aucs: tuple[float, float],
        scans: int,
        holders: int,
        effect: float,
    ) -> str:
        rng = np.random.default_rng(arguments.seed)
        rejected = [
            reject(
                simulate_test(
                    rng, aucs, scans=scans, scans_with_nodules=holders, scan_effect=effect
                )
            )
            for _ in range(arguments.runs)
        ]
        return " | ".join(f"{rate:.1%}" for rate in np.mean(rejected, axis=0))

    print("| AUC | scans | with nodules | false verdicts | as normal | power | as normal |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for auc in arguments.aucs:
        for scans, holders in SIZES:
            size = (scans, holders, arguments.scan_effect)
            false = rates(rejects_auc, (auc, auc), *size)
            power = rates(rejects_auc, (auc, (1 + auc) / 2), *size)
            print(f"| {auc} | {scans} | {holders} | {false} | {power} |", flush=True)
    print("\n| AUC | scan effect (SD) | clustered McNemar | exact McNemar |")
    print("| ---: | ---: | ---: | ---: |")
    for auc in arguments.aucs:
        for effect in SCAN_EFFECTS:
            false = rates(rejects_accuracy, (auc, auc), MCNEMAR_SCANS, MCNEMAR_SCANS, effect)
            print(f"| {auc} | {effect} | {false} |", flush=True)


def rejects_auc(test: SimulatedTest) -> tuple[bool, bool]:
    """Return whether the AUCs differ by the current method and by a normal distribution."""
    units = degrees_of_freedom(test.labels, test.groups) + 1
    if units < 2:
        return False, False
    tested = compare_with_baseline(*test, confidence=CONFIDENCE, seed=SEED)[0]
    current = units >= MIN_UNITS and tested.p_value < ALPHA
    measured = correlated_aucs(test.labels, test.scores, test.groups)
    normal = compare_aucs(measured, 0, 1, degrees_of_freedom=np.inf, confidence=CONFIDENCE)
    # Where the standard error is 0, the older method was certain of any difference.
    return current, not normal.p_value >= ALPHA


def rejects_accuracy(test: SimulatedTest) -> tuple[bool, bool]:
    """Return whether the accuracies differ by the clustered and by the exact test of McNemar."""
    baseline, candidate = (test.scores >= 0.5) == (test.labels == 1)
    clustered = clustered_mcnemar(baseline, candidate, test.groups)
    return clustered < ALPHA, mcnemar(baseline, candidate) < ALPHA


if __name__ == "__main__":
    main()
