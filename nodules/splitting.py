"""Dividing patches into train, val and test so that no scan or patient stands on two sides."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nodules.errors import SplitError
from nodules.params import SplitParams
from nodules.patches import SPLITS, Groups, Labels, PatchFile, new_patch_files, open_patches

# Fractions are met by dealing whole folds out to the splits; 100 folds meet any whole percentage.
MOST_FOLDS = 100

Assignment = NDArray[np.int8]
Counts = dict[str, dict[str, int]]


def split_patches(dataset: Path, folder: Path, fractions: SplitParams, seed: int) -> Counts:
    """Write train.h5, val.h5 and test.h5.

    `X` is streamed in blocks, so that memory does not grow with its size. Each file carries
    `index`, the row in `dataset`, and `group` where `dataset` has it.

    Parameters
    ----------
    dataset
        A labelled patch file.
    folder
        Where the three files go.
    fractions
        Share of the patches that each split gets; not used for a split that `dataset` brings.
    seed
        Of the shuffling.

    Returns
    -------
    Counts
        For each split the number of `patches`, `nodules` and `groups`; 0 of these where the data
        set has none.

    Raises
    ------
    PatchFileError
        If the file breaks the layout.
    SplitError
        If the classes or groups cannot be divided as asked.
    """
    with open_patches(dataset) as patches:
        assignment = assign_splits(patches, fractions, seed)
        _write_splits(patches, patches.labels, assignment, folder)
        return _count(patches.labels, patches.groups, assignment)


def assign_splits(patches: PatchFile, fractions: SplitParams, seed: int) -> Assignment:
    """Decide on the split of each patch.

    Parameters
    ----------
    patches
        An open, labelled patch file. Its own `split` is kept; if that lacks val or test, the
        missing one is cut from the other.
    fractions, seed
        As for `split_patches`.

    Returns
    -------
    (N,) int8
        Position in `SPLITS`.

    Raises
    ------
    SplitError
        As for `split_patches`.
    """
    labels, groups, path = patches.labels, patches.groups, patches.path
    shares = {"train": fractions.train, "val": fractions.val, "test": fractions.test}
    if patches.split is None:
        rows = np.arange(len(patches))
        assignment = _deal(path, labels, groups, rows, shares, seed)
    else:
        positions = {name: position for position, name in enumerate(SPLITS)}
        assignment = np.array([positions[name] for name in patches.split], dtype=np.int8)
        _complete(path, labels, groups, assignment, shares, seed)
    _check_classes(path, labels, assignment)
    return assignment


def fold_counts(shares: Sequence[float], most: int) -> list[int]:
    """Express shares as whole folds.

    Parameters
    ----------
    shares
        Positive numbers, in any unit.
    most
        Largest total number of folds.

    Returns
    -------
    list of int
        Folds of each share, at least one each. The total is the smallest that comes closest to
        the shares; empty if `most` does not reach one fold a share.

    Examples
    --------
    >>> fold_counts([0.7, 0.15, 0.15], most=100)
    [14, 3, 3]
    >>> fold_counts([0.7, 0.15, 0.15], most=8)
    [5, 1, 1]
    """
    target = np.asarray(shares) / np.sum(shares)
    best: list[int] = []
    best_error = np.inf
    for total in range(len(target), most + 1):
        counts = np.ones(len(target), dtype=int)
        while counts.sum() < total:
            counts[np.argmax(target * total - counts)] += 1
        error = float(np.abs(counts / total - target).sum())
        if error < best_error - 1e-9:
            best, best_error = counts.tolist(), error
    return best


def _deal(
    path: Path,
    labels: Labels,
    groups: Groups | None,
    rows: NDArray[np.intp],
    shares: Mapping[str, float],
    seed: int,
) -> Assignment:
    """Divide `rows` among the splits named in `shares`; all other rows get -1."""
    nodules = int(labels[rows].sum())
    units = {"nodules": nodules, "non-nodules": len(rows) - nodules}
    if groups is not None:
        # A fold that lacks a class is no use, so groups that hold it are what counts.
        for label, kind in enumerate(("non-nodule", "nodule")):
            holders = groups[rows][labels[rows] == label]
            units[f"groups with a {kind}"] = len(np.unique(holders))
    scarcest = min(units, key=lambda name: units[name])
    folds = fold_counts(list(shares.values()), min(MOST_FOLDS, units[scarcest]))
    if not folds:
        problem = (
            f"found {units[scarcest]} {scarcest}, expected at least one for each of "
            f"{', '.join(shares)}"
        )
        raise SplitError(path, problem)
    # Imported late, since it costs over a second: a file with a mistake is refused before.
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    splitter = StratifiedKFold if groups is None else StratifiedGroupKFold
    dealt = splitter(n_splits=sum(folds), shuffle=True, random_state=seed).split(
        rows, labels[rows], None if groups is None else groups[rows]
    )
    # The splitter puts the largest groups into the first folds; which split those belong to is
    # drawn, or train would get all of them.
    owner = np.repeat([SPLITS.index(name) for name in shares], folds)
    owner = np.random.default_rng(seed).permutation(owner)
    assignment = np.full(len(labels), -1, dtype=np.int8)
    for split, (_, fold) in zip(owner, dealt, strict=True):
        assignment[rows[fold]] = split
    return assignment


def _complete(
    path: Path,
    labels: Labels,
    groups: Groups | None,
    assignment: Assignment,
    shares: Mapping[str, float],
    seed: int,
) -> None:
    """Cut a missing val or test from the other, in place."""
    missing = [name for name in SPLITS if not (assignment == SPLITS.index(name)).any()]
    if not missing:
        return
    if missing not in (["val"], ["test"]):
        problem = (
            f"split: found no {' and no '.join(missing)}, expected train and val, or all three"
        )
        raise SplitError(path, problem)
    held_out = {name: shares[name] for name in ("val", "test")}
    rows = np.flatnonzero(assignment != SPLITS.index("train"))
    assignment[rows] = _deal(path, labels, groups, rows, held_out, seed)[rows]


def _check_classes(path: Path, labels: Labels, assignment: Assignment) -> None:
    for position, name in enumerate(SPLITS):
        present = np.unique(labels[assignment == position])
        for label, kind in enumerate(("non-nodule", "nodule")):
            if label not in present:
                problem = (
                    f"found no {kind} for the {name} split, expected at least one of each class"
                )
                raise SplitError(path, problem)


def _write_splits(patches: PatchFile, labels: Labels, assignment: Assignment, folder: Path) -> None:
    groups = patches.groups
    columns: dict[str, np.dtype] = {"index": np.dtype(np.int64)}
    if groups is not None:
        columns["group"] = groups.dtype
    counts = {
        folder / f"{name}.h5": int((assignment == position).sum())
        for position, name in enumerate(SPLITS)
    }
    # All three appear together, or a new train would stand beside an old test.
    with (
        new_patch_files(counts, columns) as writers,
        tqdm(total=len(patches), desc="split", unit="patch") as progress,
    ):
        for start, block in patches.blocks():
            for position, writer in enumerate(writers):
                mine = np.flatnonzero(assignment[start : start + len(block)] == position)
                rows = start + mine
                extra = {} if groups is None else {"group": groups[rows]}
                writer.append(block[mine], labels[rows], index=rows, **extra)
            progress.update(len(block))


def _count(labels: Labels, groups: Groups | None, assignment: Assignment) -> Counts:
    counts = {}
    for position, name in enumerate(SPLITS):
        mine = assignment == position
        counts[name] = {
            "patches": int(mine.sum()),
            "nodules": int(labels[mine].sum()),
            "groups": 0 if groups is None else len(np.unique(groups[mine])),
        }
    return counts
