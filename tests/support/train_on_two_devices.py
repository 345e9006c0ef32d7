"""Train the same small model on one and on two logical CPU devices; print the results.

python -m tests.support.train_on_two_devices FOLDER GHOST_BATCHES

All trainings in a process must use the same number of ghost batches. TensorFlow numbers the
collective operations, restarts the count with each strategy, and rejects a number that previously
belonged to a different operation.
"""

import contextlib
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import tensorflow as tf

from nodules.errors import ParamsError
from nodules.inference.probabilities import nodule_probabilities
from nodules.models.file import load_model
from nodules.params import Params
from nodules.patches.reader import open_patches
from nodules.runtime import be_deterministic
from nodules.training.train import TrainingFiles, train, training_strategy
from tests.support.small_training import StopIn, Stopped, small_params, write_training_files

# Dropout masks differ between devices; without dropout, both trainings compute the same.
RECIPE: dict[str, Any] = {
    "learning_rate": 0.01,
    "average": 0.5,
    "select": "last",
    "epochs": 2,
}


def main() -> None:
    """Train once per strategy, from the same files."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    be_deterministic()
    folder = Path(sys.argv[1])
    os.chdir(folder)  # dvclive searches parent folders for a repository
    files = write_training_files(folder)
    results = {}
    with contextlib.redirect_stdout(sys.stderr):
        for strategy in ("one_device", "mirrored"):
            results[strategy] = _train(files, strategy)
        if int(sys.argv[2]) > 1:  # saves time: these do not depend on how batches are divided
            results["resumed"] = _train_with_a_stop(
                dataclasses.replace(files, checkpoints=folder / "checkpoints")
            )
            results["dropout"] = _train(files, "mirrored", dropout=0.5)
            results["uneven batch"] = _train(files, "mirrored", batch_size=15)
            results["ghost batches"] = _train(files, "mirrored", of_the_model={"ghost_batches": 3})
    print(json.dumps(results))


def _params(
    strategy: str, *, dropout: float = 0.0, of_the_model: dict[str, Any] | None = None, **changes
) -> Params:
    recipe = {**RECIPE, "ghost_batches": int(sys.argv[2]), **changes}
    params = small_params(**recipe).model_copy(update={"strategy": strategy})
    # Each variable costs a collective operation, so one fire module is enough.
    params.models["small"].config.update(dropout=dropout, fires=[[4, 8]], pool_before=[0])
    params.models["small"].recipes["short"] = of_the_model or {}
    return params


def _train_with_a_stop(files: TrainingFiles) -> dict:
    with contextlib.suppress(Stopped):
        train(_params("mirrored").chosen_training, files, [StopIn(1)])
    return _train(files, "mirrored")


def _train(files: TrainingFiles, strategy: str, **changes) -> dict:
    params = _params(strategy, **changes)
    try:
        train(params.chosen_training, files)
    except ParamsError as error:
        return {"error": str(error)}
    with open_patches(files.val) as val:
        probabilities = nodule_probabilities(load_model(files.model), val.on_disk())
    return {
        "replicas": training_strategy(strategy).num_replicas_in_sync,
        "loss": json.loads((files.log / "metrics.json").read_text())["training"]["loss"],
        "probabilities": probabilities.tolist(),
    }


if __name__ == "__main__":
    main()
