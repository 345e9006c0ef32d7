"""Training one network by one recipe: the whole run as a function of parameters and files."""

import math
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from dvclive import Live
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from nodules.errors import ParamsError, PatchFileError, ScoringError, TrainingError
from nodules.inference.folding import fold_weights, folded_copy
from nodules.inference.probabilities import nodule_probabilities
from nodules.models.file import save_model
from nodules.models.multiply_adds import multiply_adds
from nodules.models.registry import build_model
from nodules.params import PARAMS_FILE, Params, Recipe
from nodules.patches.layout import CLASSES
from nodules.patches.reader import PatchFile, open_patches
from nodules.runtime import usable_processors
from nodules.statistics.constant_predictions import constant_predictions
from nodules.system.atomic import write_json
from nodules.training.checkpoint import Checkpoint, TrainingState, combination_of
from nodules.training.class_weights import read_class_weights
from nodules.training.fast_model import TrainingCopy, training_copy
from nodules.training.input_pipeline import steps_per_epoch, training_batches
from nodules.training.provenance import environment, stage_code


@dataclass(frozen=True)
class TrainingFiles:
    """What a training reads and writes.

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
        Folder for checkpoints, by which a training that was stopped goes on; None for none.
    workspace
        Whether the training is that of the repository's workspace, as `Checkpoint` has it.
    provenance
        JSON to write about what DVC does not hash, durations among it; None for none.
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
    params: Params, files: TrainingFiles, callbacks: Iterable[keras.callbacks.Callback] = ()
) -> None:
    """Train the chosen model by the chosen recipe; write the model and the log of its epochs.

    With `files.checkpoints`, a training that was stopped at any moment goes on after the last epoch
    that it finished, and gives the same bytes as if it had not been stopped. A warning on stderr
    says so if the network then gives all validation patches practically the same probability.

    Parameters
    ----------
    params
        `chosen_model`, `chosen_recipe`, `seed` and `strategy` are used.
    files
        What to read and write.
    callbacks
        Further ones, which are called when an epoch has been scored and logged: their logs hold
        `val_loss`, `val_accuracy` and `val_auc` too. Of a resumed training they see the rest.

    Raises
    ------
    ParamsError
        If the model's builder or one of its arguments is wrong, or batches cannot be shared out
        among devices and ghost batches.
    PatchFileError
        If a split lacks a class.
    TrainingError
        If the loss is no longer a number.
    """
    recipe, entry = params.chosen_recipe, params.chosen_model
    # What is scored and saved is the plain model; a faster copy is trained.
    model = build_model(
        params.model, entry.builder, entry.config, seed=params.seed, precision=recipe.precision
    )
    folded = folded_copy(model)
    strategy = training_strategy(params.strategy)
    devices = strategy.num_replicas_in_sync
    with (
        open_patches(files.train) as train_split,
        open_patches(files.val) as val_split,
        Live(str(files.log), dvcyaml=None, save_dvc_exp=False) as live,
    ):
        patches = train_split.on_disk()
        _check_classes(train_split)
        _check_classes(val_split)
        _check_batches(params, min(recipe.batch_size, len(patches)), devices)
        checkpoint = _checkpoint(params, files)
        state = checkpoint.load() if checkpoint else None
        steps = steps_per_epoch(len(patches), recipe.batch_size)
        with strategy.scope():
            trained = compiled_copy(model, recipe, steps, devices=devices)
        history = _History(live, model, select=recipe.select)
        if state:
            for variable, value in zip(trained.state, state.variables, strict=True):
                variable.assign(value)
            history.take_over(state)
            print(f"going on after epoch {len(state.epochs)} of {recipe.epochs}")
        first_epoch = len(history.epochs)
        durations = _Durations()
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
                    seed=params.seed,
                    first_epoch=first_epoch,
                )
                trained.fit(
                    batches,
                    initial_epoch=first_epoch,
                    epochs=recipe.epochs,
                    steps_per_epoch=steps,
                    shuffle=False,  # the batches come shuffled
                    # A progress bar redraws itself; in a log file a line an epoch reads better.
                    verbose=1 if sys.stdout.isatty() else 2,
                    callbacks=[
                        _FiniteLoss(),
                        _ValidationScores(model, folded, val_split),
                        history,
                        *([_EarlyStopping(recipe, history)] if recipe.patience else []),
                        *([_CheckpointWriter(checkpoint, history)] if checkpoint else []),
                        durations,
                        *callbacks,
                    ],
                )
            history.summarise(parameters=model.count_params(), **_cost(model))
            model.set_weights(history.selected_weights)
            save_model(model, files.model)
        fold_weights(model, folded)
        probabilities = nodule_probabilities(folded, val_split.on_disk())
        if problem := constant_predictions(probabilities, "val patches"):
            taken = f"it took {len(history.epochs) * steps:,} steps"
            advice = "more epochs or more patches may help"
            print(f"warning: {files.model}: {problem}; {taken}: {advice}", file=sys.stderr)
    if files.provenance:
        write_json(files.provenance, _provenance(recipe, first_epoch, durations.seconds))
    if checkpoint:
        checkpoint.remove()


def _cost(model: keras.Model) -> dict[str, int]:
    """Give the network's `multiply_adds`; nothing where a layer's are not known."""
    try:
        return {"multiply_adds": multiply_adds(model)}
    except TypeError as error:
        print(f"multiply_adds is left out of the metrics: {error}", file=sys.stderr)
        return {}


def _checkpoint(params: Params, files: TrainingFiles) -> Checkpoint | None:
    if not files.checkpoints:
        return None
    combination = combination_of(
        {"train": files.train, "val": files.val, "class_weights": files.class_weights},
        {
            "model": params.model,
            "config": params.chosen_model.model_dump(),
            "recipe": params.chosen_recipe.model_dump(),
            "seed": params.seed,
            "strategy": params.strategy,
        },
        {"code": stage_code("train"), "environment": environment()},
    )
    checkpoint = Checkpoint(files.checkpoints, combination, workspace=files.workspace)
    checkpoint.remove_stale()
    return checkpoint


@contextmanager
def _progress_noted(
    history: "_History", epochs: int, checkpoint: Checkpoint | None
) -> Iterator[None]:
    """Note on whatever ends the training early where it was, and where it will go on."""
    try:
        yield
    except TrainingError:
        raise  # there it would end again
    except BaseException as error:
        error.add_note(f"training was in epoch {min(len(history.epochs) + 1, epochs)} of {epochs}")
        if checkpoint:
            saved = checkpoint.saved_epochs
            place = f"goes on after epoch {saved}" if saved else "starts it afresh"
            error.add_note(f"`dvc repro` {place}")
        raise


def _provenance(recipe: Recipe, first_epoch: int, seconds: list[float]) -> dict[str, Any]:
    return environment() | {
        "processors": usable_processors(),
        "precision": recipe.precision,
        "resumed_after_epoch": first_epoch,
        "seconds_per_epoch": [round(duration, 3) for duration in seconds],
    }


def compiled_copy(
    model: keras.Model, recipe: Recipe, steps: int, *, devices: int = 1
) -> TrainingCopy:
    """Copy a model for training and compile the copy.

    Parameters
    ----------
    model
        As the builders make it.
    recipe
        Its optimizer, schedule, ghost batches and average are used.
    steps
        Batches an epoch.
    devices
        That share each batch.

    Returns
    -------
    TrainingCopy
        Whose weights fit `model`; its optimizer has its variables.
    """
    copy = training_copy(
        model, ghost_batches=recipe.ghost_batches, devices=devices, average=recipe.average
    )
    copy.compile(
        optimizer=_optimizer(recipe, steps), loss="categorical_crossentropy", metrics=["accuracy"]
    )
    copy.optimizer.build(copy.trainable_variables)
    # Metrics make their variables when they are first called; within the first step, they would
    # have TensorFlow trace it twice.
    outputs = tf.zeros((1, *model.output_shape[1:]))
    copy.compute_metrics(None, outputs, outputs)
    copy.reset_metrics()
    return copy


def training_strategy(name: str) -> tf.distribute.Strategy:
    """Give TensorFlow's strategy: `one_device`, or `mirrored` over all GPUs of this machine."""
    if name == "one_device":
        return tf.distribute.get_strategy()
    # All GPUs, or else all CPU devices: by itself it would take one CPU device of several.
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def _check_classes(split: PatchFile) -> None:
    """Refuse a split on which no AUC is defined, or nothing can be learned."""
    for label, name in enumerate(CLASSES):
        if not (split.labels == label).any():
            kind = name.replace("_", "-")
            raise PatchFileError(
                split.path, f"found no {kind}, expected at least one of each class"
            )


