"""CSV tables of predicted probabilities, from which all metrics can be recomputed.

Group names come from users' data. A cell that a spreadsheet would execute as a formula is prefixed
with an apostrophe, which `group_of` removes.
"""

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TextIO

import numpy as np
from numpy.typing import NDArray

from nodules.patches.layout import Groups, Labels
from nodules.system.atomic import replacing

# Columns of data/predictions.csv. Those of `SOURCES` that the data set has follow.
COLUMNS = ("split", "index", "group", "label", "probability")


# Text that spreadsheets interpret as a formula, even after spaces, including the full-width signs
# of East Asian keyboards. Numbers are not formulas: -1 is not changed.
_FORMULA = re.compile(r"'*\s*[=+\-@\uff1d\uff0b\uff0d\uff20\t\r\n]")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


class _Table(Protocol):
    def writerows(self, rows: Iterable[Iterable[object]], /) -> object: ...


@contextmanager
def new_table(path: Path, columns: Sequence[str]) -> Iterator[_Table]:
    """Write a CSV file with a header; it replaces `path` if the block succeeds."""
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        table = csv.writer(_Lines(file), lineterminator="\r\n")
        table.writerow(columns)
        yield table


class _Lines:
    """A file with line-feed line endings whose writer still quotes carriage returns in cells.

    Before Python 3.13, the writer quotes only those that occur in its own line endings.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, line: str) -> int:
        return self._file.write(line.removesuffix("\r\n") + "\n")


def group_cell(group: object) -> str:
    """Return the cell of a group: its name, with an apostrophe if it looks like a formula.

    Examples
    --------
    >>> group_cell("scan-1"), group_cell(-1), group_cell("=1+1"), group_cell("'=1+1")
    ('scan-1', '-1', "'=1+1", "''=1+1")
    """
    name = str(group)
    return f"'{name}" if _looks_like_formula(name) else name


def group_cells(groups: Groups | None, count: int) -> Iterable[str]:
    """Return the cells of the groups of `count` patches; empty ones if there are no groups."""
    return [""] * count if groups is None else map(group_cell, groups)


def group_of(cell: str) -> str:
    """Return the group that `group_cell` wrote.

    Examples
    --------
    >>> group_of("'=1+1"), group_of("''=1+1"), group_of("'quoted'")
    ('=1+1', "'=1+1", "'quoted'")
    """
    return cell[1:] if cell.startswith("'") and _looks_like_formula(cell[1:]) else cell


def _looks_like_formula(name: str) -> bool:
    return bool(_FORMULA.match(name)) and not _NUMBER.fullmatch(name)


def probability_text(probability: float) -> str:
    """Return the text of a probability that reads back as exactly the same double."""
    return repr(float(probability))


def write_split(
    table: _Table,
    split: str,
    index: NDArray[np.integer],
    groups: Groups | None,
    labels: Labels,
    probabilities: NDArray[np.floating],
    sources: Mapping[str, NDArray] | None = None,
) -> None:
    """Append a split's predictions: `split,index,group,label,probability` and its sources.

    Parameters
    ----------
    table
        Table of `new_table`.
    split
        Name of the split.
    index
        (N,) rows in the data set that was split.
    groups
        (N,) groups; None leaves the column empty.
    labels, probabilities
        (N,) each.
    sources
        (N,) each: further columns, in the order of the table.
    """
    columns = [
        [split] * len(labels),
        index,
        group_cells(groups, len(labels)),
        labels,
        map(probability_text, probabilities),
        *(map(group_cell, column) for column in (sources or {}).values()),
    ]
    table.writerows(zip(*columns, strict=True))


def source_name(file: str, candidate: str) -> str:
    """Return a short name of a patch in its user's data, from the cells of its sources.

    Examples
    --------
    >>> source_name("nodule/p1/slice_07.png", ""), source_name("", "512"), source_name("", "")
    ('slice_07.png', 'candidate 512', '')
    """
    if file:
        return file.rstrip("/").rpartition("/")[2]
    return f"candidate {candidate}" if candidate else ""
