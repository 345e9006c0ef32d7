"""Optimism of a leak: test AUC by what the splits keep together.

python -m benchmarks.leak_cost --seeds 1 2 3

Trains as params.yaml says, on splits by group, by patch, and by patch with near-duplicates kept
together. Each row is printed when its training ends. Intervals are as in `evaluate`.
"""

import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

from benchmarks import new_parser
from benchmarks.pipeline_run import run_training
from nodules.inference.probabilities import nodule_probabilities
from nodules.models.file import load_model
from nodules.params import Params, read_params
from nodules.patches.reader import open_patches
from nodules.runtime import be_deterministic
from nodules.statistics.intervals import score_intervals
from nodules.system.exits import one_line_errors

PROTOCOLS = {
    "by group": {"by": "group", "near_duplicates": "report"},
    "by patch": {"by": "patch", "near_duplicates": "report"},
    "by patch, near-duplicates together": {"by": "patch", "near_duplicates": "together"},
}


def main() -> None:
    """Print a Markdown table."""
    parser = new_parser("benchmarks.leak_cost", __doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    be_deterministic()
    print("| seed | split | test AUC (interval) |")
    print("| ---: | --- | --- |")
    with one_line_errors():
        params = read_params()
        for seed in arguments.seeds:
            for name, changes in PROTOCOLS.items():
                split = params.split.model_copy(update=changes)
                seeds = {"seed": seed, "training_seed": seed}
                auc = _test_auc(params.model_copy(update=seeds | {"split": split}))
                print(f"| {seed} | {name} | {auc} |", flush=True)


def _test_auc(params: Params) -> str:
    with tempfile.TemporaryDirectory() as name, redirect_stdout(sys.stderr):
        folder = Path(name)
        model = load_model(run_training(params, Path(params.dataset), folder).model)
        with open_patches(folder / "test.h5") as test:
            probabilities = nodule_probabilities(model, test.on_disk())
            scores = score_intervals(
                test.labels,
                test.groups,
                probabilities,
                threshold=0.5,  # of no effect on the AUC
                confidence=params.evaluate.confidence,
            )
    return "{:.3f} ({:.3f} to {:.3f})".format(*scores["auc"])


if __name__ == "__main__":
    main()
