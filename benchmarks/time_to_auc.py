"""Training time needed to reach a target AUC on the val split, for each recipe.

python -m benchmarks.time_to_auc data/luna16.h5 --target 0.97

The recipe `published` trains the published variants of the networks. Each table is printed when its
training ends.
"""

import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import keras

from benchmarks import add_models, new_parser
from benchmarks.pipeline_run import run_training
from nodules.params import read_params
from nodules.runtime import be_deterministic, usable_processors
from nodules.system.exits import one_line_errors


class Curve(keras.callbacks.Callback):
    """Records the time and the AUC after each epoch, scoring included.

    Attributes
    ----------
    seconds, aucs
        Seconds since training began, and val AUC; one value per epoch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self.aucs: list[float] = []
        self._began = 0.0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Record the time and the AUC."""
        assert logs is not None
        self.seconds.append(time.perf_counter() - self._began)
        self.aucs.append(logs["val_auc"])


def main() -> None:
    """Train each model with each recipe; print the curves and times as Markdown tables."""
    parser = new_parser("benchmarks.time_to_auc", __doc__)
    parser.add_argument("dataset", type=Path, help="patch file")
    params = read_params()
    add_models(parser)
    parser.add_argument(
        "--recipes", nargs="+", choices=list(params.recipes), default=list(params.recipes)
    )
    parser.add_argument("--target", type=float, default=0.97, help="target AUC")
    arguments = parser.parse_args()
    be_deterministic()
    place = f"On {usable_processors()} processors"
    print(f"{place}, {arguments.dataset.name}, training seed {params.training_seed}:")
    curves: dict[tuple[str, str], Curve] = {}
    with one_line_errors():
        for recipe in arguments.recipes:
            for network in arguments.models:
                model = f"{network}_published" if recipe == "published" else network
                chosen = params.model_copy(update={"model": model, "recipe": recipe})
                curve = curves[model, recipe] = Curve()
                with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
                    run_training(chosen, arguments.dataset, Path(folder), [curve])
                _print_curve(f"{model}, {recipe}", curve)
    _print_summary(curves, arguments.target)


def _print_curve(title: str, curve: Curve) -> None:
    print(f"\n{title}:\n\n| epoch | minutes | val AUC |\n| ---: | ---: | ---: |")
    for number, (seconds, auc) in enumerate(zip(curve.seconds, curve.aucs, strict=True), 1):
        print(f"| {number} | {seconds / 60:.1f} | {auc:.4f} |", flush=True)


def _print_summary(curves: dict[tuple[str, str], Curve], target: float) -> None:
    print(
        f"\n| model | recipe | minutes to AUC {target} | minutes in total | epochs | final AUC "
        "| best AUC |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for (model, recipe), curve in curves.items():
        points = zip(curve.seconds, curve.aucs, strict=True)
        reached = next((seconds for seconds, auc in points if auc >= target), None)
        until = "never" if reached is None else f"{reached / 60:.1f}"
        print(
            f"| {model} | {recipe} | {until} | {curve.seconds[-1] / 60:.1f} | {len(curve.aucs)} "
            f"| {curve.aucs[-1]:.4f} | {max(curve.aucs):.4f} |"
        )


if __name__ == "__main__":
    main()
