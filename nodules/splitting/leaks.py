"""Count, join or refuse leaks: groups and duplicates that span two splits."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nodules.errors import SplitError
from nodules.patches.layout import SPLITS, Groups
from nodules.patches.reader import PatchFile
from nodules.splitting.assignment import Assignment, assign_splits, units_of
from nodules.splitting.near_duplicates import Duplicates, Pair, connected, find_duplicates
from nodules.splitting.params import SplitParams


class CrossPair(NamedTuple):
    """Two duplicates in different splits, with their similarity."""

    first: int
    second: int
    pair: Pair | None  # None for exact duplicates


@dataclass(frozen=True)
class Crossings:
    """Duplicates across splits.

    Attributes
    ----------
    exact, near
        Number of pairs of patches in different splits.
    examples
        One pair of rows per set of exact duplicates and per near pair; exact ones first, then by
        decreasing correlation.
    """

    exact: int
    near: int
    examples: list[CrossPair]


def settle_leaks(
    patches: PatchFile, assignment: Assignment, params: SplitParams, seed: int
) -> tuple[Assignment, NDArray[np.int32] | None, Crossings, dict[str, int]]:
    """Search for duplicates in different splits and apply `split.near_duplicates` to them.

    Parameters
    ----------
    patches
        Open, labelled patch file.
    assignment
        (N,) indices in `SPLITS`, by group.
    params, seed
        As in `split_patches`.

    Returns
    -------
    assignment
        (N,) indices in `SPLITS`; with `together`, a new assignment that joins duplicates.
    joined
        (N,) groups that `together` kept whole; otherwise None.
    crossings
        Duplicates across these splits.
    counts
        The `leaks` that `split_patches` returns.

    Raises
    ------
    SplitError
        As in `split_patches`.
    """
    counts: dict[str, int] = {}
    joined = None
    together = params.near_duplicates == "together"
    duplicates = find_duplicates(patches, None if together else assignment)
    if together:
        joined, assignment = _keep_together(patches, duplicates, params, seed)
        counts["largest_group"] = int(np.bincount(joined).max())
    crossings = across_splits(duplicates, assignment)
    if params.near_duplicates != "report":
        _refuse(patches.path, crossings, assignment, params.near_duplicates)
    counts = {
        "groups": _count_split_groups(patches.groups, assignment),
        "exact_duplicates": crossings.exact,
        "near_duplicates": crossings.near,
        **counts,
    }
    return assignment, joined, crossings, counts


def across_splits(duplicates: Duplicates, assignment: NDArray[np.int8]) -> Crossings:
    """Count the pairs of duplicates in different splits.

    Parameters
    ----------
    duplicates
        Duplicates in the whole data set.
    assignment
        (N,) indices in `SPLITS`.
    """
    copies = duplicates.copies
    # For each set of copies, the number of copies per split.
    sizes = np.zeros((len(copies), len(SPLITS)), dtype=np.int64)
    np.add.at(sizes, (copies, assignment), 1)
    total = sizes.sum(axis=1)
    exact = int((total**2 - (sizes**2).sum(axis=1)).sum()) // 2
    members: dict[int, dict[int, int]] = defaultdict(dict)
    involved = {row for pair in duplicates.pairs for row in pair[:2]}
    involved.update(np.flatnonzero((sizes > 0).sum(axis=1) > 1).tolist())
    for row in np.flatnonzero(np.isin(copies, sorted(involved))).tolist():
        members[int(copies[row])].setdefault(int(assignment[row]), row)
    examples = [
        CrossPair(min(rows.values()), sorted(rows.values())[1], pair=None)
        for _, rows in sorted(members.items())
        if len(rows) > 1
    ]
    near = 0
    for pair in sorted(duplicates.pairs, key=lambda pair: (-pair.correlation, pair[:2])):
        here, there = sizes[pair.first], sizes[pair.second]
        crossing = int(here.sum() * there.sum() - (here * there).sum())
        near += crossing
        if crossing:
            firsts, seconds = members[pair.first], members[pair.second]
            row, other = min(
                (a, b) for s, a in firsts.items() for t, b in seconds.items() if s != t
            )
            examples.append(CrossPair(row, other, pair))
    return Crossings(exact, near, examples)


def _keep_together(
    patches: PatchFile, duplicates: Duplicates, params: SplitParams, seed: int
) -> tuple[NDArray[np.int32], Assignment]:
    """Split again with duplicates joined; return the joined groups and the result."""
    joined = duplicates.joined()
    units = units_of(patches, params)
    if units is not None:
        rows = np.arange(len(patches))
        _, groups = np.unique(units, return_inverse=True)
        # Patches and groups are nodes; edges connect each patch to its group and its duplicates.
        nodes = len(patches) + int(groups.max()) + 1
        firsts = np.concatenate([rows, len(patches) + groups])
        _, first_row = np.unique(joined, return_index=True)
        seconds = np.concatenate([first_row[joined], rows])
        joined = connected(firsts, seconds, nodes)[: len(patches)]
    largest = int(np.bincount(joined).max())
    problem = (
        f"split.near_duplicates: together: the largest group of joined duplicates holds {largest} "
        f"of {len(patches)} patches"
    )
    if patches.split is None and largest > max(params.fractions) * len(joined):
        raise SplitError(
            patches.path, f"{problem}, expected at most as many as the largest split gets"
        )
    try:
        return joined, assign_splits(patches, params, seed, joined)
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
        expected = "none, since the file's own split is kept: use report, or remove `split`"
    else:
        expected = "none: `together` joins them, `report` only counts them"
    raise SplitError(path, f"split.near_duplicates: {mode}: {found}; expected {expected}")


def _count_split_groups(groups: Groups | None, assignment: Assignment) -> int:
    if groups is None:
        return 0
    names, numbers = np.unique(groups, return_inverse=True)
    held = np.zeros((len(names), len(SPLITS)), dtype=np.bool_)
    held[numbers, assignment] = True
    return int((held.sum(axis=1) > 1).sum())
