"""Read and check the labels, groups and splits of a patch file."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nodules.errors import PatchFileError
from nodules.patches.hdf5_file import Hdf5File, read_rows
from nodules.patches.hdf5_storage import StoredArray
from nodules.patches.hdf5_texts import is_text, read_texts
from nodules.patches.layout import SPLITS, Groups, Labels
from nodules.system.streams import printable


class Known(NamedTuple):
    """Columns of a patch file; None for absent ones. See `PatchFile` for their types."""

    labels: Labels | None
    groups: Groups | None
    split: NDArray[np.object_] | None


def read_known(file: Hdf5File, count: int, *, labelled: bool) -> Known:
    """Read and check labels, groups and splits; patches may have any size.

    Parameters
    ----------
    file
        Open file.
    count
        Number of patches in the file.
    labelled
        Whether `Y` is required.

    Raises
    ------
    PatchFileError
        If `Y`, `group` or `split` breaks the layout.
    """
    labels = _labels(file, count) if labelled or file.holds("Y") else None
    groups = _groups(file, count) if file.holds("group") else None
    split = read_split(file, "split", count) if file.holds("split") else None
    if groups is not None and split is not None:
        _check_groups_are_whole(file.path, groups, split)
    return Known(labels, groups, split)


def _labels(file: Hdf5File, count: int) -> Labels:
    data = file.data_set("Y")
    if data.shape not in ((count,), (count, 1), (count, 2)):
        problem = f"found shape {data.shape}, expected ({count},) or ({count}, 2) to match X"
        if len(data.shape) == 2 and data.shape[0] == count and data.shape[1] > 2:
            problem += f": these are {data.shape[1]} classes, expected two"
        raise PatchFileError(file.path, problem, dataset="Y")
    if data.data.dtype.kind not in "iufb":
        problem = f"found {type_name(data)}, expected numbers"
        raise PatchFileError(file.path, problem, dataset="Y")
    raw = read_rows(file.path, "Y", data)
    if raw.shape == (count, 1):
        raw = raw[:, 0]
    binary = np.isin(raw, (0, 1))
    one_hot = raw.ndim == 2
    valid = binary.all(axis=1) & (raw.sum(axis=1) == 1) if one_hot else binary
    if not valid.all():
        row = int(np.argmin(valid))
        expected = "one-hot: (1, 0) or (0, 1)" if one_hot else "0 or 1"
        found = tuple(raw[row].tolist()) if one_hot else raw[row].item()
        raise PatchFileError(file.path, f"found {found}, expected {expected}", dataset="Y", row=row)
    return (raw[:, 1] if one_hot else raw).astype(np.uint8)


def column(file: Hdf5File, name: str, count: int) -> StoredArray:
    """Return a data set with one value per patch; raise PatchFileError for another shape."""
    data = file.data_set(name)
    if data.shape != (count,):
        problem = f"found shape {data.shape}, expected ({count},) to match X"
        raise PatchFileError(file.path, problem, dataset=name)
    return data


def _groups(file: Hdf5File, count: int) -> Groups:
    data = column(file, "group", count)
    if is_text(data):
        return read_texts(file.path, "group", data)
    if data.data.dtype.kind not in "iu":
        problem = f"found {data.data.dtype}, expected integers or strings"
        raise PatchFileError(file.path, problem, dataset="group")
    groups = read_rows(file.path, "group", data)
    if groups.max() > np.iinfo(np.int64).max:
        return groups.astype(np.uint64)
    return groups.astype(np.int64)


def read_split(file: Hdf5File, name: str, count: int) -> NDArray[np.object_]:
    """Read the (N,) splits in a data set; raise PatchFileError if one is not of `SPLITS`."""
    data = column(file, name, count)
    if not is_text(data):
        raise PatchFileError(file.path, f"found {data.data.dtype}, expected strings", dataset=name)
    names = read_texts(file.path, name, data)
    known = np.array([each in SPLITS for each in names])
    if not known.all():
        row = int(np.argmin(known))
        text = names[row]
        found = repr(text) if text.strip() in SPLITS else f"'{printable(text, 60)}'"
        problem = f"found {found}, expected one of {', '.join(SPLITS)}"
        raise PatchFileError(file.path, problem, dataset=name, row=row)
    return names


def read_flags(file: Hdf5File, name: str, count: int) -> NDArray[np.bool_]:
    """Read the (N,) flags in a data set; raise PatchFileError if one is not 0 or 1."""
    data = column(file, name, count)
    if data.data.dtype.kind not in "iub":
        problem = f"found {type_name(data)}, expected integers"
        raise PatchFileError(file.path, problem, dataset=name)
    flags = read_rows(file.path, name, data)
    if not (valid := np.isin(flags, (0, 1))).all():
        row = int(np.argmin(valid))
        raise PatchFileError(
            file.path, f"found {flags[row]}, expected 0 or 1", dataset=name, row=row
        )
    return flags.astype(np.bool_)


def read_folds(file: Hdf5File, name: str, count: int, groups: Groups | None) -> NDArray[np.int64]:
    """Read the (N,) folds in a data set; raise PatchFileError if a group spans two of them."""
    data = column(file, name, count)
    if data.data.dtype.kind not in "iu":
        raise PatchFileError(file.path, f"found {type_name(data)}, expected integers", dataset=name)
    folds = read_rows(file.path, name, data).astype(np.int64)
    if groups is not None:
        _check_groups_are_whole(file.path, groups, folds)
    return folds


def _check_groups_are_whole(
    path: Path, groups: Groups, split: NDArray[np.object_] | NDArray[np.int64]
) -> None:
    _, first_row, inverse = np.unique(groups, return_index=True, return_inverse=True)
    spanning = np.flatnonzero(split != split[first_row][inverse])
    if len(spanning):
        row = int(spanning[0])
        kind = "split" if split.dtype == object else "fold"
        splits = f"{split[first_row[inverse[row]]]} and {split[row]}"
        problem = f"found {printable(groups[row], 60)} in {splits}, expected one {kind} per group"
        raise PatchFileError(path, problem, dataset="group", row=row)


def type_name(array: StoredArray) -> str:
    """Return the type of a data set for error messages: `text`, or NumPy's name."""
    return "text" if is_text(array) else f"{array.data.dtype}"
