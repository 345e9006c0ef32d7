"""Splitting: no scan spans two splits, fractions are met, and a given split is kept."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodules.errors import PatchFileError, SplitError
from nodules.patches.layout import SPLITS
from nodules.patches.reader import open_patches
from nodules.splitting.assignment import assign_splits
from nodules.splitting.params import SplitParams
from nodules.splitting.split import split_patches

SHARES = SplitParams(
    by="group", train=0.7, val=0.15, test=0.15, near_duplicates="report", irrelevant="keep"
)


def write(path: Path, labels: np.ndarray, **columns) -> Path:
    """Write patches in which every pixel is the row number modulo 256."""
    rows = np.arange(len(labels)) % 256
    with h5py.File(path, "w") as file:
        file["X"] = np.broadcast_to(rows[:, None, None], (len(rows), 50, 50)).astype(np.uint8)
        file["Y"] = labels
        for name, values in columns.items():
            file[name] = values
    return path


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    groups=st.lists(st.integers(0, 40), min_size=60, max_size=300),
    seed=st.integers(0, 2**31 - 1),
    data=st.data(),
)
def test_no_scan_spans_two_splits(tmp_path: Path, groups, seed, data) -> None:
    size = len(groups)
    labels = np.array(data.draw(st.lists(st.integers(0, 1), min_size=size, max_size=size)))
    path = write(tmp_path / "grouped.h5", labels, group=groups)
    with open_patches(path) as patches:
        holders = [len(set(np.array(groups)[labels == label])) for label in (0, 1)]
        if min(holders) < 3:
            with pytest.raises(SplitError):
                assign_splits(patches, SHARES, seed)
            return
        assignment = assign_splits(patches, SHARES, seed)
    assert set(assignment) == {0, 1, 2}
    for group in set(groups):
        assert len(set(assignment[np.array(groups) == group])) == 1
    for position in range(3):
        assert set(labels[assignment == position]) == {0, 1}


@pytest.mark.parametrize("grouped", [True, False])
def test_the_fractions_are_met_and_the_classes_balanced(tmp_path: Path, grouped: bool) -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random(4000) < 0.17).astype(int)
    columns = {"group": np.repeat(np.arange(160), 25)} if grouped else {}
    path = write(tmp_path / "many.h5", labels, **columns)
    with open_patches(path) as patches:
        assignment = assign_splits(patches, SHARES, seed=3)
    for position, share in enumerate((0.7, 0.15, 0.15)):
        mine = assignment == position
        assert mine.mean() == pytest.approx(share, abs=0.002)
        assert mine[labels == 1].mean() == pytest.approx(share, abs=0.002)


def test_the_split_depends_on_the_seed(tmp_path: Path) -> None:
    path = write(tmp_path / "seeded.h5", np.arange(400) % 2)
    with open_patches(path) as patches:
        first, again, other = (assign_splits(patches, SHARES, seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_each_patch_lands_once_in_the_file_of_its_split(tmp_path: Path) -> None:
    labels = (np.arange(250) % 5 == 0).astype(int)
    groups = [f"scan-{row // 5}" for row in range(250)]
    path = write(tmp_path / "all.h5", labels, group=groups)
    counts = split_patches(path, tmp_path / "splits", SHARES, seed=0)
    seen = []
    for name in SPLITS:
        with open_patches(tmp_path / "splits" / f"{name}.h5") as split:
            assert np.array_equal(split.on_disk()[:][:, 0, 0], split.read_index())
            assert (split.labels == labels[split.read_index()]).all()
            assert split.groups is not None
            assert split.groups.tolist() == [groups[row] for row in split.read_index()]
            assert counts[name] == {
                "patches": len(split),
                "nodules": int(split.labels.sum()),
                "groups": len(set(split.groups)),
            }
            seen += split.read_index().tolist()
    assert sorted(seen) == list(range(250))


def test_a_given_split_is_kept(tmp_path: Path) -> None:
    given_names = np.array(["train", "val", "test", "train"] * 10)
    labels = np.repeat([0, 1], 20)
    path = write(tmp_path / "given.h5", labels, split=given_names.tolist())
    with open_patches(path) as patches:
        assignment = assign_splits(patches, SHARES, seed=0)
    assert [SPLITS[position] for position in assignment] == given_names.tolist()


def test_a_missing_test_split_is_cut_from_val_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given_names = np.array(["train"] * 60 + ["val"] * 40)
    path = write(tmp_path / "pair.h5", np.arange(100) % 2, split=given_names.tolist())
    with open_patches(path) as patches:
        assignment = assign_splits(patches, SHARES, seed=0)
    assert (assignment[:60] == 0).all()
    assert sorted(np.bincount(assignment[60:]).tolist()) == [0, 20, 20]
    split_patches(path, tmp_path / "splits", SHARES, seed=0, search=False)
    assert f"{path}: its split has no test, which is taken from val\n" in capsys.readouterr().err


def test_large_scans_are_not_kept_for_train(tmp_path: Path) -> None:
    sizes = np.arange(5, 45)
    groups = np.repeat(np.arange(40), sizes)
    path = write(tmp_path / "uneven.h5", np.arange(len(groups)) % 2, group=groups)
    homes = set()
    with open_patches(path) as patches:
        for seed in range(25):
            homes.add(int(assign_splits(patches, SHARES, seed)[-1]))
    # Each split should get the largest scan in proportion to its fraction.
    assert homes == {0, 1, 2}


def test_patches_without_groups_have_no_group_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "alone.h5", np.arange(60) % 2)
    counts = split_patches(path, tmp_path / "splits", SHARES, seed=0)
    assert [counts[name]["groups"] for name in SPLITS] == [0, 0, 0]


@pytest.mark.parametrize(
    ("labels", "columns", "sentence"),
    [
        ([0] * 30, {}, "found 0 nodules, expected at least one for each of train, val, test"),
        ([0] * 28 + [1, 1], {}, "found 2 nodules"),
        ([0, 1] * 15, {"group": [1] * 15 + [2] * 15}, "found 2 groups with a non-nodule"),
        ([0, 1] * 15, {"split": ["train"] * 30}, "split: found no val and no test"),
        ([0, 1] * 15, {"split": ["val"] * 15 + ["test"] * 15}, "split: found no train"),
        (
            [1] * 15 + [0, 1, 1] * 5,
            {"split": ["train"] * 15 + ["val", "test", "val"] * 5},
            "found no",
        ),
    ],
)
def test_what_cannot_be_divided_is_refused_in_one_line(
    tmp_path: Path, labels: list[int], columns, sentence: str
) -> None:
    path = write(tmp_path / "few.h5", np.array(labels), **columns)
    folder = tmp_path / "splits"
    with pytest.raises(SplitError) as error:
        split_patches(path, folder, SHARES, seed=0)
    assert sentence in str(error.value)
    assert not folder.exists()


@pytest.mark.parametrize("near_duplicates", ["report", "together"])
def test_groups_are_split_and_counted_if_only_patches_are_kept_whole(
    tmp_path: Path, near_duplicates: str
) -> None:
    labels = np.arange(400) % 2
    path = write(tmp_path / "patches.h5", labels, group=np.repeat(np.arange(20), 20))
    params = SHARES.model_copy(update={"by": "patch", "near_duplicates": near_duplicates})
    counts = split_patches(path, tmp_path / "splits", params, seed=0)
    assert counts["leaks"]["groups"] == 20
    assert min(counts[name]["groups"] for name in SPLITS) > 10
    with open_patches(path) as patches:
        by_patch = assign_splits(patches, params, seed=0)
        assert [(by_patch == position).sum() for position in range(3)] == [280, 60, 60]


def test_the_files_of_patches_are_carried_into_the_splits(tmp_path: Path) -> None:
    names, candidates = [f"p/{row}.png" for row in range(60)], np.arange(60)[::-1]
    columns = {"file": names, "candidate": candidates, "diameter_mm": candidates / 2}
    path = write(tmp_path / "named.h5", np.arange(60) % 2, **columns)
    split_patches(path, tmp_path / "splits", SHARES, seed=0)
    for name in SPLITS:
        with open_patches(tmp_path / "splits" / f"{name}.h5") as split:
            found, index = split.read_sources(), split.read_index()
            assert found["file"].tolist() == [names[row] for row in index]
            assert found["candidate"].tolist() == candidates[index].tolist()
        with h5py.File(tmp_path / "splits" / f"{name}.h5") as file:
            assert {*file} == {"X", "Y", "index", "file", "candidate"}


def test_missing_groups_and_dark_patches_are_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], random_patches
) -> None:
    def warnings(name: str, patches: np.ndarray, **columns: Any) -> list[str]:
        path = tmp_path / name
        with h5py.File(path, "w") as file:
            for key, values in {"X": patches, "Y": np.arange(60) % 2, **columns}.items():
                file[key] = values
        split_patches(path, tmp_path / "splits", SHARES, seed=0, search=False)
        lines = capsys.readouterr().err.splitlines()
        prefix = f"warning: {path}: "
        return [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]

    groups = np.repeat(np.arange(20), 3)
    assert warnings("good.h5", random_patches(60), group=groups) == []
    assert warnings("alone.h5", random_patches(60)) == [
        "no groups: patches of one patient may end up in different splits"
    ]
    assert warnings("dark.h5", random_patches(60) // 16, group=groups) == [
        "98% of all pixels lie in grey levels 0 to 15 of 0..255: was X scaled to the wrong range?"
    ]


def published(**changes: Any) -> SplitParams:
    return SHARES.model_copy(update={"by": "published", **changes})


def distinct(path: Path, labels: np.ndarray, **columns: Any) -> Path:
    """Write patches of noise, no two of which are alike."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["X"] = rng.integers(0, 256, (len(labels), 50, 50), np.uint8)
        file["Y"] = labels
        for name, values in columns.items():
            file[name] = values
    return path


