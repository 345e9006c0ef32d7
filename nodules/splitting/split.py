"""Divide patches into train, val and test so that no group spans two splits."""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from nodules.patches.layout import SPLITS, Groups, Labels
from nodules.patches.reader import PatchFile, open_patches
from nodules.patches.writer import new_patch_files
from nodules.splitting.assignment import Assignment, assign_splits
from nodules.splitting.params import SplitParams

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

    `X` is streamed in blocks, so memory does not grow with its size. Each file has `index`, the
    row in `dataset`, and `group` if `dataset` has it.

    Parameters
    ----------
    dataset
        Labelled patch file.
    folder
        Output folder of the three files.
    params
        Fraction of the patches per split, which is ignored for splits given by `dataset`; and the
        action on near-duplicates.
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
        patches in the `largest_group` of joined duplicates.

    Raises
    ------
    PatchFileError
        If the file breaks the layout.
    SplitError
        If the classes or groups cannot be divided into these fractions, or duplicates are in
        different splits and `near_duplicates` forbids it.
    """
    with open_patches(dataset) as patches:
        # Errors in the split are reported before the search, which takes longer.
        assignment = assign_splits(patches, params, seed)
        if search:
            # Importing faiss takes a second; invalid files are refused before it.
            from nodules.splitting.leaks import settle_leaks

            assignment, crossings, leaks = settle_leaks(patches, assignment, params, seed)
        _write_splits(patches, patches.labels, assignment, folder)
        if search and picture is not None:
            from nodules.splitting.figure import draw_duplicates

            draw_duplicates(patches, crossings, assignment, picture)
        counts = _count(patches.labels, patches.groups, assignment)
        return {**counts, "leaks": leaks} if search else counts


def _write_splits(patches: PatchFile, labels: Labels, assignment: Assignment, folder: Path) -> None:
    groups = patches.groups
    columns: dict[str, np.dtype] = {"index": np.dtype(np.int64)}
    if groups is not None:
        columns["group"] = groups.dtype
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
