"""How long training takes to reach an AUC on the val split: both tuned recipes in one run.

python -m benchmarks.time_to_auc data/luna16.h5 --target 0.97
"""

import argparse
import os
import tempfile
from pathlib import Path

# First of all, since it sets up TensorFlow, which others import.
from nodules.runtime import be_deterministic  # isort: split

from benchmarks.pipeline_run import run_training
from nodules.errors import one_line_errors
from nodules.params import read_params
from nodules.training import Epoch


def main() -> None:
    """Train each model by its recipe and print its curve and what it took, in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("dataset", type=Path, help="patch file")
    parser.add_argument("--models", nargs="+", default=["squeezenet", "mobilenet"])
    parser.add_argument("--recipe", default="tuned")
    parser.add_argument("--target", type=float, default=0.97, help="AUC to wait for")
    arguments = parser.parse_args()
    be_deterministic()
    curves = {}
    with one_line_errors():
        params = read_params().model_copy(update={"recipe": arguments.recipe})
        for model in arguments.models:
            chosen = params.model_copy(update={"model": model})
            with tempfile.TemporaryDirectory() as folder:
                _, curves[model] = run_training(chosen, arguments.dataset, Path(folder))
    print(f"\nOn {os.cpu_count()} cores, `{arguments.recipe}` on {arguments.dataset.name}:\n")
    _print_summary(curves, arguments.target)
    _print_curves(curves)


def _print_summary(curves: dict[str, list[Epoch]], target: float) -> None:
    print(f"| model | minutes to AUC {target} | minutes in all | epochs | last AUC | best AUC |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for model, epochs in curves.items():
        reached = next((epoch.seconds for epoch in epochs if epoch.val_auc >= target), None)
        until = "never" if reached is None else f"{reached / 60:.1f}"
        best = max(epoch.val_auc for epoch in epochs)
        print(
            f"| {model} | {until} | {epochs[-1].seconds / 60:.1f} | {len(epochs)} "
            f"| {epochs[-1].val_auc:.4f} | {best:.4f} |"
        )


def _print_curves(curves: dict[str, list[Epoch]]) -> None:
    for model, epochs in curves.items():
        print(f"\n{model}:\n\n| epoch | minutes | val AUC |\n| ---: | ---: | ---: |")
        for number, epoch in enumerate(epochs, 1):
            print(f"| {number} | {epoch.seconds / 60:.1f} | {epoch.val_auc:.4f} |")


if __name__ == "__main__":
    main()
