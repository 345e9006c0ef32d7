"""Find the scan of each image in a table, by a key in its path."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from nodules.errors import FileError, TableError
from nodules.importers.csv_table import read_columns
from nodules.importers.path_pattern import PathPattern, printable_name
from nodules.system.streams import printable

MAX_DIGITS = 18  # of a row number, which is stored as int64


@dataclass(frozen=True)
class TableGroups:
    """The group is a column of a table.

    Attributes
    ----------
    key
        Regular expression. Its first group in parentheses, searched for in the path of an image, is
        the key of its row.
    table
        CSV file with a header.
    column
        Column of the group.
    key_column
        Column of the keys; None if they are row numbers (the first after the header is 0).
    label_column
        Column of labels, 0 or 1, which must be those of the images; None to compare nothing.
    """

    key: str
    table: Path
    column: str
    key_column: str | None = None
    label_column: str | None = None


@dataclass(frozen=True)
class RowBlocks:
    """Blocks of consecutive rows of a table stand in for scans; the table itself is not needed.

    Attributes
    ----------
    key
        As in `TableGroups`; a row number.
    rows
        Number of rows per block.
    """

    key: str
    rows: int


class ImageGroups(NamedTuple):
    """Group of each image, and its row in the table; None if the keys are not row numbers."""

    groups: list[str]
    rows: list[int] | None


class _Row(NamedTuple):
    number: int
    group: str
    label: str


def find_groups(
    source: TableGroups | RowBlocks, folder: Path, names: Sequence[str], labels: Sequence[int]
) -> ImageGroups:
    """Return the group of each image.

    Parameters
    ----------
    source
        Where the groups are.
    folder, names
        Images: paths relative to the folder.
    labels
        Label of each image, 0 or 1.

    Raises
    ------
    FileError
        If a path has no key.
    TableError
        If the table cannot be read, has no row of a key, rows of one key with different groups, or
        another label than the image.
    """
    keys = PathPattern("--key", source.key, "the key").search(folder, names, names)
    if isinstance(source, TableGroups) and source.key_column is not None:
        return ImageGroups(_look_up(source, keys, names, labels), None)
    rows = [_row_number(folder / name, key) for name, key in zip(names, keys, strict=True)]
    if isinstance(source, TableGroups):
        return ImageGroups(_look_up(source, [str(row) for row in rows], names, labels), rows)
    firsts = (row - row % source.rows for row in rows)
    return ImageGroups([f"rows {first} to {first + source.rows - 1}" for first in firsts], rows)


def _look_up(
    source: TableGroups, keys: Sequence[str], names: Sequence[str], labels: Sequence[int]
) -> list[str]:
    found, count = _rows(source, {*keys})
    groups = []
    for key, name, label in zip(keys, names, labels, strict=True):
        if key not in found:
            column = source.key_column
            problem = f"found {count:,} rows and no row {key}"
            problem = problem if column is None else f"{column}: found no '{printable(key, 60)}'"
            raise TableError(source.table, f"{problem}, expected it for {printable(name, 200)}")
        row = found[key]
        if source.label_column is not None and row.label != str(label):
            problem = f"{source.label_column}: found '{printable(row.label, 60)}'"
            expected = f"{label} as for {printable(name, 200)}"
            raise TableError(source.table, f"{problem}, expected {expected}", row=row.number)
        groups.append(row.group)
    return groups


def _rows(source: TableGroups, keys: set[str]) -> tuple[dict[str, _Row], int]:
    """Return the rows of these keys, and the number of rows of the table."""
    columns = [source.column, source.label_column, source.key_column]
    rows = read_columns(source.table, [column for column in columns if column is not None])
    found: dict[str, _Row] = {}
    number = -1
    for number, fields in enumerate(rows):
        key = str(number) if source.key_column is None else fields[-1].strip()
        if key not in keys:
            continue
        group = printable_name(source.table, fields[0].strip(), f"row {number}: {source.column}:")
        label = "" if source.label_column is None else fields[1].strip()
        row = found.setdefault(key, _Row(number, group, label))
        if row[1:] != (group, label):
            problem = f"{source.key_column}: found '{printable(key, 60)}' again, as in row"
            problem = f"{problem} {row.number}, with another group or label"
            raise TableError(source.table, f"{problem}, expected one row per key", row=number)
    return found, number + 1


def _row_number(image: Path, key: str) -> int:
    if not (key.isascii() and key.isdecimal() and len(key) <= MAX_DIGITS):
        raise FileError(image, f"--key found '{printable(key, 60)}', expected a row number")
    return int(key)
