"""Standard streams that are closed, full or unread, and unprintable names."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from nodules.commands.next_steps import hydra_word, shell_word
from nodules.system.atomic import write_json
from nodules.system.exits import outside_problem
from tests.support import REPOSITORY
from tests.support.requirements import needs

PYTHON = f'"{sys.executable}" -m nodules'
FULL = "standard output: cannot be written: no space left on device"
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
needs_full_device = needs(Path("/dev/full").exists(), "only Linux has /dev/full")


@pytest.fixture
def patches(patch_file, random_patches) -> Path:
    return patch_file(X=random_patches(4), Y=[0, 1, 0, 1], group=["ä", "ä", "b", "b"])


def bash(
    script: str, *arguments: str | bytes | Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a bash script; `nodules` is the command, and $1, $2, ... are the arguments."""
    return subprocess.run(
        ["bash", "-c", script.replace("nodules", PYTHON), "bash", *map(os.fsencode, arguments)],
        cwd=REPOSITORY,
        env=os.environ | environment,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        check=False,
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ['inspect "$1"', "--help", "compare --help"])
def test_a_pipe_that_nobody_reads_ends_a_command_quietly(
    patches: Path, command: str, unbuffered: str
) -> None:
    # `sleep` gives the reader time to end; the exit status is the usual one for a closed pipe.
    script = f"(sleep 0.5; nodules {command}; echo $? >&2) | true"
    result = bash(script, patches, PYTHONUNBUFFERED=unbuffered)
    assert (result.stderr, result.stdout) == ("141\n", "")


@needs_full_device
def test_a_full_standard_output_is_one_line(patches: Path) -> None:
    result = bash('nodules inspect "$1" >/dev/full', patches)
    assert (result.returncode, result.stderr) == (1, f"error: {FULL}\n")


def test_an_error_is_printed_even_if_nobody_reads_the_output(tmp_path: Path) -> None:
    result = bash('(nodules inspect "$1"; echo $? >&2) | true', tmp_path / "none.h5")
    error, status = result.stderr.splitlines()
    assert error.startswith(f"error: {tmp_path}/none.h5: no such file")
    assert status == "1"


@pytest.mark.parametrize(
    "redirection",
    ["2>&-", "<&- >&- 2>&-", pytest.param("2>/dev/full", marks=needs_full_device)],
)
def test_work_is_done_even_if_progress_cannot_be_printed(
    patches: Path, tmp_path: Path, redirection: str
) -> None:
    """The output file must not take the descriptor of a closed stream."""
    out = tmp_path / "out.h5"
    assert bash(f'nodules import hdf5 "$1" --out "$2" {redirection}', patches, out).returncode == 0
    with h5py.File(out) as made, h5py.File(patches) as source:
        assert np.array_equal(made["X"], source["X"])


def test_an_output_is_complete_even_if_nobody_reads_stdout(patches: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.h5"
    script = '(sleep 0.5; nodules import hdf5 "$1" --out "$2" 2>/dev/null; echo $? >&2) | true'
    assert bash(script, patches, out).stderr == "141\n"
    with h5py.File(out) as made:
        assert made["X"].shape == (4, 50, 50)
    assert {path.name for path in tmp_path.iterdir()} == {"out.h5", "patches.h5"}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"-a\x1b[31mb\nc M\xfcller\xe2\x80\xae.h5", r"-a\x1b[31mb\nc M\xfcller\u202e.h5"),
    ],
)
def test_a_message_about_any_name_is_one_printable_line(
    patches: Path, tmp_path: Path, name: bytes, shown: str
) -> None:
    path = os.fsencode(tmp_path) + b"/" + name
    result = bash('nodules inspect "$1"', path)
    expected = "no such file, expected a patch file (HDF5)"
    assert result.stderr == f"error: {tmp_path}/{shown}: {expected}\n"
    # The same file, damaged: the message may come from the probe process.
    Path(os.fsdecode(path)).write_bytes(b"no HDF5")
    result = bash('nodules inspect "$1"', path)
    assert result.stderr.startswith(f"error: {tmp_path}/{shown}: not a readable HDF5 file")
    assert result.stderr.count("\n") == 1
    # A valid file with such a name is read and written.
    result = bash('nodules import hdf5 "$1" --out "$2" 2>/dev/null', patches, path)
    assert result.returncode == 0
    assert f"wrote {tmp_path}/{shown}: " in result.stdout
    assert all(line.isprintable() for line in result.stdout.splitlines())
    assert bash('nodules inspect "$1"', path).stdout.startswith(f"{tmp_path}/{shown}: ")


