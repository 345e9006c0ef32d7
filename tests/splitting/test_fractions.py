"""The fractions of the splits: near the best possible ones, or a warning says what prevents it."""

import itertools
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodules.errors import SplitError
from nodules.patches.layout import SPLITS
from nodules.patches.reader import open_patches
from nodules.splitting import assignment as assignment_module
from nodules.splitting.assignment import assign_splits, missed_fractions
from nodules.splitting.params import SplitParams
from nodules.splitting.split import split_patches

PARAMS = SplitParams(
    by="group", train=0.7, val=0.15, test=0.15, near_duplicates="report", irrelevant="keep"
)
ANY_SEED = st.integers(0, 2**31 - 1)
UNITS = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 4)).filter(any), min_size=3, max_size=7
)
QUICK = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


def fractions_of(train: int, val: int) -> SplitParams:
    """Return parameters with percentages."""
    shares = {"train": train / 100, "val": val / 100, "test": (100 - train - val) / 100}
    return PARAMS.model_copy(update=shares)


PERCENTAGES = (
    st.tuples(st.integers(5, 90), st.integers(5, 90))
    .filter(lambda pair: sum(pair) <= 95)
    .map(lambda pair: fractions_of(*pair))
)


def write_units(path: Path, units, *, grouped: bool = True, **columns) -> Path:
    """Write groups with these numbers of non-nodules and nodules."""
    labels = np.concatenate([np.repeat([0, 1], unit) for unit in units])
    with h5py.File(path, "w") as file:
        file["X"] = np.zeros((len(labels), 50, 50), np.uint8)
        file["Y"] = labels
        if grouped:
            file["group"] = np.repeat(np.arange(len(units)), np.sum(units, axis=1))
        for name, values in columns.items():
            file[name] = values
    return path


def fractions(labels: np.ndarray, assignment: np.ndarray) -> np.ndarray:
    """Return the (3, 2) fractions of patches and nodules."""
    kinds = [assignment, assignment[labels == 1]]
    return np.stack([np.bincount(kind, minlength=3) / len(kind) for kind in kinds], axis=1)


def errors_of_every_division(units, target: np.ndarray) -> np.ndarray:
    """Return the (D, 3, 2) errors of all divisions in which each split holds both classes."""
    homes = np.array([*itertools.product(range(3), repeat=len(units))])
    held = np.stack([(homes == split).astype(int) @ np.array(units) for split in range(3)], axis=1)
    held = held[(held > 0).all(axis=(1, 2))]
    sizes = np.stack([held.sum(axis=2), held[..., 1]], axis=2)
    return sizes / sizes.sum(axis=1, keepdims=True) - target[:, None]


@QUICK
@given(units=UNITS, params=PERCENTAGES, seed=ANY_SEED)
def test_the_split_exists_and_is_best_if_any_division_does(
    tmp_path: Path, units, params: SplitParams, seed: int
) -> None:
    target = np.array([params.train, params.val, params.test])
    possible = errors_of_every_division(units, target)
    with open_patches(write_units(tmp_path / "small.h5", units)) as patches:
        if not len(possible):
            with pytest.raises(SplitError, match=r"expected at least one for each of train, val"):
                assign_splits(patches, params, seed)
            return
        found = fractions(patches.labels, assign_splits(patches, params, seed)) - target[:, None]
    best = np.sqrt((possible**2).sum(axis=(1, 2)).min())
    assert np.sqrt((found**2).sum()) <= best + 0.03
    closest = np.abs(possible).max(axis=(1, 2)).min()
    if closest == 0:
        assert np.abs(found).max() <= 0.01


@QUICK
@given(units=UNITS, seed=ANY_SEED)
def test_a_missing_test_split_exists_if_val_can_be_divided(
    tmp_path: Path, units, seed: int
) -> None:
    size = np.sum(units)
    split = ["train"] * 2 + ["val"] * int(size)
    path = write_units(tmp_path / "pair.h5", [(1, 1), *units], split=split)
    with open_patches(path) as patches:
        if min((np.array(units) > 0).sum(axis=0)) < 2:
            with pytest.raises(SplitError, match="for each of val, test"):
                assign_splits(patches, PARAMS, seed)
            return
        assignment = assign_splits(patches, PARAMS, seed)
        assert (assignment[:2] == 0).all()
        for position in (1, 2):
            assert set(patches.labels[assignment == position]) == {0, 1}


