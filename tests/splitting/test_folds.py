"""Folds of a cross-validation: each is test once, and they are the same whatever is test."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from nodules.errors import PatchFileError, SplitError
from nodules.patches.layout import SPLITS
from nodules.patches.reader import open_patches
from nodules.splitting.assignment import assign_splits
from nodules.splitting.params import SplitParams

TRAIN, VAL, TEST = range(len(SPLITS))


def folded(folds: int, fold: int, by: str = "group") -> SplitParams:
    fractions = {"train": 0.7, "val": 0.15, "test": 0.15}
    choices = {"by": by, "near_duplicates": "report", "irrelevant": "keep"}
    return SplitParams.model_validate(fractions | choices | {"folds": folds, "fold": fold})


def write(path: Path, **columns: Any) -> Path:
    """Write 60 scans of 20 patches, every fifth of which is a nodule."""
    rows = np.arange(1200)
    with h5py.File(path, "w") as file:
        file["X"] = np.zeros((1200, 50, 50), np.uint8)
        for name, values in ({"Y": rows % 5 == 0, "group": rows // 20} | columns).items():
            file[name] = values
    return path


def all_splits(path: Path, folds: int, seed: int = 0, by: str = "group") -> np.ndarray:
    """Return the (folds, N) assignments with each fold as test."""
    with open_patches(path) as patches:
        each = [assign_splits(patches, folded(folds, fold, by), seed) for fold in range(folds)]
    return np.stack(each)


@pytest.mark.parametrize("by", ["group", "patch"])
@pytest.mark.parametrize("folds", [3, 7, 10])
def test_each_patch_is_test_in_one_fold_and_val_in_the_fold_before(
    tmp_path: Path, folds: int, by: str
) -> None:
    splits = all_splits(write(tmp_path / "p.h5"), folds, by=by)
    assert ((splits == TEST).sum(axis=0) == 1).all()
    assert np.array_equal(splits == VAL, np.roll(splits == TEST, -1, axis=0))


def test_folds_have_equal_shares_of_patches_and_nodules_and_keep_groups_whole(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "p.h5")
    tests = all_splits(path, 10) == TEST
    assert tests.sum(axis=1).tolist() == [120] * 10
    assert (tests & (np.arange(1200) % 5 == 0)).sum(axis=1).tolist() == [24] * 10
    by_group = tests.reshape(10, 60, 20)
    assert (by_group.all(axis=2) | ~by_group.any(axis=2)).all()
    assert not np.array_equal(all_splits(path, 10, seed=1) == TEST, tests)


def test_folds_of_the_file_are_kept(tmp_path: Path) -> None:
    folds = np.arange(1200) // 20 % 4
    splits = all_splits(write(tmp_path / "p.h5", fold=folds), 4)
    assert np.array_equal((splits == TEST).argmax(axis=0), folds)


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        (
            {"fold": np.arange(1200) // 20 % 5},
            SplitError,
            "fold: found 0, 1, 2, 3, 4, expected 0 to 3 for split.folds: 4",
        ),
        (
            {"fold": np.arange(1200) % 4},
            PatchFileError,
            "group: row 1: found 0 in 0 and 1, expected one fold per group",
        ),
        ({"fold": ["a"] * 1200}, PatchFileError, "fold: found text, expected integers"),
        (
            {"split": ["train"] * 1200},
            SplitError,
            "split: found a data set of this name, expected none for split.folds",
        ),
        (
            {"Y": np.arange(1200) < 60},
            SplitError,
            "found 3 groups with a nodule, expected at least one for each of fold 0, fold 1",
        ),
    ],
)
def test_a_file_without_these_folds_is_refused(
    tmp_path: Path, columns: dict[str, Any], error: type[Exception], message: str
) -> None:
    path = write(tmp_path / "p.h5", **columns)
    with open_patches(path) as patches, pytest.raises(error, match=message):
        assign_splits(patches, folded(4, 0), seed=0)


@pytest.mark.parametrize(
    ("folds", "fold", "by", "message"),
    [
        (5, 5, "group", "found fold 5, expected 0 to 4"),
        (5, 0, "published", "found folds of a published split"),
        (2, 0, "group", "greater than or equal to 3"),
    ],
)
def test_folds_that_cannot_be_are_refused(folds: int, fold: int, by: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        folded(folds, fold, by)
