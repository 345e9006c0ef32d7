"""Transfer from the phantom: train on synthetic patches only, score real ones.

python -m benchmarks.phantom_transfer REAL.h5 --scans 160 --seeds 1 2 3
"""

import argparse
import tempfile
from pathlib import Path

import keras
import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks import new_parser
from benchmarks.pipeline_run import run_training
from nodules.inference.probabilities import nodule_probabilities
from nodules.models.file import load_model
from nodules.params import Params, read_params
from nodules.patches.reader import open_patches
from nodules.phantom.patch_file import write_phantom
from nodules.runtime import be_deterministic
from nodules.statistics.intervals import score_intervals
from nodules.system.exits import one_line_errors


def main() -> None:
    """Print the AUC on real patches for each seed, and the mean."""
    parser = new_parser("benchmarks.phantom_transfer", __doc__)
    parser.add_argument("real", type=Path, help="patch file with real patches and labels")
    parser.add_argument("--model", default="squeezenet", choices=list(read_params().models))
    parser.add_argument(
        "--scans", type=int, default=160, help="number of phantom scans, 25 patches each"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    arguments = parser.parse_args()
    be_deterministic()
    with one_line_errors():
        aucs = [_transfer(_params(arguments, seed), arguments.real) for seed in arguments.seeds]
    print(f"mean AUC on real patches {np.mean(aucs):.4f}, from {min(aucs):.4f} to {max(aucs):.4f}")


def _params(arguments: argparse.Namespace, seed: int) -> Params:
    params = read_params()
    phantom = params.phantom.model_copy(update={"scans": arguments.scans})
    seeds = {"seed": seed, "training_seed": seed}
    return params.model_copy(update=seeds | {"model": arguments.model, "phantom": phantom})


def _transfer(params: Params, real: Path) -> float:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_phantom(params.phantom, params.seed, folder / "phantom.h5")
        files = run_training(params, folder / "phantom.h5", folder)
        model = load_model(files.model)
        internal = _auc(model, folder / "test.h5")
    with open_patches(real) as patches:
        labels, groups = patches.labels, patches.groups
        probabilities = np.concatenate(
            [nodule_probabilities(model, block) for _, block in patches.blocks()]
        )
    auc = float(roc_auc_score(labels, probabilities))
    # The AUC does not depend on the threshold.
    _, low, high = score_intervals(
        labels, groups, probabilities, threshold=0.5, confidence=params.evaluate.confidence
    )["auc"]
    scans, patches_each = params.phantom.scans, params.phantom.patches_per_scan
    print(
        f"seed {params.seed}: {scans * patches_each:,} phantom patches, AUC {internal:.4f} on the "
        f"phantom's test split, {auc:.4f} ({low:.4f} to {high:.4f}) on {len(labels):,} real patches"
    )
    return auc


def _auc(model: keras.Model, path: Path) -> float:
    with open_patches(path) as split:
        return float(roc_auc_score(split.labels, nodule_probabilities(model, split.on_disk())))


if __name__ == "__main__":
    main()
