"""A full training on little data: learning, outputs and reproducibility."""

import contextlib
import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

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


LEARNING = {"learning_rate": 0.01}


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> TrainingFiles:
    """Train once; tests read the files."""
    folder = tmp_path_factory.mktemp("learned")
    with contextlib.chdir(folder), contextlib.redirect_stderr(io.StringIO()) as stderr:
        files = write_training_files(folder)
        train(small_params(**LEARNING).chosen_training, files)
    assert "warning" not in stderr.getvalue()
    return files


def test_a_model_learns_discs_and_the_log_describes_the_saved_weights(learned) -> None:
    metrics = metrics_of(learned)
    with open_patches(learned.val) as val:
        patches, labels = val.read(0, len(val)), val.labels
    model = load_model(learned.model)
    probabilities = nodule_probabilities(model, patches)
    assert roc_auc_score(labels, probabilities) == pytest.approx(metrics["validation"]["auc"])
    assert metrics["validation"]["auc"] > 0.95
    assert metrics["epochs"] == 4
    assert metrics["parameters"] == model.count_params()
    aucs, losses = (epochs_of(learned, name) for name in ("auc", "loss"))
    assert len(aucs) == 4
    best = max(range(4), key=lambda epoch: (aucs[epoch], -losses[epoch]))
    assert metrics["best_epoch"] == best + 1
    assert metrics["validation"]["auc"] == aucs[best]
    assert metrics["validation"]["loss"] == losses[best]


def outputs_of(files: TrainingFiles) -> tuple[bytes, bytes]:
    return files.model.read_bytes(), (files.log / "metrics.json").read_bytes()


def test_the_same_seed_gives_the_same_files_in_another_process_on_one_processor(
    learned, tmp_path: Path
) -> None:
    program = (
        "import os; "
        "hasattr(os, 'sched_setaffinity') and "
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        f"os.chdir({str(tmp_path)!r}); "
        "from nodules.runtime import be_deterministic; be_deterministic(); "
        "from pathlib import Path; from nodules.training.train import train; "
        "from tests.support.small_training import small_params, write_training_files; "
        f"train(small_params(**{LEARNING}).chosen_training, write_training_files(Path('.')))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TF_NUM_INTRAOP_THREADS"}
    environment["PYTHONPATH"] = str(REPOSITORY)
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    assert outputs_of(files_in(tmp_path)) == outputs_of(learned)


def test_another_seed_gives_another_file(learned, files) -> None:
    train(small_params(**LEARNING).model_copy(update={"training_seed": 1}).chosen_training, files)
    assert files.model.read_bytes() != learned.model.read_bytes()


def test_more_ghost_batches_than_patches_are_one_line(files) -> None:
    with pytest.raises(ParamsError, match="ghost_batches: found 17, expected at most the 16 pat"):
        train(small_params(ghost_batches=17).chosen_training, files)


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
        SplitParams(
            by="group", train=0.7, val=0.15, test=0.15, near_duplicates="report", irrelevant="keep"
        ),
        seed=1,
    )
    write_json(files.class_weights, {"non_nodule": 1.0, "nodule": 1.0})
    tuned = read_params(REPOSITORY / "params.yaml").recipes["tuned"].model_dump()
    train(small_params(**tuned | {"epochs": 2, "patience": 1}).chosen_training, files)
    assert metrics_of(files)["epochs"] == 2
    with open_patches(tmp_path / "test.h5") as test:
        probabilities = nodule_probabilities(load_model(files.model), test.on_disk())
    assert probabilities.shape == (len(test),)


def test_a_split_without_nodules_is_one_line(files) -> None:
    with new_patch_file(files.val, 4) as file:
        file.append(np.zeros((4, 50, 50), np.uint8), np.zeros(4, np.uint8))
    with pytest.raises(PatchFileError, match=r"val\.h5: found no nodule, expected at least one"):
        train(small_params().chosen_training, files)


class Outcome(NamedTuple):
    """A training: its parameters, its files and what it wrote to stderr."""

    params: Params
    files: TrainingFiles
    stderr: list[str]