def _check_batches(params: Params, size: int, devices: int) -> None:
    """Refuse batches that cannot be shared out among ghost batches and devices."""
    if size % devices:
        # Each device would count for as much in the loss.
        problem = f"found batches of {size} patches, expected a multiple of the {devices} devices"
        raise ParamsError(PARAMS_FILE, "strategy", problem)
    parts, key = params.chosen_recipe.ghost_batches, f"recipes.{params.recipe}"
    if "ghost_batches" in params.chosen_model.recipes.get(params.recipe, {}):
        key = f"models.{params.model}.{key}"
    if parts > 1 and parts % devices:
        problem = f"found {parts}, expected 1, or a multiple of the {devices} devices"
    elif parts > size:
        problem = f"found {parts}, expected at most the {size} patches of a batch"
    else:
        return
    raise ParamsError(PARAMS_FILE, f"{key}.ghost_batches", problem)


def _optimizer(recipe: Recipe, steps: int) -> keras.optimizers.Optimizer:
    rate = _learning_rate(recipe, steps)
    match recipe.optimizer:
        case "adam":
            return keras.optimizers.Adam(rate)
        case "adamw":
            decay = recipe.weight_decay
            optimizer = keras.optimizers.AdamW(rate, weight_decay=decay)
        case "sgd":
            decay = recipe.weight_decay
            optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=decay)
    # Shrinking offsets and normalisation scales regularises nothing; only kernels decay.
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    return optimizer


