"""Bad command-line input: a fast one-line error, exit status 1, and no files left behind."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support import REPOSITORY

HEAVY = ("tensorflow", "keras", "sklearn", "scipy", "matplotlib", "pandas", "dvc", "distributed")

# Runs a module as `python -m` does and reports the heavy modules that it has imported.
WATCHED = f"""\
import atexit, pathlib, runpy, sys
def note():
    found = [name for name in {HEAVY} if name in sys.modules]
    pathlib.Path("imported.txt").write_text(" ".join(found))
atexit.register(note)
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def run(folder: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WATCHED, module, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )


X = np.zeros((40, 50, 50), np.uint8)
HALF = np.arange(40) % 2
LEFT_OUT = {"X": X, "Y": None}
FLOATS = {"X": X.astype(np.float32) + 200, "Y": HALF}
ONE_CLASS = {"X": X, "Y": np.zeros(40)}
NO_TRAIN = {"X": X, "Y": HALF, "split": ["val"] * 40}
ONE_SCAN = {"X": X, "Y": HALF, "group": [1] * 40}


@pytest.mark.parametrize(
    ("data_sets", "command", "sentence"),
    [
        (LEFT_OUT, ["stages.split"], "Y: found X; expected a data set of this name"),
        (ONE_CLASS, ["stages.split"], "found 0 nodules, expected at least one for each of train"),
        (NO_TRAIN, ["stages.split"], "split: found no train and no test, expected train and val"),
        (ONE_SCAN, ["stages.split"], "found 1 groups with a non-nodule, expected at least one for"),
        (FLOATS, ["nodules", "inspect", "mine.h5"], "X: row 0: found 200..200, expected float"),
        (
            LEFT_OUT,
            ["nodules", "import", "legacy", "mine.h5", "mine.h5", "--out", "out.h5"],
            "Y: found X; expected a data set of this name",
        ),
        (
            LEFT_OUT,
            ["nodules", "predict", "mine.h5", "mine.h5", "--out", "out.csv"],
            "not a loadable .keras model (found the suffix .h5, expected .keras)",
        ),
    ],
)
def test_bad_input_is_refused_in_one_line_before_anything_heavy_is_loaded(
    patch_file, tmp_path: Path, data_sets, command: list[str], sentence: str
) -> None:
    patch_file("mine.h5", **data_sets)
    params = (REPOSITORY / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(params.replace("data/phantom.h5", "mine.h5"))
    before = set(tmp_path.rglob("*"))
    result = run(tmp_path, *command)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: mine.h5: {sentence}")
    assert result.stderr.count("\n") == 1
    assert (tmp_path / "imported.txt").read_text() == ""
    assert set(tmp_path.rglob("*")) - before == {tmp_path / "imported.txt"}


def test_a_file_name_cannot_control_the_terminal(tmp_path: Path) -> None:
    name = "a\x1b]0;title\x07\nb.h5"
    (tmp_path / name).write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    for missing in ("", "missing-"):
        done = run(tmp_path, "nodules", "inspect", missing + name)
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: {missing}a\\x1b]0;title\\x07\\nb.h5: ")
        assert done.stderr.removesuffix("\n").isprintable()
