"""Assign each patch to a split; groups are kept whole."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nodules.errors import SplitError
from nodules.patches.layout import SPLITS, Groups, Labels
from nodules.patches.reader import PatchFile
from nodules.splitting.params import SplitParams

# Splits consist of whole folds; with 100 folds, any whole percentage is met.
MAX_FOLDS = 100
# scikit-learn assigns groups one by one in Python, which would take minutes for half a million.
MAX_GROUPS_BY_SIZE = 20_000
Assignment = NDArray[np.int8]


def assign_splits(
    patches: PatchFile, params: SplitParams, seed: int, joined: NDArray[np.int32] | None = None
) -> Assignment:
    """Assign each patch to a split.

    Parameters
    ----------
    patches
        Open, labelled patch file. Its own `split` is kept; if val or test is missing, it is taken
        from the other.
    params, seed
        As in `split_patches`.
    joined
        (N,) groups to use instead of the file's; none may span two splits.

    Returns
    -------
    (N,) int8
        Index in `SPLITS`.

    Raises
    ------
    SplitError
        As in `split_patches`.
    """
    labels, path = patches.labels, patches.path
    groups = units_of(patches, params) if joined is None else joined.astype(np.int64)
    fractions = {"train": params.train, "val": params.val, "test": params.test}
    if patches.split is None:
        rows = np.arange(len(patches))
        assignment = _deal(path, labels, groups, rows, fractions, seed)
    else:
        positions = {name: position for position, name in enumerate(SPLITS)}
        assignment = np.array([positions[name] for name in patches.split], dtype=np.int8)
        _complete(path, labels, groups, assignment, fractions, seed)
    _check_classes(path, labels, assignment)
    return assignment


def units_of(patches: PatchFile, params: SplitParams) -> Groups | None:
    """Return the (N,) groups that must not span splits, or None to split patch by patch."""
    return patches.groups if params.by == "group" else None


def fold_counts(fractions: Sequence[float], max_folds: int) -> list[int]:
    """Convert fractions to numbers of folds.

    Parameters
    ----------
    fractions
        Positive numbers, in any unit.
    max_folds
        Largest total number of folds.

    Returns
    -------
    list of int
        Number of folds per fraction, at least 1. The total is the smallest one that approximates
        the fractions best. Empty if `max_folds` is smaller than the number of fractions.

    Examples
    --------
    >>> fold_counts([0.7, 0.15, 0.15], max_folds=100)
    [14, 3, 3]
    >>> fold_counts([0.7, 0.15, 0.15], max_folds=8)
    [5, 1, 1]
    """
    target = np.asarray(fractions) / np.sum(fractions)
    best: list[int] = []
    best_error = np.inf
    for total in range(len(target), max_folds + 1):
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
    fractions: Mapping[str, float],
    seed: int,
) -> Assignment:
    """Divide `rows` among the splits named in `fractions`; all other rows get -1.

    Groups are stratified by size and class. Very many groups are stratified only by whether they
    hold a nodule, since their sizes even out.
    """
    nodules = int(labels[rows].sum())
    units = {"nodules": nodules, "non-nodules": len(rows) - nodules}
    if groups is not None:
        # Every fold needs both classes, so the groups that hold a class limit the number of folds.
        for label, kind in enumerate(("non-nodule", "nodule")):
            holders = groups[rows][labels[rows] == label]
            units[f"groups with a {kind}"] = len(np.unique(holders))
    scarcest = min(units, key=lambda name: units[name])
    folds = fold_counts(list(fractions.values()), min(MAX_FOLDS, units[scarcest]))
    if not folds:
        problem = (
            f"found {units[scarcest]} {scarcest}, expected at least one for each of "
            f"{', '.join(fractions)}"
        )
        raise SplitError(path, problem)
    # This import takes over a second; invalid files are refused before it.
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    options = {"n_splits": sum(folds), "shuffle": True, "random_state": seed}
    if groups is None:
        dealt: Iterator = StratifiedKFold(**options).split(rows, labels[rows])
    else:
        names, unit_of = np.unique(groups[rows], return_inverse=True)
        if len(names) <= MAX_GROUPS_BY_SIZE:
            dealt = StratifiedGroupKFold(**options).split(rows, labels[rows], groups[rows])
        else:
            holds_nodule = np.bincount(unit_of, weights=labels[rows]) > 0
            dealt_units = StratifiedKFold(**options).split(names, holds_nodule)
            # Positions of the rows whose unit is in the fold.
            dealt = ((None, np.flatnonzero(np.isin(unit_of, fold))) for _, fold in dealt_units)
    # The splitter puts the largest groups into the first folds. Shuffle the folds, since otherwise
    # train would get all of these groups.
    owner = np.repeat([SPLITS.index(name) for name in fractions], folds)
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
    fractions: Mapping[str, float],
    seed: int,
) -> None:
    """Take a missing val or test from the other one, in place."""
    missing = [name for name in SPLITS if not (assignment == SPLITS.index(name)).any()]
    if not missing:
        return
    if missing not in (["val"], ["test"]):
        problem = (
            f"split: found no {' and no '.join(missing)}, expected train and val, or all three"
        )
        raise SplitError(path, problem)
    held_out = {name: fractions[name] for name in ("val", "test")}
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
