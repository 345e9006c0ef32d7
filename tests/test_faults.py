"""Signals, bad disks, damaged files and concurrent runs: one-line errors, no data loss."""

import dataclasses
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.kills import SMALL
from benchmarks.repository_copy import RepositoryCopy
from nodules.errors import FileError
from nodules.evaluation.evaluate import EvaluationFiles, evaluate
from nodules.splitting.params import SplitParams
from nodules.splitting.split import split_patches
from nodules.system.exits import one_line_errors
from nodules.training.train import TrainingFiles, train
from tests.support.limits import max_file_size
from tests.support.small_training import (
    CHECKPOINTS,
    REPOSITORY,
    StopIn,
    small_params,
    write_discs,
    write_training_files,
)

PATIENCE = 300  # seconds, for operations that take one second on an idle machine


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingFiles:
    # dvclive searches parent folders for a repository and must not find this one.
    monkeypatch.chdir(tmp_path)
    return dataclasses.replace(write_training_files(tmp_path), checkpoints=tmp_path / CHECKPOINTS)


def wait_for(condition: Callable[[], object], process: subprocess.Popen) -> None:
    """Wait until a condition holds, while a process runs."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, "ended before"
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def one_error(text: str) -> str:
    """Return the single error line of an error output."""
    assert "Traceback" not in text, text
    assert "Exception ignored" not in text, text
    (line,) = [line for line in text.splitlines() if line.startswith("error: ")]
    return line


# --- signals


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Enable SIGINT here and in child processes, even if the parent shell ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Signal(StopIn):
    """Sends a signal to this process."""

    def __init__(self, number: signal.Signals, epoch: int, step: int) -> None:
        super().__init__(epoch, step)
        self._number = number

    def stop(self) -> None:
        os.kill(os.getpid(), self._number)


@pytest.mark.usefixtures("ctrl_c")
def test_signals_end_a_training_in_one_line_that_says_where_it_resumes(
    files: TrainingFiles, capfd: pytest.CaptureFixture[str]
) -> None:
    params = small_params(epochs=4, ghost_batches=1)
    for number, epoch, status, name, rest in (
        (signal.SIGTERM, 1, 143, "SIGTERM", "restarts from scratch"),
        (signal.SIGINT, 3, 130, "Ctrl-C", "resumes after epoch 2"),
    ):
        with pytest.raises(SystemExit) as exit_, one_line_errors():
            train(params.chosen_training, files, [Signal(number, epoch, step=3)])
        assert exit_.value.code == status
        assert one_error(capfd.readouterr().err) == (
            f"error: stopped by {name}; training was in epoch {epoch} of 4; `dvc repro` {rest}"
        )
    assert not files.model.exists()


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize(
    ("number", "status", "name"), [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "Ctrl-C")]
)
def test_a_signal_while_a_stage_imports_its_libraries_is_one_line(
    number: signal.Signals, status: int, name: str
) -> None:
    code = "import stages, time; print('ready', flush=True); time.sleep(600)"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == status
    assert errors == f"error: stopped by {name}\n"


def test_a_second_sigterm_does_not_cut_the_unwinding_short(
    capsys: pytest.CaptureFixture[str],
) -> None:
    unwound = []
    before = signal.getsignal(signal.SIGTERM)

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            unwound.append(True)

    with pytest.raises(SystemExit), one_line_errors():
        work()
    assert unwound
    assert capsys.readouterr().err == "error: stopped by SIGTERM\n"
    assert signal.getsignal(signal.SIGTERM) == before


def test_sigterm_in_a_stage_leaves_no_temporary_file(tmp_path: Path) -> None:
    params = (REPOSITORY / "params.yaml").read_text()
    assert "scans: 160" in params
    (tmp_path / "params.yaml").write_text(params.replace("scans: 160", "scans: 100000"))
    data = tmp_path / "data"
    with subprocess.Popen(
        [sys.executable, "-m", "stages.phantom"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_for(lambda: list(data.glob("*") if data.exists() else []), process)
        process.terminate()
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143
    assert one_error(errors) == "error: stopped by SIGTERM"
    assert list(data.iterdir()) == []


def test_libraries_that_lose_interruptions_on_import_are_imported_first() -> None:
    code = """
import sys
import numpy as np
from tqdm import tqdm
from nodules.system.signals import raised_interruptions
with raised_interruptions():
    before = set(sys.modules)
    np.fft.fft2(np.random.default_rng(0).random((2, 2)))
    tqdm(total=1).close()
    print(sorted(set(sys.modules) - before))
