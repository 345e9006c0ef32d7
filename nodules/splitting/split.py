"""Dividing patches into train, val and test so that no scan or patient stands on two sides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nodules.errors import SplitError
from nodules.params import SplitParams
from nodules.patches.layout import SPLITS, Groups, Labels, Patches
from nodules.patches.reader import PatchFile, open_patches
from nodules.patches.writer import new_patch_files

if TYPE_CHECKING:
    from nodules.splitting.near_duplicates import Crossings, Duplicates

# Fractions are met by dealing whole folds out to the splits; 100 folds meet any whole percentage.
MOST_FOLDS = 100
# scikit-learn deals groups one by one in Python: half a million would take minutes.
MOST_GROUPS_BY_SIZE = 20_000

Assignment = NDArray[np.int8]
Counts = dict[str, dict[str, int]]


def split_patches(
    dataset: Path,
    folder: Path,
    params: SplitParams,
    seed: int,
    *,
    picture: Path | None = None,
    search: bool = True,
) -> Counts:
    """Write train.h5, val.h5 and test.h5, and say what they share.

    `X` is streamed in blocks, so that memory does not grow with its size. Each file carries
    `index`, the row in `dataset`, and `group` where `dataset` has it.

    Parameters
    ----------
    dataset
        A labelled patch file.
    folder
        Where the three files go.
    params
        Share of the patches that each split gets, not used for a split that `dataset` brings; and
        what happens to near-duplicates.
    seed
        Of the shuffling.
    picture
        PNG for the duplicates that stand in different splits; by default none is drawn.
    search
        Whether to look for duplicates at all.

    Returns
    -------
    Counts
        For each split the number of `patches`, `nodules` and `groups`; 0 of these where the data
        set has none. After a search, in `leaks`: the `groups` in more than one split, the pairs of
        `exact_duplicates` and of `near_duplicates` in different splits; and with `together` the
        patches in the `largest_group` that must stay together.

    Raises
    ------
    PatchFileError
        If the file breaks the layout.
    SplitError
        If the classes or groups cannot be divided as asked, or duplicates stand in different splits
        and must not.
    """
    with open_patches(dataset) as patches:
        # What cannot be divided is refused before the search, which takes longer.
        assignment = assign_splits(patches, params, seed)
        leaks: dict[str, int] = {}
        if search:
            # Imported late, as is what draws: a file with a mistake is refused before.
            from nodules.splitting.near_duplicates import across_splits, find_duplicates

            together = params.near_duplicates == "together"
            duplicates = find_duplicates(patches, None if together else assignment)
            if together:
                leaks["largest_group"], assignment = _keep_together(
                    patches, duplicates, params, seed
                )
            crossings = across_splits(duplicates, assignment)
            if params.near_duplicates != "report":
                _refuse(patches.path, crossings, assignment, params.near_duplicates)
            leaks = {
                "groups": _groups_in_two_splits(patches.groups, assignment),
                "exact_duplicates": crossings.exact,
                "near_duplicates": crossings.near,
                **leaks,
            }
        _write_splits(patches, patches.labels, assignment, folder)
        if search and picture is not None:
            _draw(patches, crossings, assignment, picture)
        counts = _count(patches.labels, patches.groups, assignment)
        return {**counts, "leaks": leaks} if search else counts


def assign_splits(
    patches: PatchFile, params: SplitParams, seed: int, joined: NDArray[np.int32] | None = None
) -> Assignment:
    """Decide on the split of each patch.

    Parameters
    ----------
    patches
        An open, labelled patch file. Its own `split` is kept; if that lacks val or test, the
        missing one is cut from the other.
    params, seed
        As for `split_patches`.
    joined
        (N,) units that stand in one split each, in place of the file's groups.

    Returns
    -------
    (N,) int8
        Position in `SPLITS`.

    Raises
    ------
    SplitError
        As for `split_patches`.
    """
    labels, path = patches.labels, patches.path
    groups: Groups | None = patches.groups if joined is None else joined.astype(np.int64)
    shares = {"train": params.train, "val": params.val, "test": params.test}
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
    """Divide `rows` among the splits named in `shares`; all other rows get -1.

    Groups are dealt by size and class. Where there are very many, they are dealt by whether they
    hold a nodule alone, and their sizes even out.
    """
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

    options = {"n_splits": sum(folds), "shuffle": True, "random_state": seed}
    if groups is None:
        dealt: Iterator = StratifiedKFold(**options).split(rows, labels[rows])
    else:
        names, unit_of = np.unique(groups[rows], return_inverse=True)
        if len(names) <= MOST_GROUPS_BY_SIZE:
            dealt = StratifiedGroupKFold(**options).split(rows, labels[rows], groups[rows])
        else:
            holds_nodule = np.bincount(unit_of, weights=labels[rows]) > 0
            dealt_units = StratifiedKFold(**options).split(names, holds_nodule)
            # Positions of the rows whose unit is in the fold.
            dealt = ((None, np.flatnonzero(np.isin(unit_of, fold))) for _, fold in dealt_units)
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


def _keep_together(
    patches: PatchFile, duplicates: Duplicates, params: SplitParams, seed: int
) -> tuple[int, Assignment]:
    """Split anew with duplicates joined; give the size of the largest group, too."""
    from nodules.splitting.near_duplicates import connected

    joined = duplicates.joined()
    if patches.groups is not None:
        rows = np.arange(len(patches))
        _, groups = np.unique(patches.groups, return_inverse=True)
        # Patches and groups are nodes: each patch is tied to its group, and to its duplicates.
        nodes = len(patches) + int(groups.max()) + 1
        firsts = np.concatenate([rows, len(patches) + groups])
        _, first_row = np.unique(joined, return_index=True)
        seconds = np.concatenate([first_row[joined], rows])
        joined = connected(firsts, seconds, nodes)[: len(patches)]
    sizes = np.bincount(joined)
    largest = int(sizes.max())
    problem = (
        f"split.near_duplicates: together: the largest group that duplicates join holds {largest} "
        f"of {len(patches)} patches"
    )
    if patches.split is None and largest > max(params.train, params.val, params.test) * len(joined):
        raise SplitError(
            patches.path, f"{problem}, expected at most as many as the largest split gets"
        )
    try:
        return largest, assign_splits(patches, params, seed, joined)
    except SplitError as error:
        _, _, reason = str(error).partition(f"{patches.path}: ")
        raise SplitError(patches.path, f"{problem}: {reason}") from None


def _refuse(path: Path, crossings: Crossings, assignment: Assignment, mode: str) -> None:
    """Refuse duplicates in different splits."""
    if not crossings.examples:
        return
    first = crossings.examples[0]
    places = " and ".join(
        f"{row} ({SPLITS[assignment[row]]})" for row in (first.first, first.second)
    )
    found = (
        f"found {crossings.exact} exact and {crossings.near} near-duplicate pairs in different "
        f"splits, the first in rows {places}"
    )
    if mode == "together":
        expected = "none, since the file's own split is kept: use report, or leave out `split`"
    else:
        expected = "none: `together` joins them, `report` shows them"
    raise SplitError(path, f"split.near_duplicates: {mode}: {found}; expected {expected}")


def _groups_in_two_splits(groups: Groups | None, assignment: Assignment) -> int:
    if groups is None:
        return 0
    names, numbers = np.unique(groups, return_inverse=True)
    held = np.zeros((len(names), len(SPLITS)), dtype=np.bool_)
    held[numbers, assignment] = True
    return int((held.sum(axis=1) > 1).sum())


def _draw(patches: PatchFile, crossings: Crossings, assignment: Assignment, picture: Path) -> None:
    from nodules.evaluation import figures

    def pixels(row: int) -> Patches:
        return patches.read(row, row + 1)[0]

    def place(row: int) -> str:
        return f"{SPLITS[assignment[row]]} #{row}"

    shown = [
        figures.Duplicate(
            (pixels(first), pixels(second)),
            (place(first), place(second)),
            "exact" if pair is None else f"r = {pair.correlation:.3f}",
        )
        for first, second, pair in crossings.examples[: figures.MOST_DUPLICATES]
    ]
    figures.near_duplicates(shown, exact=crossings.exact, near=crossings.near, path=picture)


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
