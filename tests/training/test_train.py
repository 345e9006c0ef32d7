"""A full training on little data: learning, outputs and reproducibility."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks.pipeline_run import files_in
from nodules.errors import ParamsError, PatchFileError, TrainingError
from nodules.evaluation.evaluate import EvaluationFiles, evaluate
from nodules.inference.probabilities import nodule_probabilities
from nodules.models import registry
from nodules.models.file import load_model
from nodules.models.params import ModelParams
from nodules.params import Params, read_params
from nodules.patches.reader import open_patches
from nodules.patches.writer import new_patch_file
from nodules.runtime import usable_processors
from nodules.splitting.params import SplitParams
from nodules.splitting.split import split_patches
from nodules.system.atomic import write_json
from nodules.training.train import TrainingFiles, train
from tests.support.small_training import REPOSITORY, small_params, write_discs, write_training_files


@pytest.fixture
def files(tmp_path: Path, monkeypatch) -> TrainingFiles:
    # dvclive searches parent folders for a repository and must not find this one.
    monkeypatch.chdir(tmp_path)
    return write_training_files(tmp_path)


def metrics_of(files: TrainingFiles) -> dict:
    return json.loads((files.log / "metrics.json").read_text())


def epochs_of(files: TrainingFiles, metric: str) -> list[float]:
    """Read a validation metric for each epoch."""
    with (files.log / f"plots/metrics/val/{metric}.tsv").open() as file:
        return [float(row[metric]) for row in csv.DictReader(file, delimiter="\t")]


def test_a_model_learns_discs_and_the_log_describes_the_saved_weights(files, capsys) -> None:
    train(small_params(learning_rate=0.01).chosen_training, files)
    assert "warning" not in capsys.readouterr().err
    metrics = metrics_of(files)
    with open_patches(files.val) as val:
        patches, labels = val.read(0, len(val)), val.labels
    probabilities = nodule_probabilities(load_model(files.model), patches)
    assert roc_auc_score(labels, probabilities) == pytest.approx(metrics["validation"]["auc"])
    assert metrics["validation"]["auc"] > 0.95
    assert metrics["epochs"] == 4
    assert metrics["parameters"] == load_model(files.model).count_params()
    aucs, losses = (epochs_of(files, name) for name in ("auc", "loss"))
    assert len(aucs) == 4
    best = max(range(4), key=lambda epoch: (aucs[epoch], -losses[epoch]))
    assert metrics["best_epoch"] == best + 1
    assert metrics["validation"]["auc"] == aucs[best]
    assert metrics["validation"]["loss"] == losses[best]


def test_the_same_seed_gives_the_same_file_and_another_seed_another(files) -> None:
    contents = []
    for seed in (1, 1, 2):
        train(small_params(epochs=2).model_copy(update={"seed": seed}).chosen_training, files)
        contents.append(files.model.read_bytes())
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or usable_processors() < 2,
    reason="it takes two processors, of which one can be taken away",
)
def test_the_number_of_processors_makes_no_difference(tmp_path: Path) -> None:
    outputs = set()
    for count in (1, 2):
        folder = tmp_path / str(count)
        folder.mkdir()
        program = (
            "import os; "
            f"os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{count}]); "
            f"os.chdir({str(folder)!r}); "
            "from nodules.runtime import be_deterministic; be_deterministic(); "
            "from pathlib import Path; from nodules.training.train import train; "
            "from tests.support.small_training import small_params, write_training_files; "
            "train(small_params(ghost_batches=2).chosen_training, write_training_files(Path('.')))"
        )
        environment = {k: v for k, v in os.environ.items() if k != "TF_NUM_INTRAOP_THREADS"}
        environment["PYTHONPATH"] = str(REPOSITORY)
        subprocess.run([sys.executable, "-c", program], env=environment, check=True)
        files = files_in(folder)
        outputs.add((files.model.read_bytes(), (files.log / "metrics.json").read_bytes()))
    assert len(outputs) == 1


def test_more_ghost_batches_than_patches_are_one_line(files) -> None:
    with pytest.raises(ParamsError, match="ghost_batches: found 17, expected at most the 16 pat"):
        train(small_params(ghost_batches=17).chosen_training, files)


def test_the_last_epoch_is_kept_where_the_recipe_says_so(files) -> None:
    train(small_params(select="last", epochs=3).chosen_training, files)
    assert metrics_of(files)["best_epoch"] == 3


def test_training_stops_early_when_the_auc_no_longer_rises(files) -> None:
    # With a tiny learning rate, the AUC stays constant.
    train(
        small_params(learning_rate=1e-12, warmup_epochs=0.0, patience=2, epochs=9).chosen_training,
        files,
    )
    assert metrics_of(files)["epochs"] < 9


def test_of_epochs_with_the_same_auc_the_one_with_the_lowest_loss_is_kept(
    files, monkeypatch
) -> None:
    # As with very few patches, where every epoch has an AUC of 1.
    monkeypatch.setattr("nodules.training.callbacks.roc_auc_score", lambda *_: 1.0)
    train(small_params(learning_rate=0.01).chosen_training, files)
    assert metrics_of(files)["best_epoch"] == int(np.argmin(epochs_of(files, "loss"))) + 1 > 1


def momentum_as_published(**recipe: Any) -> Params:
    """Return a training of 30 steps with Keras's default batch norm momentum."""
    augmentation = read_params(REPOSITORY / "params.yaml").recipes["published"].augmentation
    changes = {"epochs": 3, "select": "last", "augmentation": augmentation.model_dump()}
    params = small_params(learning_rate=0.01, **changes | recipe)
    params.models["small"].config["batch_norm_momentum"] = 0.99
    return params


