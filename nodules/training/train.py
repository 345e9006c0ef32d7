"""Train one network with one recipe: the whole run as a function of parameters and files."""

import sys
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from dvclive import Live

from nodules.errors import ParamsError, PatchFileError, TrainingError
from nodules.inference.constant_predictions import constant_predictions
from nodules.inference.folding import fold_batch_norm, refold
from nodules.inference.probabilities import nodule_probabilities
from nodules.models.file import save_model
from nodules.models.multiply_adds import multiply_adds
from nodules.models.registry import build_model
from nodules.patches.layout import CLASSES
from nodules.patches.reader import PatchFile, open_patches
from nodules.runtime import usable_processors
from nodules.schema import PARAMS_FILE
from nodules.system.atomic import write_json
from nodules.training.accelerated_model import AcceleratedModel, accelerate
from nodules.training.callbacks import (
    CheckpointWriter,
    Durations,
    EarlyStopping,
    FiniteLoss,
    History,
    ValidationScores,
)
from nodules.training.checkpoint import Checkpoint, combination_of
from nodules.training.class_weights import read_class_weights
from nodules.training.input_pipeline import steps_per_epoch, training_batches
from nodules.training.optimizer import new_optimizer
from nodules.training.params import TrainingParams
from nodules.training.provenance import environment, stage_code
from nodules.training.recipe import Recipe


@dataclass(frozen=True)
class TrainingFiles:
    """The files that a training reads and writes.

    Attributes
    ----------
    train, val
        Split files.
    class_weights
        JSON of the `class_weights` stage.
    model
        The `.keras` archive to write.
    log
        Folder for dvclive.
    checkpoints
        Folder of the checkpoints from which an interrupted training resumes; None for none.
    workspace
        Whether the training runs in the repository's own workspace; see `Checkpoint`.
    provenance
        JSON file to write with durations and everything that DVC does not record; None for none.
    """

    train: Path
    val: Path
    class_weights: Path
    model: Path
    log: Path
    checkpoints: Path | None = None
    workspace: bool = True
    provenance: Path | None = None


