"""Assign each patch to a split; groups are kept whole."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nodules.errors import SplitError
from nodules.patches.layout import SPLITS, Groups, Labels
from nodules.patches.reader import PatchFile
from nodules.splitting.params import SplitParams

# The search ends once no fraction is further off.
CLOSE_ENOUGH = 0.002
# Units to deal in all attempts together: the fewer there are, the more local optima matter.
MAX_DEALT = 400
# A step of the search chooses among this many of the largest units, and as many random ones.
CANDIDATES = 32
# Each bundle of units is divided into this many.
FINER = 8
# The search also ends when a step reduces the sum of squared errors by a smaller fraction.
NEGLIGIBLE = 1e-6
# A fraction further off is reported.
MAX_MISS = 0.05
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
    groups = units_of(patches, params) if joined is None else joined.astype(np.int64)
    if params.folds is not None:
        folds = _folds(patches, groups, params.folds, seed)
        after = (folds - params.fold) % params.folds
        # The positions in SPLITS of test, val and train.
        assignment = np.array([2, 1, 0], np.int8)[np.minimum(after, 2)]
    else:
        assignment, dealt = _given_split(patches)
        if dealt:
            rows = np.flatnonzero(np.isin(assignment, dealt))
            targets = _targets(params, dealt)
            targets_of = {SPLITS[each]: targets[place] for place, each in enumerate(dealt)}
            parts = _deal(patches, groups, rows, targets_of, seed)
            assignment[rows] = np.array(dealt)[parts]
    _check_classes(patches.path, patches.labels, assignment)
    return assignment


def units_of(patches: PatchFile, params: SplitParams) -> Groups | None:
    """Return the (N,) groups that must not span splits, or None to split patch by patch."""
    return patches.groups if params.by == "group" else None


def missed_fractions(
    patches: PatchFile,
    params: SplitParams,
    assignment: Assignment,
    joined: NDArray[np.int32] | None = None,
) -> str | None:
    """Return which fractions of the patches or nodules are over 5 points off and why, or None.

    Parameters
    ----------
    patches, params, joined
        As in `assign_splits`.
    assignment
        Its result. A split that the file gives is never off.
    """
    _, dealt = _given_split(patches)
    rows = np.flatnonzero(np.isin(assignment, dealt))
    # Of a given split, only val and test are dealt.
    whole = " of val and test" if len(dealt) == 2 else ""
    misses = []
    for kind, mine in (("patches", rows), ("nodules", rows[patches.labels[rows] == 1])):
        for position, target in zip(dealt, _targets(params, dealt), strict=True):
            found = float((assignment[mine] == position).mean())
            sentence = (
                f"{SPLITS[position]} has {found:.0%} of the {kind}{whole} instead of {target:.0%}"
            )
            misses.append((abs(found - target), sentence, kind, mine))
    misses = [miss for miss in misses if miss[0] > MAX_MISS]
    if not misses:
        return None
    *_, kind, mine = max(misses, key=lambda miss: miss[0])
    groups = units_of(patches, params) if joined is None else joined
    if groups is None:
        reason = f"there are {len(mine)} {kind}"
    else:
        names, sizes = np.unique(groups[mine], return_counts=True)
        largest = f"'{names[sizes.argmax()]}'"
        if joined is not None:
            largest = "the largest, with duplicates joined,"
        reason = (
            f"of {len(names)} groups with {kind}, {largest} alone holds "
            f"{sizes.max() / len(mine):.0%}"
        )
    return f"{', '.join(sentence for _, sentence, *_ in misses)}: {reason}"


def _given_split(patches: PatchFile) -> tuple[Assignment, list[int]]:
    """Return the (N,) split of the file, and the splits among which their patches are dealt."""
    if patches.split is None:
        return np.zeros(len(patches), dtype=np.int8), list(range(len(SPLITS)))
    given = np.array([SPLITS.index(name) for name in patches.split], dtype=np.int8)
    missing = [name for position, name in enumerate(SPLITS) if position not in given]
    if missing and missing not in (["val"], ["test"]):
        problem = (
            f"split: found no {' and no '.join(missing)}, expected train and val, or all three"
        )
        raise SplitError(patches.path, problem)
    return given, [SPLITS.index("val"), SPLITS.index("test")] if missing else []


def _targets(params: SplitParams, dealt: list[int]) -> NDArray[np.float64]:
    fractions = np.array(params.fractions)[dealt]
    return fractions / fractions.sum()


def _folds(patches: PatchFile, groups: Groups | None, count: int, seed: int) -> NDArray[np.integer]:
    """Return the (N,) fold of each patch, from 0: that of the file, or else dealt."""
    if patches.split is not None:
        problem = "found a data set of this name, expected none for split.folds"
        raise SplitError(patches.path, f"split: {problem}")
    folds = patches.read_folds()
    if folds is None:
        targets = {f"fold {number}": 1 / count for number in range(count)}
        return _deal(patches, groups, np.arange(len(patches)), targets, seed)
    present = np.unique(folds)
    if not np.array_equal(present, np.arange(count)):
        found = ", ".join(map(str, present[:10])) + (", ..." if len(present) > 10 else "")
        problem = f"found {found}, expected 0 to {count - 1} for split.folds: {count}"
        raise SplitError(patches.path, f"fold: {problem}")
    return folds


def _deal(
    patches: PatchFile,
    groups: Groups | None,
    rows: NDArray[np.intp],
    targets: Mapping[str, float],
    seed: int,
) -> NDArray[np.intp]:
    """Return the part, as an index in `targets`, of each of these rows of a patch file."""
    unit_of = np.arange(len(rows))
    if groups is not None:
        _, unit_of = np.unique(groups[rows], return_inverse=True)
    nodules = patches.labels[rows] == 1
    # Non-nodules and nodules of each unit, which is a group or a single patch.
    units = _sums(unit_of, np.stack([~nodules, nodules], axis=1).astype(np.int64))
    _check_divisible(patches.path, units, list(targets), grouped=groups is not None)
    return deal_units(units, np.array(list(targets.values())), seed)[unit_of]


def _check_divisible(
    path: Path, units: NDArray[np.int64], parts: list[str], *, grouped: bool
) -> None:
    """Refuse units of which a part would lack a class.

    A part needs one unit that holds both classes, or one of each. That suffices for all parts if
    each class has as many units as there are parts.
    """
    found = {"nodules": int(units[:, 1].sum()), "non-nodules": int(units[:, 0].sum())}
    if grouped:
        for label, kind in enumerate(("non-nodule", "nodule")):
            found[f"groups with a {kind}"] = int((units[:, label] > 0).sum())
    scarcest = min(found, key=lambda name: found[name])
    if found[scarcest] < len(parts):
        names = ", ".join(parts)
        problem = f"found {found[scarcest]} {scarcest}, expected at least one for each of {names}"
        raise SplitError(path, problem)


def deal_units(
    units: NDArray[np.int64], targets: NDArray[np.float64], seed: int
) -> NDArray[np.intp]:
    """Divide units so that the fractions of both patches and nodules are near `targets`.

    Parameters
    ----------
    units
        (U, 2) numbers of non-nodules and nodules.
    targets
        (S,) fractions; they add up to 1.
    seed
        Seed of the order in which units are dealt.

    Returns
    -------
    (U,) int
        Index in `targets`; each part holds both classes.
    """
    rng = np.random.default_rng(seed)
    # Units are first dealt in random bundles, at most one of the largest in each, then in finer
    # ones, so that few steps suffice.
    number = np.empty(len(units), dtype=np.intp)
    small = CANDIDATES + rng.permutation(max(len(units) - CANDIDATES, 0))
    number[_by_size(units, rng)] = [*range(min(CANDIDATES, len(units))), *small]
    count = 2 * CANDIDATES
    while (_sums(number % count, units) > 0).sum(axis=0).min() < len(targets):
        count *= FINER
    bundles = _sums(number % count, units)
    least = np.inf
    for _ in range(max(1, MAX_DEALT // len(bundles))):
        homes = _deal_at_random(bundles, targets, rng)
        errors = _improve(bundles, homes, targets, rng)
        if (errors**2).sum() < least:
            best, least = homes, (errors**2).sum()
        # The first good one is taken rather than the best of all, so that seeds differ.
        if np.abs(errors).max() <= CLOSE_ENOUGH:
            break
    while count < len(units):
        bundles = _sums(number % (FINER * count), units)
        best = best[np.arange(len(bundles)) % count]
        _improve(bundles, best, targets, rng)
        count *= FINER
    return best[number]


def _sums(place_of: NDArray[np.intp], units: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the (places, 2) non-nodules and nodules at each place."""
    # Floats hold these sums exactly.
    return np.stack([np.bincount(place_of, part) for part in units.T], axis=1).astype(np.int64)


