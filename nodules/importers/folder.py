"""Convert a folder of images, with one sub-folder per class, to a patch file."""

import math
import os
import re
import signal
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import FrameType

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nodules.errors import FileError, NodulesError
from nodules.importers.image_patches import ImagePatch, image_patches
from nodules.importers.images import is_image
from nodules.importers.window import Window
from nodules.patches.hdf5_texts import MAX_CHARACTERS
from nodules.patches.layout import SPLITS, Labels
from nodules.patches.writer import new_patch_file
from nodules.system.atomic import check_output
from nodules.system.streams import os_error_text, printable

BLOCK_IMAGES = 256

# CPU time limit for matching all file names; 100,000 names normally take 0.1 s.
GROUP_SECONDS = 5

# Known pairs of class folders (lower-case letters and digits only): the nodules, and the others.
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
    """Write one patch per image below the two sub-folders of `folder`, in order of path.

    Parameters
    ----------
    folder
        Folder with two sub-folders, one per class, which are searched recursively. Names that
        begin with a dot are skipped. Symbolic links are followed.
    out
        Patch file to write, with `X`, `Y`, `file` (the path relative to `folder`) and, if the
        argument `group` is given, `group` as text.
    nodule
        Sub-folder of the nodules; None to detect it by name.
    group
        Regular expression searched for in each file name. Its first group in parentheses is the
        scan or patient.
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
        If the folder has another layout, an image is damaged or not grey, or `out` is one of the
        images.
    NodulesError
        If `group` is not a regular expression, or has no group.
    """
    pattern = None if group is None else _compile(group)
    if not folder.is_dir():
        raise FileError(folder, "no such folder, expected one with a sub-folder for each class")
    found = _find(folder)
    nodule, other = _classes(folder, found.folders, nodule)
    names, left_out = _images(folder, found.files, (nodule, other))
    check_output(out, (folder / name for name in names))
    is_nodule = np.array([name.startswith(f"{nodule}/") for name in names], bool)
    for kind, count in ((nodule, is_nodule.sum()), (other, (~is_nodule).sum())):
        if not count:
            problem = "found no image, expected at least one (PNG, JPEG, TIFF or DICOM)"
            raise FileError(folder / kind, problem)
    texts = [_utf8(folder, name) for name in names]
    columns = {"file": np.array(texts, dtype=object)}
    if pattern is not None:
        columns["group"] = np.array(_groups(folder, texts, pattern), dtype=object)
    properties = _Properties()
    patches = image_patches([folder / name for name in names], window)
    _write(out, properties.record(patches), is_nodule.astype(np.uint8), columns)
    notes = properties.notes()
    notes += _link_notes(folder, names)
    if left_out:
        first = printable(left_out[0])
        notes.append(f"files left out, not images of a class: {len(left_out):,}, first {first}")
    nodules = int(is_nodule.sum())
    others = len(names) - nodules
    classes = (
        f"{nodules:,} nodules ({printable(nodule)}) and {others:,} others ({printable(other)})"
    )
    return [classes, *notes]


class _Properties:
    """Counts of images with properties that the user may not expect."""

    def __init__(self) -> None:
        self._oblong = 0
        self._wide = 0
        self._wide_range: tuple[float, float] = (math.inf, -math.inf)
        self._rescaled = 0
        self._stored = 0

    def record(self, patches: Iterator[ImagePatch]) -> Iterator[NDArray[np.uint8]]:
        """Count the properties of each image and yield its (50, 50) patch."""
        for made in patches:
            self._oblong += made.oblong
            if made.wide_range is not None:
                low, high = self._wide_range
                self._wide += 1
                self._wide_range = min(low, made.wide_range[0]), max(high, made.wide_range[1])
            self._rescaled += made.rescaled is True
            self._stored += made.rescaled is False
            yield made.patch

    def notes(self) -> list[str]:
        """Return one line per property found."""
        notes = []
        if self._wide:
            notes.append(
                "16-bit images: {:,}, values {}..{}; 0..65535 became grey 0..255 "
                "(--window sets another range)".format(self._wide, *self._wide_range)
            )
        if self._rescaled and self._stored:
            notes.append(
                f"DICOM images without slope and intercept: {self._stored:,}; --window was applied "
                f"to their stored values, and to the rescaled values of the other "
                f"{self._rescaled:,}"
            )
        if self._oblong:
            notes.append(f"images that are not square: {self._oblong:,}; only their centre is used")
        return notes


