"""Convert a folder of images to a patch file, with classes by sub-folder or without labels."""

import re
import signal
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import FrameType

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nodules.errors import FileError, NodulesError
from nodules.importers.image_patches import image_patches
from nodules.importers.image_properties import ImageProperties
from nodules.importers.image_tree import (
    EXPECTED,
    Classes,
    find_classes,
    find_files,
    find_images,
    link_notes,
    utf8_name,
)
from nodules.importers.window import Window
from nodules.patches.layout import Labels
from nodules.patches.summary import counted
from nodules.patches.writer import new_patch_file
from nodules.system.atomic import check_output
from nodules.system.streams import printable

BLOCK_IMAGES = 256

# CPU time limit for matching all image paths; 100,000 paths normally take 0.1 s.
GROUP_SECONDS = 5


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
    pattern = None if group is None else _compile(group)
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
        columns["group"] = np.array(_matches(folder, names, below, pattern), dtype=object)
    elif group_from_folder:
        groups = [_top(folder / name, path) for name, path in zip(names, below, strict=True)]
        columns["group"] = np.array(groups, dtype=object)
    properties = ImageProperties()
    patches = image_patches([folder / name for name in names], window)
    _write(out, properties.record(patches), labels, columns)
    notes = [*properties.notes(), *link_notes(folder, names)]
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


def _write(
    out: Path,
    patches: Iterator[NDArray[np.uint8]],
    labels: Labels | None,
    columns: Mapping[str, NDArray],
) -> None:
    count = len(columns["file"])
    dtypes = {name: column.dtype for name, column in columns.items()}
    with (
        new_patch_file(out, count, dtypes, labelled=labels is not None) as file,
        tqdm(patches, desc="import", total=count, unit="image") as progress,
    ):
        remaining = iter(progress)
        for start in range(0, count, BLOCK_IMAGES):
            rows = slice(start, start + BLOCK_IMAGES)
            extra = {name: column[rows] for name, column in columns.items()}
            block = np.stack(list(islice(remaining, BLOCK_IMAGES)))
            file.append(block, None if labels is None else labels[rows], **extra)


def _compile(group: str) -> re.Pattern[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about syntax that later Python versions change
            pattern = re.compile(group)
    except (re.error, OverflowError, RecursionError) as error:
        problem = f"is not a regular expression ({printable(error)})"
        raise NodulesError(f"--group: {_quoted(group)} {problem}") from None
    if not pattern.groups:
        raise NodulesError(f"--group: {_quoted(group)} has no group, expected one in parentheses")
    return pattern


def _quoted(pattern: str) -> str:
    return repr(pattern if len(pattern) <= 200 else f"{pattern[:200]}...")


def _matches(
    folder: Path, names: Sequence[str], below: Sequence[str], pattern: re.Pattern[str]
) -> list[str]:
    with _processor_time(pattern):
        return [
            _match(folder / name, path, pattern) for name, path in zip(names, below, strict=True)
        ]


def _match(image: Path, below: str, pattern: re.Pattern[str]) -> str:
    match = pattern.search(below)
    if match is None or not match[1]:
        place = f"'{printable(below, 200)}'" if "/" in below else "the file name"
        problem = f"found no match of {_quoted(pattern.pattern)} in {place}"
        raise FileError(image, f"{problem}, expected one whose first group is the scan or patient")
    return _printable_group(image, match[1], "--group")


def _top(image: Path, below: str) -> str:
    top, slash, _ = below.partition("/")
    if not slash:
        problem = "found no folder besides that of a class, expected one named after its scan"
        raise FileError(image, f"{problem} or patient (--group-from folder)")
    return _printable_group(image, top, "--group-from")


def _printable_group(image: Path, group: str, option: str) -> str:
    if not group.isprintable() or group != group.strip():
        problem = f"{option} found {group!r}, expected a printable name"
        raise FileError(image, f"{problem} without leading or trailing spaces")
    return group


@contextmanager
def _processor_time(pattern: re.Pattern[str]) -> Iterator[None]:
    """Limit the CPU time of a search; `re` handles signals while it is searching."""

    def stop(number: int, frame: FrameType | None) -> None:
        problem = f"takes more than {GROUP_SECONDS} s of processor time on the image names"
        raise NodulesError(
            f"--group: {_quoted(pattern.pattern)} {problem}, expected less backtracking"
        )

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, GROUP_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
