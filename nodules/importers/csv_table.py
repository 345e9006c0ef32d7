"""Read text and CSV files that users provide."""

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

from nodules.errors import TableError
from nodules.system.regular_file import open_regular
from nodules.system.streams import os_error_text, printable


@contextmanager
def open_text(path: Path, expected: str = "a CSV file") -> Iterator[TextIO]:
    """Open a UTF-8 text file, with or without a byte order mark.

    Parameters
    ----------
    path
        File.
    expected
        What it should be, for the error message.

    Raises
    ------
    TableError
        If the file cannot be read or, in the block, turns out not to be UTF-8 or CSV.
    """
    try:
        with TextIOWrapper(open_regular(path), encoding="utf-8-sig", newline="") as file:
            yield file
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
        header, or there are no rows.
    """
    with open_text(path) as file:
        lines = (fields for fields in csv.reader(file) if fields)
        header = [name.strip() for name in next(lines, [])]
        if not {*names} <= {*header}:
            columns = printable(", ".join(header), 200)
            found = f"found the columns {columns}" if header else "found an empty file"
            raise TableError(path, f"{found}, expected {', '.join(names)}")
        places = [header.index(name) for name in names]
        row = -1
        for row, fields in enumerate(lines):
            if len(fields) != len(header):
                problem = f"found {len(fields)} fields, expected {len(header)} as in the header"
                raise TableError(path, problem, row=row)
            yield [fields[place] for place in places]
        if row < 0:
            raise TableError(path, "found no rows after the header, expected at least one")
