"""Read text and CSV files that users provide."""

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path

from nodules.errors import TableError
from nodules.system.regular_file import open_regular
from nodules.system.streams import os_error_text, printable

# Longer lines are in no table; memory is bounded, whatever the file is.
MAX_LINE = 2**22


@contextmanager
def open_text(path: Path, expected: str = "a CSV file") -> Iterator[Iterator[str]]:
    """Open a UTF-8 text file, with or without a byte order mark, to read it line by line.

    Parameters
    ----------
    path
        File.
    expected
        What it should be, for the error message.

    Raises
    ------
    TableError
        If the file cannot be read or, in the block, turns out not to be UTF-8 or CSV, or to have
        a line of over 4 million characters.
    """
    try:
        with TextIOWrapper(open_regular(path), encoding="utf-8-sig", newline="") as file:
            yield _lines(path, file)
    except OSError as error:
        problem = f"cannot be read ({os_error_text(error)}), expected {expected}"
        raise TableError(path, problem) from None
    except UnicodeDecodeError:
        raise TableError(path, "found no CSV text (bytes that are not UTF-8)") from None
    except csv.Error as error:
        raise TableError(path, f"found no CSV text ({error})") from None


def read_columns(path: Path, names: Sequence[str]) -> Iterator[list[str]]:
    """Yield some columns of a CSV file with a header, row by row.

    Parameters
    ----------
    path
        CSV file.
    names
        Columns, in the order of the results. The file may have others.

    Raises
    ------
    TableError
        If the file cannot be read, a column is missing, a row has another number of fields than the
        header, or there are no rows; or if a column occurs twice.
    """
    with open_text(path) as text:
        lines = (fields for fields in csv.reader(text, strict=True) if fields)
        header = [name.strip() for name in next(lines, [])]
        if not {*names} <= {*header}:
            columns = printable(", ".join(header), 200)
            found = f"found the columns {columns}" if header else "found an empty file"
            raise TableError(path, f"{found}, expected {', '.join(names)}")
        places = [place_of(path, header, name) for name in names]
        row = -1
        for row, fields in enumerate(lines):
            if len(fields) != len(header):
                problem = f"found {len(fields)} fields, expected {len(header)} as in the header"
                raise TableError(path, problem, row=row)
            yield [fields[place] for place in places]
        if row < 0:
            raise TableError(path, "found no rows after the header, expected at least one")


def place_of(path: Path, header: Sequence[str], name: str) -> int:
    """Return the index of a column; raise TableError if the header has it twice."""
    if header.count(name) > 1:
        raise TableError(path, f"found {header.count(name)} columns {name}, expected one")
    return header.index(name)


def _lines(path: Path, file: TextIOWrapper) -> Iterator[str]:
    while line := file.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise TableError(
                path, f"found a line of {MAX_LINE:,} characters or more, expected text"
            )
        yield line
