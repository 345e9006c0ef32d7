"""Ablation of the tuned recipe: queue the DVC experiments and tabulate their results.

python -m benchmarks.ablation queue data/luna16.h5
dvc queue start
python -m benchmarks.ablation table data/luna16.h5

Add the data set with `dvc add` and commit its .dvc file. The table shows the experiments of the
checked-out commit. The tuned and published recipes are trained in full, the ablations for fewer
epochs.
"""

import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import dvc.api

from benchmarks import MODELS, add_models, new_parser
from nodules.errors import ParamsError
from nodules.params import read_params
from nodules.schema import PARAMS_FILE
from nodules.system.exits import one_line_errors

PREFIX = "ablation"
SEEDS = (1, 2, 3)


class Run(NamedTuple):
    """One experiment: its table row, model, training seed and other parameter changes."""

    row: str
    model: str
    seed: int = SEEDS[0]
    changes: tuple[str, ...] = ()

    def name(self, dataset: Path) -> str:
        """Return the DVC experiment name for a data set: only letters, digits and dashes."""
        name = f"{PREFIX}-{dataset.with_suffix('')}-{self.model}-{self.row}-{self.seed}"
        return "".join(letter if letter.isalnum() else "-" for letter in name)


# Training every ablation in full would take many hours and add little information.
SHORT_EPOCHS = 12
SHORT = f"{SHORT_EPOCHS} epochs"

# Each entry removes or replaces one ingredient of the recipe.
CHANGES = {
    "without weight average": ("recipes.tuned.average=0.0",),
    "without ghost batches": ("recipes.tuned.ghost_batches=1",),
    "without symmetries": ("recipes.tuned.augmentation.symmetries=false",),
    "without shift, rotation and zoom": (
        "recipes.tuned.augmentation.shift=0",
        "recipes.tuned.augmentation.rotation=0.0",
        "recipes.tuned.augmentation.zoom=0.0",
    ),
    "without contrast and brightness": (
        "recipes.tuned.augmentation.contrast=0.0",
        "recipes.tuned.augmentation.brightness=0.0",
    ),
    "average pooling": ("models.{model}.config.pooling=average",),
    "bfloat16": ("recipes.tuned.precision=mixed_bfloat16",),
}

# Settings that differ between the two networks; one row swaps them.
SCHEDULE = ("schedule", "learning_rate", "average")


def runs(models: Sequence[str]) -> Iterator[Run]:
    """Yield the experiments for the given models: seeds, ablations and published recipes."""
    params = read_params()
    shorter = (f"recipes.tuned.epochs={SHORT_EPOCHS}",)
    for model in models:
        yield from (Run("tuned", model, seed) for seed in SEEDS)
    for model in models:
        yield Run(SHORT, model, changes=shorter)
        own = params.models[model].recipes.get("tuned", {})
        other = params.recipe_of(next(each for each in MODELS if each != model), "tuned")
        exchanged = tuple(f"recipes.tuned.{key}={getattr(other, key)}" for key in SCHEDULE)
        for row, changes in {**CHANGES, "schedule of the other network": exchanged}.items():
            settings = (change.format(model=model) for change in changes)
            settled = (_where_it_counts(setting, model, own) for setting in settings)
            yield Run(f"{SHORT}, {row}", model, changes=(*shorter, *settled))
        yield Run("published recipe", model, changes=("recipe=published",))
    for seed in SEEDS:
        yield from (
            Run("published network and recipe", f"{m}_published", seed, ("recipe=published",))
            for m in models
        )


def _where_it_counts(setting: str, model: str, own: Mapping[str, Any]) -> str:
    """Redirect a recipe setting to the model's own overrides if the model overrides it."""
    key = setting.partition("=")[0].removeprefix("recipes.tuned.")
    return f"models.{model}.{setting}" if key in own else setting


def queue(dataset: Path, models: Sequence[str]) -> None:
    """Queue every experiment of this commit that is not yet finished, running or queued."""
    if subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "params.yaml"]).returncode:
        raise ParamsError(PARAMS_FILE, "", "found uncommitted changes, expected none: commit them")
    done = _experiments("Success", "Queued", "Running")
    for run in runs(models):
        name = run.name(dataset)
        if name in done:
            continue
        chosen = (f"dataset={dataset}", f"model={run.model}", f"training_seed={run.seed}")
        settings = (*chosen, *run.changes)
        options = [word for setting in settings for word in ("--set-param", setting)]
        command = [sys.executable, "-m", "dvc", "exp", "run", "--queue", "--name", name]
        subprocess.run([*command, *options], check=True)


def _experiments(*states: str) -> dict[str, dict[str, Any]]:
    """Return the experiments of this commit that are in one of the given states, by name."""
    rows = (row for row in dvc.api.exp_show() if row.get("Experiment"))
    return {row["Experiment"]: row for row in rows if (row.get("State") or "Success") in states}


def table(dataset: Path, models: Sequence[str]) -> None:
    """Print the finished experiments on a data set as a Markdown table, one row per ingredient.

    Values are means over training seeds, with the lowest and highest AUC. A recipe may select its
    epoch on the val split, never on the test split.
    """
    found = _experiments("Success")
    print("| model | recipe | seeds | val AUC | test AUC | test sensitivity | test ECE |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in runs(models):
        if (name := run.name(dataset)) in found:
            rows.setdefault((run.model, run.row), []).append(found[name])
    for (model, row), results in rows.items():
        val_auc, auc, sensitivity, ece = (
            [float(result[key]) for result in results]
            for key in (
                "val.auc",
                "test.auc",
                "test.sensitivity_at_specificity",
                "test.ece",
            )
        )
        print(
            f"| {model} | {row} | {len(results)} | {_mean_and_range(val_auc)} "
            f"| {_mean_and_range(auc)} | {statistics.mean(sensitivity):.3f} "
            f"| {statistics.mean(ece):.3f} |"
        )


def _mean_and_range(values: list[float]) -> str:
    """Format the mean, followed by the range if there are several values."""
    mean = f"{statistics.mean(values):.4f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.4f} to {max(values):.4f})"


def main() -> None:
    """Queue the experiments, or print the table."""
    parser = new_parser("benchmarks.ablation", __doc__)
    commands = parser.add_subparsers(required=True, dest="command")
    queue_command = commands.add_parser("queue", help="queue what has not been run")
    table_command = commands.add_parser("table", help="print what has been run")
    for command in (queue_command, table_command):
        command.add_argument("dataset", type=Path, help="patch file with real patches")
        add_models(command)
    arguments = parser.parse_args()
    with one_line_errors():
        if arguments.command == "queue":
            queue(arguments.dataset, arguments.models)
        else:
            table(arguments.dataset, arguments.models)


if __name__ == "__main__":
    main()