def train(
    params: TrainingParams,
    files: TrainingFiles,
    callbacks: Iterable[keras.callbacks.Callback] = (),
) -> None:
    """Train a model with a recipe; write the model and the log of its epochs.

    With `files.checkpoints`, an interrupted training resumes after its last finished epoch and
    writes the same bytes as an uninterrupted one. Prints a warning to stderr if the network gives
    all validation patches practically the same probability.

    Parameters
    ----------
    params
        The model, the recipe, the seed and the strategy.
    files
        Files to read and write.
    callbacks
        Additional callbacks, called after an epoch has been scored and logged. Their logs include
        `val_loss`, `val_accuracy` and `val_auc`. A resumed training calls them only for the
        remaining epochs.

    Raises
    ------
    ParamsError
        If the model's builder or one of its arguments is wrong, or batches cannot be divided evenly
        among devices and ghost batches.
    PatchFileError
        If a split lacks a class.
    TrainingError
        If the loss is not finite.
    """
    # The plain model is scored and saved; an accelerated one is trained.
    entry, recipe, seed = params.model, params.recipe, params.seed
    model = build_model(
        params.model_name, entry.builder, entry.config, seed=seed, precision=recipe.precision
    )
    print(_described(model, params))
    folded = fold_batch_norm(model)
    distribution = training_strategy(params.strategy)
    devices = distribution.num_replicas_in_sync
    with (
        open_patches(files.train) as train_split,
        open_patches(files.val) as val_split,
        Live(str(files.log), dvcyaml=None, save_dvc_exp=False) as live,
    ):
        patches = train_split.on_disk()
        _check_classes(train_split)
        _check_classes(val_split)
        key = f"recipes.{params.recipe_name}"
        if "ghost_batches" in entry.recipes.get(params.recipe_name, {}):
            key = f"models.{params.model_name}.{key}"
        batch_size = min(recipe.batch_size, len(patches))
        _check_batches(batch_size, recipe.ghost_batches, devices, key=f"{key}.ghost_batches")
        checkpoint = _checkpoint(params, files)
        state = checkpoint.load() if checkpoint else None
        steps = steps_per_epoch(len(patches), recipe.batch_size)
        with distribution.scope():
            trained = compiled_for_training(model, recipe, steps, devices=devices)
        history = History(live, model, select=recipe.select)
        if state:
            for variable, value in zip(trained.state, state.variables, strict=True):
                variable.assign(value)
            history.restore(state)
            print(f"resuming after epoch {len(state.epochs)} of {recipe.epochs}")
        first_epoch = len(history.epochs)
        durations = Durations()
        with _progress_noted(history, recipe.epochs, checkpoint):
            if not (state and state.stopped) and first_epoch < recipe.epochs:
                batches = training_batches(
                    patches,
                    train_split.labels,
                    batch_size=recipe.batch_size,
                    epochs=recipe.epochs,
                    augmentation=recipe.augmentation,
                    class_weights=read_class_weights(files.class_weights),
                    label_smoothing=recipe.label_smoothing,
                    seed=seed,
                    first_epoch=first_epoch,
                )
                trained.fit(
                    batches,
                    initial_epoch=first_epoch,
                    epochs=recipe.epochs,
                    steps_per_epoch=steps,
                    shuffle=False,  # the batches are shuffled already
                    # A progress bar redraws itself; a log file gets one line per epoch.
                    verbose=1 if sys.stdout.isatty() else 2,
                    callbacks=[
                        FiniteLoss(),
                        ValidationScores(model, folded, val_split),
                        history,
                        *([EarlyStopping(recipe.patience, history)] if recipe.patience else []),
                        *([CheckpointWriter(checkpoint, history)] if checkpoint else []),
                        durations,
                        *callbacks,
                    ],
                )
            model.set_weights(history.selected_weights)
            save_model(model, files.model)
        refold(model, folded)
        probabilities = nodule_probabilities(folded, val_split.on_disk())
        if problem := constant_predictions(probabilities, "val patches"):
            taken = f"after {len(history.epochs) * steps:,} steps"
            advice = "more epochs or more patches may help"
            print(f"warning: {files.model}: {problem} {taken}; {advice}", file=sys.stderr)
    # Replaces dvclive's own summary, which is that of the last epoch, not the selected one.
    sizes = {"parameters": model.count_params(), **_cost(model)}
    write_json(files.log / "metrics.json", history.summary() | sizes)
    if files.provenance:
        write_json(files.provenance, _provenance(recipe, first_epoch, durations.seconds))
    if checkpoint:
        checkpoint.remove()


def _described(model: keras.Model, params: TrainingParams) -> str:
    """Return the network's size and the recipe in effect, which comes from two blocks of params."""
    values = params.recipe.model_dump()
    values |= {f"augmentation.{name}": value for name, value in values.pop("augmentation").items()}
    lines = [f"{model.name}: {model.count_params():,} parameters, recipe {params.recipe_name}:"]
    settings = ", ".join(f"{name} {value}" for name, value in values.items())
    lines += textwrap.wrap(settings, 98, break_long_words=False)
    if changes := params.model.recipes.get(params.recipe_name):
        key = f"models.{model.name}.recipes.{params.recipe_name}"
        lines.append(f"({', '.join(changes)}: from {key})")
    return "\n  ".join(lines)


def _cost(model: keras.Model) -> dict[str, int]:
    """Return the network's `multiply_adds`; nothing if a layer's are unknown."""
    try:
        return {"multiply_adds": multiply_adds(model)}
    except TypeError as error:
        print(f"multiply_adds is left out of the metrics: {error}", file=sys.stderr)
        return {}


