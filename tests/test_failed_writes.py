"""Failed writes: on a full disk, killed half way, or for what was read. They lose nothing."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from nodules.atomic import replacing, replacing_all, write_json
from nodules.errors import OutputError, PatchFileError
from nodules.model_file import save_model
from nodules.models.registry import build_model
from nodules.params import SplitParams, read_params
from nodules.patches import SPLITS, new_patch_file, open_patches
from nodules.predictions import new_table
from nodules.splitting import split_patches

REPOSITORY = Path(__file__).parent.parent
SHARES = SplitParams(train=0.7, val=0.15, test=0.15)
FULL = "cannot be written: no space left on device"
DISK_BYTES = 2**20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Give a disk of a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs a small disk, and may not mount one")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def write_patches(path: Path, count: int = 1000) -> None:
    with new_patch_file(path, count, {"group": np.dtype(object)}) as file:
        names = np.array([f"scan-{row}" for row in range(count)], dtype=object)
        patches = np.full((count, 50, 50), 7, np.uint8)
        file.append(patches, np.zeros(count, np.uint8), group=names)


def write_rows(path: Path) -> None:
    with new_table(path, ("index", "probability")) as table:
        for row in range(200_000):
            table.writerow((row, 0.123456789))


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
    disk: Path, name: str, write: Callable[[Path], None]
) -> None:
    path = disk / name
    path.write_bytes(b"old")
    with pytest.raises(OutputError) as error:
        write(path)
    assert str(error.value) == f"{path}: {FULL}"
    assert path.read_bytes() == b"old"
    assert list(disk.iterdir()) == [path]


def test_a_disk_that_fills_up_at_the_very_end_leaves_whole_files_or_none(disk: Path) -> None:
    path, filler = disk / "patches.h5", disk / "filler"
    results = []
    for left in range(0, 80_000, 4096):
        filler.write_bytes(bytes(DISK_BYTES - left))
        try:
            write_patches(path, 20)
        except OutputError:
            assert not path.exists()
            results.append("full")
        else:
            with open_patches(path, labelled=True) as patches:
                assert patches.read(0, 20).min() == 7
                assert patches.groups is not None
                assert patches.groups[-1] == "scan-19"
            path.unlink()
            results.append("written")
        assert list(disk.iterdir()) == [filler]
    # First there is no room, from some size on there is.
    assert results == sorted(results)
    assert set(results) == {"full", "written"}


def test_an_import_onto_a_full_disk_ends_in_one_line(disk: Path, tmp_path: Path) -> None:
    write_patches(tmp_path / "part.h5")
    out = disk / "joined.h5"
    arguments = ["import", "legacy", "part.h5", "part.h5", "--out", str(out)]
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
    assert list(disk.iterdir()) == []


def test_a_full_disk_names_the_split_that_did_not_fit(disk: Path, tmp_path: Path) -> None:
    write_labelled(tmp_path / "large.h5", 2000)
    with pytest.raises(OutputError) as error:
        split_patches(tmp_path / "large.h5", disk, SHARES, seed=1)
    assert str(error.value) in {f"{disk / name}.h5: {FULL}" for name in SPLITS}
    assert list(disk.iterdir()) == []


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


def test_files_that_belong_together_appear_together(tmp_path: Path) -> None:
    targets = [tmp_path / "a.txt", tmp_path / "b.txt"]
    with replacing_all(targets) as (first, second):
        first.write_text("a")
        second.write_text("b")
        assert not any(target.exists() for target in targets)
    assert [target.read_text() for target in targets] == ["a", "b"]


def test_a_disk_that_does_not_take_the_content_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kept.json"
    write_json(path, "old")

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match=r"kept\.json: cannot be written: input/output error"):
        write_json(path, "new")
    assert path.read_text() == '"old"\n'
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="its folder cannot be made or written"):
        write_json(tmp_path / "file/below/out.json", 1)


def test_a_folder_that_may_not_be_written_is_one_line(unprivileged: None) -> None:
    folder = Path("/usr/share")
    for write in (write_patches, write_rows):
        with pytest.raises(OutputError) as error:
            write(folder / "out.csv")
        assert str(error.value) == f"{folder}/out.csv: cannot be written: permission denied"


def test_an_error_of_what_is_read_is_not_blamed_on_the_output(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "out") as temporary:
        temporary.write_text((tmp_path / "in").read_text())
    assert list(tmp_path.iterdir()) == []


def ended_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def test_what_a_killed_process_left_is_swept_by_the_next_write(tmp_path: Path) -> None:
    host, dead = socket.gethostname(), ended_process()
    swept = tmp_path / f".out.{host}.{dead}.tmp.json"
    kept = [
        tmp_path / f".out.{host}.{os.getppid()}.tmp.json",  # at work
        tmp_path / f".out.{host}-2.{dead}.tmp.json",  # on another machine
        tmp_path / f".other.{host}.{dead}.tmp.json",
        tmp_path / f".out.{host}.{dead}.tmp.csv",
        tmp_path / f".out.{host}.x{dead}.tmp.json",
    ]
    for path in (swept, *kept):
        path.write_text("half")
    write_json(tmp_path / "out.json", 1)
    assert set(tmp_path.iterdir()) == {tmp_path / "out.json", *kept}


# Reads two patches, says so, and waits to be killed.
STUCK = """\
import runpy, signal, sys
from nodules.patches import PatchFile

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