def _learning_rate(
    recipe: Recipe, steps: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    warmup = round(recipe.warmup_epochs * steps)
    if recipe.schedule == "constant" and not warmup:
        return recipe.learning_rate
    constant = recipe.schedule == "constant"
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else recipe.learning_rate,
        decay_steps=max(1, recipe.epochs * steps - warmup),
        alpha=1.0 if constant else 0.0,
        warmup_target=recipe.learning_rate if warmup else None,
        warmup_steps=warmup,
    )


class _FiniteLoss(keras.callbacks.Callback):
    """Ends a training whose loss is no longer a number, at the step where that shows."""

    def __init__(self) -> None:
        super().__init__()
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            raise TrainingError(
                f"epoch {self._epoch + 1}: the loss is {loss} at step {batch + 1}; "
                "a lower learning rate may help"
            )


class _ValidationScores(keras.callbacks.Callback):
    """Adds `val_loss`, `val_accuracy` and `val_auc` to the logs that later callbacks see.

    They are those of `scored`, which takes over the weights, or their average, from the copy in
    training, and of its `folded` copy. Keras's own AUC is an approximation over fixed thresholds;
    this one is exact.
    """

    def __init__(self, scored: keras.Model, folded: keras.Model, split: PatchFile) -> None:
        super().__init__()
        self._scored, self._folded = scored, folded
        self._patches, self._labels = split.on_disk(), split.labels

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        self._scored.set_weights(self.model.averaged_weights())
        fold_weights(self._scored, self._folded)
        try:
            probabilities = nodule_probabilities(self._folded, self._patches)
        except ScoringError as error:
            problem = f"epoch {epoch + 1}: {error}; a lower learning rate may help"
            raise TrainingError(problem) from None
        logs["val_loss"] = log_loss(self._labels, probabilities, labels=[0, 1])
        logs["val_accuracy"] = accuracy_score(self._labels, probabilities >= 0.5)
        logs["val_auc"] = roc_auc_score(self._labels, probabilities)


