"""The ablation: that every experiment changes what it says, and has a name of its own."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from benchmarks import MODELS
from benchmarks.ablation import Run, runs
from nodules.params import Params

PARAMS_FILE = Path(__file__).parent.parent / "params.yaml"
RUNS = list(runs(MODELS))


def changed(run: Run) -> Params:
    """Apply an experiment's settings as `dvc exp run --set-param` does."""
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
    names = [run.name for run in RUNS]
    assert len(set(names)) == len(names)
    assert all(name.replace("-", "").isalnum() for name in names)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_each_experiment_differs_from_the_tuned_one_of_its_seed(run: Run) -> None:
    found = changed(run)
    tuned = changed(Run("tuned", run.model, run.seed))
    what_counts = [(p.chosen_recipe, p.chosen_model, p.evaluate) for p in (found, tuned)]
    is_tuned = run.row == "tuned" or run.row == "published network"
    assert (what_counts[0] == what_counts[1]) == is_tuned
