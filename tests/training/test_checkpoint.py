"""An interrupted training resumes and produces the same bytes as an uninterrupted one."""

import dataclasses
import itertools
import time
from pathlib import Path

import numpy as np
import pytest

from nodules.system.atomic import replacing
from nodules.training.checkpoint import (
    Checkpoint,
    Combination,
    TrainingState,
    checkpoint_folder,
    combination_of,
)
from nodules.training.train import TrainingFiles, train
from tests.support.small_training import (
    CHECKPOINTS,
    StopIn,
    Stopped,
    small_params,
    write_training_files,
)

STATE = TrainingState(
    epochs=[{"val/auc": 0.1 + 0.2}],
    variables=[np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7, np.int64)],
    selected_weights=[np.array([np.pi], np.float32)],
    stopped=True,
)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingFiles:
    # dvclive searches parent folders for a repository and must not find this one.
    monkeypatch.chdir(tmp_path)
    return dataclasses.replace(write_training_files(tmp_path), checkpoints=tmp_path / CHECKPOINTS)


def taken_outputs(files: TrainingFiles) -> dict[str, bytes]:
    """Read and remove all outputs of a training, as DVC does before running a stage."""
    written = [path for path in [files.model, *files.log.rglob("*")] if path.is_file()]
    found = {str(path): path.read_bytes() for path in written}
    for path in written:
        path.unlink()
    return found


# Recipe changes; stopping point as epochs before the last and, if not at the end of the epoch, a
# step; number of epochs then left.
RECIPES: dict[str, tuple[dict, list[tuple[int, int]], int]] = {
    "average, warm-up, stopped within an epoch and when all were done": (
        {"average": 0.5, "learning_rate": 0.01, "select": "last"},
        [(0, 4), (0, -1)],
        0,
    ),
    # With a tiny learning rate, the AUC soon stops improving.
    "momentum, patience, stopped while it ran out": (
        {
            "optimizer": "sgd",
            "learning_rate": 1e-12,
            "warmup_epochs": 0.0,
            "epochs": 20,
            "patience": 2,
            "ghost_batches": 1,
        },
        [(1, -1)],
        1,
    ),
}


@pytest.mark.parametrize(("changes", "stops", "left"), RECIPES.values(), ids=RECIPES.keys())
def test_a_stopped_training_gives_the_bytes_of_one_that_was_not(
    files: TrainingFiles,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict,
    stops: list[tuple[int, int]],
    left: int,
) -> None:
    params = small_params(**{"epochs": 2} | changes)
    params.models["small"].config["dropout"] = 0.5
    whole, rest = StopIn(99), StopIn(99)
    train(params.chosen_training, files, [whole])
    count = len(whole.epochs)
    assert count < 20
    expected = taken_outputs(files)
    for before_last, step in stops:
        with pytest.raises(Stopped):
            train(params.chosen_training, files, [StopIn(count - before_last, step)])
        taken_outputs(files)
    # Also checks that nothing depends on the time of day.
    clock = itertools.cycle([4e9, 1e9, 2e9])
    monkeypatch.setattr(time, "time", lambda: next(clock))
    train(params.chosen_training, files, [rest])
    assert rest.epochs == whole.epochs[count - left :]
    assert taken_outputs(files) == expected
    assert list(Path(CHECKPOINTS).iterdir()) == []


def test_a_checkpoint_of_other_parameters_is_not_used_and_removed(files: TrainingFiles) -> None:
    with pytest.raises(Stopped):
        train(small_params(epochs=2, ghost_batches=1).chosen_training, files, [StopIn(1)])
    assert len(list(Path(CHECKPOINTS).iterdir())) == 1
    other = StopIn(99)
    train(small_params(epochs=1, ghost_batches=1).chosen_training, files, [other])
    assert other.epochs == [1]
    assert list(Path(CHECKPOINTS).iterdir()) == []


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    combination = Combination("program", "task")
    Checkpoint(tmp_path, combination, workspace=False).save(STATE)
    # Left by an experiment; the workspace resumes from it.
    checkpoint = Checkpoint(tmp_path, combination, workspace=True)
    found = checkpoint.load()
    assert found is not None
    assert (found.epochs, found.stopped) == (STATE.epochs, STATE.stopped)
    for name in ("variables", "selected_weights"):
        for one, other in zip(getattr(found, name), getattr(STATE, name), strict=True):
            assert one.dtype == other.dtype
            assert np.array_equal(one, other)
    checkpoint.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["short", "changed", "empty"])
