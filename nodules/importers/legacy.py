"""Joining the pair of HDF5 files that the tflearn notebooks trained on into one patch file."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nodules.patches import PatchFile, new_patch_file, open_patches


def import_legacy(files: Mapping[str, Path], out: Path) -> dict[str, int]:
    """Join patch files, one a split, and keep their split.

    Parameters
    ----------
    files
        `train` and `val`, perhaps `test`, each with `X` and `Y`. Without `test` the `split` stage
        cuts one from `val`; nothing moves between `train` and the others.
    out
        Patch file to write, with `X`, `Y` and `split`.

    Returns
    -------
    dict
        Patches of each split.

    Raises
    ------
    PatchFileError
        If one of the files breaks the layout.
    """
    with ExitStack() as stack:
        parts: dict[str, PatchFile] = {
            name: stack.enter_context(open_patches(path)) for name, path in files.items()
        }
        counts = {name: len(part) for name, part in parts.items()}
        total = sum(counts.values())
        columns = {"split": np.dtype(object)}
        joined = stack.enter_context(new_patch_file(out, total, columns))
        progress = stack.enter_context(tqdm(total=total, desc="import", unit="patch"))
        for name, part in parts.items():
            for start, block in part.blocks():
                labels = part.labels[start : start + len(block)]
                joined.append(block, labels, split=np.full(len(block), name, dtype=object))
                progress.update(len(block))
    return counts
