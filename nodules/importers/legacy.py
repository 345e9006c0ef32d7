"""Join the HDF5 files of the tflearn notebooks, one per split, into one patch file."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nodules.errors import PatchFileError
from nodules.patches.layout import SOURCES
from nodules.patches.reader import PatchFile, open_patches
from nodules.patches.writer import new_patch_file
from nodules.system.atomic import check_output


def import_legacy(files: Mapping[str, Path], out: Path) -> dict[str, int]:
    """Join patch files, one per split, and keep the split.

    Parameters
    ----------
    files
        `train`, `val` and optionally `test`, each with `X` and `Y`. Without `test`, the `split`
        stage takes it from `val`; `train` does not change.
    out
        Patch file to write, with `X`, `Y` and `split`, and `group` if the files have it.

    Returns
    -------
    dict
        Number of patches per split.

    Raises
    ------
    PatchFileError
        If a file breaks the layout, or only some of them have `group`.
    FileError
        If `out` is one of the input files.
    """
    check_output(out, files.values())
    with ExitStack() as stack:
        parts: dict[str, PatchFile] = {
            name: stack.enter_context(open_patches(path)) for name, path in files.items()
        }
        counts = {name: len(part) for name, part in parts.items()}
        total = sum(counts.values())
        sources = {name: part.read_sources() for name, part in parts.items()}
        columns = {"split": np.dtype(object)} | _group_column(parts) | _source_columns(sources)
        joined = stack.enter_context(new_patch_file(out, total, columns))
        progress = stack.enter_context(tqdm(total=total, desc="import", unit="patch"))
        for name, part in parts.items():
            for start, block in part.blocks():
                rows = slice(start, start + len(block))
                extra = {} if part.groups is None else {"group": part.groups[rows]}
                extra |= {kind: sources[name][kind][rows] for kind in SOURCES if kind in columns}
                split = np.full(len(block), name, dtype=object)
                joined.append(block, part.labels[rows], split=split, **extra)
                progress.update(len(block))
    return counts


def _source_columns(sources: Mapping[str, Mapping[str, NDArray]]) -> dict[str, np.dtype]:
    """Return the types of `file` and `candidate`, if all parts have them."""
    return {
        kind: np.result_type(*(part[kind] for part in sources.values()))
        for kind in SOURCES
        if all(kind in part for part in sources.values())
    }


def _group_column(parts: Mapping[str, PatchFile]) -> dict[str, np.dtype]:
    dtypes = {part.groups.dtype for part in parts.values() if part.groups is not None}
    without = [part.path for part in parts.values() if part.groups is None]
    if not dtypes:
        return {}
    if without:
        problem = "found none, expected it in all files or in none"
        raise PatchFileError(without[0], problem, dataset="group")
    if len(dtypes) == 1:
        return {"group": dtypes.pop()}
    first = next(iter(parts.values())).path
    if np.dtype(object) in dtypes:
        problem = "found integers in one file and strings in another, expected one type"
        raise PatchFileError(first, problem, dataset="group")
    # One file needs uint64, so the others must not hold negative numbers.
    if any(part.groups.min() < 0 for part in parts.values() if part.groups is not None):
        problem = "found numbers below 0 in one file and above 2^63 - 1 in another"
        raise PatchFileError(first, f"{problem}, expected one type", dataset="group")
    return {"group": np.dtype(np.uint64)}
