"""A folder of images, one sub-folder a class, turned into a patch file."""

import math
import re
from collections.abc import Mapping, Sequence
from glob import glob
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nodules.errors import GroupError, ImageError
from nodules.importers.grey import SIXTEEN_BITS, Window
from nodules.importers.images import is_image, read_image
from nodules.importers.resampling import resample
from nodules.output import check_output
from nodules.patches import SPLITS, Labels, Patches, new_patch_file

BLOCK_IMAGES = 256

# Letters and digits of folder names that say by themselves which of the two holds the nodules.
OTHERS_OF = {
    "nodule": {"nonnodule", "nonodule", "notnodule", "normal", "background"},
    "nodules": {"nonnodules", "nonodules", "notnodules", "nonnodule", "normal", "background"},
    "1": {"0"},
    "class1": {"class0"},
    "positive": {"negative"},
    "positives": {"negatives"},
    "pos": {"neg"},
    "malignant": {"benign"},
    "true": {"false"},
    "yes": {"no"},
}


def import_folder(
    folder: Path,
    out: Path,
    *,
    nodule: str | None = None,
    group: str | None = None,
    window: Window | None = None,
) -> list[str]:
    """Make a patch of each image in the two sub-folders of `folder`, in the order of their paths.

    Parameters
    ----------
    folder
        Holds two folders, whose images, and those in their sub-folders, are the two classes. What
        begins with a dot is passed over.
    out
        Patch file to write, with `X`, `Y`, `file` (the path below `folder`) and, with `group`,
        `group` as text.
    nodule
        The sub-folder that holds the nodules; None to tell by its name.
    group
        A regular expression, looked for in each file's name; what its first group in parentheses
        matches is the scan or patient.
    window
        Values that become grey 0 and 255, for all images. None for 0..255 of images of 8 bits,
        0..65535 of those of 16 bits, and -1000..400 HU of DICOM.

    Returns
    -------
    list of str
        What was written and what was noticed, a line each.

    Raises
    ------
    ImageError
        If the folder is not laid out so, or an image is broken or not grey.
    GroupError
        If `group` is no regular expression, or has no group.
    OutputError
        If `out` is one of the images.
    """
    pattern = None if group is None else _compile(group)
    if not folder.is_dir():
        raise ImageError(folder, "no such folder, expected one with a sub-folder for each class")
    nodule, other = _classes(folder, nodule)
    names, left_out = _find(folder, (nodule, other))
    check_output(out, (folder / name for name in names))
    is_nodule = np.array([name.startswith(f"{nodule}/") for name in names], bool)
    for kind, count in ((nodule, is_nodule.sum()), (other, (~is_nodule).sum())):
        if not count:
            problem = "found no image, expected at least one (PNG, JPEG, TIFF or DICOM)"
            raise ImageError(folder / kind, problem)
    columns = {"file": np.array(names, dtype=object)}
    if pattern is not None:
        groups = [_group(folder / name, pattern) for name in names]
        columns["group"] = np.array(groups, dtype=object)
    conversion = _Conversion(window)
    _write(out, [folder / name for name in names], is_nodule.astype(np.uint8), columns, conversion)
    notes = conversion.notes()
    if left_out:
        notes.append(f"left out, no images of a class: {len(left_out):,}, first {left_out[0]}")
    nodules = int(is_nodule.sum())
    others = len(names) - nodules
    return [f"{nodules:,} nodules ({nodule}) and {others:,} others ({other})", *notes]


class _Conversion:
    """Turns images into patches and remembers what a person may not expect."""

    def __init__(self, window: Window | None) -> None:
        self._window = window
        self._oblong = 0
        self._wide = 0
        self._wide_range = (math.inf, -math.inf)

    def patch(self, path: Path) -> Patches:
        """Read an image as a (50, 50) uint8 patch."""
        image = read_image(path)
        window = self._window or image.window
        if window is None:
            low, high = image.values.min(), image.values.max()
            problem = f"found {image.kind}, {low:g}..{high:g}; expected --window LOW HIGH"
            raise ImageError(path, f"{problem}, the values that become grey 0 and 255")
        self._oblong += len(set(image.values.shape)) > 1
        if window is SIXTEEN_BITS:
            low, high = self._wide_range
            self._wide += 1
            self._wide_range = min(low, image.values.min()), max(high, image.values.max())
        grey = window.grey(resample(image.values))
        return 255 - grey if image.white_is_low else grey

    def notes(self) -> list[str]:
        """Say what was noticed, a line each."""
        notes = []
        if self._wide:
            notes.append(
                "images of 16 bits: {:,}, their values {}..{}; 0..65535 became grey 0..255 "
                "(--window chooses another range)".format(self._wide, *self._wide_range)
            )
        if self._oblong:
            notes.append(f"images that are not square: {self._oblong:,}; only their centre is used")
        return notes


def _write(
    out: Path,
    paths: Sequence[Path],
    labels: Labels,
    columns: Mapping[str, NDArray],
    conversion: _Conversion,
) -> None:
    dtypes = {name: column.dtype for name, column in columns.items()}
    with (
        new_patch_file(out, len(paths), dtypes) as file,
        tqdm(total=len(paths), desc="import", unit="image") as progress,
    ):
        for start in range(0, len(paths), BLOCK_IMAGES):
            rows = slice(start, start + BLOCK_IMAGES)
            patches = []
            for path in paths[rows]:
                patches.append(conversion.patch(path))
                progress.update()
            extra = {name: column[rows] for name, column in columns.items()}
            file.append(np.stack(patches), labels[rows], **extra)


def _classes(folder: Path, nodule: str | None) -> tuple[str, str]:
    names = sorted(
        path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    found = f"found {len(names)} sub-folders" + (f" ({', '.join(names)})" if names else "")
    if names and {*names} <= {*SPLITS}:
        problem = f"{found}, expected classes; import each alone, then join them: import legacy"
        raise ImageError(folder, problem)
    if len(names) != 2:
        raise ImageError(folder, f"{found}, expected two, one a class")
    if nodule is None:
        keys = [re.sub("[^a-z0-9]", "", name.lower()) for name in names]
        for name, key, other in zip(names, keys, reversed(keys), strict=True):
            if other in OTHERS_OF.get(key, ()):
                nodule = name
    if nodule not in names:
        asked = "" if nodule is None else f" and --nodule {nodule}"
        problem = f"{found}{asked}, expected --nodule {names[0]} or --nodule {names[1]}"
        raise ImageError(folder, problem)
    return nodule, names[1 - names.index(nodule)]


def _find(folder: Path, classes: tuple[str, str]) -> tuple[list[str], list[str]]:
    """Give the images of the classes, and all other files, as sorted paths below `folder`."""
    # Path.rglob does not follow links to folders.
    found = sorted(glob("**/*", root_dir=folder, recursive=True))  # noqa: PTH207
    files = [name for name in found if not (folder / name).is_dir()]
    inside = tuple(f"{name}/" for name in classes)
    images = [name for name in files if name.startswith(inside) and is_image(folder / name)]
    return images, sorted({*files} - {*images})


def _compile(group: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise GroupError(f"{group!r} is no regular expression ({error})") from None
    if not pattern.groups:
        raise GroupError(f"{group!r} holds no group, expected one in parentheses")
    return pattern


def _group(path: Path, pattern: re.Pattern[str]) -> str:
    match = pattern.search(path.name)
    if match is None or not match[1]:
        problem = f"found no match of {pattern.pattern!r} in the file's name"
        raise ImageError(path, f"{problem}, expected one whose first group is the scan or patient")
    return match[1]
