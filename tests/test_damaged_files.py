"""Randomly damaged patch files are read or rejected with a one-line error."""

import ast
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodules.errors import PatchFileError
from nodules.patches.layout import SPLITS
from nodules.patches.reader import open_patches
from tests.support import REPOSITORY

ROWS = 4


@pytest.fixture(scope="module")
def read_apart() -> Iterator[Callable[[Path], str]]:
    """Return a function that reads a file in a separate process and returns the outcome."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.read_apart"],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:

        def read(path: Path) -> str:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{path}\n")
            process.stdin.flush()
            return ast.literal_eval(process.stdout.readline())

        yield read
        assert process.stdin is not None
        process.stdin.close()


def write_compact(path: Path, libver: str) -> bytes:
    """Write a valid file that is mostly metadata: filters, strings, chunks and an attribute."""
    with h5py.File(path, "w", libver=libver) as file:
        patches = np.full((ROWS, 50, 50), 0.5, np.float32)
        filters = {"compression": "gzip", "shuffle": True, "fletcher32": True}
        file.create_dataset("X", data=patches, chunks=(2, 50, 50), **filters)
        file["Y"] = np.eye(2)[[0, 1, 0, 1]]
        file["group"] = ["a", "b", "c", "d"]
        file.create_dataset("split", data=np.full(ROWS, b"train"), maxshape=(None,))
        file["X"].attrs["note"] = "from nowhere"
    return path.read_bytes()


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_a_file_with_changed_bytes_is_read_or_refused_in_one_line(
    tmp_path: Path, libver: str, read_apart: Callable[[Path], str]
) -> None:
    path = tmp_path / "damaged.h5"
    whole = write_compact(path, libver)
    assert read_apart(path) == "read"
    ends: set[str] = set()

    # Most metadata, and so most ways to fail, are at the start of the file.
    places = st.integers(0, 3000) | st.integers(0, len(whole) - 1)
    changes = st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4)

    @settings(max_examples=100)
    @given(changes, st.none() | st.integers(0, len(whole)))
    def damage(changes: list[tuple[int, int]], length: int | None) -> None:
        content = bytearray(whole)
        for place, value in changes:
            content[place] = value
        path.write_bytes(content[:length])
        end = read_apart(path)
        ends.add(end.split()[0])
        # `probe`, which is tested elsewhere, turns crashes into errors.
        assert end == "read" or end.startswith((f"refused {path}: ", "killed "))
        assert end.isprintable()

    damage()
    assert {"read", "refused"} <= ends


def how_it_ends(path: Path) -> str | None:
    """Read and check a file; return the error message, if any."""
    try:
        with open_patches(path) as patches:
            rows = len(patches)
            assert sum(len(block) for _, block in patches.blocks()) == rows > 0
            assert len(patches.labels) == rows
            assert set(patches.labels) <= {0, 1}
            assert patches.groups is None or len(patches.groups) == rows
            assert patches.split is None or set(patches.split) <= set(SPLITS)
    except PatchFileError as error:
        return str(error)
    return None


DTYPES = ["u1", "i1", "u2", "i8", ">f4", "f2", "f8", "c8", "?", "S3", "V4", "i4, f4"]
LENGTHS = st.sampled_from([0, 1, 2, 3, ROWS, 49, 50])
# Limits the size: with all shapes of LENGTHS, 50**4 strings of 3,000 letters would take 19 GB.
MAX_VALUES = 20_000
NAMES = ["X", "Y", "group", "split", "x", "ä\n\x1b[0m", "." * 300]


@st.composite
def values(draw: st.DrawFn) -> Any:
    """Draw the content of a data set name: arrays of any type and shape, or other objects."""
    shape = draw(
        st.sampled_from([(ROWS,), (ROWS, 2), (ROWS, 50, 50), (ROWS, 50, 50, 1), ()])
        | st.lists(LENGTHS, max_size=4)
        .map(tuple)
        .filter(lambda shape: math.prod(shape) <= MAX_VALUES)
    )
    content = draw(st.sampled_from([0, 1, 0.5, np.nan, -np.inf, 255, 2**31]))
    texts = [*SPLITS, "", "\n", "ä", "x" * 3000]
    kind = draw(st.sampled_from(["number", "text", "enum", "reference", "empty", "group"]))
    match kind:
        case "number":
            numbers = np.full(shape, content)
            with np.errstate(all="ignore"):
                return numbers.astype(draw(st.sampled_from(DTYPES)), casting="unsafe")
        case "text":
            return np.full(shape, draw(st.sampled_from(texts)), dtype=h5py.string_dtype())
        case "enum":
            dtype = h5py.enum_dtype({"no": 0, "yes": 1}, basetype="u1")
            return np.ones(shape, dtype=dtype)
        case "reference":
            return np.full(shape, None, dtype=h5py.ref_dtype)
        case "empty":
            return h5py.Empty(draw(st.sampled_from(["u1", "f4"])))
    return None


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_of_another_structure_is_read_or_refused_in_one_line(tmp_path: Path, data) -> None:
    path = tmp_path / "other.h5"
    filters = data.draw(st.sampled_from([{}, {"compression": "gzip"}]))
    content: dict[str, Any] = {
        "X": np.zeros((ROWS, 50, 50), np.uint8),
        "Y": np.array([0, 1, 0, 1]),
    }
    content |= data.draw(st.dictionaries(st.sampled_from(NAMES), values(), max_size=3))
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            if value is None:
                file.create_group(name)
            elif isinstance(value, h5py.Empty) or np.size(value) == 0 or np.ndim(value) == 0:
                file[name] = value
            else:
                file.create_dataset(name, data=value, **filters)
    refusal = how_it_ends(path)
    assert refusal is None or refusal.startswith(f"{path}: ")
    assert refusal is None or refusal.isprintable()