def test_a_damaged_checkpoint_does_not_change_the_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    combination = Combination("program", "task")
    Checkpoint(tmp_path, combination, workspace=True).save(STATE)
    checkpoint = Checkpoint(tmp_path, combination, workspace=True)
    content = checkpoint.path.read_bytes()
    # The values of the first array follow its headers; the checksum detects a changed value.
    place = content.index(STATE.variables[0].tobytes())
    damaged = {
        "short": content[: len(content) // 2],
        "changed": content[:place] + b"\xff" + content[place + 1 :],
        "empty": b"",
    }
    checkpoint.path.write_bytes(damaged[damage])
    assert checkpoint.load() is None
    assert "is ignored" in capsys.readouterr().err
    assert checkpoint.saved_epochs == 0


def test_everything_that_affects_the_result_identifies_the_checkpoint(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("one")
    two.write_text("two")
    combinations = {
        combination_of({"train": one, "val": two}, {"seed": 1}, {"code": "a"}),
        combination_of({"train": two, "val": one}, {"seed": 1}, {"code": "a"}),
        combination_of({"train": one, "val": two}, {"seed": 2}, {"code": "a"}),
        combination_of({"train": one, "val": two}, {"seed": 1}, {"code": "b"}),
    }
    assert len(combinations) == 4
    moved = tmp_path / "moved"
    moved.write_text("one")
    assert combination_of({"train": moved, "val": two}, {"seed": 1}, {"code": "a"}) in combinations


def test_stale_checkpoints_are_removed_and_those_of_other_experiments_kept(tmp_path: Path) -> None:
    def saved(program: str, task: str, *, workspace: bool) -> Checkpoint:
        checkpoint = Checkpoint(tmp_path, Combination(program, task), workspace=workspace)
        checkpoint.save(STATE)
        return checkpoint

    old = saved("old", "task", workspace=False)
    earlier = saved("new", "earlier", workspace=True)
    queued = saved("new", "queued", workspace=False)
    mine = saved("new", "task", workspace=True)
    saved("new", "another", workspace=False).remove_stale()
    assert not old.path.exists()
    assert earlier.path.exists()
    mine.remove_stale()
    assert not earlier.path.exists()
    assert queued.path.exists()
    assert mine.path.exists()


@pytest.mark.parametrize("host", ["laptop", "my-own-laptop.example.org"])
def test_files_of_a_killed_writer_are_removed_and_those_being_written_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: host)
    with replacing(tmp_path / "experiment-old-task.npz") as written:
        # A file without a lock, as left by a killed writer.
        left = written.with_name(written.name.replace("experiment", "workspace"))
        elsewhere = left.with_name(left.name.replace(left.name.split(".")[2], "desk"))
        for path in (left, elsewhere):
            path.write_bytes(b"half a checkpoint")
        Checkpoint(tmp_path, Combination("new", "task"), workspace=True).remove_stale()
        assert sorted(tmp_path.iterdir()) == sorted([written, elsewhere])


def test_an_experiments_checkpoint_is_kept_in_the_repository_and_not_in_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = tmp_path / ".dvc/tmp/exps/tmp1"
    experiment.mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.chdir(experiment)
    assert checkpoint_folder() == (tmp_path / ".dvc/tmp/training", False)
    monkeypatch.chdir(tmp_path)
    assert checkpoint_folder() == (tmp_path / ".dvc/tmp/training", True)