"""
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a process that its parent has died"
)
def test_a_stage_ends_when_the_dvc_that_runs_it_is_killed() -> None:
    """Simulates DVC with a process that starts a stage and is killed."""
    child = "import stages, os, time; print(os.getpid(), flush=True); time.sleep(600)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", parent],
        cwd=REPOSITORY,
        env=os.environ | {"DVC_STAGE": "train"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline())
        process.kill()
        # The pipe closes when the stage, which also holds it, has ended.
        _, errors = process.communicate(timeout=PATIENCE)
    assert errors == "error: stopped by SIGTERM\n"


# --- disks


class FillDisk(StopIn):
    """Lets no file grow beyond a size that a checkpoint exceeds."""

    def __init__(self, epoch: int, stack: ExitStack) -> None:
        super().__init__(epoch)
        self._stack = stack

    def stop(self) -> None:
        self._stack.enter_context(max_file_size(20_000))


def test_a_full_disk_is_one_line_and_the_training_resumes_when_there_is_room(
    files: TrainingFiles, capfd: pytest.CaptureFixture[str]
) -> None:
    params = small_params(epochs=3, ghost_batches=1)
    with ExitStack() as stack, pytest.raises(SystemExit) as exit_, one_line_errors():
        train(params.chosen_training, files, [FillDisk(1, stack)])
    assert exit_.value.code == 1
    line = one_error(capfd.readouterr().err)
    assert f"error: {files.checkpoints}" in line
    assert "cannot be written: file too large" in line
    assert line.endswith("`dvc repro` resumes after epoch 1")
    rest = StopIn(99)
    train(params.chosen_training, files, [rest])
    assert rest.epochs == [2, 3]

    # The same model is evaluated on a full disk.
    folder = files.train.parent
    write_discs(folder / "discs.h5", 60, seed=3)
    split_patches(
        folder / "discs.h5",
        folder / "splits",
        SplitParams(
            by="group", train=0.4, val=0.3, test=0.3, near_duplicates="report", irrelevant="keep"
        ),
        seed=1,
    )
    full = folder / "full"
    evaluation = EvaluationFiles(
        files.model, folder / "splits", full / "log", full / "plots", full / "predictions.csv"
    )
    capfd.readouterr()
    for size in (1000, 20_000):  # of a curve, and of a picture
        with max_file_size(size), pytest.raises(SystemExit) as exit_, one_line_errors():
            evaluate(params.evaluate, params.seed, evaluation)
        assert exit_.value.code == 1
        assert "file too large" in one_error(capfd.readouterr().err).lower()
        assert not evaluation.predictions.exists()


# Runs a stage without privileges. Modules and the stage are read before, since others may not read
# the folders of root.
UNPRIVILEGED = """\
import os, sys
from pathlib import Path
import stages, nodules.params, nodules.phantom.patch_file, nodules.system.exits
stage = compile(Path(sys.argv[1]).read_text(), sys.argv[1], "exec")
with nodules.system.exits.one_line_errors():
    pass
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
exec(stage, {"__name__": "__main__"})
"""


def test_a_data_folder_that_may_not_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text((REPOSITORY / "params.yaml").read_text())
    (tmp_path / "data").mkdir(mode=0o555)
    tmp_path.chmod(0o755)
    # Without privileges, coverage cannot be written either.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")}
    result = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED, REPOSITORY / "stages/phantom.py"],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    expected = "error: data/phantom.h5: cannot be written: permission denied"
    assert one_error(result.stderr) == expected
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO]
)
def test_a_disk_that_takes_no_more_is_one_line(
    capsys: pytest.CaptureFixture[str], number: int
) -> None:
    with pytest.raises(SystemExit) as exit_, one_line_errors():
        raise OSError(number, os.strerror(number), "plots/roc.json")
    assert exit_.value.code == 1
    expected = f"error: plots/roc.json: {os.strerror(number)}"
    assert one_error(capsys.readouterr().err).lower() == expected.lower()


def test_any_other_error_of_the_system_keeps_its_traceback() -> None:
    with pytest.raises(FileNotFoundError), one_line_errors():
        Path("no such file").read_bytes()


def test_notes_on_an_error_follow_in_the_same_line(capsys: pytest.CaptureFixture[str]) -> None:
    error = FileError(Path("out"), "cannot be written")
    error.add_note("one")
    error.add_note("two")
    with pytest.raises(SystemExit), one_line_errors():
        raise error
    assert capsys.readouterr().err == "error: out: cannot be written; one; two\n"


# --- DVC


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> RepositoryCopy:
    """Return a copy whose pipeline has not run."""
    return RepositoryCopy.create(tmp_path_factory.mktemp("copy"), SMALL)


def test_of_two_concurrent_pipelines_one_succeeds_and_the_other_succeeds_or_fails_with_dvcs_message(
    copy: RepositoryCopy,
) -> None:
    processes = [copy.start_dvc("repro", "class_weights") for _ in range(2)]
    outputs = [process.communicate(timeout=PATIENCE)[0] for process in processes]
    statuses = [process.returncode for process in processes]
    assert 0 in statuses, outputs
    for status, output in zip(statuses, outputs, strict=True):
        assert "Traceback" not in output
        assert status == 0 or "ERROR: " in output
    with copy.start_dvc("status", "class_weights") as process:
        assert "up to date" in process.communicate()[0]


def test_a_damaged_file_in_the_cache_is_noticed_and_its_stage_run_again(
    copy: RepositoryCopy,
) -> None:
    with copy.start_dvc("repro", "class_weights") as process:
        process.communicate()
    path = "data/class_weights.json"
    md5 = copy.output_hashes()[path]
    cached = copy.path / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    good = cached.read_bytes()
    # DVC does not verify write-protected files; accidental damage often removes the protection.
    cached.chmod(0o644)
    cached.write_bytes(b"damaged")
    (copy.path / path).unlink()
    with copy.start_dvc("repro", "class_weights") as process:
        output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "Running stage 'class_weights'" in output
    assert (copy.path / path).read_bytes() == good
    assert cached.read_bytes() == good
