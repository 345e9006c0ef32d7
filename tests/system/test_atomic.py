"""Failed writes (full disk, killed process, bad input) keep the existing files."""

import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from nodules.errors import FileError, PatchFileError
from nodules.evaluation.predictions import new_table
from nodules.models.file import save_model
from nodules.models.registry import build_model
from nodules.params import read_params
from nodules.patches.layout import SPLITS
from nodules.patches.reader import open_patches
from nodules.patches.writer import new_patch_file
from nodules.splitting.params import SplitParams
from nodules.splitting.split import split_patches
from nodules.system.atomic import ABANDONED_S, check_output, replacing, replacing_all, write_json
from nodules.system.signals import Interruption
from tests.support import REPOSITORY
from tests.support.limits import max_file_size

SHARES = SplitParams(
    by="group", train=0.7, val=0.15, test=0.15, near_duplicates="report", irrelevant="keep"
)
FULL = "cannot be written: file too large"
MAX_BYTES = 2**20


def write_patches(path: Path, count: int = 1000) -> None:
    with new_patch_file(path, count, {"group": np.dtype(object)}) as file:
        names = np.array([f"scan-{row}" for row in range(count)], dtype=object)
        patches = np.full((count, 50, 50), 7, np.uint8)
        file.append(patches, np.zeros(count, np.uint8), group=names)


def write_rows(path: Path) -> None:
    with new_table(path, ("index", "probability")) as table:
        for row in range(200_000):
            table.writerows([(row, 0.123456789)])


def write_noise(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2000, 2000), dtype=np.uint8)
    with replacing(path) as temporary:
        Image.fromarray(noise).save(temporary)


def write_figure(path: Path) -> None:
    figure = plt.figure(figsize=(10, 10), dpi=100)
    figure.figimage(np.random.default_rng(0).random((1000, 1000)))
    with replacing(path) as temporary:
        figure.savefig(temporary)
    plt.close(figure)


def write_model(path: Path) -> None:
    entry = read_params(REPOSITORY / "params.yaml").models["squeezenet"]
    save_model(build_model("squeezenet", entry.builder, entry.config, seed=0), path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("patches.h5", write_patches),
        ("scores.csv", write_rows),
        ("metrics.json", lambda path: write_json(path, list(range(300_000)))),
        ("noise.png", write_noise),
        ("figure.png", write_figure),
        ("model.keras", write_model),
    ],
)
def test_a_full_disk_is_one_line_and_the_old_file_stays(
    tmp_path: Path, name: str, write: Callable[[Path], None]
) -> None:
    path = tmp_path / name
    path.write_bytes(b"old")
    with max_file_size(MAX_BYTES), pytest.raises(FileError) as error:
        write(path)
    assert str(error.value) == f"{path}: {FULL}"
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_fills_up_at_the_very_end_leaves_whole_files_or_none(tmp_path: Path) -> None:
    path = tmp_path / "patches.h5"
    results = []
    for size in range(0, 80_000, 4096):
        try:
            with max_file_size(size):
                write_patches(path, 20)
        except FileError as error:
            results.append(str(error).removeprefix(f"{path}: "))
            assert not path.exists()
        else:
            with open_patches(path, labelled=True) as patches:
                assert patches.read(0, 20).min() == 7
                assert patches.groups is not None
                assert patches.groups[-1] == "scan-19"
            path.unlink()
            results.append("written")
        assert list(tmp_path.iterdir()) == []
    # The write fails on small disks and succeeds on large ones.
    assert results == sorted(results)
    assert set(results) == {FULL, "written"}


