"""Learning from few patches: test AUC by the number of patches.

python -m benchmarks.small_data --sizes 6x2 10x10 29x20 --seeds 1 3

Generates phantoms of the given numbers of scans and patches per scan and trains on them. The recipe
`published` trains the published variants of the networks. Each row is printed when its training
ends. Rows include the range of the probabilities: if all are nearly equal, the network has learned
nothing, whatever its AUC. With fewer than about 100 test patches, the AUC is unreliable.
"""

import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

from sklearn.metrics import roc_auc_score

from benchmarks import add_models, new_parser
from benchmarks.pipeline_run import run_training
from nodules.inference.probabilities import nodule_probabilities
from nodules.models.file import load_model
from nodules.params import Params, read_params
from nodules.patches.reader import open_patches
from nodules.phantom.params import PhantomParams
from nodules.phantom.patch_file import write_phantom
from nodules.runtime import be_deterministic
from nodules.system.exits import one_line_errors
from nodules.training.input_pipeline import steps_per_epoch


def main() -> None:
    """Print a Markdown table."""
    parser = new_parser("benchmarks.small_data", __doc__)
    parser.add_argument(
        "--sizes",
        type=_size,
        nargs="+",
        default=[(6, 2), (10, 10), (29, 20)],
        metavar="SCANSxPATCHES",
    )
    parser.add_argument("--nodule-fraction", type=float, default=0.3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 3])
    add_models(parser)
    parser.add_argument("--recipes", nargs="+", choices=["tuned", "published"], default=["tuned"])
    arguments = parser.parse_args()
    be_deterministic()
    print("| patches | model | recipe | seed | steps | test patches | test AUC | probabilities |")
    print("| ---: | --- | --- | ---: | ---: | ---: | ---: | --- |")
    with one_line_errors():
        for scans, each in arguments.sizes:
            phantom = PhantomParams(
                scans=scans, patches_per_scan=each, nodule_fraction=arguments.nodule_fraction
            )
            for network in arguments.models:
                for recipe in arguments.recipes:
                    for seed in arguments.seeds:
                        model = f"{network}_published" if recipe == "published" else network
                        chosen = {"model": model, "recipe": recipe, "phantom": phantom}
                        seeds = {"seed": seed, "training_seed": seed}
                        _print_row(read_params().model_copy(update=chosen | seeds))


def _size(text: str) -> tuple[int, int]:
    scans, patches = text.split("x")
    return int(scans), int(patches)


def _print_row(params: Params) -> None:
    """Train on the phantom and score its test split."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with redirect_stdout(sys.stderr):
            write_phantom(params.phantom, params.seed, folder / "phantom.h5")
            files = run_training(params, folder / "phantom.h5", folder)
        with open_patches(files.train) as split:
            recipe = params.chosen_recipe
            steps = recipe.epochs * steps_per_epoch(len(split), recipe.batch_size)
        with open_patches(folder / "test.h5") as split:
            labels = split.labels
            probabilities = nodule_probabilities(load_model(files.model), split.on_disk())
    patches = params.phantom.scans * params.phantom.patches_per_scan
    auc = roc_auc_score(labels, probabilities)
    print(
        f"| {patches:,} | {params.model} | {params.recipe} | {params.seed} | {steps:,} "
        f"| {len(labels):,} | {auc:.3f} "
        f"| {probabilities.min():.4g} to {probabilities.max():.4g} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
