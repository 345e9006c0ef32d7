"""A training that is stopped goes on, and gives the bytes that it would have given."""

import dataclasses
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from nodules.atomic import write_json
from nodules.checkpoint import Checkpoint, Combination, TrainingState, checkpoint_folder
from nodules.errors import TrainingError
from nodules.params import Params
from nodules.training import TrainingFiles, train
from tests.small_training import small_params, write_training_files


class Stopped(BaseException):
    """Stands for the end of the process: nothing may catch it."""


class StopIn(keras.callbacks.Callback):
    """Ends a training in an epoch (from 1), at a step or, at -1, when the epoch has been logged."""

    def __init__(self, epoch: int, step: int = -1) -> None:
        super().__init__()
        self._place = (epoch - 1, step)
        self._epoch = 0
        self.epochs: list[int] = []

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._epoch = epoch
        self.epochs.append(epoch + 1)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if (self._epoch, batch) == self._place:
            raise Stopped

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if (epoch, -1) == self._place:
            raise Stopped


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingFiles:
    # dvclive looks for a repository from here upwards, and must not find this one.
    monkeypatch.chdir(tmp_path)
    return dataclasses.replace(
        write_training_files(tmp_path), checkpoints=tmp_path / "checkpoints"
    )


def outputs(files: TrainingFiles) -> dict[str, bytes]:
    """Read all that a training has written, and remove it, as DVC does before a stage runs."""
    written = [files.model, *(path for path in files.log.rglob("*") if path.is_file())]
    found = {path.name: path.read_bytes() for path in written if path.exists()}
    found |= {str(path.relative_to(files.log.parent)): path.read_bytes() for path in written[1:]}
    for path in written:
        path.unlink(missing_ok=True)
    return found


def stop(params: Params, files: TrainingFiles, epoch: int, step: int = -1) -> None:
    with pytest.raises(Stopped):
        train(params, files, [StopIn(epoch, step)])
    outputs(files)


RECIPES: dict[str, dict] = {
    "averaged, with warm-up": {"ema": 0.9, "learning_rate": 0.01, "select": "best"},
    "momentum, last epoch": {"optimizer": "sgd", "learning_rate": 0.01, "select": "last"},
    "adam, no schedule": {
        "optimizer": "adam",
        "weight_decay": 0.0,
        "schedule": "constant",
        "warmup_epochs": 0.0,
    },
}


@pytest.mark.parametrize("changes", RECIPES.values(), ids=RECIPES.keys())
def test_a_stopped_training_gives_the_bytes_of_one_that_was_not(
    files: TrainingFiles, changes: dict
) -> None:
    params = small_params(epochs=3, **changes)
    params.models["small"].config["dropout"] = 0.5
    train(params, files)
    expected = outputs(files)
    stop(params, files, epoch=1)
    stop(params, files, epoch=3, step=4)
    rest = StopIn(99)
    train(params, files, [rest])
    assert rest.epochs == [3]
    assert outputs(files) == expected
    assert list(files.checkpoints.iterdir()) == []  # type: ignore[union-attr]
