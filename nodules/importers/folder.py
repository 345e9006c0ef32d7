"""Convert a folder of images to a patch file, with classes by sub-folder or without labels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nodules.errors import FileError
from nodules.importers.image_rows import write_images
from nodules.importers.image_tree import (
    EXPECTED,
    Classes,
    find_classes,
    find_files,
    find_images,
    link_notes,
    utf8_name,
)
from nodules.importers.path_pattern import PathPattern, printable_name
from nodules.importers.window import Window
from nodules.patches.layout import Labels
from nodules.patches.summary import counted
from nodules.system.atomic import check_output
from nodules.system.streams import printable


def import_folder(
    folder: Path,
    out: Path,
    *,
    nodule: str | None = None,
    unlabelled: bool = False,
    group: str | None = None,
    group_from_folder: bool = False,
    window: Window | None = None,
) -> list[str]:
    """Write one patch per image below `folder`, in order of path.

    Parameters
    ----------
    folder
        Folder with two folders at any one depth, one per class. All are searched recursively.
        Names that begin with a dot are skipped. Symbolic links are followed.
    out
        Patch file to write, with `X`, `Y` (unless `unlabelled`), `file` (the path relative to
        `folder`) and, if one of the next arguments sets it, `group` as text.
    nodule
        Name of the folder of the nodules; None to detect it.
    unlabelled
        Whether to convert all images below `folder`, without labels.
    group
        Regular expression searched for in the path of each image below `folder`, without its class
        folder. Its first group in parentheses is the scan or patient.
    group_from_folder
        Whether the first folder of that path is the scan or patient.
    window
        Values that become grey 0 and 255 in all images. By default 0..255 for 8-bit images,
        0..65535 for 16-bit images, and -1000..400 HU for DICOM CT.

    Returns
    -------
    list of str
        Summary of what was written, then notes; one line each.

    Raises
    ------
    FileError
        If the folder has another layout, an image is damaged or not grey, `out` is one of the
        images, or an image has no group.
    NodulesError
        If `group` is not a regular expression, or has no group.
    """
    pattern = None if group is None else PathPattern("--group", group, "the scan or patient")
    found = find_files(folder)
    classes = None if unlabelled else find_classes(folder, found.folders, nodule)
    images = find_images(folder, found.files, classes)
    names = images.names
    check_output(out, (folder / name for name in names))
    labels = _labels(folder, names, classes)
    texts = [utf8_name(folder, name) for name in names]
    columns = {"file": np.array(texts, dtype=object)}
    below = [text if classes is None else classes.without(text) for text in texts]
    if pattern is not None:
        columns["group"] = np.array(pattern.search(folder, names, below), dtype=object)
    elif group_from_folder:
        groups = [_top(folder / name, path) for name, path in zip(names, below, strict=True)]
        columns["group"] = np.array(groups, dtype=object)
    paths = [folder / name for name in names]
    notes = write_images(out, paths, labels, columns, window) + link_notes(folder, names)
    if classes is None or labels is None:
        summary = f"{counted(len(names), 'image')} without labels"
        return [summary, *notes, *images.notes("not images")]
    nodules = int(labels.sum())
    others = len(names) - nodules
    summary = f"{counted(nodules, 'nodule')} ({printable(classes.nodule)})"
    summary = f"{summary} and {counted(others, 'other')} ({printable(classes.other)})"
    return [summary, *notes, *images.notes("not images of a class")]


def _labels(folder: Path, names: Sequence[str], classes: Classes | None) -> Labels | None:
    """Return the labels by folder, checking that there is an image of each class."""
    problem = f"found no image, expected at least one ({EXPECTED})"
    if classes is None:
        if not names:
            raise FileError(folder, problem)
        return None
    folders = [classes.of(name) for name in names]
    for kind in (classes.nodule, classes.other):
        if kind not in folders:
            raise FileError(folder / "/".join(["*"] * classes.depth + [kind]), problem)
    return np.array([kind == classes.nodule for kind in folders], np.uint8)


def _top(image: Path, below: str) -> str:
    top, slash, _ = below.partition("/")
    if not slash:
        problem = "found no folder besides that of a class, expected one named after its scan"
        raise FileError(image, f"{problem} or patient (--group-from folder)")
    return printable_name(image, top, "--group-from")