def splits_of(folder: Path) -> dict[str, list[int]]:
    """Return the rows of the data set that each split holds."""
    found = {}
    for name in SPLITS:
        with open_patches(folder / f"{name}.h5") as patches:
            found[name] = patches.read_index().tolist()
    return found


def test_the_published_split_is_used_on_request_and_its_leaks_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = np.arange(60)
    split = np.array(SPLITS)[rows % 3].tolist()
    columns = {"group": rows // 6, "published_split": split}
    path = distinct(tmp_path / "p.h5", rows // 3 % 2, **columns)
    counts = split_patches(path, tmp_path, published(), seed=1)
    assert splits_of(tmp_path) == {name: rows[i::3].tolist() for i, name in enumerate(SPLITS)}
    assert counts["leaks"]["groups"] == 10
    assert "10 groups are in more than one published split" in capsys.readouterr().err
    counts = split_patches(path, tmp_path, SHARES, seed=1)
    assert counts["leaks"]["groups"] == 0
    assert "published split" not in capsys.readouterr().err


def test_the_published_split_precedes_that_of_the_file(tmp_path: Path) -> None:
    rows = np.arange(24)
    split = np.array(SPLITS)[rows % 3].tolist()
    columns = {"split": [*split[1:], split[0]], "published_split": split}
    path = write(tmp_path / "p.h5", rows // 3 % 2, **columns)
    split_patches(path, tmp_path, published(), seed=1, search=False)
    assert splits_of(tmp_path)["train"] == rows[::3].tolist()


@pytest.mark.parametrize(
    ("mode", "dropped"), [("keep", []), ("drop_from_train", [0, 3]), ("drop", [0, 2, 3])]
)
def test_irrelevant_patches_are_dropped_on_request_and_marked_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str, dropped: list[int]
) -> None:
    rows = np.arange(60)
    columns = {
        "published_split": np.array(SPLITS)[rows % 3].tolist(),
        "irrelevant": np.isin(rows, (0, 2, 3)).astype(int),
    }
    path = write(tmp_path / "p.h5", rows // 3 % 2, **columns)
    params = published(irrelevant=mode)
    counts = split_patches(path, tmp_path, params, seed=1, search=False)
    kept = splits_of(tmp_path)
    assert sorted({*rows.tolist()}.difference(*kept.values())) == dropped
    assert sum(counts[name]["patches"] for name in SPLITS) == 60 - len(dropped)
    nodules = sum(row // 3 % 2 for row in dropped)
    note = f"dropped as irrelevant: {len(dropped)} patches, {nodules} nodule among them\n"
    assert capsys.readouterr().out == (note if dropped else "")
    for name in SPLITS:
        with open_patches(tmp_path / f"{name}.h5") as patches:
            marked = patches.read_irrelevant()
            assert marked is not None
            assert marked.tolist() == [row in (0, 2, 3) for row in kept[name]]


@pytest.mark.parametrize(
    ("changes", "columns", "message"),
    [
        ({}, {}, "published_split: found none, expected it for split.by: published"),
        ({"by": "patch", "irrelevant": "drop"}, {}, "irrelevant: found none, expected it for"),
        (
            {"irrelevant": "drop"},
            {"published_split": ["train", "val", "test"] * 4, "irrelevant": [1, 0] * 6},
            "split.irrelevant: drop leaves only one class in the train split, expected both",
        ),
    ],
)
def test_a_missing_column_or_class_is_refused(
    tmp_path: Path, changes: dict[str, Any], columns: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "p.h5", np.arange(12) % 2, **columns)
    with pytest.raises(SplitError, match=message):
        split_patches(path, tmp_path, published(**changes), seed=1, search=False)
    assert not (tmp_path / "train.h5").exists()


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("published_split", ["dev"] * 12, "published_split: row 0: found 'dev', expected one of"),
        ("irrelevant", [0, 2] * 6, "irrelevant: row 1: found 2, expected 0 or 1"),
        ("irrelevant", ["no"] * 12, "irrelevant: found text, expected integers"),
    ],
)
def test_columns_of_another_kind_are_refused(
    tmp_path: Path, column: str, values: list[Any], message: str
) -> None:
    columns = {"published_split": ["train", "val", "test"] * 4} | {column: values}
    path = write(tmp_path / "p.h5", np.arange(12) // 3 % 2, **columns)
    with pytest.raises(PatchFileError, match=message):
        split_patches(path, tmp_path, published(), seed=1, search=False)
