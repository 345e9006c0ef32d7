"""The tables of predicted probabilities: CSV files that anybody can score again."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TextIO

import numpy as np
from numpy.typing import NDArray

from nodules.atomic import replacing
from nodules.patches import Groups, Labels

# Of data/predictions.csv.
COLUMNS = ("split", "index", "group", "label", "probability")


class _Table(Protocol):
    def writerow(self, row: Iterable[object], /) -> object: ...


@contextmanager
def new_table(path: Path, columns: Sequence[str]) -> Iterator[_Table]:
    """Make a CSV file with a header, which appears under its name when the block ends well."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = _TableFile(file)
        table.writerow(columns)
        yield table


class _TableFile:
    """Writes the rows of a CSV file.

    Python's writer leaves a carriage return unquoted unless it ends lines, and its reader takes it
    for the end of a line then.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._line = io.StringIO(newline="")
        self._writer = csv.writer(self._line, lineterminator="\r\n")

    def writerow(self, row: Iterable[object], /) -> None:
        self._writer.writerow(row)
        self._file.write(self._line.getvalue().removesuffix("\r\n") + "\n")
        self._line.seek(0)
        self._line.truncate()


def probability_text(probability: float) -> str:
    """Print a probability so that reading it as a double gives the very number that was scored."""
    return repr(float(probability))


def write_split(
    table: _Table,
    split: str,
    index: NDArray[np.integer],
    groups: Groups | None,
    labels: Labels,
    probabilities: NDArray[np.floating],
) -> None:
    """Append a split's predictions: `split,index,group,label,probability`.

    Parameters
    ----------
    table
        From `new_table`.
    split
        Its name.
    index
        (N,) rows in the data set that was split.
    groups
        (N,); None leaves the column empty.
    labels, probabilities
        (N,) each.
    """
    named = [""] * len(labels) if groups is None else groups
    for row in zip(index, named, labels, probabilities, strict=True):
        table.writerow((split, *row[:3], probability_text(row[3])))
