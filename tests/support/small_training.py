"""A training that takes seconds: a small network, a short recipe, and discs in noise."""

from pathlib import Path

import keras
import numpy as np

from benchmarks.pipeline_run import files_in
from nodules.params import Params, read_params
from nodules.patches.writer import new_patch_file
from nodules.system.atomic import write_json
from nodules.training.train import TrainingFiles
from tests.support import REPOSITORY

CHECKPOINTS = "checkpoints"
SMALL_MODEL = {
    "builder": "squeezenet",
    "config": {
        "margin": 0,
        "stem_filters": 8,
        "stem_stride": 2,
        "fires": [[4, 8], [4, 8]],
        "pool_before": [0, 1],
        "bypass": False,
        "batch_norm": True,
        "batch_norm_momentum": 0.5,
        "pooling": "average",
        "dropout": 0.1,
    },
}

# Arguments of the SqueezeNet builder for tests of files and messages.
SMALLEST_CONFIG = {
    "margin": 0,
    "stem_filters": 4,
    "stem_stride": 2,
    "fires": [[2, 2]],
    "pool_before": [0],
    "bypass": True,
    "batch_norm": True,
    "batch_norm_momentum": 0.99,
    "pooling": "average",
    "dropout": 0.5,
}


def small_params(**recipe_changes) -> Params:
    """Return the repository's params with a small model and a short recipe."""
    content = read_params(REPOSITORY / "params.yaml").model_dump()
    content |= {"model": "small", "recipe": "short", "models": {"small": SMALL_MODEL}}
    recipe = content["recipes"]["tuned"]
    content["class_weights"] = {"short": "none"}
    content["recipes"] = {
        "short": recipe | {"epochs": 4, "batch_size": 16, "average": 0.0} | recipe_changes
    }
    return Params.model_validate(content)


def write_discs(path: Path, count: int, seed: int) -> None:
    """Write noise patches, half of them with a bright disc at the centre."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 2).astype(np.uint8)
    distance = np.hypot(*(np.mgrid[:50, :50] - 24.5))
    patches = rng.normal(60, 20, (count, 50, 50)) + 80 * labels[:, None, None] * (distance < 6)
    with new_patch_file(path, count) as file:
        file.append(np.clip(patches, 0, 255).astype(np.uint8), labels)


def write_training_files(folder: Path) -> TrainingFiles:
    """Write a train split of 160 patches, a val split of 60, and equal class weights."""
    files = files_in(folder)
    write_discs(files.train, 160, seed=1)
    write_discs(files.val, 60, seed=2)
    write_json(files.class_weights, {"non_nodule": 1.0, "nodule": 1.0})
    return files


class Stopped(BaseException):
    """Simulates the end of the process; must not be caught."""


class StopIn(keras.callbacks.Callback):
    """Stops a training in an epoch (from 1) at a step; -1 stands for the end of the epoch.

    Attributes
    ----------
    epochs
        Epochs that have begun, counted from 1.
    """

    def __init__(self, epoch: int, step: int = -1) -> None:
        super().__init__()
        self._place = (epoch, step)
        self.epochs: list[int] = []

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.epochs.append(epoch + 1)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if (self.epochs[-1], batch) == self._place:
            self.stop()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if (epoch + 1, -1) == self._place:
            self.stop()

    def stop(self) -> None:
        """Stop the training. Subclasses override how."""
        raise Stopped
