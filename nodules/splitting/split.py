"""Divide patches into train, val and test so that no group spans two splits."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nodules.errors import SplitError
from nodules.patches.grey_levels import GreyLevels
from nodules.patches.layout import SPLITS, Groups, Labels
from nodules.patches.reader import PatchFile, open_patches
from nodules.patches.summary import NO_GROUPS, SPLIT_WITHOUT_GROUPS, counted
from nodules.patches.writer import new_patch_files
from nodules.splitting.assignment import Assignment, assign_splits, missed_fractions
from nodules.splitting.params import SplitParams
from nodules.system.streams import printable

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
    """Write train.h5, val.h5 and test.h5, and return their counts.

    Prints a warning to stderr if the data set has no groups, if near-duplicates are in different
    splits, if a fraction of the patches or nodules is over 5 points off, and if nearly all pixels
    have the same few grey levels.

    `X` is streamed in blocks, so memory does not grow with its size. Each file has `index`, the
    row in `dataset`, and `group`, `file`, `candidate` and `irrelevant` if `dataset` has them.

    Parameters
    ----------
    dataset
        Labelled patch file.
    folder
        Output folder of the three files.
    params
        Fraction of the patches and of the nodules per split, which is ignored for splits given by
        `dataset`; and the action on near-duplicates and on irrelevant patches.
    seed
        Seed of the shuffling.
    picture
        PNG file for the duplicates in different splits; None to draw none.
    search
        Whether to search for duplicates.

    Returns
    -------
    Counts
        Number of `patches`, `nodules` and `groups` per split; `groups` is 0 if the data set has
        none. After a search also `leaks`: the number of `groups` in more than one split, of pairs
        of `exact_duplicates` and `near_duplicates` in different splits, and with `together` of
        patches in the `largest_group` of joined duplicates. Leaks are counted before irrelevant
        patches are dropped.

    Raises
    ------
    PatchFileError
        If the file breaks the layout.
    SplitError
        If the classes or groups cannot be divided into these fractions, duplicates are in different
        splits and `near_duplicates` forbids it, or `dataset` lacks the column that `by` or
        `irrelevant` refers to.
    """
    with open_patches(dataset) as patches:
        if params.by == "published":
            patches = _as_published(patches)
        irrelevant = patches.read_irrelevant()
        if irrelevant is None and params.irrelevant != "keep":
            problem = f"found none, expected it for split.irrelevant: {params.irrelevant}"
            raise SplitError(dataset, f"irrelevant: {problem}")
        # Errors in the split are reported before the search, which takes longer.
        assignment = assign_splits(patches, params, seed)
        joined = None
        if search:
            # Importing faiss takes a second; invalid files are refused before it.
            from nodules.splitting.leaks import settle_leaks

            assignment, joined, crossings, leaks = settle_leaks(patches, assignment, params, seed)
        kept = _without_irrelevant(patches, irrelevant, assignment, params)
        levels = _write_splits(patches, irrelevant, kept, folder)
        if search and picture is not None:
            from nodules.splitting.figure import draw_duplicates

            draw_duplicates(patches, crossings, assignment, picture)
        counts = _count(patches.labels, patches.groups, kept)
        warnings = [missed_fractions(patches, params, assignment, joined)]
        if patches.groups is None:
            warnings.append(_without_groups(patches))
        for name, other in (("val", "test"), ("test", "val")):
            if patches.split is not None and not (patches.split == name).any():
                warnings.append(f"its split has no {name}, which is taken from {other}")
        if params.by == "published" and search and leaks["groups"]:
            warnings.append(f"{leaks['groups']:,} groups are in more than one published split")
        if search and crossings.examples:
            exact = f"{crossings.exact:,} exact and " if crossings.exact else ""
            seen = "" if picture is None else f", see {picture}"
            pairs = f"{exact}{counted(crossings.near, 'near-duplicate pair')}"
            warnings.append(f"{pairs} across splits{seen}")
        for warning in filter(None, [*warnings, levels.warning()]):
            print(f"warning: {printable(dataset)}: {printable(warning)}", file=sys.stderr)
        return {**counts, "leaks": leaks} if search else counts


def _without_groups(patches: PatchFile) -> str:
    return NO_GROUPS if patches.split is None else SPLIT_WITHOUT_GROUPS


def _as_published(patches: PatchFile) -> PatchFile:
    """Return the patches with the published split as their own."""
    split = patches.read_published_split()
    if split is None:
        problem = "published_split: found none, expected it for split.by: published"
        raise SplitError(patches.path, problem)
    return replace(patches, split=split)


def _without_irrelevant(
    patches: PatchFile,
    irrelevant: NDArray[np.bool_] | None,
    assignment: Assignment,
    params: SplitParams,
) -> Assignment:
    """Return the assignment with -1 for the patches that `split.irrelevant` drops."""
    if irrelevant is None or params.irrelevant == "keep":
        return assignment
    train = SPLITS.index("train")
    drop = irrelevant & ((assignment == train) | (params.irrelevant == "drop"))
    kept = np.where(drop, np.int8(-1), assignment)
    for position, name in enumerate(SPLITS):
        if len(np.unique(patches.labels[kept == position])) < 2:
            problem = f"leaves only one class in the {name} split, expected both"
            raise SplitError(patches.path, f"split.irrelevant: {params.irrelevant} {problem}")
    nodules = counted(int(patches.labels[drop].sum()), "nodule")
    print(f"dropped as irrelevant: {counted(int(drop.sum()), 'patch')}, {nodules} among them")
    return kept


def _write_splits(
    patches: PatchFile,
    irrelevant: NDArray[np.bool_] | None,
    assignment: Assignment,
    folder: Path,
) -> GreyLevels:
    """Write the three files and return the grey levels of all patches."""
    levels = GreyLevels()
    groups, labels = patches.groups, patches.labels
    columns: dict[str, np.dtype] = {"index": np.dtype(np.int64)}
    carried: dict[str, NDArray] = {} if groups is None else {"group": groups}
    carried |= patches.read_sources()
    if irrelevant is not None:
        carried["irrelevant"] = irrelevant.astype(np.uint8)
    columns |= {name: column.dtype for name, column in carried.items()}
    counts = {
        folder / f"{name}.h5": int((assignment == position).sum())
        for position, name in enumerate(SPLITS)
    }
    # All three appear together, so a new train split never meets an old test split.
    with (
        new_patch_files(counts, columns) as writers,
        tqdm(total=len(patches), desc="split", unit="patch") as progress,
    ):
        for start, block in patches.blocks():
            levels.add(block)
            for position, writer in enumerate(writers):
                mine = np.flatnonzero(assignment[start : start + len(block)] == position)
                rows = start + mine
                extra = {name: column[rows] for name, column in carried.items()}
                writer.append(block[mine], labels[rows], index=rows, **extra)
            progress.update(len(block))
    return levels


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