def split_of_each_seed(path: Path, seeds: int = 40) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the labels and the assignment of each seed."""
    with open_patches(path) as patches:
        return patches.labels, [assign_splits(patches, PARAMS, seed) for seed in range(seeds)]


def test_groups_of_one_class_are_divided_for_every_seed(tmp_path: Path) -> None:
    path = write_units(tmp_path / "pairs.h5", [(1, 1), (1, 0), (0, 1), (1, 1)])
    labels, assignments = split_of_each_seed(path)
    for assignment in assignments:
        assert all(set(labels[assignment == position]) == {0, 1} for position in range(3))


def test_one_giant_group_goes_to_train_for_every_seed(tmp_path: Path) -> None:
    units = [(500, 100), *[(5, 1)] * 60]
    labels, assignments = split_of_each_seed(write_units(tmp_path / "giant.h5", units))
    for assignment in assignments:
        assert assignment[0] == 0
        assert np.abs(fractions(labels, assignment) - [[0.7], [0.15], [0.15]]).max() <= 0.01


@pytest.mark.parametrize(("nodules", "in_train"), [(3, 1), (4, 2), (5, 3), (20, 14)])
def test_few_nodules_do_not_change_the_fractions_of_patches(
    tmp_path: Path, nodules: int, in_train: int
) -> None:
    path = write_units(tmp_path / "few.h5", [(1000 - nodules, nodules)], grouped=False)
    labels, assignments = split_of_each_seed(path)
    for assignment in assignments:
        assert (assignment == 0).mean() == pytest.approx(0.7, abs=0.002)
        assert labels[assignment == 0].sum() == in_train


@pytest.mark.parametrize("count", [60, 400, 5000])
def test_skewed_groups_meet_the_fractions(tmp_path: Path, count: int) -> None:
    rng = np.random.default_rng(count)
    units = np.stack([rng.lognormal(1, 1, count), rng.lognormal(0, 1, count)], axis=1).astype(int)
    units[:, 0] += 1
    labels, assignments = split_of_each_seed(write_units(tmp_path / "skewed.h5", units), seeds=5)
    for assignment in assignments:
        assert np.abs(fractions(labels, assignment) - [[0.7], [0.15], [0.15]]).max() <= 0.01


def test_nodules_that_share_a_bundle_do_not_prevent_a_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assignment_module, "CANDIDATES", 1)
    path = write_units(tmp_path / "bundles.h5", [(9, 0)] * 20 + [(0, 1)] * 3)
    labels, assignments = split_of_each_seed(path, seeds=20)
    for assignment in assignments:
        assert labels[assignment == 1].sum() == 1


def test_each_seed_has_its_own_split_and_large_groups_are_spread(tmp_path: Path) -> None:
    units = np.random.default_rng(0).poisson([8, 2], (40, 2)) + 1
    _, assignments = split_of_each_seed(write_units(tmp_path / "seeds.h5", units))
    assert len({assignment.tobytes() for assignment in assignments}) > 0.95 * len(assignments)
    largest = np.argsort(-units.sum(axis=1), kind="stable")[:10]
    first_row = np.cumsum(units.sum(axis=1)) - units.sum(axis=1)
    in_train = np.mean([assignment[first_row[largest]] == 0 for assignment in assignments])
    assert in_train == pytest.approx(0.7, abs=0.1)


def missed(path: Path, params: SplitParams = PARAMS) -> str | None:
    """Return what is said of the split of this file."""
    with open_patches(path) as patches:
        return missed_fractions(patches, params, assign_splits(patches, params, seed=0))


def test_missed_fractions_are_named_with_their_cause(tmp_path: Path) -> None:
    ordinary = [(5, 1)] * 60
    assert missed(write_units(tmp_path / "good.h5", ordinary)) is None
    giant = write_units(tmp_path / "giant.h5", [*ordinary, (2700, 540)])
    assert missed(giant) == (
        "train has 90% of the patches instead of 70%, val has 5% of the patches instead of 15%, "
        "test has 5% of the patches instead of 15%, train has 90% of the nodules instead of 70%, "
        "val has 5% of the nodules instead of 15%, test has 5% of the nodules instead of 15%: "
        "of 61 groups with patches, '60' alone holds 90%"
    )
    few = write_units(tmp_path / "few.h5", [(997, 3)], grouped=False)
    assert missed(few) == (
        "train has 33% of the nodules instead of 70%, val has 33% of the nodules instead of 15%, "
        "test has 33% of the nodules instead of 15%: there are 3 nodules"
    )
    scans = write_units(tmp_path / "scans.h5", [*[(9, 0)] * 60, (0, 1), (0, 1), (0, 2)])
    reason = missed(scans)
    assert reason is not None
    assert reason.endswith(": of 3 groups with nodules, '62' alone holds 50%")


def test_a_split_of_the_file_misses_no_fraction(tmp_path: Path) -> None:
    names = np.repeat(["train", "val", "test"], [2, 20, 2]).tolist()
    path = write_units(tmp_path / "given.h5", [(1, 1), (10, 10), (1, 1)], split=names)
    assert missed(path) is None
    # Of a missing test split, the ratio of val to test counts.
    names = np.repeat(["train", "val"], [2, 42]).tolist()
    path = write_units(tmp_path / "pair.h5", [(1, 1), (20, 20), (1, 1)], split=names)
    message = missed(path)
    assert message is not None
    assert "of the patches of val and test instead of 50%" in message
    assert "train" not in message


def test_the_warning_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_units(tmp_path / "giant.h5", [(90, 90), (1, 1), (1, 1)])
    split_patches(path, tmp_path / "splits", PARAMS, seed=0, search=False)
    lines = [line for line in capsys.readouterr().err.splitlines() if "instead of" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"warning: {path}: train has 98% of the patches instead of 70%")
    assert all((tmp_path / "splits" / f"{name}.h5").exists() for name in SPLITS)


def test_joined_duplicates_are_named_as_the_cause(tmp_path: Path) -> None:
    path = write_units(tmp_path / "joined.h5", [(40, 40)], grouped=False)
    joined = np.r_[np.zeros(38), np.arange(1, 3), np.zeros(38), np.arange(1, 3)].astype(np.int32)
    with open_patches(path) as patches:
        assignment = assign_splits(patches, PARAMS, 0, joined)
        message = missed_fractions(patches, PARAMS, assignment, joined)
    assert message is not None
    assert message.endswith(
        "of 3 groups with patches, the largest, with duplicates joined, alone holds 95%"
    )