def _checkpoint(params: TrainingParams, files: TrainingFiles) -> Checkpoint | None:
    """Return the checkpoint of a training with these parameters; None without a folder."""
    if not files.checkpoints:
        return None
    combination = combination_of(
        {"train": files.train, "val": files.val, "class_weights": files.class_weights},
        {
            "model": params.model_name,
            "config": params.model.model_dump(),
            "recipe": params.recipe.model_dump(),
            "seed": params.seed,
            "strategy": params.strategy,
        },
        {"code": stage_code("train"), "environment": environment()},
    )
    checkpoint = Checkpoint(files.checkpoints, combination, workspace=files.workspace)
    checkpoint.remove_stale()
    return checkpoint


@contextmanager
def _progress_noted(history: History, epochs: int, checkpoint: Checkpoint | None) -> Iterator[None]:
    """Add notes to an exception that ends the training: its epoch, and where it will resume."""
    try:
        yield
    except TrainingError:
        raise  # a resumed training would fail in the same epoch
    except BaseException as error:
        error.add_note(f"training was in epoch {min(len(history.epochs) + 1, epochs)} of {epochs}")
        if checkpoint:
            saved = checkpoint.saved_epochs
            place = f"resumes after epoch {saved}" if saved else "restarts from scratch"
            error.add_note(f"`dvc repro` {place}")
        raise


def _provenance(recipe: Recipe, first_epoch: int, seconds: list[float]) -> dict[str, Any]:
    return environment() | {
        "processors": usable_processors(),
        "precision": recipe.precision,
        "resumed_after_epoch": first_epoch,
        "seconds_per_epoch": [round(duration, 3) for duration in seconds],
    }


def compiled_for_training(
    model: keras.Model, recipe: Recipe, steps: int, *, devices: int = 1
) -> AcceleratedModel:
    """Accelerate a model and compile the result.

    Parameters
    ----------
    model
        Model of `build_model`.
    recipe
        Recipe whose optimizer, schedule, ghost batches and average are used.
    steps
        Batches per epoch.
    devices
        Number of devices among which each batch is divided.

    Returns
    -------
    AcceleratedModel
        Compiled, with the optimizer's variables built.
    """
    accelerated = accelerate(
        model, ghost_batches=recipe.ghost_batches, devices=devices, average=recipe.average
    )
    accelerated.compile(
        optimizer=new_optimizer(recipe, steps),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
    )
    accelerated.optimizer.build(accelerated.trainable_variables)
    # Metrics create their variables on their first call. In the first step, that would make
    # TensorFlow trace it twice.
    outputs = tf.zeros((1, *model.output_shape[1:]))
    accelerated.compute_metrics(None, outputs, outputs)
    accelerated.reset_metrics()
    return accelerated


def training_strategy(name: str) -> tf.distribute.Strategy:
    """Return TensorFlow's strategy: `one_device`, or `mirrored` over all GPUs of this machine."""
    if name == "one_device":
        return tf.distribute.get_strategy()
    # All GPUs, or otherwise all CPU devices: MirroredStrategy's default is a single one.
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def _check_classes(split: PatchFile) -> None:
    """Refuse a split without both classes: its AUC is undefined, and training is pointless."""
    for label, name in enumerate(CLASSES):
        if not (split.labels == label).any():
            kind = name.replace("_", "-")
            raise PatchFileError(
                split.path, f"found no {kind}, expected at least one of each class"
            )


def _check_batches(size: int, ghost_batches: int, devices: int, *, key: str) -> None:
    """Refuse batches that cannot be divided evenly among devices and ghost batches."""
    if size % devices:
        # Each device would have the same weight in the loss.
        problem = f"found batches of {size} patches, expected a multiple of the {devices} devices"
        raise ParamsError(PARAMS_FILE, "strategy", problem)
    if ghost_batches > 1 and ghost_batches % devices:
        problem = f"found {ghost_batches}, expected 1, or a multiple of the {devices} devices"
    elif ghost_batches > size:
        problem = f"found {ghost_batches}, expected at most the {size} patches of a batch"
    else:
        return
    raise ParamsError(PARAMS_FILE, key, problem)
