"""The command line: output, exit status and files left behind."""

import csv
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nodules.errors import FileError
from nodules.evaluation.predict_file import predict_file
from nodules.inference.probabilities import nodule_probabilities
from nodules.models.file import load_model, save_model
from nodules.models.registry import build_model
from nodules.patches.reader import open_patches
from tests.support import REPOSITORY
from tests.support.messages import assert_one_line_error

LABELS = np.array([0, 1, 0, 1, 0])


def nodules(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nodules", *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_inspect_says_what_a_file_holds(patch_file, random_patches) -> None:
    path = patch_file(X=random_patches(5), Y=LABELS, group=[1, 1, 2, 2, 2])
    result = nodules("inspect", path)
    assert result.returncode == 0
    for part in ("5 (X (5, 50, 50) uint8)", "2 (40.0%)", "2 of 2 to 3 patches", "no split"):
        assert part in result.stdout


def test_inspect_says_what_is_wrong_with_a_file(patch_file, random_patches) -> None:
    path = patch_file(X=random_patches(5), Y=[0, 1, 2, 0, 1])
    assert_one_line_error(nodules("inspect", path), str(path), "Y: row 2: found 2, expected 0 or 1")


def test_inspect_imports_no_heavy_module(patch_file, random_patches) -> None:
    path = patch_file(X=random_patches(5), Y=LABELS)
    code = (
        "import sys; from pathlib import Path; from nodules.commands.inspect import describe;"
        f"describe(Path({str(path)!r}));"
        "sys.exit('tensorflow' in sys.modules or 'sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0


def test_a_legacy_pair_becomes_one_patch_file_that_keeps_its_split(
    patch_file, random_patches, tmp_path: Path
) -> None:
    patches = random_patches(8)
    legacy = (patches[..., None] / 255).astype(np.float32)
    one_hot = np.eye(2)[[0, 1, 0, 1, 0, 1, 0, 1]]
    train = patch_file("train_again.h5", X=legacy[:5], Y=one_hot[:5])
    val = patch_file("val_again.h5", X=legacy[5:], Y=one_hot[5:])
    out = tmp_path / "joined.h5"
    result = nodules("import", "legacy", train, val, "--out", out)
    assert result.returncode == 0, result.stderr
    assert "dvc exp run --set-param dataset=data/joined.h5" in result.stdout
    with open_patches(out) as joined:
        assert np.array_equal(joined.read(0, 8), patches)
        assert joined.labels.tolist() == one_hot[:, 1].tolist()
        assert joined.split is not None
        assert joined.split.tolist() == ["train"] * 5 + ["val"] * 3


def test_groups_of_a_legacy_pair_are_carried_and_checked(
    patch_file, random_patches, tmp_path: Path
) -> None:
    out = tmp_path / "joined.h5"
    train = patch_file("train.h5", X=random_patches(3), Y=[0, 1, 0], group=[1, 1, 2])
    val = patch_file("val.h5", X=random_patches(2), Y=[0, 1], group=[3, 3])
    assert nodules("import", "legacy", train, val, "--out", out).returncode == 0
    with open_patches(out) as joined:
        assert joined.groups is not None
        assert joined.groups.tolist() == [1, 1, 2, 3, 3]
    torn = patch_file("torn.h5", X=random_patches(2), Y=[0, 1], group=[2, 3])
    assert nodules("import", "legacy", train, torn, "--out", out).returncode == 0
    assert_one_line_error(nodules("inspect", out), "found 2 in train and val")
    without = patch_file("without.h5", X=random_patches(2), Y=[0, 1])
    result = nodules("import", "legacy", train, without, "--out", out)
    assert_one_line_error(result, str(without), "group: found none, expected it in all")


def test_files_of_a_legacy_pair_are_carried(patch_file, random_patches, tmp_path: Path) -> None:
    out = tmp_path / "joined.h5"
    names = ["a.png", "b.png", "c.png"]
    train = patch_file("train.h5", X=random_patches(2), Y=[0, 1], file=names[:2])
    val = patch_file("val.h5", X=random_patches(1), Y=[1], file=names[2:], candidate=[7])
    assert nodules("import", "legacy", train, val, "--out", out).returncode == 0
    with open_patches(out) as joined:
        sources = joined.read_sources()
    assert {name: values.tolist() for name, values in sources.items()} == {"file": names}


def test_an_output_in_the_wrong_place_is_refused_at_once(
    patch_file, random_patches, tmp_path: Path
) -> None:
    train = patch_file("train.h5", X=random_patches(5), Y=LABELS)
    before = train.read_bytes()
    onto_input = nodules("import", "legacy", train, train, "--out", train)
    assert_one_line_error(onto_input, str(train), "found the same file as input")
    assert train.read_bytes() == before
    onto_folder = nodules("import", "legacy", train, train, "--out", tmp_path)
    assert_one_line_error(onto_folder, str(tmp_path), "found a folder")


def test_a_broken_legacy_pair_leaves_no_file(patch_file, random_patches, tmp_path: Path) -> None:
    train = patch_file("train_again.h5", X=random_patches(5), Y=LABELS)
    broken = np.full((3, 50, 50), np.nan, np.float32)
    val = patch_file("val_again.h5", X=broken, Y=[0, 1, 1])
    out = tmp_path / "joined.h5"
    result = nodules("import", "legacy", train, val, "--out", out)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        f"error: {val}: X: row 0: found NaN, expected float intensities in 0..1"
    )
    assert not out.exists()


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    config = {
        "margin": 0,
        "stem_filters": 4,
        "stem_stride": 2,
        "blocks": [[8, 2]],
        "bypass": False,
        "batch_norm_momentum": 0.9,
        "pooling": "average",
        "dropout": 0.5,
    }
    path = tmp_path / "model.keras"
    save_model(build_model("small", "mobilenet", config, seed=1), path)
    return path


def test_predict_scores_patches_without_labels(
    patch_file, random_patches, model_path: Path, tmp_path: Path
) -> None:
    patches = random_patches(5)
    groups = ["a", "a", "b", "b", "c"]
    path = patch_file(X=patches, group=groups)
    out = tmp_path / "scores.csv"
    assert predict_file(model_path, path, out) == 5
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["index"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert [row["group"] for row in rows] == groups
    expected = nodule_probabilities(load_model(model_path), patches)
    assert np.array_equal(np.array([row["probability"] for row in rows], np.float32), expected)


def write_images(folder: Path, patches: np.ndarray) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{row}.png" for row in range(len(patches))]
    for path, patch in zip(paths, patches, strict=True):
        Image.fromarray(patch).save(path)
    return paths


def test_predict_scores_images_and_decides_at_a_threshold(
    random_patches, model_path: Path, tmp_path: Path
) -> None:
    patches = random_patches(5)
    folder = tmp_path / "images"
    paths = write_images(folder, patches)
    expected = nodule_probabilities(load_model(model_path), patches)
    threshold = float(np.sort(expected)[2])
    out = tmp_path / "scores.csv"
    result = nodules("predict", model_path, folder, "--threshold", threshold, "--out", out)
    assert result.returncode == 0, result.stderr
    calls = (expected >= np.float64(threshold)).tolist()
    assert f"5 images, {sum(calls)} called nodule\n" in result.stdout
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [*rows[0]] == ["index", "group", "probability", "file", "threshold", "nodule"]
    assert [row["file"] for row in rows] == [*map(str, paths)]
    assert [row["nodule"] for row in rows] == [str(int(c)) for c in calls]
    assert {row["group"] for row in rows} == {""}
    found = np.array([row["probability"] for row in rows], np.float32)
    assert np.array_equal(found, expected)


def test_predict_compares_with_the_threshold_that_it_writes(
    patch_file, random_patches, model_path: Path, tmp_path: Path
) -> None:
    path, out = patch_file(X=random_patches(20)), tmp_path / "scores.csv"
    nodules("predict", model_path, path, "--out", out)
    with out.open() as file:
        probabilities = [float(row["probability"]) for row in csv.DictReader(file)]
    # Just above a probability, and equal to it in single precision.
    threshold = float(np.nextafter(max(probabilities), 1))
    nodules("predict", model_path, path, "--threshold", repr(threshold), "--out", out)
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert {row["threshold"] for row in rows} == {repr(threshold)}
    assert {row["nodule"] for row in rows} == {"0"}


@pytest.mark.parametrize("text", ["nan", "inf", "true", "2", "-0.1"])
def test_predict_refuses_a_threshold_that_is_no_probability(text: str, tmp_path: Path) -> None:
    result = nodules("predict", "m.keras", "p.h5", f"--threshold={text}", "--out", tmp_path / "s")
    assert result.returncode != 0
    assert text in result.stderr.splitlines()[-1]
    assert "--threshold" in result.stderr.splitlines()[-1]


def test_predict_carries_the_files_of_a_patch_file(
    patch_file, random_patches, model_path: Path, tmp_path: Path
) -> None:
    path = patch_file(X=random_patches(2), file=["=a.png", "b.png"], candidate=[4, 5])
    result = nodules("predict", model_path, path, "--out", tmp_path / "scores.csv")
    assert "no threshold: " in result.stdout
    assert "--threshold adds the decision" in result.stdout
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["index", "group", "probability", "file", "candidate"]
    assert [row[3:] for row in rows[1:]] == [["'=a.png", "4"], ["b.png", "5"]]


def test_predict_leaves_no_scores_if_an_image_is_damaged(
    random_patches, model_path: Path, tmp_path: Path
) -> None:
    paths = write_images(tmp_path / "images", random_patches(3))
    paths[2].write_bytes(paths[2].read_bytes()[:500])
    out = tmp_path / "scores.csv"
    result = nodules("predict", model_path, tmp_path / "images", "--out", out)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(f"error: {paths[2]}: not a readable PNG")
    assert not out.exists()
    onto_input = nodules("predict", model_path, tmp_path / "images", "--out", paths[0])
    assert_one_line_error(onto_input, "found the same file as input")


def test_inspect_warns_of_nearly_black_patches(patch_file, random_patches) -> None:
    path = patch_file(X=random_patches(5) / np.float32(255 * 255), Y=LABELS)
    assert (
        "98% of all pixels lie in grey levels 0 to 1 of 0..255" in nodules("inspect", path).stdout
    )
    path = patch_file(X=random_patches(5), Y=LABELS)
    assert "of all pixels" not in nodules("inspect", path).stdout


def test_predict_averages_eight_views_where_asked(
    patch_file, random_patches, model_path: Path, tmp_path: Path
) -> None:
    patches = random_patches(3)
    out = tmp_path / "scores.csv"
    result = nodules("predict", model_path, patch_file(X=patches), "--views", "8", "--out", out)
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith(f"wrote {out}: 3 patches\n")
    with out.open() as file:
        found = [float(row["probability"]) for row in csv.DictReader(file)]
    model = load_model(model_path)
    turns = [np.rot90(patches, k, axes=(1, 2)) for k in range(4)]
    views = [view for turned in turns for view in (turned, turned[:, ::-1])]
    expected = np.mean([nodule_probabilities(model, view) for view in views], axis=0)
    assert found == pytest.approx(expected, abs=1e-6)


def test_predict_refuses_invalid_models_and_patch_files(
    patch_file, random_patches, model_path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.csv"
    patches = patch_file(X=random_patches(2))
    bad_model = nodules("predict", patches, patches, "--out", out)
    assert_one_line_error(bad_model, str(patches), "not a loadable .keras model")
    bad_patches = nodules("predict", model_path, model_path, "--out", out)
    assert_one_line_error(bad_patches, str(model_path), "not a readable HDF5 file")
    assert not out.exists()
    for read in (model_path, patches):
        before = read.read_bytes()
        with pytest.raises(FileError, match="found the same file as input"):
            predict_file(model_path, patches, read)
        assert read.read_bytes() == before


LAYOUTS = ("folder", "npz", "hdf5", "legacy", "luna16")
COMMANDS = ("", "inspect", "import", *(f"import {name}" for name in LAYOUTS), "predict", "compare")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    result = nodules(*command.split(), "--help")
    assert result.returncode == 0
    assert "usage: nodules" in result.stdout


def test_the_package_installs_its_command() -> None:
    command = Path(sys.executable).parent / "nodules"
    result = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
    assert "usage: nodules" in result.stdout
    result = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert result.stdout == f"nodules {version('nodules')}\n"


def test_help_imports_no_heavy_library() -> None:
    code = "import sys, nodules.__main__; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0
