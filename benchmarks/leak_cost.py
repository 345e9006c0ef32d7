"""Optimism due to near-duplicates across splits: test AUC with and without them.

python -m benchmarks.leak_cost REAL.h5 --copies 0 3 --seeds 1 2

Splits REAL.h5 at random, once as is (`report`) and once with near-duplicates kept together. Trains
a small network for a few epochs on each and scores its test split. `--copies 3` first adds three
rotated or mirrored copies of every nodule, as some published data sets contain.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks import new_parser
from benchmarks.pipeline_run import run_training
from nodules.inference.probabilities import nodule_probabilities
from nodules.models.file import load_model
from nodules.models.params import ModelParams
from nodules.params import Params, read_params
from nodules.patches.layout import SPLITS
from nodules.patches.reader import open_patches
from nodules.patches.symmetry import symmetric_view
from nodules.patches.writer import new_patch_file
from nodules.runtime import be_deterministic
from nodules.splitting.leaks import across_splits
from nodules.splitting.near_duplicates import find_duplicates
from nodules.splitting.params import SplitParams
from nodules.system.exits import one_line_errors

SMALL = ModelParams(
    builder="squeezenet",
    config={
        "margin": 0,
        "stem_filters": 8,
        "stem_stride": 2,
        "fires": [[8, 16], [8, 16], [16, 32]],
        "pool_before": [0, 2],
        "bypass": False,
        "batch_norm": True,
        "batch_norm_momentum": 0.9,
        "pooling": "average",
        "dropout": 0.0,
    },
)
MODES = ("report", "together")


def main() -> None:
    """Print a Markdown table."""
    parser = new_parser("benchmarks.leak_cost", __doc__)
    parser.add_argument("real", type=Path, help="patch file without a split of its own")
    parser.add_argument(
        "--copies",
        type=int,
        nargs="+",
        choices=range(8),
        default=[0, 3],
        metavar="N",
        help="rotated or mirrored copies of each nodule to add: 0 to 7",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--epochs", type=int, default=6)
    arguments = parser.parse_args()
    be_deterministic()
    rows = []
    with one_line_errors(), tempfile.TemporaryDirectory() as name:
        dataset = Path(name) / "patches.h5"
        for copies in arguments.copies:
            _add_copies(arguments.real, dataset, copies)
            for seed in arguments.seeds:
                for mode in MODES:
                    params = _params(seed, mode, arguments.epochs)
                    scored = _score(params, dataset, Path(name) / mode)
                    rows.append((copies, seed, mode, *scored))
    print("\n| copies of a nodule | seed | near_duplicates | pairs across splits | test AUC |")
    print("| ---: | ---: | --- | ---: | ---: |")
    for copies, seed, mode, pairs, auc in rows:
        print(f"| {copies} | {seed} | {mode} | {pairs:,} | {auc:.4f} |")
    for copies in arguments.copies:
        means = [np.mean([r[4] for r in rows if (r[0], r[2]) == (copies, m)]) for m in MODES]
        print(f"\n{copies} copies: apart {means[0]:.4f}, together {means[1]:.4f}, ", end="")
        print(f"difference {means[0] - means[1]:+.4f}")


def _params(seed: int, mode: str, epochs: int) -> Params:
    params = read_params()
    # Augmentation would make copies of training patches harder to recognise.
    recipe = params.recipes["tuned"].model_copy(
        update={"epochs": epochs, "augmentation": params.recipes["published"].augmentation}
    )
    return params.model_copy(
        update={
            "seed": seed,
            "training_seed": seed,
            "model": "small",
            "recipe": "tuned",
            "models": {"small": SMALL},
            "recipes": {"tuned": recipe},
            "split": SplitParams.model_validate(
                {**params.split.model_dump(), "near_duplicates": mode}
            ),
        }
    )


def _add_copies(real: Path, dataset: Path, copies: int) -> None:
    with open_patches(real) as source:
        patches, labels = source.read(0, len(source)), source.labels
    nodules = patches[labels == 1]
    turned = [patches, *(symmetric_view(nodules, view) for view in range(1, copies + 1))]
    marks = [labels, *[np.ones(len(nodules), np.uint8)] * copies]
    with new_patch_file(dataset, sum(map(len, turned))) as file:
        for some, same in zip(turned, marks, strict=True):
            file.append(some, same)


def _score(params: Params, dataset: Path, folder: Path) -> tuple[int, float]:
    files = run_training(params, dataset, folder)
    model = load_model(files.model)
    with open_patches(folder / "test.h5") as test:
        auc = roc_auc_score(test.labels, nodule_probabilities(model, test.on_disk()))
    with open_patches(dataset) as patches:
        assignment = np.empty(len(patches), np.int8)
        for position, name in enumerate(SPLITS):
            with open_patches(folder / f"{name}.h5") as split:
                assignment[split.read_index()] = position
        crossings = across_splits(find_duplicates(patches, assignment), assignment)
    print(json.dumps({"auc": auc, "exact": crossings.exact, "near": crossings.near}), flush=True)
    return crossings.exact + crossings.near, float(auc)


if __name__ == "__main__":
    main()