def test_after_thirty_steps_a_network_scores_as_it_does_in_training(files) -> None:
    train(momentum_as_published(average=0.15).chosen_training, files)
    with open_patches(files.train) as split:
        patches, labels = split.read(0, len(split)), split.labels
    model = load_model(files.model)
    scored = nodule_probabilities(model, patches)
    in_training = model(patches[..., np.newaxis].astype(np.float32), training=True)[:, 1].numpy()
    assert np.abs(scored - in_training).mean() < 0.1
    assert roc_auc_score(labels, scored) > 0.95
    assert np.ptp(scored) > 0.5


def test_a_dozen_patches_are_enough_to_train_on(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_discs(tmp_path / "discs.h5", 12, seed=1)
    files = files_in(tmp_path)
    split_patches(
        tmp_path / "discs.h5",
        tmp_path,
        SplitParams(by="group", train=0.7, val=0.15, test=0.15, near_duplicates="report"),
        seed=1,
    )
    write_json(files.class_weights, {"non_nodule": 1.0, "nodule": 1.0})
    tuned = read_params(REPOSITORY / "params.yaml").recipes["tuned"].model_dump()
    train(small_params(**tuned | {"epochs": 2, "patience": 1}).chosen_training, files)
    assert files.model.exists()


def test_a_split_without_nodules_is_one_line(files) -> None:
    with new_patch_file(files.val, 4) as file:
        file.append(np.zeros((4, 50, 50), np.uint8), np.zeros(4, np.uint8))
    with pytest.raises(PatchFileError, match=r"val\.h5: found no nodule, expected at least one"):
        train(small_params().chosen_training, files)


@pytest.fixture
def constant(monkeypatch) -> Params:
    """Return the parameters of a network with constant output."""

    def build(*, seed: int) -> keras.Model:
        inputs = keras.Input((50, 50, 1))
        x = keras.layers.GlobalAveragePooling2D(name="mean")(inputs)
        x = keras.layers.Dense(2, "softmax", kernel_initializer="zeros", name="classes")(x)
        return keras.Model(inputs, x)

    monkeypatch.setitem(registry._builders, "constant", build)
    params = small_params(learning_rate=1e-12, warmup_epochs=0.0, epochs=2)
    entry = ModelParams(builder="constant", config={})
    return params.model_copy(update={"models": {"small": entry}})


def test_a_network_that_gives_all_patches_one_probability_is_a_warning(
    files, constant: Params, capsys
) -> None:
    train(constant.chosen_training, files)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {files.model}: the probabilities of all 60 val patches lie")
    assert line.endswith(
        "the network has learned nothing after 20 steps; more epochs or more patches may help"
    )

    folder = files.train.parent
    write_discs(folder / "discs.h5", 60, seed=3)
    thirds = SplitParams(by="group", train=0.4, val=0.3, test=0.3, near_duplicates="report")
    split_patches(folder / "discs.h5", folder / "splits", thirds, seed=1, search=False)
    outputs = (folder / "evaluation", folder / "plots", folder / "predictions.csv")
    capsys.readouterr()
    evaluate(constant.evaluate, 1, EvaluationFiles(files.model, folder / "splits", *outputs))
    (line,) = capsys.readouterr().err.splitlines()
    assert f"warning: {files.model}: the probabilities of all 36 val and test patches" in line


def test_an_average_of_the_weights_is_scored_and_saved(files) -> None:
    # Over the last tenth of so few steps, the average hardly lags; over all steps, it includes the
    # start.
    losses = {}
    for average in (0.1, 1.0):
        train(
            small_params(learning_rate=0.01, average=average, select="last").chosen_training, files
        )
        losses[average] = metrics_of(files)["validation"]["loss"]
    assert losses[0.1] < losses[1.0] - 0.05


@pytest.mark.parametrize(
    ("optimizer", "schedule"), [("adam", "constant"), ("adamw", "cosine"), ("sgd", "cosine")]
)
def test_every_optimizer_and_schedule_trains(files, optimizer: str, schedule: str) -> None:
    decay = 0.0 if optimizer == "adam" else 0.01
    recipe = {"optimizer": optimizer, "schedule": schedule, "weight_decay": decay, "epochs": 1}
    train(small_params(**recipe).chosen_training, files)
    assert files.model.exists()


def test_class_weights_shift_the_probabilities(files) -> None:
    means = []
    for weights in ({"non_nodule": 1.0, "nodule": 20.0}, {"non_nodule": 20.0, "nodule": 1.0}):
        write_json(files.class_weights, weights)
        train(small_params(select="last", learning_rate=0.01).chosen_training, files)
        with open_patches(files.val) as val:
            patches = val.read(0, len(val))
        means.append(nodule_probabilities(load_model(files.model), patches).mean())
    assert means[0] > means[1] + 0.2


def test_a_network_whose_cost_is_unknown_is_trained_all_the_same(files, monkeypatch) -> None:
    def build(*, seed: int) -> keras.Model:
        inputs = keras.Input((50, 50, 1))
        x = keras.layers.SeparableConv2D(4, 3, strides=4, name="separable")(inputs)
        x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
        return keras.Model(inputs, keras.layers.Dense(2, "softmax", name="classes")(x))

    monkeypatch.setitem(registry._builders, "separable", build)
    params = small_params(epochs=1)
    entry = ModelParams(builder="separable", config={})
    train(params.model_copy(update={"models": {"small": entry}}).chosen_training, files)
    assert files.model.exists()
    assert "multiply_adds" not in metrics_of(files)


def test_a_nan_loss_stops_with_one_line_and_saves_nothing(files) -> None:
    with pytest.raises(TrainingError, match=r"epoch 1: the loss is .* lower learning rate"):
        train(
            small_params(optimizer="sgd", learning_rate=1e30, warmup_epochs=0.0).chosen_training,
            files,
        )
    assert not files.model.exists()
