"""Read strings of HDF5 files with bounded memory: HDF5 allocates any length that one declares."""

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from nodules.errors import PatchFileError
from nodules.patches.hdf5_file import read_rows, reading
from nodules.patches.hdf5_storage import StoredArray

# Groups are names. All rows may refer to one string, so a small file could hold terabytes.
MAX_CHARACTERS = 1024
MAX_FIXED_BYTES = 2**14
ROWS_AT_ONCE = 4096
HOLDS_NUL = "found a text with a NUL character, expected a name"


def is_text(array: StoredArray) -> bool:
    """Return whether a data set holds strings."""
    return h5py.check_string_dtype(array.data.dtype) is not None


def read_texts(path: Path, name: str, array: StoredArray) -> NDArray[np.object_]:
    """Read a data set of strings.

    Parameters
    ----------
    path, name
        File and data set, for error messages.
    array
        (N,) strings of fixed or variable length.

    Returns
    -------
    (N,) str objects
        Equal strings are one object, so a small file takes little memory.

    Raises
    ------
    PatchFileError
        If the file is damaged, or a string is not UTF-8, has more than 1,024 characters, or holds
        a NUL character, which HDF5 never writes into a variable-length string.
    """
    lengths = _text_lengths(path, name, array)
    compact = not len(array.pieces.offsets)
    step = 1 if compact and lengths is None else ROWS_AT_ONCE
    texts = np.empty(len(array), dtype=object)
    known: dict[bytes, str] = {}
    for start in range(0, len(array), step):
        with reading(path, name):
            encoded = array.data[start : start + step].tolist()
        for row, each in enumerate(encoded, start):
            if each not in known:
                known[each] = _decoded(path, name, row, each)
            # HDF5 reads up to a NUL. Some writers end each string with one and count it.
            if lengths is not None and lengths[row] > len(each) + 1:
                raise PatchFileError(path, HOLDS_NUL, dataset=name, row=row)
            texts[row] = known[each]
    return texts


def check_text(path: Path, name: str, row: int, text: str) -> None:
    """Check that a string is short enough for a name and that HDF5 can store it.

    Raises
    ------
    PatchFileError
        If the string has more than 1,024 characters, or holds a NUL character.
    """
    problem = ""
    if len(text) > MAX_CHARACTERS:
        problem = f"found a text of {len(text):,} characters, expected at most {MAX_CHARACTERS:,}"
    elif "\0" in text:
        problem = HOLDS_NUL
    if problem:
        raise PatchFileError(path, problem, dataset=name, row=row)


def _decoded(path: Path, name: str, row: int, encoded: bytes) -> str:
    try:
        text = encoded.decode()
    except UnicodeDecodeError:
        problem = "found bytes that are not UTF-8 text"
        raise PatchFileError(path, problem, dataset=name, row=row) from None
    check_text(path, name, row, text)
    return text


def _text_lengths(path: Path, name: str, array: StoredArray) -> NDArray[np.uint32] | None:
    """Check the lengths of the strings before HDF5 reads any; return them in bytes if known."""
    fixed = h5py.check_string_dtype(array.data.dtype).length
    if fixed is not None:
        if fixed > MAX_FIXED_BYTES:
            problem = f"found texts of {fixed:,} bytes, expected at most {MAX_FIXED_BYTES:,}"
            raise PatchFileError(path, problem, dataset=name)
        with reading(path, name):
            array.check()
        return None
    if not len(array.pieces.offsets):
        return None
    lengths = read_rows(path, name, array)["bytes"]
    row = int(lengths.argmax())
    if lengths[row] > 4 * MAX_CHARACTERS + 1:  # UTF-8 takes up to 4 bytes per character
        with reading(path, name):
            _decoded(path, name, row, array.data[row])
    return lengths
