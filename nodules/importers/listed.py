"""Convert the images of a list with labels to a patch file."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nodules.errors import FileError, NodulesError
from nodules.importers.image_groups import RowBlocks, TableGroups, find_groups
from nodules.importers.image_rows import write_images
from nodules.importers.image_tree import EXPECTED, find_files, link_notes
from nodules.importers.images import is_image
from nodules.importers.label_list import Entry, labels_of, read_lists
from nodules.importers.luna16.tables import irrelevant, read_candidates, read_excluded
from nodules.importers.path_pattern import PathPattern
from nodules.importers.window import Window
from nodules.patches.layout import SPLITS
from nodules.patches.summary import counted
from nodules.system.atomic import check_output
from nodules.system.streams import os_error_text, printable

Columns = dict[str, NDArray]


def import_list(
    folder: Path,
    lists: Sequence[Path],
    out: Path,
    *,
    nodule: str | None = None,
    groups: str | TableGroups | RowBlocks | None = None,
    split: str | None = None,
    published: bool = False,
    excluded: Path | None = None,
    leave_out: Sequence[str] = (),
    window: Window | None = None,
) -> list[str]:
    """Write one patch per listed image, in the order of the lists.

    Parameters
    ----------
    folder
        Folder of the images. Symbolic links are followed.
    lists
        Lists of paths below `folder` and labels, as in `read_lists`.
    out
        Patch file to write, with `X`, `Y`, `file` (the path) and what the next arguments add.
    nodule
        Label of the nodules; None if the labels are 0 and 1.
    groups
        Source of `group`: a regular expression whose first group in parentheses, searched for in
        the path, is the scan or patient; a table; or blocks of rows. By default the column `group`
        of the lists, if they have one. Keys that are row numbers become `candidate`.
    split
        Regular expression whose first group in parentheses, searched for in the path, is the split.
        By default the column `split` of the lists, if they have one.
    published
        Whether to write the split as `published_split`, which only `split.by: published` uses,
        instead of `split`.
    excluded
        LUNA16's table of excluded findings. Adds `irrelevant`, 1 for candidates of class 0 within
        the radius of one. Needs LUNA16's table of candidates as `groups`.
    leave_out
        Paths in the lists to leave out.
    window
        As in `import_folder`.

    Returns
    -------
    list of str
        Summary of what was written, then notes; one line each.

    Raises
    ------
    FileError
        If a list, an image or its path is invalid, or `out` is an input.
    TableError
        If a table is invalid, or has no row of an image.
    NodulesError
        If arguments are invalid or do not fit together.
    """
    if not folder.is_dir():
        raise FileError(folder, "no such folder, expected a folder of images")
    entries = _without(read_lists(lists), leave_out)
    labels = labels_of(entries, nodule)
    texts = [entry.name for entry in entries]
    names = [_image_name(folder, entry) for entry in entries]
    images = [folder / name for name in names]
    tables = [groups.table] if isinstance(groups, TableGroups) else []
    check_output(out, [*lists, *tables, *([] if excluded is None else [excluded]), *images])
    columns: Columns = {"file": np.array(texts, dtype=object)}
    columns |= _groups(folder, entries, groups, labels)
    columns |= _split(folder, entries, split, published=published)
    if excluded is not None:
        columns["irrelevant"] = _irrelevant(excluded, groups, columns)
    unlisted = _unlisted(folder, {*names, *leave_out})
    notes = write_images(out, images, np.array(labels, np.uint8), columns, window)
    if leave_out:
        notes.append(f"images left out on request: {len({*leave_out}):,}")
    if isinstance(groups, RowBlocks):
        notes.append(f"groups are blocks of {groups.rows:,} rows, which stand in for scans")
    if "irrelevant" in columns:
        notes.append(f"irrelevant, in an excluded finding: {columns['irrelevant'].sum():,}")
    nodules = sum(labels)
    others = len(labels) - nodules
    summary = f"{counted(nodules, 'nodule')} and {counted(others, 'other')}"
    return [summary, *notes, *link_notes(folder, names), *unlisted]


def _without(entries: Sequence[Entry], leave_out: Sequence[str]) -> list[Entry]:
    unwanted = {*leave_out}
    kept = [entry for entry in entries if entry.name not in unwanted]
    if missing := unwanted - {entry.name for entry in entries}:
        found = printable(min(missing), 200)
        raise NodulesError(f"--leave-out: found {found}, expected paths in the lists")
    if not kept:
        raise NodulesError("--leave-out: found all images, expected at least one that is left")
    return kept


def _image_name(folder: Path, entry: Entry) -> str:
    """Return the name of an image on this system, checking that it is there."""
    name = os.fsdecode(entry.name.encode())
    path = folder / name
    try:
        exists = path.exists()
    except OSError as error:  # such as a name that is too long
        raise entry.error(f"path: cannot be read ({os_error_text(error)})") from None
    if not exists:
        raise entry.error(f"found no file {printable(path)}, expected an image ({EXPECTED})")
    if path.is_dir() or not is_image(path):
        raise entry.error(f"found {printable(path)}, expected an image ({EXPECTED})")
    return name


def _groups(
    folder: Path,
    entries: Sequence[Entry],
    source: str | TableGroups | RowBlocks | None,
    labels: Sequence[int],
) -> Columns:
    """Return `group`, if there is one, and `candidate`, if there is one."""
    names = [entry.name for entry in entries]
    if isinstance(source, str):
        pattern = PathPattern("--group", source, "the scan or patient")
        return {"group": np.array(pattern.search(folder, names, names), dtype=object)}
    if source is not None:
        found = find_groups(source, folder, names, labels)
        columns: Columns = {"group": np.array(found.groups, dtype=object)}
        return columns if found.rows is None else columns | {"candidate": np.array(found.rows)}
    listed = [entry.group for entry in entries if entry.group is not None]
    return {"group": np.array(listed, dtype=object)} if listed else {}


def _split(
    folder: Path, entries: Sequence[Entry], pattern: str | None, *, published: bool
) -> Columns:
    names = [entry.name for entry in entries]
    if pattern is None:
        found = [entry.split for entry in entries if entry.split is not None]
    else:
        found = PathPattern("--split", pattern, "the split").search(folder, names, names)
        for name, split in zip(names, found, strict=True):
            if split not in SPLITS:
                problem = f"--split found '{printable(split, 60)}'"
                raise FileError(folder / name, f"{problem}, expected one of {', '.join(SPLITS)}")
    if not found and not published:
        return {}
    if not found:
        expected = "expected --split or a column `split` in the lists"
        raise NodulesError(f"--published-split: found no split, {expected}")
    return {"published_split" if published else "split": np.array(found, dtype=object)}


def _irrelevant(
    excluded: Path, groups: str | TableGroups | RowBlocks | None, columns: Columns
) -> NDArray[np.uint8]:
    if not isinstance(groups, TableGroups) or groups.key_column is not None:
        expected = "expected LUNA16's candidates as --table, and the row in it as --key"
        raise NodulesError(f"--excluded: found no positions of the images, {expected}")
    candidates = read_candidates(groups.table).take(columns["candidate"])
    return irrelevant(candidates, read_excluded(excluded)).astype(np.uint8)


def _unlisted(folder: Path, listed: set[str]) -> list[str]:
    """Return a note on the images below the folder that no list has."""
    files = (name for name in find_files(folder).files if name not in listed)
    images = [name for name in files if is_image(folder / name)]
    if not images:
        return []
    return [f"images left out, in no list: {len(images):,}, first {printable(images[0])}"]
