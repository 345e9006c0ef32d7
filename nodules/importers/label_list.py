"""Read lists of images with labels: CSV with a header, or lines of `path label`."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath

from nodules.errors import FileError
from nodules.importers.csv_table import open_text, place_of
from nodules.patches.hdf5_texts import MAX_CHARACTERS
from nodules.patches.layout import SPLITS
from nodules.system.streams import printable

COLUMNS = ("path", "label", "group", "split")
EXPECTED = "`path label`, or CSV whose header has path and label"
DELIMITERS = (",", ";", "\t")
MAX_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of a list.

    Attributes
    ----------
    source, line
        List and line number, from 1.
    name
        Path of the image, relative to the folder of the images.
    label
        Label as the list has it.
    group, split
        Scan or patient, and split; None if the list has no such column.
    """

    source: Path
    line: int
    name: str
    label: str
    group: str | None = None
    split: str | None = None

    def error(self, problem: str) -> FileError:
        """Return an error in this line."""
        return _error(self.source, self.line, problem)


def read_lists(lists: Sequence[Path]) -> list[Entry]:
    """Read lists of images, in the order of their lines.

    Parameters
    ----------
    lists
        UTF-8 text files. If the first line holds the names `path` and `label`, separated by commas,
        semicolons or tabs, the file is CSV, with optional columns `group` and `split`. Otherwise
        each line is a path, white space and a label.

    Raises
    ------
    TableError
        If a list cannot be read, or has a column twice.
    FileError
        If a list has no entries or lacks a column that others have; if a line has
        no path, label, group or one of `SPLITS`, over 1,024 characters in one of them, a group that
        is not printable, a path that is absolute or leads out of the folder, or the path of an
        earlier line.
    """
    entries: list[Entry] = []
    first: dict[str, Entry] = {}
    for source in lists:
        before = len(entries)
        for entry in _read(source):
            known = first.setdefault(entry.name, entry)
            if known is not entry:
                place = f"line {known.line}"
                place = place if known.source == source else f"{known.source}: {place}"
                raise entry.error(f"found {_quoted(entry.name)} again, as in {place}")
            entries.append(entry)
        if len(entries) == before:
            raise FileError(source, f"found no images, expected lines of {EXPECTED}")
        for column in ("group", "split"):
            if (getattr(entries[0], column) is None) != (getattr(entries[-1], column) is None):
                raise FileError(source, f"{column}: expected this column in all lists or in none")
    return entries


def labels_of(entries: Sequence[Entry], nodule: str | None) -> list[int]:
    """Return the label of each image, 1 for a nodule.

    Parameters
    ----------
    entries
        Images of the lists.
    nodule
        Label of the nodules; only one other label may occur. None if the labels are 0 and 1.

    Raises
    ------
    FileError
        If a label is another one.
    """
    if nodule is None:
        names, expected = ("0", "1"), "0 or 1, or --nodule NAME for other labels"
    else:
        other = next((entry.label for entry in entries if entry.label != nodule), "")
        names, expected = (other, nodule), f"{printable(nodule)} or {printable(other)}"
    for entry in entries:
        if entry.label not in names:
            raise entry.error(f"label: found {_quoted(entry.label)}, expected {expected}")
    if nodule is not None and all(entry.label != nodule for entry in entries):
        found = _quoted(entries[0].label)
        raise entries[0].error(f"label: found {found}, expected --nodule {printable(nodule)} once")
    return [names.index(entry.label) for entry in entries]


def _read(source: Path) -> Iterator[Entry]:
    with open_text(source, "a list of images") as lines:
        header = next(lines, "")
        lines = chain([header], lines)
        for delimiter in DELIMITERS:
            names = next(csv.reader([header], delimiter=delimiter), [])
            if {"path", "label"} <= {name.strip() for name in names}:
                yield from _csv_entries(source, lines, delimiter)
                return
        yield from _text_entries(source, lines)


def _csv_entries(source: Path, lines: Iterable[str], delimiter: str) -> Iterator[Entry]:
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    header = [name.strip() for name in next(rows)]
    places = {name: place_of(source, header, name) for name in COLUMNS if name in header}
    line = rows.line_num
    for row in rows:
        number, line = line + 1, rows.line_num  # the first line of a row with line ends
        if not row:
            continue
        if len(row) != len(header):
            problem = f"found {len(row)} fields, expected {len(header)} as in the header"
            raise _error(source, number, problem)
        yield _entry(source, number, {name: row[at].strip() for name, at in places.items()})


def _text_entries(source: Path, lines: Iterable[str]) -> Iterator[Entry]:
    for number, line in enumerate(lines, 1):
        words = line.rsplit(maxsplit=1)
        if not words:
            continue
        if len(words) == 1:
            raise _error(source, number, f"found {_quoted(words[0])}, expected {EXPECTED}")
        yield _entry(source, number, {"path": words[0].strip(), "label": words[1]})


def _entry(source: Path, line: int, fields: dict[str, str]) -> Entry:
    for name, text in fields.items():
        if not text:
            raise _error(source, line, f"{name}: found nothing, expected one for each image")
        if len(text) > MAX_CHARACTERS:
            problem = f"found {len(text):,} characters, expected at most {MAX_CHARACTERS:,}"
            raise _error(source, line, f"{name}: {problem}")
    path = PurePosixPath(fields.pop("path"))
    if path.is_absolute() or ".." in path.parts or "\0" in str(path):
        problem = f"found {_quoted(str(path))}, expected a path within the folder of the images"
        raise _error(source, line, f"path: {problem}")
    if not fields.get("group", "").isprintable():
        problem = f"found {_quoted(fields['group'])}, expected a printable name"
        raise _error(source, line, f"group: {problem}")
    split = fields.get("split", SPLITS[0])
    if split not in SPLITS:
        problem = f"found {_quoted(split)}, expected one of {', '.join(SPLITS)}"
        raise _error(source, line, f"split: {problem}")
    return Entry(source, line, str(path), **fields)


def _error(source: Path, line: int, problem: str) -> FileError:
    return FileError(source, f"line {line}: {problem}")


def _quoted(text: str) -> str:
    return f"'{printable(text, MAX_SHOWN)}'"