class _History(keras.callbacks.Callback):
    """Logs each epoch through dvclive and keeps the weights that the recipe selects.

    Attributes
    ----------
    best_epoch
        The best so far, from 1.
    epochs
        Scores of each epoch.
    selected_weights
        What is saved if this is the last epoch.
    """

    LOGGED = {  # noqa: RUF012 - a constant
        "train/loss": "loss",
        "train/accuracy": "accuracy",
        "val/loss": "val_loss",
        "val/accuracy": "val_accuracy",
        "val/auc": "val_auc",
    }

    def __init__(self, live: Live, scored: keras.Model, *, select: str) -> None:
        super().__init__()
        self._live, self._scored, self._select = live, scored, select
        self.best_epoch = 0
        self.epochs: list[dict[str, float]] = []
        self.selected_weights: list[NDArray] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        if self._add({name: float(logs[key]) for name, key in self.LOGGED.items()}):
            self.selected_weights = self._scored.get_weights()

    def take_over(self, state: TrainingState) -> None:
        """Log the epochs before a resumption anew: DVC has removed what was logged of them."""
        for scores in state.epochs:
            self._add(scores)
        self.selected_weights = state.selected_weights

    def _add(self, scores: dict[str, float]) -> bool:
        """Log an epoch; say whether its weights are to be kept."""
        for name, value in scores.items():
            self._live.log_metric(name, value)
        self._live.next_step()
        self.epochs.append(scores)
        better = not self.best_epoch or _rank(scores) > _rank(self.epochs[self.best_epoch - 1])
        if better:
            self.best_epoch = len(self.epochs)
        return better or self._select == "last"

    @property
    def selected_epoch(self) -> int:
        """The epoch, from 1, whose weights are saved if this is the last one."""
        return len(self.epochs) if self._select == "last" else self.best_epoch

    def summarise(self, **sizes: int) -> None:
        """Leave in metrics.json the scores of the epoch whose weights are saved, and the sizes."""
        summary = {
            **self.epochs[self.selected_epoch - 1],
            "epochs": len(self.epochs),
            "best_epoch": self.selected_epoch,
            **sizes,
        }
        for name, value in summary.items():
            self._live.log_metric(name, value, plot=False)


def _rank(scores: dict[str, float]) -> tuple[float, float]:
    """Order epochs: by validation AUC, then by loss.

    On few patches the AUC takes few values: a network that has hardly begun to learn reaches 1 on
    a handful, and later ones can only equal it.
    """
    return scores["val/auc"], -scores["val/loss"]


class _EarlyStopping(keras.callbacks.Callback):
    """Stops when no epoch was better than the best for as long as the recipe's patience."""

    def __init__(self, recipe: Recipe, history: _History) -> None:
        super().__init__()
        self._patience, self._history = recipe.patience, history

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if len(self._history.epochs) - self._history.best_epoch >= self._patience:
            self.model.stop_training = True


class _CheckpointWriter(keras.callbacks.Callback):
    """Saves the state at the end of each epoch, when all else that decides has seen it."""

    def __init__(self, checkpoint: Checkpoint, history: _History) -> None:
        super().__init__()
        self._checkpoint, self._history = checkpoint, history

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        state = TrainingState(
            epochs=self._history.epochs,
            variables=[variable.numpy() for variable in self.model.state],
            selected_weights=self._history.selected_weights,
            stopped=self.model.stop_training,
        )
        self._checkpoint.save(state)


class _Durations(keras.callbacks.Callback):
    """Notes how long each epoch takes, scoring and checkpoint included."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self._began = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.seconds.append(time.perf_counter() - self._began)