def test_a_wrong_command_line_cannot_control_the_terminal() -> None:
    result = bash('nodules inspect a "$1"', "\x1b[31mb")
    assert result.returncode == 2
    assert result.stderr.endswith("error: unrecognized arguments: \\x1b[31mb\n")


def test_an_ascii_locale_changes_no_output(patches: Path, tmp_path: Path) -> None:
    for environment, name in ({}, "utf-8.h5"), (ASCII, "ascii.h5"):
        script = 'nodules inspect "$1" && nodules import hdf5 "$1" --out "$2" 2>/dev/null'
        named = patches.rename(tmp_path / "ä.h5") if patches.exists() else tmp_path / "ä.h5"
        result = bash(script, named, tmp_path / name, **environment)
        assert result.returncode == 0, result.stderr
    assert (tmp_path / "ascii.h5").read_bytes() == (tmp_path / "utf-8.h5").read_bytes()
    assert "ä.h5: a patch file" not in result.stdout
    assert r"\xc3\xa4.h5: a patch file" in result.stdout


def test_every_text_file_is_opened_with_its_encoding() -> None:
    """Checked by a ruff rule; file contents must not depend on the locale."""
    command = [sys.executable, "-m", "ruff", "check", "--quiet", "--select", "PLW1514", "."]
    assert subprocess.run(command, cwd=REPOSITORY, check=False).returncode == 0


def test_a_name_becomes_one_word_of_a_shell_command(tmp_path: Path) -> None:
    for name in ("a b", "it's", "-n", "$x", 'a"b\\', "é\n\x1b", os.fsdecode(b"M\xfcller")):
        result = bash(f"printf '%s' {shell_word(name)} | od -An -tx1")
        found = bytes.fromhex("".join(result.stdout.split()))
        assert found.removeprefix(b"./") == os.fsencode(name)


@pytest.mark.parametrize(
    "name", ["data/my set (1).h5", "結節.h5", "a,b=2.h5", "[1]{x}.h5", 'a"b\\"c\\', "true", "12"]
)
def test_a_path_is_the_value_that_dvc_reads(name: str) -> None:
    override = OverridesParser.create().parse_override(f"dataset={hydra_word(name)}")
    assert str(override.value()) == name


# --- memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
        ImportError("libx.so: failed to map segment from shared object"),
        RuntimeError("can't start new thread"),
    ],
)
def test_out_of_memory_is_one_sentence(error: Exception) -> None:
    problem = outside_problem(error)
    assert problem is not None
    assert problem.startswith("out of memory")


def test_a_bug_is_not_reported_as_a_system_error() -> None:
    for error in (RecursionError("maximum recursion depth exceeded"), KeyError("x"), OSError("x")):
        assert outside_problem(error) is None


@pytest.mark.parametrize(("stage", "kilobytes"), [("train", 1_000_000), ("evaluate", 300_000)])
def test_a_memory_limit_too_low_for_tensorflow_is_one_line(
    tmp_path: Path, stage: str, kilobytes: int
) -> None:
    script = f'ulimit -v {kilobytes} && cd "$1" && exec "{sys.executable}" -m stages.{stage}'
    result = bash(script, tmp_path, PYTHONPATH=str(REPOSITORY))
    assert result.returncode == 1
    assert result.stderr == (
        f"error: found a limit of {kilobytes:,} kB (`ulimit -v`), expected at least 2,000,000, "
        "which TensorFlow reserves\n"
    )


def test_no_folder_for_temporary_files_is_one_sentence() -> None:
    error = FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")
    problem = outside_problem(error)
    assert problem is not None
    assert "TMPDIR" in problem


def test_a_file_of_somebody_else_is_one_line(tmp_path: Path, unprivileged: None) -> None:
    assert outside_problem(PermissionError(13, "Permission denied", "x.h5")) == (
        "x.h5: Permission denied"
    )
    with pytest.raises(Exception, match="cannot be"):
        write_json(Path("/root/x/y.json"), 1)
