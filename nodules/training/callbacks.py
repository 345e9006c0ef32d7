"""Training callbacks: scores, log, selection of the epoch, checkpoints, durations."""

import math
import time
from typing import Any

import keras
from dvclive import Live
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from nodules.errors import ScoringError, TrainingError
from nodules.inference.folding import refold
from nodules.inference.probabilities import nodule_probabilities
from nodules.patches.reader import PatchFile
from nodules.training.checkpoint import Checkpoint, TrainingState

# Metrics by their name in dvclive's log, with their name in Keras's logs.
LOGGED = {
    "train/loss": "loss",
    "train/accuracy": "accuracy",
    "val/loss": "val_loss",
    "val/accuracy": "val_accuracy",
    "val/auc": "val_auc",
}


class FiniteLoss(keras.callbacks.Callback):
    """Raises an error at the first step with a non-finite loss."""

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


class ValidationScores(keras.callbacks.Callback):
    """Adds `val_loss`, `val_accuracy` and `val_auc` to the logs that later callbacks see.

    Copies the weights, or their average, from the accelerated model to `scored` and to `folded`,
    which is `scored` with folded batch norm, and scores the patches of a split with the latter.
    Keras's own AUC is an approximation over fixed thresholds; this one is exact.
    """

    def __init__(self, scored: keras.Model, folded: keras.Model, split: PatchFile) -> None:
        super().__init__()
        self._scored, self._folded = scored, folded
        self._patches, self._labels = split.on_disk(), split.labels

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        self._scored.set_weights(self.model.averaged_weights())
        refold(self._scored, self._folded)
        try:
            probabilities = nodule_probabilities(self._folded, self._patches)
        except ScoringError as error:
            problem = f"epoch {epoch + 1}: {error}; a lower learning rate may help"
            raise TrainingError(problem) from None
        logs["val_loss"] = log_loss(self._labels, probabilities, labels=[0, 1])
        logs["val_accuracy"] = accuracy_score(self._labels, probabilities >= 0.5)
        logs["val_auc"] = roc_auc_score(self._labels, probabilities)


class History(keras.callbacks.Callback):
    """Logs each epoch through dvclive and keeps the weights that the recipe selects.

    Attributes
    ----------
    best_epoch
        Number of the best epoch so far, from 1; 0 before the first.
    epochs
        Scores of each epoch.
    selected_weights
        Weights that are saved if this is the last epoch.
    """

    def __init__(self, live: Live, scored: keras.Model, *, select: str) -> None:
        super().__init__()
        self._live, self._scored, self._select = live, scored, select
        self.best_epoch = 0
        self.epochs: list[dict[str, float]] = []
        self.selected_weights: list[NDArray] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        if self._add({name: float(logs[key]) for name, key in LOGGED.items()}):
            self.selected_weights = self._scored.get_weights()

    def restore(self, state: TrainingState) -> None:
        """Log the epochs of a checkpoint again, since DVC has deleted their log."""
        for scores in state.epochs:
            self._add(scores)
        self.selected_weights = state.selected_weights

    def _add(self, scores: dict[str, float]) -> bool:
        """Log an epoch; return whether to keep its weights."""
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

    def summary(self) -> dict[str, Any]:
        """Return the scores of the selected epoch, for metrics.json.

        Their names differ from those of `evaluate`, which DVC would otherwise prefix with paths.
        """
        scores = self.epochs[self.selected_epoch - 1]
        return {
            "training": {name: scores[f"train/{name}"] for name in ("loss", "accuracy")},
            "validation": {name: scores[f"val/{name}"] for name in ("loss", "accuracy", "auc")},
            "epochs": len(self.epochs),
            "best_epoch": self.selected_epoch,
        }


def _rank(scores: dict[str, float]) -> tuple[float, float]:
    """Return the sort key of an epoch: the validation AUC, then the loss.

    On few patches the AUC takes few values: a barely trained network may reach 1, which later
    epochs can only equal.
    """
    return scores["val/auc"], -scores["val/loss"]


class EarlyStopping(keras.callbacks.Callback):
    """Stops after `patience` epochs without a better one."""

    def __init__(self, patience: int, history: History) -> None:
        super().__init__()
        self._patience, self._history = patience, history

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if len(self._history.epochs) - self._history.best_epoch >= self._patience:
            self.model.stop_training = True


class CheckpointWriter(keras.callbacks.Callback):
    """Saves the state at the end of each epoch, after all callbacks that change it."""

    def __init__(self, checkpoint: Checkpoint, history: History) -> None:
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


class Durations(keras.callbacks.Callback):
    """Measures the duration of each epoch in seconds, including scoring and checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self._began = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.seconds.append(time.perf_counter() - self._began)
