"""Ablation experiments: unique names, and each changes the intended setting."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from benchmarks import MODELS
from benchmarks.ablation import SHORT, Run, runs
from nodules.params import Params
from tests.support import REPOSITORY

PARAMS_FILE = REPOSITORY / "params.yaml"
RUNS = list(runs(MODELS))


def changed(run: Run) -> Params:
    """Apply the settings of an experiment, as `dvc exp run --set-param` does."""
    yaml = YAML(typ="safe", pure=True)
    content = yaml.load(PARAMS_FILE)
    for setting in (f"model={run.model}", f"seed={run.seed}", *run.changes):
        key, value = setting.split("=")
        *parents, last = key.split(".")
        block = content
        for parent in parents:
            block = block[parent]
        assert last in block, key
        block[last] = yaml.load(value)
    return Params.model_validate(content)


def test_names_differ_and_are_names_of_git_references() -> None:
    files = Path("data/luna16.h5"), Path("data/own.h5")
    names = [run.name(file) for run in RUNS for file in files]
    assert len(set(names)) == len(names)
    assert all(name.replace("-", "").isalnum() for name in names)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.model}, {run.row}, {run.seed}")
def test_each_experiment_differs_from_its_reference(run: Run) -> None:
    short = run.row.startswith(SHORT) and run.row != SHORT
    beside = next(other for other in RUNS if other.row == (SHORT if short else "tuned"))
    found = changed(run)
    reference = changed(beside._replace(model=run.model.removesuffix("_published"), seed=run.seed))
    what_counts = [(p.chosen_recipe, p.chosen_model, p.evaluate) for p in (found, reference)]
    assert (what_counts[0] == what_counts[1]) == (run.row == "tuned")