def _write(
    out: Path,
    patches: Iterator[NDArray[np.uint8]],
    labels: Labels,
    columns: Mapping[str, NDArray],
) -> None:
    dtypes = {name: column.dtype for name, column in columns.items()}
    with (
        new_patch_file(out, len(labels), dtypes) as file,
        tqdm(patches, desc="import", total=len(labels), unit="image") as progress,
    ):
        remaining = iter(progress)
        for start in range(0, len(labels), BLOCK_IMAGES):
            rows = slice(start, start + BLOCK_IMAGES)
            extra = {name: column[rows] for name, column in columns.items()}
            block = np.stack(list(islice(remaining, BLOCK_IMAGES)))
            file.append(block, labels[rows], **extra)


def _classes(folder: Path, names: Sequence[str], nodule: str | None) -> tuple[str, str]:
    shown = ", ".join(map(printable, names))
    found = f"found {len(names)} sub-folders" + (f" ({shown})" if names else "")
    if names and {*names} <= {*SPLITS}:
        problem = (
            f"{found}, expected classes; import each split alone, then join them with import legacy"
        )
        raise FileError(folder, problem)
    if len(names) != 2:
        raise FileError(folder, f"{found}, expected two, one per class")
    if nodule is None:
        keys = [re.sub("[^a-z0-9]", "", name.lower()) for name in names]
        for name, key, other in zip(names, keys, reversed(keys), strict=True):
            if other in OTHERS_OF.get(key, ()):
                nodule = name
    if nodule is None or nodule not in names:
        asked = "" if nodule is None else f" and --nodule {printable(nodule)}"
        problem = f"{found}{asked}, expected --nodule {' or --nodule '.join(map(printable, names))}"
        raise FileError(folder, problem)
    return nodule, names[1 - names.index(nodule)]


@dataclass
class _Found:
    """Relative paths of the files below a folder, and names of its direct sub-folders."""

    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)


def _find(folder: Path) -> _Found:
    """Search a folder recursively, skipping names that begin with a dot; sort the result."""
    found = _Found()
    _search(folder, "", (), found)
    found.files.sort()
    found.folders.sort()
    return found


def _search(folder: Path, below: str, above: tuple[tuple[int, int], ...], found: _Found) -> None:
    """Add the content of `folder / below`; `above` identifies its parents (device and inode)."""
    place = folder / below
    try:
        status = place.stat()
        with os.scandir(place) as listed:
            entries = [entry for entry in listed if not entry.name.startswith(".")]
    except OSError as error:
        raise FileError(place, f"cannot be read ({os_error_text(error)})") from None
    this = (status.st_dev, status.st_ino)
    if this in above:
        raise FileError(
            place, "found a link to a parent folder, expected images or folders of images"
        )
    for entry in entries:
        name = f"{below}{entry.name}"
        if not entry.is_dir():
            found.files.append(name)
            continue
        if not below:
            found.folders.append(name)
        _search(folder, f"{name}/", (*above, this), found)


def _images(
    folder: Path, files: Sequence[str], classes: tuple[str, str]
) -> tuple[list[str], list[str]]:
    """Return the images of the two classes, and all other files."""
    inside = tuple(f"{name}/" for name in classes)
    images = [name for name in files if name.startswith(inside) and is_image(folder / name)]
    return images, sorted({*files} - {*images})


def _utf8(folder: Path, name: str) -> str:
    """Return a file name as UTF-8 text for HDF5 and CSV, independent of the locale."""
    try:
        return os.fsencode(name).decode("utf-8")
    except UnicodeDecodeError:
        problem = "found a name that is not UTF-8, expected UTF-8 (convmv renames folders)"
        raise FileError(folder / name, problem) from None


def _link_notes(folder: Path, names: Sequence[str]) -> list[str]:
    """Return a note on images outside the folder, which symbolic links lead to."""
    root = os.path.realpath(folder)
    outside = [(name, target) for name in names if (target := _outside(root, folder, name))]
    if not outside:
        return []
    name, target = outside[0]
    example = f"{printable(name)} is {printable(target)}"
    return [f"images outside {printable(folder)}, by links: {len(outside):,}, first {example}"]


def _outside(root: str, folder: Path, name: str) -> str:
    target = os.path.realpath(folder / name)
    return "" if target.startswith(f"{root.rstrip(os.sep)}{os.sep}") else target


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


def _groups(folder: Path, names: Sequence[str], pattern: re.Pattern[str]) -> list[str]:
    with _processor_time(pattern):
        return [_group(folder / name, pattern) for name in names]


def _group(path: Path, pattern: re.Pattern[str]) -> str:
    match = pattern.search(path.name)
    if match is None or not match[1]:
        problem = f"found no match of {_quoted(pattern.pattern)} in the file name"
        raise FileError(path, f"{problem}, expected one whose first group is the scan or patient")
    if not match[1].isprintable() or match[1] != match[1].strip():
        problem = f"--group found {match[1]!r}, expected a printable name"
        raise FileError(path, f"{problem} without leading or trailing spaces")
    assert len(match[1]) <= MAX_CHARACTERS  # file systems limit names to fewer
    return match[1]


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
