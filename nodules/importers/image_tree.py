"""Find the images below a folder and the folders of their classes."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nodules.errors import FileError
from nodules.importers.image_patches import without_image
from nodules.importers.images import is_image
from nodules.patches.layout import SPLITS
from nodules.system.streams import os_error_text, printable

EXPECTED = "PNG, JPEG, TIFF or DICOM"

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
# Names that number either classes or patients.
NUMBERED = re.compile(r"(class)?\d+")
# Sub-folders that an error message names.
MAX_SHOWN = 10


@dataclass
class Found:
    """Paths of the files and folders below a folder, relative to it and sorted."""

    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Classes:
    """The folders of the two classes, all at the same depth.

    Attributes
    ----------
    depth
        0 if they lie directly in the folder of the data set, 1 if they lie in its sub-folders.
    nodule, other
        Names of the folders.
    """

    depth: int
    nodule: str
    other: str

    def of(self, name: str) -> str:
        """Return the class folder of a file; empty if it is in neither."""
        folders = name.split("/")[:-1]
        if len(folders) > self.depth and folders[self.depth] in (self.nodule, self.other):
            return folders[self.depth]
        return ""

    def without(self, name: str) -> str:
        """Return the path of a file of a class without the class folder."""
        parts = name.split("/")
        return "/".join(parts[: self.depth] + parts[self.depth + 1 :])


@dataclass(frozen=True)
class Images:
    """The images among the files of a folder.

    Attributes
    ----------
    names
        Relative paths of the images.
    without_image
        Relative paths of the DICOM files that hold no image, such as DICOMDIR.
    others
        Relative paths of all other files.
    """

    names: list[str]
    without_image: list[str]
    others: list[str]

    def notes(self, others: str) -> list[str]:
        """Return one line on each kind of file that was left out."""
        kinds = {"DICOM without an image": self.without_image, others: self.others}
        return [
            f"files left out, {kind}: {len(names):,}, first {printable(names[0])}"
            for kind, names in kinds.items()
            if names
        ]


def find_files(folder: Path) -> Found:
    """Search a folder recursively, skipping names that begin with a dot; sort the result.

    Raises
    ------
    FileError
        If there is no such folder, a folder cannot be read, or a link leads to a parent folder.
    """
    if not folder.is_dir():
        raise FileError(folder, "no such folder, expected a folder of images")
    found = Found()
    _search(folder, "", (), found)
    found.files.sort()
    found.folders.sort()
    return found


def find_images(folder: Path, files: Sequence[str], classes: Classes | None = None) -> Images:
    """Divide files into images of the classes, DICOM files without an image, and others.

    Parameters
    ----------
    folder
        Folder of the files.
    files
        Paths relative to `folder`, sorted.
    classes
        Folders in which images count; None for all.

    Raises
    ------
    FileError
        If a file cannot be read.
    """
    inside = [name for name in files if classes is None or classes.of(name)]
    images = [name for name in inside if is_image(folder / name)]
    empty = without_image([folder / name for name in images])
    kept = [name for name, is_empty in zip(images, empty, strict=True) if not is_empty]
    dropped = [name for name, is_empty in zip(images, empty, strict=True) if is_empty]
    return Images(kept, dropped, sorted({*files} - {*images}))


def find_classes(folder: Path, folders: Sequence[str], nodule: str | None) -> Classes:
    """Find the folders of the two classes, at any one depth.

    Directly in `folder`, they must be the only sub-folders. Deeper down, as below folders named
    after patients, they may have neighbours if their names are a known pair.

    Parameters
    ----------
    folder
        Folder of the data set, for error messages.
    folders
        Paths of all folders below it, relative to it.
    nodule
        Name of the nodules' folder; None to detect it.

    Raises
    ------
    FileError
        If there are no such folders, or they are ambiguous.
    """
    levels: dict[int, set[str]] = {}
    for path in folders:
        levels.setdefault(path.count("/"), set()).add(path.rpartition("/")[2])
    top = levels.get(0, set())
    if top and top <= {*SPLITS}:
        problem = (
            f"{_sub_folders(top)}, expected classes; import each split alone, then join them with "
            "import legacy"
        )
        raise FileError(folder, problem)
    found = [pair for depth, names in levels.items() if (pair := _pair(depth, names, nodule))]
    # Patients and classes may both be numbered; classes that are named tell which is which.
    named = [pair for pair in found if not NUMBERED.fullmatch(_key(pair.nodule))]
    if nodule is None and len(named) > 1:
        shown = " and ".join(f"{printable(c.nodule)}, {printable(c.other)}" for c in named)
        problem = f"found folders of two classes at several depths ({shown}), expected one depth"
        raise FileError(folder, f"{problem} or --nodule NAME")
    if named and nodule is None:
        return named[0]
    if found:
        return min(found, key=lambda pair: pair.depth)
    raise FileError(folder, _no_classes(top, nodule))


def utf8_name(folder: Path, name: str) -> str:
    """Return a file name as UTF-8 text for HDF5 and CSV, independent of the locale.

    Raises
    ------
    FileError
        If the name is not UTF-8.
    """
    try:
        return os.fsencode(name).decode("utf-8")
    except UnicodeDecodeError:
        problem = "found a name that is not UTF-8, expected UTF-8 (convmv renames folders)"
        raise FileError(folder / name, problem) from None


def link_notes(folder: Path, names: Sequence[str]) -> list[str]:
    """Return a note on images outside the folder, which symbolic links lead to."""
    root = os.path.realpath(folder)
    outside = [(name, target) for name in names if (target := _outside(root, folder, name))]
    if not outside:
        return []
    name, target = outside[0]
    example = f"{printable(name)} is {printable(target)}"
    return [f"images outside {printable(folder)}, by links: {len(outside):,}, first {example}"]


def _pair(depth: int, names: set[str], nodule: str | None) -> Classes | None:
    """Return the two classes among the names of the folders at one depth, if any."""
    keys = {name: _key(name) for name in names}
    pairs = [
        (name, other)
        for name in names
        for other in names
        if keys[other] in OTHERS_OF.get(keys[name], ()) and nodule in (None, name)
    ]
    if nodule in names and not pairs and len(names) == 2:
        (other,) = names - {nodule}
        pairs = [(nodule, other)]
    if len(names) > 2 and (depth == 0 or len(pairs) != 1 or _numbered(keys, pairs[0])):
        return None
    return Classes(depth, *pairs[0]) if pairs else None


def _numbered(keys: Mapping[str, str], pair: tuple[str, str]) -> bool:
    """Return whether a pair belongs to a longer series of numbers."""
    return bool(NUMBERED.fullmatch(keys[pair[0]])) and any(
        NUMBERED.fullmatch(key) for name, key in keys.items() if name not in pair
    )


def _key(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def _sub_folders(names: set[str]) -> str:
    shown = ", ".join(map(printable, sorted(names)[:MAX_SHOWN]))
    more = ", ..." if len(names) > MAX_SHOWN else ""
    return f"found {len(names)} sub-folders" + (f" ({shown}{more})" if names else "")


def _no_classes(top: set[str], nodule: str | None) -> str:
    unlabelled = "--unlabelled for images without classes"
    if len(top) != 2:
        return f"{_sub_folders(top)}, expected two, one per class, or {unlabelled}"
    asked = "" if nodule is None else f" and --nodule {printable(nodule)}"
    choices = " or ".join(f"--nodule {printable(name)}" for name in sorted(top))
    return f"{_sub_folders(top)}{asked}, expected {choices}, or {unlabelled}"


def _search(folder: Path, below: str, above: tuple[tuple[int, int], ...], found: Found) -> None:
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
        found.folders.append(name)
        _search(folder, f"{name}/", (*above, this), found)


def _outside(root: str, folder: Path, name: str) -> str:
    target = os.path.realpath(folder / name)
    return "" if target.startswith(f"{root.rstrip(os.sep)}{os.sep}") else target
