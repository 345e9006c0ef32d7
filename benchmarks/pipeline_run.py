"""Run the stages from data set to trained model in a separate folder."""

from collections.abc import Iterable
from pathlib import Path

import keras

from nodules.params import Params
from nodules.patches.reader import open_patches
from nodules.splitting.split import split_patches
from nodules.system.atomic import write_json
from nodules.training.class_weights import class_weights
from nodules.training.train import TrainingFiles, train


def run_training(
    params: Params,
    dataset: Path,
    folder: Path,
    callbacks: Iterable[keras.callbacks.Callback] = (),
) -> TrainingFiles:
    """Split a data set, compute class weights and train, as the stages do.

    Parameters
    ----------
    params
        Parameters as in params.yaml; `dataset` is ignored.
    dataset
        Patch file.
    folder
        Output folder.
    callbacks
        Callbacks for `nodules.training.train.train`.

    Returns
    -------
    TrainingFiles
        Paths of the files written. The test split is `folder / "test.h5"`.
    """
    split_patches(dataset, folder, params.split, params.seed)
    files = files_in(folder)
    with open_patches(files.train) as split:
        weights = class_weights(split.labels, params.chosen_class_weights)
    write_json(files.class_weights, weights)
    train(params.chosen_training, files, callbacks)
    return files


def files_in(folder: Path) -> TrainingFiles:
    """Return the paths of a training whose files are all in one folder."""
    return TrainingFiles(
        train=folder / "train.h5",
        val=folder / "val.h5",
        class_weights=folder / "class_weights.json",
        model=folder / "model.keras",
        log=folder / "log",
    )
