"""Resize the patches of an HDF5 file that is otherwise laid out like a patch file."""

from collections.abc import Mapping
from pathlib import Path

from numpy.typing import NDArray
from tqdm import tqdm

from nodules.errors import PatchFileError
from nodules.importers.stack import Stack
from nodules.importers.window import Window
from nodules.patches.columns import read_known
from nodules.patches.hdf5_file import Hdf5File, read_rows
from nodules.patches.hdf5_storage import StoredArray
from nodules.patches.layout import Labels
from nodules.patches.probe import open_hdf5
from nodules.patches.summary import counted
from nodules.patches.writer import new_patch_file
from nodules.system.atomic import check_output

CARRIED = ("Y", "group", "split")


def import_hdf5(path: Path, out: Path, *, window: Window | None = None) -> list[str]:
    """Resample `X` to 50x50 and copy `Y`, `group` and `split`.

    Parameters
    ----------
    path
        HDF5 file with `X` of shape (N, H, W) or (N, H, W, 1), uint8 in 0..255 or float in 0..1,
        and optionally `Y`, `group` and `split`. Without `Y`, the patches can only be scored.
    out
        Patch file to write.
    window
        Values of `X` that become grey 0 and 255. If given, `X` may hold any numbers.

    Returns
    -------
    list of str
        Summary of what was written, then notes; one line each.

    Raises
    ------
    PatchFileError
        If the file breaks this layout.
    FileError
        If `out` is the input file.
    """
    check_output(out, [path])
    with open_hdf5(path) as file:
        data = _images(file)
        stack = Stack(path, "X", data.shape, data.data.dtype, window)
        labels, groups, split = read_known(file, stack.count, labelled=False)
        named = (("group", groups), ("split", split))
        columns: dict[str, NDArray] = {k: col for k, col in named if col is not None}
        _write(out, stack, data, labels, columns)
        left_out = [name for name in file.names() if name not in ("X", *CARRIED)]
    read = f"{counted(stack.count, 'patch')} from {stack.height}x{stack.width} pixels"
    lines = [read, *stack.notes()]
    if left_out:
        lines.append(f"left out: {', '.join(left_out)}")
    return lines


def _write(
    out: Path,
    stack: Stack,
    data: StoredArray,
    labels: Labels | None,
    columns: Mapping[str, NDArray],
) -> None:
    dtypes = {name: column.dtype for name, column in columns.items()}
    with (
        new_patch_file(out, stack.count, dtypes, labelled=labels is not None) as patches,
        tqdm(total=stack.count, desc="import", unit="patch") as progress,
    ):
        for start in range(0, stack.count, stack.block):
            rows = slice(start, min(start + stack.block, stack.count))
            images = read_rows(stack.path, "X", data, rows.start, rows.stop)
            images = images.reshape(-1, stack.height, stack.width)
            extra = {name: column[rows] for name, column in columns.items()}
            made = stack.convert(images, start)
            patches.append(made, None if labels is None else labels[rows], **extra)
            progress.update(len(images))


def _images(file: Hdf5File) -> StoredArray:
    data = file.data_set("X")
    shape = data.shape
    if len(shape) != 3 and (len(shape), *shape[3:]) != (4, 1):
        problem = f"found shape {shape}, expected (N, height, width) or (N, height, width, 1)"
        raise PatchFileError(file.path, problem, dataset="X")
    return data
