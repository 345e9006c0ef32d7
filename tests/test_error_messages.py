"""The error messages quoted in docs/reference/errors.md match those of the program."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pydicom
import pytest
from PIL import Image

from nodules.__main__ import main
from nodules.models.file import save_model
from nodules.models.registry import build_model
from tests.support import REPOSITORY
from tests.support.image_files import ct
from tests.support.small_training import SMALLEST_CONFIG

PAGE = REPOSITORY / "docs" / "reference" / "errors.md"
ROW = re.compile(r"^\| (?P<cause>.+?) \| (?P<quote>`+)(?P<message>.+?)(?P=quote) \|$", re.MULTILINE)
DOCUMENTED = {row["cause"]: row["message"] for row in ROW.finditer(PAGE.read_text("utf-8"))}

Command = list[str]
Case = Callable[[], Command]

CASES: dict[str, Case] = {}


def case(cause: str, *arguments: Any, **named: Any) -> Callable[[Callable[..., Command]], Any]:
    """Register a function that sets up the cause of a message and returns the command."""

    def add(function: Callable[..., Command]) -> Callable[..., Command]:
        CASES[cause] = lambda: function(*arguments, **named)
        return function

    return add


# Parameters


@case("unknown key", "near_duplicates", "colour: 1\n  near_duplicates")
@case("missing key", "train: 0.7", "")
@case("wrong type", "scans: 160", "scans: '160'")
@case("value out of range", "confidence: 0.95", "confidence: 95")
@case("unknown model", "model: squeezenet", "model: resnet")
@case("fractions that do not add up", "train: 0.7", "train: 0.8")
def _params(old: str, new: str) -> Command:
    text = Path("params.yaml").read_text(encoding="utf-8")
    assert old in text
    Path("params.yaml").write_text(text.replace(old, new, 1), encoding="utf-8")
    return ["stages.phantom"]


# Patch files

X = np.zeros((6, 50, 50), np.uint8)
Y = np.arange(6) % 2
WRITERS: list[subprocess.Popen[bytes]] = []
INSPECT = ["inspect", "mine.h5"]
SPLIT = ["stages.split"]


def _at(row: int, value: float) -> Any:
    values = X.astype(np.float32)
    values[row, 0, 0] = value
    return values


def _label(row: int, value: Any, labels: Any = Y) -> Any:
    labels = labels.copy()
    labels[row] = value
    return labels


GROUPED = {"group": [0, 1, 0, 1, 0, 1], "split": ["train", "train", "train", "val", "train", "val"]}


@case("no labels", Y=None, command=SPLIT)
@case("patches of another size", X=np.zeros((6, 64, 64), np.uint8))
@case("no patches", X=X[:0], Y=Y[:0])
@case("wrong type of patches", X=X.astype(np.int16))
@case("NaN", X=_at(4, np.nan))
@case("infinity", X=_at(4, np.inf))
@case("floats in 0..255", X=_at(0, 251))
@case("overshoot of an interpolation", X=_at(0, 1.25))
@case("Hounsfield units", X=_at(0, -1000))
@case("too few labels", Y=Y[:4])
@case("text as labels", Y=["a"] * 6)
@case("three classes", Y=np.eye(3)[np.arange(6) % 3])
@case("label other than 0 and 1", Y=_label(2, 2))
@case("not one-hot", Y=_label(3, (1, 1), np.eye(2)[Y]))
@case("float groups", group=np.arange(6) / 2)
@case("very long group name", group=["a" * 2000] * 6)
@case("unknown split", split=["train", "val", "train", "val", "dev", "val"])
@case("group in two splits", **GROUPED)
@case("no train split", command=SPLIT, split=["val", "test"] * 3)
@case("only one class", Y=Y * 0, command=SPLIT)
@case("too few groups", X=np.repeat(X, 2, 0), Y=Y.repeat(2), group=[0, 1] * 6, command=SPLIT)
def _data_sets(command: Command = INSPECT, **changes: Any) -> Command:
    with h5py.File("mine.h5", "w") as file:
        for name, values in ({"X": X, "Y": Y} | changes).items():
            if values is not None:
                file[name] = values
    return command


@case("no published split")
def _published() -> Command:
    _data_sets()
    _params("by: group", "by: published")
    return SPLIT


@case("link to another file", lambda file: file.__setitem__("X", h5py.ExternalLink("a.h5", "X")))
@case(
    "virtual data set",
    lambda file: file.create_virtual_dataset("X", h5py.VirtualLayout((6, 50, 50), np.uint8)),
)
@case("data never written", lambda file: file.create_dataset("X", (400_000_000, 50, 50), np.uint8))
@case(
    "chunks never written",
    lambda file: file.create_dataset("X", (400_000_000, 50, 50), np.uint8, chunks=(64, 50, 50)),
)
@case(
    "very high compression",
    lambda file: file.create_dataset(
        "X", data=np.zeros((30_000, 50, 50), np.uint8), chunks=(5000, 50, 50), compression="gzip"
    ),
)
@case(
    "unsupported filter",
    lambda file: file.create_dataset("X", data=X, chunks=(6, 50, 50), scaleoffset=0),
)
def _hdf5(write: Callable[[h5py.File], object]) -> Command:
    with h5py.File("mine.h5", "w") as file:
        write(file)
    return INSPECT


@case("damaged chunk")
def _damaged_chunk() -> Command:
    with h5py.File("mine.h5", "w") as file:
        data = file.create_dataset("X", (6, 50, 50), np.uint8, chunks=(6, 50, 50), compression=1)
        data.id.write_direct_chunk((0, 0, 0), zlib.compress(X.tobytes())[:-8])
    return INSPECT


@case("images too large for import")
def _large_images() -> Command:
    with h5py.File("mine.h5", "w") as file:
        file.create_dataset("X", data=np.zeros((1, 9000, 9000), np.uint8), chunks=(1, 900, 900))
    return ["import", "hdf5", "mine.h5", "--out", "out.h5"]


@case("file being written")
def _locked() -> Command:
    code = "import h5py, sys; f = h5py.File('mine.h5', 'w'); print(flush=True); sys.stdin.read()"
    writer = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"HDF5_USE_FILE_LOCKING": "TRUE"},
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    WRITERS.append(writer)
    return INSPECT


@case("not HDF5", b"PK" * 50)
@case("truncated file", None)
def _bytes(content: bytes | None) -> Command:
    _data_sets()
    Path("mine.h5").write_bytes(content or Path("mine.h5").read_bytes()[:9000])
    return INSPECT


@case("missing file", lambda path: None)
@case("folder", Path.mkdir)
@case("pipe or device", os.mkfifo)
def _no_file(make: Callable[[Path], object]) -> Command:
    make(Path("mine.h5"))
    return INSPECT


@case("truncated array in an archive")
def _truncated_array() -> Command:
    arrays: dict[str, Any] = {
        f"{split}_{kind}": values
        for split in ("train", "val", "test")
        for kind, values in (("images", np.zeros((4, 28, 28), np.uint8)), ("labels", Y[:4]))
    }
    np.savez("mine.npz", **arrays)
    with zipfile.ZipFile("mine.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["val_images.npy"] = members["val_images.npy"][:-5]
    with zipfile.ZipFile("mine.npz", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return ["import", "npz", "mine.npz", "--out", "out.h5"]


# Models

KERNEL, VARIANCE = "layers/conv2d/vars/0", "layers/batch_normalization/vars/3"
PREDICT = ["predict", "model.keras", "mine.h5", "--out", "out.csv"]


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.keras"
    save_model(build_model("small", "squeezenet", SMALLEST_CONFIG, seed=3), path)
    return path


@case("not a `.keras` file")
def _suffix() -> Command:
    _data_sets()
    return ["predict", "mine.h5", "mine.h5", "--out", "out.csv"]


@case("saved by Keras itself, or by an earlier version", network=None)
@case("builder missing in this checkout", builder="mine")
@case("invalid argument of the builder", config=SMALLEST_CONFIG | {"dropout": 1.5})
@case("network larger than its weights", config=SMALLEST_CONFIG | {"stem_filters": 10**9})
@case("changed configuration, or changed builder", config=SMALLEST_CONFIG | {"bypass": False})
def _network(**changes: Any) -> Command:
    def change(members: dict[str, bytes]) -> None:
        metadata = json.loads(members["metadata.json"])
        if "network" in changes:
            del metadata["network"]
        else:
            metadata["network"] |= changes
        members["metadata.json"] = json.dumps(metadata).encode()

    return _model(change)


@case("weights of another type", KERNEL, np.full((3, 3, 1, 4), 0.1))
@case("weights that are not finite", KERNEL, np.full((3, 3, 1, 4), np.nan, np.float32))
@case("negative variance", VARIANCE, np.full(4, -0.1, np.float32))
def _weights(name: str, values: Any) -> Command:
    def change(members: dict[str, bytes]) -> None:
        content = io.BytesIO(members["model.weights.h5"])
        with h5py.File(content, "a") as file:
            del file[name]
            file[name] = values
        members["model.weights.h5"] = content.getvalue()

    return _model(change)


@case("compressed members", lambda members: None, compression=zipfile.ZIP_DEFLATED)
def _model(
    change: Callable[[dict[str, bytes]], None], compression: int = zipfile.ZIP_STORED
) -> Command:
    _data_sets()
    with zipfile.ZipFile("model.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile("model.keras", "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return PREDICT


# Images

FOLDER = ["import", "folder", "images", "--out", "out.h5"]
STORED = np.linspace(24, 1396, 2500).astype(np.uint16).reshape(50, 50)
FULL = np.linspace(0, 4095, 2500).astype(np.uint16).reshape(50, 50)


def _image_folders() -> Path:
    for name in ("0", "1"):
        folder = Path("images", name)
        folder.mkdir(parents=True)
        Image.fromarray(X[0]).save(folder / "z.png")
    return Path("images", "1")


@case("CT without slope or intercept", STORED, RescaleSlope=None)
@case("another modality", FULL, Modality="MR", RescaleSlope=None, RescaleIntercept=None)
@case("another unit", FULL, RescaleType="US", RescaleIntercept="0")
@case("slope of 0", STORED, RescaleSlope="0")
@case("too few pixels", STORED, Rows=25)
@case(
    "values beyond BitsStored",
    STORED + np.uint16(7699) * (STORED > 1000),
    BitsStored=12,
    HighBit=11,
)
@case("several frames", STORED, NumberOfFrames=3)
def _dicom(stored: Any, **attributes: Any) -> Command:
    pydicom.dcmwrite(_image_folders() / "x.dcm", ct(stored, **attributes), enforce_file_format=True)
    return FOLDER


def _listed(lines: str, *options: str) -> Command:
    Path("images").mkdir()
    for name in ("x.png", "image_0.png", "image_7.png"):
        Image.fromarray(X[0]).save(Path("images", name))
    Path("labels.txt").write_text(lines, encoding="utf-8")
    table = "seriesuid,class\n1.2.3,0\n"
    Path("candidates.csv").write_text(table, encoding="utf-8")
    return ["import", "list", "images", "--labels", "labels.txt", "--out", "out.h5", *options]


IN_TABLE = ["--table", "candidates.csv", "--key", r"(\d+)", "--group-column", "seriesuid"]
CASES |= {
    "bad label in a list": lambda: _listed("x.png 0\nimage_0.png x\n"),
    "missing listed image": lambda: _listed("a.png 0\n"),
    "listed path outside the folder": lambda: _listed("../x.png 0\n"),
    "image listed twice": lambda: _listed("x.png 0\nx.png 0\n"),
    "no row for a listed image": lambda: _listed("image_7.png 0\n", *IN_TABLE),
    "row of another class": lambda: _listed(
        "image_0.png 1\n", *IN_TABLE, "--label-column", "class"
    ),
}


@case("changed piece")
def _piece() -> Command:
    Path("pieces/src/data").mkdir(parents=True)
    Path("pieces/src/data/traindatalabels.txt").touch()
    return ["import", "luna16-patches", "--from", "pieces", "--out", "out.h5"]


@case("float samples", "x.tif", np.linspace(-125, 120, 2500, dtype=np.float32).reshape(50, 50))
@case("colour", "x.png", np.dstack([X[0], X[0] + np.uint8(9), X[0]]))
@case("transparency", "x.png", np.dstack([X[0]] * 4))
@case("too many pixels", "x.png", np.zeros((13_000, 13_000), bool))
def _image(name: str, pixels: Any) -> Command:
    Image.fromarray(pixels).save(_image_folders() / name)
    return FOLDER


@case("file too large")
def _large_file() -> Command:
    with (_image_folders() / "x.dcm").open("wb") as file:
        file.truncate(170_000_000)
    return FOLDER


@case("pipe with an image's name")
def _pipe() -> Command:
    os.mkfifo(_image_folders() / "x.png")
    return FOLDER


@case("no class folders")
def _no_classes() -> Command:
    Path("images").mkdir()
    Image.fromarray(X[0]).save("images/x.png")
    return FOLDER


@case("no folder of a patient")
def _no_patient() -> Command:
    _image_folders()
    return [*FOLDER, "--group-from", "folder"]


@case("file name without a group")
def _no_group() -> Command:
    _image_folders()
    return [*FOLDER, "--group", "^([0-9]+)_"]


@case("missing image to score")
def _missing_image() -> Command:
    return ["predict", "model.keras", "x.png", "--out", "out.csv"]


@case("several patch files to score")
def _several() -> Command:
    _data_sets()
    return [*PREDICT[:2], "mine.h5", "mine.h5", "--out", "out.csv"]


@case("`--window` for a patch file")
def _window_of_patches() -> Command:
    _data_sets()
    return [*PREDICT, "--window", "0", "1"]


@case("unprintable group")
def _unprintable_group() -> Command:
    folder = _image_folders()
    for path in Path("images").rglob("*.png"):
        path.rename(path.with_name("p0_x.png"))
    (folder / "p0_x.png").rename(folder / "p1\r_x.png")
    return [*FOLDER, "--group", "^([^_]+)_"]


# Scans

VOXELS = np.full((40, 100, 100), -1000, np.int16)
PACKED = zlib.compress(VOXELS.tobytes())
ZRAW = {"CompressedData": "True", "ElementDataFile": "s.zraw"}


@case("damaged or truncated `.zraw`", PACKED[:-9], **ZRAW)
@case("`.raw` of another length", VOXELS.tobytes()[:400_000])
@case("wrong `CompressedDataSize`", PACKED, **ZRAW, CompressedDataSize=len(PACKED) - 1)
@case("path to another folder", ElementDataFile="../s.raw")
@case("missing slices", ElementDataFile="slice%03d.raw 1 20 1")
@case("more than 2 GiB", DimSize="10000 10000 5000")
@case("unsigned type without `--window`", ElementType="MET_USHORT")
@case("other modality without `--window`", Modality="MET_MOD_MR")
@case("intensity function", ElementToIntensityFunctionSlope=2)
@case("contradictory keys", Position="1 0 0")
def _scan(data: bytes = VOXELS.tobytes(), **changes: Any) -> Command:
    header: dict[str, Any] = {
        "ObjectType": "Image",
        "NDims": 3,
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "Offset": "0 0 0",
        "ElementSpacing": "1 1 1",
        "DimSize": "100 100 40",
        "ElementType": "MET_SHORT",
        "ElementDataFile": "s.raw",
    } | changes
    header["ElementDataFile"] = header.pop("ElementDataFile")  # must be the last key
    lines = "".join(f"{key} = {value}\n" for key, value in header.items())
    Path("s.mhd").write_text(lines, encoding="utf-8")
    Path("s.zraw" if "CompressedData" in changes else "s.raw").write_bytes(data)
    table = "seriesuid,coordX,coordY,coordZ,class\ns,50,50,20,1\ns,50,50,21,0\n"
    Path("candidates.csv").write_text(table, encoding="utf-8")
    return [
        *("import", "luna16", "--scans", ".", "--candidates", "candidates.csv"),
        *("--out", "out.h5", "--jobs", "1"),
    ]


@case("candidate outside its scan")
def _outside() -> Command:
    command = _scan()
    table = "seriesuid,coordX,coordY,coordZ,class\ns,50,50,-20,1\n"
    Path("candidates.csv").write_text(table, encoding="utf-8")
    return command


@case("candidates that are not a file")
def _candidates() -> Command:
    command = _scan()
    Path("candidates.csv").unlink()
    os.mkfifo("candidates.csv")
    return command


# Comparisons

COMPARE = ["compare", "HEAD", "other", "--resamples", "100"]
GIT = ["git", "-c", "user.name=Test", "-c", "user.email=test@example.com"]


@case("results that DVC has nowhere", None)
@case("results that the remote lacks", None, remote="store")
@case("no such revision", branch="others")
@case("different test patches", extra=["test,80,,0,0.1", "test,81,,1,0.9"])
@case(
    "worse verdict with `--fail-if-worse`", other=(0.9, 0.1), command=[*COMPARE, "--fail-if-worse"]
)
@case(
    "not shown to be as good, with `--fail-if-worse --margin 0.01`",
    other=(0.9, 0.1),
    command=[*COMPARE, "--fail-if-worse", "--margin", "0.01"],
)
@case("workspace without results", emptied=True, command=["compare"])
def _compared(
    first: tuple[float, float] | None = (0.1, 0.9),
    *,
    other: tuple[float, float] = (0.1, 0.9),
    extra: list[str] | None = None,
    branch: str = "other",
    remote: str = "",
    emptied: bool = False,
    command: Command = COMPARE,
) -> Command:
    """Commit results of two revisions: probabilities of non-nodules and nodules, or None."""
    Path(".dvc").mkdir()
    settings = f"[core]\n    remote = {remote}\n['remote \"{remote}\"']\n    url = /nowhere\n"
    Path(".dvc/config").write_text(settings if remote else "", encoding="utf-8")
    _git("init", "--quiet")
    _commit_results(first, [])
    _git("branch", "first")
    _commit_results(other, extra or [])
    _git("branch", branch)
    _git("reset", "--quiet", "--hard", "first")
    if emptied:
        shutil.rmtree("data")
    return command


def _commit_results(probabilities: tuple[float, float] | None, extra: list[str]) -> None:
    for folder in ("data", "metrics"):
        shutil.rmtree(folder, ignore_errors=True)
    if probabilities:
        tested = [f"test,{row},,{row % 2},{probabilities[row % 2]}" for row in range(80)]
        lines = ["split,index,group,label,probability", *tested, *extra, ""]
        Path("data").mkdir()
        Path("data/predictions.csv").write_text("\n".join(lines), encoding="utf-8")
        metrics = Path("metrics/evaluate/metrics.json")
        metrics.parent.mkdir(parents=True)
        metrics.write_text(json.dumps({"threshold": 0.5}), encoding="utf-8")
    _git("add", "--all")
    _git("commit", "--quiet", "--allow-empty", "--message", "results")


def _git(*arguments: str) -> str:
    return subprocess.run([*GIT, *arguments], check=True, capture_output=True, text=True).stdout


@case("repository that git cannot read")
def _damaged_repository() -> Command:
    _compared()
    Path(".git/config").write_text("[core", encoding="utf-8")
    return COMPARE


@case("repository of another user")
def _another_user() -> Command:
    if os.geteuid():
        pytest.skip("only root can give files to another user")
    _compared()
    for path in (".", ".git"):
        os.chown(path, 12345, 12345)
    return COMPARE


# Output


@case("link into a missing folder", "scores.csv")
@case("output is a device", "/dev/null")
def _output(out: str) -> Command:
    _data_sets()
    Path("scores.csv").symlink_to("results/scores.csv")
    return ["predict", "model.keras", "mine.h5", "--out", out]


@case("standard output on a full disk")
def _full_output() -> Command:
    _data_sets()
    return INSPECT


def test_every_documented_message_is_produced_here() -> None:
    assert DOCUMENTED.keys() == CASES.keys()


@pytest.mark.parametrize("cause", CASES)
def test_a_documented_message_is_what_the_program_prints(
    cause: str,
    saved_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))  # for child processes
    shutil.copy(saved_model, tmp_path)
    params = (REPOSITORY / "params.yaml").read_text(encoding="utf-8")
    Path("params.yaml").write_text(params.replace("data/phantom.h5", "mine.h5"), encoding="utf-8")
    command = CASES[cause]()
    if cause == "standard output on a full disk":
        printed = _run_apart("nodules", *command, stdout="/dev/full")
    elif command[0].startswith("stages."):
        printed = _run_apart(*command)
    else:
        monkeypatch.setattr(sys, "argv", ["nodules", *command])
        with pytest.raises(SystemExit) as exit_status:
            main()
        assert exit_status.value.code == 1
        printed = capsys.readouterr().err
    for writer in WRITERS:
        writer.kill()
        writer.communicate()
    WRITERS.clear()
    *progress, message = printed.splitlines()
    assert all("error" not in line for line in progress)
    message = message.replace(f"{tmp_path}/", "").replace(str(tmp_path), "/home/me/nodules")
    assert _masked(message) == _masked(f"error: {DOCUMENTED[cause]}")


def _run_apart(*command: str, stdout: str = os.devnull) -> str:
    """Run a module in a separate process and return its stderr."""
    with Path(stdout).open("w", encoding="utf-8") as output:
        run = subprocess.run(
            [sys.executable, "-m", *command],
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert run.returncode == 1
    return run.stderr


def _masked(message: str) -> str:
    """Mask numbers, since those in the documentation are examples."""
    return re.sub(r"\d[\d,]*(\.\d+)?", "#", message)