def _fractions(units: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the (U, 2) fractions of all patches and of all nodules in each unit."""
    sizes = np.stack([units.sum(axis=1), units[:, 1]], axis=1)
    return sizes / sizes.sum(axis=0)


def _by_size(units: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.intp]:
    """Return the order of decreasing fractions; ties are in random order."""
    order = rng.permutation(len(units))
    return order[np.argsort(-_fractions(units)[order].max(axis=1), kind="stable")]


def _deal_at_random(
    units: NDArray[np.int64], targets: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.intp]:
    """Deal each unit on its own; if a class is missing somewhere, deal a few again to complete."""
    homes = rng.choice(len(targets), size=len(units), p=targets)
    splits = rng.permutation(len(targets))
    if all((units[homes == split] > 0).any(axis=0).all() for split in splits):
        return homes
    nodules, others = units[:, 1] > 0, units[:, 0] > 0
    kinds = (nodules & others, nodules & ~others, others & ~nodules)
    both, *single = (rng.permutation(np.flatnonzero(kind)).tolist() for kind in kinds)
    complete = [[unit] for unit in both] + [list(pair) for pair in zip(*single, strict=False)]
    for split, members in zip(splits, complete, strict=False):
        homes[members] = split
    return homes


def _improve(
    units: NDArray[np.int64],
    homes: NDArray[np.intp],
    targets: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Move and swap units, in place, and return the (S, 2) errors of the fractions.

    Each step reduces the sum of the squared errors as much as possible. All operations are on
    integers or elementwise, so that they round alike on all processors.
    """
    splits = np.arange(len(targets))
    # To move a unit, swap it with an empty one.
    units = np.concatenate([units, np.zeros((len(splits), 2), dtype=np.int64)])
    home_of = np.concatenate([homes, splits])
    order = _by_size(units[: len(homes)], rng)
    shares = _fractions(units)
    held = _sums(home_of, units)
    while True:
        errors = _fractions(held) - targets[:, None]
        others = order[CANDIDATES:]
        others = rng.choice(others, min(CANDIDATES, len(others)), replace=False)
        chosen = np.concatenate([order[:CANDIDATES], others, splits + len(homes)])
        home = home_of[chosen]
        # [:, i, j]: what i's split loses, and j's gains, if i and j change places.
        loss = _differences(units[chosen])
        change = _differences(shares[chosen])
        rise = (change * (change - _differences(errors[home]))).sum(axis=0)
        keeps = (loss < held[home].T[:, :, None]).all(axis=0)
        rise[~(keeps & keeps.T) | (home == home[:, None])] = 0
        i, j = np.unravel_index(np.argmin(rise), rise.shape)
        if np.abs(errors).max() <= CLOSE_ENOUGH or rise[i, j] > -NEGLIGIBLE * (errors**2).sum():
            break
        held[home[i]] -= loss[:, i, j]
        held[home[j]] += loss[:, i, j]
        home_of[chosen[[i, j]]] = home[[j, i]]
        home_of[len(homes) :] = splits
    homes[:] = home_of[: len(homes)]
    return errors


def _differences(rows: NDArray) -> NDArray:
    """Return the (2, C, C) differences of each of the (C, 2) rows from each."""
    columns = np.ascontiguousarray(rows.T)
    return columns[:, :, None] - columns[:, None]


def _check_classes(path: Path, labels: Labels, assignment: Assignment) -> None:
    for position, name in enumerate(SPLITS):
        present = np.unique(labels[assignment == position])
        for label, kind in enumerate(("non-nodule", "nodule")):
            if label not in present:
                problem = (
                    f"found no {kind} for the {name} split, expected at least one of each class"
                )
                raise SplitError(path, problem)
