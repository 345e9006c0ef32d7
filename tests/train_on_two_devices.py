"""Train the same small model on one and on two logical CPU devices; print what came of it.

python -m tests.train_on_two_devices FOLDER
"""

import contextlib
import json
import os
import sys
from pathlib import Path

# First of all, since it sets up TensorFlow, which others import.
from nodules.runtime import be_deterministic  # isort: split

import tensorflow as tf

from nodules.atomic import write_json
from nodules.errors import ParamsError
from nodules.inference import nodule_probabilities
from nodules.model_file import load_model
from nodules.patches import open_patches
from nodules.training import TrainingFiles, train, training_strategy
from tests.test_training import small_params, write_discs

# Dropout draws its masks for the rows of a device; without it both trainings do the same sums.
RECIPE = {"learning_rate": 0.003, "ema": 0.9, "select": "last", "epochs": 3}


def main() -> None:
    """Train once for each strategy, from the same files."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    be_deterministic()
    folder = Path(sys.argv[1])
    os.chdir(folder)  # dvclive looks for a repository from here upwards
    write_discs(folder / "train.h5", 160, seed=1)
    write_discs(folder / "val.h5", 60, seed=2)
    write_json(folder / "weights.json", {"non_nodule": 1.0, "nodule": 1.0})
    results = {}
    with contextlib.redirect_stdout(sys.stderr):
        for strategy in ("one_device", "mirrored"):
            results[strategy] = _train(folder, strategy)
        results["dropout"] = _train(folder, "mirrored", dropout=0.5)
        results["uneven"] = _train(folder, "mirrored", batch_size=15)
    print(json.dumps(results))


def _train(folder: Path, strategy: str, *, dropout: float = 0.0, **changes) -> dict:
    files = TrainingFiles(
        train=folder / "train.h5",
        val=folder / "val.h5",
        class_weights=folder / "weights.json",
        model=folder / f"{strategy}.keras",
        log=folder / strategy,
    )
    params = small_params(**RECIPE | changes).model_copy(update={"strategy": strategy})
    params.models["small"].config["dropout"] = dropout
    try:
        train(params, files)
    except ParamsError as error:
        return {"error": str(error)}
    with open_patches(files.val) as val:
        probabilities = nodule_probabilities(load_model(files.model), val.memory_map())
    return {
        "replicas": training_strategy(strategy).num_replicas_in_sync,
        "loss": json.loads((files.log / "metrics.json").read_text())["train"]["loss"],
        "probabilities": probabilities.tolist(),
    }


if __name__ == "__main__":
    main()