@pytest.fixture(scope="module")
def unusual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """Train a network with constant output and with a layer of unknown cost."""

    def build(*, seed: int) -> keras.Model:
        inputs = keras.Input((50, 50, 1))
        x = keras.layers.SeparableConv2D(4, 3, strides=4, name="separable")(inputs)
        x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
        x = keras.layers.Dense(2, "softmax", kernel_initializer="zeros", name="classes")(x)
        return keras.Model(inputs, x)

    folder = tmp_path_factory.mktemp("unusual")
    params = small_params(learning_rate=1e-12, warmup_epochs=0.0, epochs=2, ghost_batches=1)
    entry = ModelParams(builder="unusual", config={})
    params = params.model_copy(update={"models": {"small": entry}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry._builders, "unusual", build)
        with contextlib.chdir(folder), contextlib.redirect_stderr(io.StringIO()) as stderr:
            files = write_training_files(folder)
            train(params.chosen_training, files)
        yield Outcome(params, files, stderr.getvalue().splitlines())


def test_a_network_that_gives_all_patches_one_probability_is_a_warning(
    unusual: Outcome, tmp_path: Path, capsys
) -> None:
    model = unusual.files.model
    (line,) = [line for line in unusual.stderr if line.startswith("warning: ")]
    assert line.startswith(f"warning: {model}: the probabilities of all 60 val patches lie")
    assert line.endswith(
        "the network has learned nothing after 20 steps; more epochs or more patches may help"
    )

    write_discs(tmp_path / "discs.h5", 60, seed=3)
    thirds = SplitParams(
        by="group", train=0.4, val=0.3, test=0.3, near_duplicates="report", irrelevant="keep"
    )
    split_patches(tmp_path / "discs.h5", tmp_path / "splits", thirds, seed=1, search=False)
    outputs = (tmp_path / "evaluation", tmp_path / "plots", tmp_path / "predictions.csv")
    capsys.readouterr()
    evaluate(unusual.params.evaluate, 1, EvaluationFiles(model, tmp_path / "splits", *outputs))
    (line,) = capsys.readouterr().err.splitlines()
    assert f"warning: {model}: the probabilities of all 36 val and test patches" in line


def test_a_network_whose_cost_is_unknown_is_trained_all_the_same(unusual: Outcome) -> None:
    assert unusual.files.model.exists()
    assert "multiply_adds" not in metrics_of(unusual.files)
    assert sum("multiply_adds is left out" in line for line in unusual.stderr) == 1


def test_an_average_of_the_weights_is_scored_and_saved(learned, files) -> None:
    # An average over all steps includes the start, so its loss lags behind.
    train(small_params(**LEARNING, average=1.0, select="last").chosen_training, files)
    metrics = metrics_of(files)
    assert metrics["best_epoch"] == 4
    assert metrics["validation"]["loss"] > epochs_of(learned, "loss")[-1] + 0.05
    with open_patches(files.val) as val:
        probabilities = nodule_probabilities(load_model(files.model), val.on_disk())
        assert log_loss(val.labels, probabilities) == pytest.approx(metrics["validation"]["loss"])


def test_class_weights_shift_the_probabilities(files) -> None:
    means = []
    for weights in ({"non_nodule": 1.0, "nodule": 20.0}, {"non_nodule": 20.0, "nodule": 1.0}):
        write_json(files.class_weights, weights)
        # Also the only trainings here with Adam and with a cosine schedule.
        changes: dict[str, Any] = {"optimizer": "adam", "weight_decay": 0.0, "schedule": "cosine"}
        params = small_params(**LEARNING, **changes, select="last", ghost_batches=1)
        train(params.chosen_training, files)
        with open_patches(files.val) as val:
            patches = val.read(0, len(val))
        means.append(nodule_probabilities(load_model(files.model), patches).mean())
    assert means[0] > means[1] + 0.2


def test_a_nan_loss_stops_with_one_line_and_saves_nothing(files) -> None:
    changes = {"optimizer": "sgd", "learning_rate": 1e30, "warmup_epochs": 0.0, "ghost_batches": 1}
    with pytest.raises(TrainingError, match=r"epoch 1: the loss is .* lower learning rate"):
        train(small_params(**changes).chosen_training, files)
    assert not files.model.exists()