def test_an_import_onto_a_full_disk_ends_in_one_line(tmp_path: Path) -> None:
    write_patches(tmp_path / "part.h5")
    out = tmp_path / "full/joined.h5"
    arguments = ["import", "legacy", "part.h5", "part.h5", "--out", str(out)]
    with max_file_size(MAX_BYTES):
        result = subprocess.run(
            [sys.executable, "-m", "nodules", *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == f"error: {out}: {FULL}"
    assert "Traceback" not in result.stderr
    assert list(out.parent.iterdir()) == []


def test_a_full_disk_names_the_split_that_did_not_fit(tmp_path: Path) -> None:
    write_labelled(tmp_path / "large.h5", 2000)
    folder = tmp_path / "full"
    with max_file_size(MAX_BYTES), pytest.raises(FileError) as error:
        split_patches(tmp_path / "large.h5", folder, SHARES, seed=1)
    assert str(error.value) in {f"{folder / name}.h5: {FULL}" for name in SPLITS}
    assert list(folder.iterdir()) == []


def write_labelled(path: Path, count: int) -> None:
    with new_patch_file(path, count) as file:
        patches = np.zeros((count, 50, 50), np.uint8)
        file.append(patches, (np.arange(count) % 2).astype(np.uint8))


def test_nan_in_the_last_row_leaves_all_three_splits_as_they_were(
    patch_file, tmp_path: Path
) -> None:
    folder = tmp_path / "splits"
    patches, labels = np.zeros((4200, 50, 50), np.float16), np.arange(4200) % 2
    patches[-1, 49, 49] = np.nan
    broken = patch_file("broken.h5", X=patches, Y=labels)
    with pytest.raises(PatchFileError, match="X: row 4199: found NaN"):
        split_patches(broken, folder, SHARES, seed=1, search=False)
    assert list(folder.iterdir()) == []
    write_labelled(tmp_path / "good.h5", 40)
    split_patches(tmp_path / "good.h5", folder, SHARES, seed=1)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(before) == {f"{name}.h5" for name in SPLITS}
    with pytest.raises(PatchFileError, match="X: row 4199: found NaN"):
        split_patches(broken, folder, SHARES, seed=1, search=False)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_interruption_while_the_temporary_file_is_created_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(file: int) -> bool:
        assert len(list(tmp_path.iterdir())) == 1
        raise Interruption(signal.SIGTERM)

    monkeypatch.setattr("nodules.system.atomic._lock", interrupted)
    with pytest.raises(Interruption), replacing(tmp_path / "out.json"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_files_that_belong_together_appear_together(tmp_path: Path) -> None:
    targets = [tmp_path / "a.txt", tmp_path / "b.txt"]
    with replacing_all(targets) as (first, second):
        first.write_text("a")
        second.write_text("b")
        assert not any(target.exists() for target in targets)
    assert [target.read_text() for target in targets] == ["a", "b"]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_does_not_take_the_content_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = tmp_path / "kept.json"
    write_json(path, "old")

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(FileError) as error:
        write_json(path, "new")
    assert str(error.value) == f"{path}: cannot be written: {os.strerror(number).lower()}"
    assert path.read_text() == '"old"\n'
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FileError, match="its folder cannot be created or written"):
        write_json(tmp_path / "file/below/out.json", 1)


def test_a_folder_that_may_not_be_written_is_one_line(unprivileged: None) -> None:
    folder = Path("/usr/share")
    for write in (write_patches, write_rows):
        with pytest.raises(FileError) as error:
            write(folder / "out.csv")
        assert str(error.value) == f"{folder}/out.csv: cannot be written: permission denied"


def test_a_read_error_is_not_attributed_to_the_output(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "out") as temporary:
        temporary.write_text((tmp_path / "in").read_text())
    assert list(tmp_path.iterdir()) == []


def leave_temporary(target: Path) -> Path:
    """Create the temporary file of a process killed while writing `target`."""
    code = (
        "import os, sys; from pathlib import Path; from nodules.system.atomic import replacing\n"
        "with replacing(Path(sys.argv[1])) as path: path.write_text('half'); os._exit(9)"
    )
    before = {*target.parent.iterdir()}
    subprocess.run([sys.executable, "-c", code, str(target)], cwd=REPOSITORY, check=False)
    (left,) = {*target.parent.iterdir()} - before
    return left


def test_temporary_files_of_a_killed_process_are_removed_by_the_next_write(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    swept = leave_temporary(out)
    kept = [leave_temporary(tmp_path / name) for name in ("other.json", "out.csv", "x.out.json")]
    write_json(out, 1)
    assert not swept.exists()
    assert set(tmp_path.iterdir()) == {out, *kept}


def test_a_file_that_another_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    """Only the lock counts, regardless of host name and process ID."""
    out = tmp_path / "out.json"
    code = (
        "import sys; from pathlib import Path; from nodules.system.atomic import replacing\n"
        "with replacing(Path(sys.argv[1])) as path:\n"
        "    path.write_text('2'); print(path, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(out)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        theirs = Path(process.stdout.readline().rstrip("\n"))
        os.utime(theirs, (0, 0))
        write_json(out, 1)
        assert theirs.read_text(encoding="utf-8") == "2"
        process.communicate("")
    assert out.read_text(encoding="utf-8") == "2"
    assert process.returncode == 0


def test_temporary_files_of_another_machine_are_removed_after_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.json"
    left = leave_temporary(out)
    monkeypatch.setattr(socket, "gethostname", lambda: "another.machine")
    write_json(out, 1)
    assert left.exists()
    os.utime(left, (time.time() - ABANDONED_S - 60,) * 2)
    write_json(out, 1)
    assert not left.exists()


@pytest.mark.parametrize("name", ["x" * 247 + ".npz", "ä" * 122 + ".h5", "x." + "y" * 253])
def test_names_as_long_as_a_file_system_takes_can_be_written(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    left = leave_temporary(target)
    write_json(target, 1)
    assert not left.exists()
    assert target.read_bytes() == b"1\n"


def test_a_name_that_is_too_long_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be written: file name too long"):
        write_json(tmp_path / ("x" * 256), 1)


@pytest.mark.parametrize("kind", ["pipe", "device", "link to a device"])
def test_only_regular_files_are_replaced(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out.csv"
    if kind == "pipe":
        os.mkfifo(target)
    elif kind == "link to a device":
        target.symlink_to("/dev/null")
    elif os.geteuid() == 0:  # root could replace the real /dev/null
        os.mknod(target, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    else:
        target = Path("/dev/null")
    before = target.lstat()
    for write in (write_rows, lambda path: check_output(path, [])):
        with pytest.raises(FileError) as error:
            write(target)
        expected = "expected the name of a file to write"
        assert str(error.value) == f"{target}: found a device or a pipe, {expected}"
    assert target.lstat() == before
    assert set(tmp_path.iterdir()) <= {target}


def test_a_link_is_kept_and_its_target_written(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    real, link = tmp_path / "elsewhere/real.json", tmp_path / "link.json"
    link.symlink_to("elsewhere/real.json")
    for content in (1, 2):  # the target does not exist yet
        write_json(link, content)
        assert link.is_symlink()
        assert real.read_text(encoding="utf-8") == f"{content}\n"
    assert {path.name for path in tmp_path.rglob("*")} == {"elsewhere", "real.json", "link.json"}
    link.unlink()
    link.symlink_to("nowhere/real.json")
    with pytest.raises(FileError, match="found a link into a missing folder"):
        write_json(link, 1)
    link.unlink()
    link.symlink_to(link)
    with pytest.raises(FileError, match="too many levels of symbolic links"):
        write_json(link, 1)


@pytest.mark.parametrize(
    ("kind", "mode"),
    # DVC protects what it links by a hard link.
    [("symlink", 0o444), ("symlink", 0o644), ("hardlink", 0o444)],
)
def test_a_link_to_what_dvc_caches_is_replaced_and_the_cache_unchanged(
    tmp_path: Path, kind: str, mode: int
) -> None:
    cached = tmp_path / "files/md5/ab" / ("0123456789abcdef" * 2)[:30]
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"cached")
    cached.chmod(mode)
    out = tmp_path / "out.json"
    if kind == "symlink":
        out.symlink_to(cached)
    else:
        out.hardlink_to(cached)
    write_json(out, 1)
    assert cached.read_bytes() == b"cached"
    assert stat.S_IMODE(cached.stat().st_mode) == mode
    assert out.read_text(encoding="utf-8") == "1\n"
    assert not out.is_symlink()
    assert stat.S_IMODE(out.stat().st_mode) == 0o644  # not mistaken by DVC for its own link


@pytest.mark.parametrize(
    ("before", "after"), [(0o600, 0o600), (0o640, 0o640), (0o400, 0o600), (0o4755, 0o755)]
)
def test_a_file_that_is_replaced_keeps_its_permissions(
    tmp_path: Path, before: int, after: int
) -> None:
    out = tmp_path / "out.json"
    out.write_text("old", encoding="utf-8")
    out.chmod(before)
    with replacing(out) as temporary:
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600  # never readable by others
        temporary.write_text("new", encoding="utf-8")
    assert stat.S_IMODE(out.stat().st_mode) == after


def test_a_new_file_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "out.json", 1)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out.json").stat().st_mode) == 0o640


def test_the_owner_of_a_replaced_file_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.json"
    out.write_text("old", encoding="utf-8")
    owner = (out.stat().st_uid, out.stat().st_gid)
    if os.geteuid() == 0:
        owner = (65534, 65534)
        os.chown(out, *owner)
    # Root alone may give files away; that it is asked for shows without root too.
    asked: list[tuple[int, int]] = []
    chown = os.chown

    def recorded(path: Path, user: int, group: int) -> None:
        asked.append((user, group))
        chown(path, user, group)

    monkeypatch.setattr(os, "chown", recorded)
    write_json(out, 1)
    assert asked == [owner]
    assert (out.stat().st_uid, out.stat().st_gid) == owner


# Reads two patches, reports it, and waits to be killed.
STUCK = """\
import runpy, signal, sys
from nodules.patches.reader import PatchFile

read_through = PatchFile.blocks

def blocks(self, size=0):
    if size:  # the search for duplicates, before anything is written
        yield from read_through(self, size)
        return
    yield 0, self.read(0, 2)
    print("half way", flush=True)
    signal.pause()

PatchFile.blocks = blocks
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("command", "number"),
    [
        ("nodules", signal.SIGKILL),
        ("nodules", signal.SIGTERM),
        ("stages.split", signal.SIGKILL),
    ],
)
def test_a_killed_write_leaves_the_old_files(
    tmp_path: Path, command: str, number: signal.Signals
) -> None:
    write_labelled(tmp_path / "part.h5", 40)
    params = (REPOSITORY / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(params.replace("data/phantom.h5", "part.h5"))
    folder = tmp_path / "data/splits"
    outs = [folder / f"{name}.h5" for name in SPLITS] if "." in command else [folder / "joined.h5"]
    folder.mkdir(parents=True)
    for out in outs:
        out.write_bytes(b"old")
    imports = ["import", "legacy", "part.h5", "part.h5", "--out", str(outs[0])]
    with subprocess.Popen(
        [sys.executable, "-c", STUCK, command, *([] if "." in command else imports)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "half way\n"
            assert len(list(folder.iterdir())) == 2 * len(outs)
            process.send_signal(number)
            assert process.wait(timeout=120) != 0
        finally:
            process.kill()
    assert [out.read_bytes() for out in outs] == [b"old"] * len(outs)
    left = set(folder.iterdir()) - set(outs)
    assert number != signal.SIGKILL or len(left) == len(outs)
    for out in outs:
        write_labelled(out, 4)
    assert set(folder.iterdir()) == set(outs)
    assert not (tmp_path / "metrics/split.json").exists()
