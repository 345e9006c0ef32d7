"""Which epoch a training keeps and when it stops, for given scores."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dvclive import Live

from nodules.errors import TrainingError
from nodules.training.callbacks import EarlyStopping, FiniteLoss, History


class Weights:
    """Stands for a model whose weights are the number of the epoch."""

    epoch = 0

    def get_weights(self) -> list[int]:
        return [self.epoch]


def history_of(folder: Path, scores: list[tuple[float, float]], *, select: str) -> History:
    """Log epochs with these validation AUCs and losses, until training stops."""
    weights: Any = Weights()
    with Live(str(folder), dvcyaml=None, save_dvc_exp=False) as live:
        history = History(live, weights, select=select)
        stopping = EarlyStopping(2, history)
        stopping.set_model(SimpleNamespace(stop_training=False))
        for epoch, (auc, loss) in enumerate(scores):
            weights.epoch = epoch + 1
            logs = {"loss": 0.5, "accuracy": 0.5, "val_accuracy": 0.5}
            history.on_epoch_end(epoch, {**logs, "val_auc": auc, "val_loss": loss})
            stopping.on_epoch_end(epoch)
            if stopping.model.stop_training:
                break
    return history


@pytest.mark.parametrize(
    ("scores", "best", "epochs"),
    [
        ([(0.7, 1.0), (0.9, 1.0), (0.8, 0.1)], 2, 3),
        # With very few patches, every epoch may have an AUC of 1.
        ([(1.0, 0.5), (1.0, 0.3), (1.0, 0.4)], 2, 3),
        ([(1.0, 0.5), (1.0, 0.5)], 1, 2),
        ([(0.9, 0.5), (0.8, 0.1), (0.9, 0.6), (1.0, 0.1)], 1, 3),
        ([(0.9, 0.5), (0.8, 0.1), (0.9, 0.4), (0.9, 0.5)], 3, 4),
    ],
    ids=["highest AUC", "same AUC, lowest loss", "first of equals", "stopped", "better in time"],
)
def test_the_best_epoch_is_kept_and_two_without_a_better_one_stop(
    tmp_path: Path, scores: list[tuple[float, float]], best: int, epochs: int
) -> None:
    history = history_of(tmp_path, scores, select="best")
    assert len(history.epochs) == epochs
    assert history.selected_epoch == best
    assert history.selected_weights == [best]
    summary = history.summary()
    assert (summary["epochs"], summary["best_epoch"]) == (epochs, best)
    auc, loss = scores[best - 1]
    assert summary["validation"] == {"loss": loss, "accuracy": 0.5, "auc": auc}


def test_the_last_epoch_is_kept_where_the_recipe_says_so(tmp_path: Path) -> None:
    history = history_of(tmp_path, [(0.9, 0.1), (0.8, 0.2)], select="last")
    assert (history.best_epoch, history.selected_epoch) == (1, 2)
    assert history.selected_weights == [2]
    assert history.summary()["best_epoch"] == 2
    assert history.summary()["validation"]["auc"] == 0.8


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_its_epoch_and_step(loss: float) -> None:
    callback = FiniteLoss()
    callback.on_epoch_begin(1)
    callback.on_train_batch_end(0, {"loss": 0.5})
    with pytest.raises(TrainingError, match=rf"epoch 2: the loss is {loss} at step 2; a lower"):
        callback.on_train_batch_end(1, {"loss": loss})
