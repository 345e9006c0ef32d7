"""The pipeline, run through DVC in a temporary repository."""

import contextlib
import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pytest
from dvc.repo import Repo

from benchmarks.repository_copy import REPOSITORY, RepositoryCopy
from nodules.evaluation import figures
from nodules.evaluation.evaluate import WITH_INTERVALS
from nodules.evaluation.figures import RocCurve
from nodules.evaluation.metrics import score
from nodules.params import read_params
from nodules.patches.reader import open_patches

TINY = {
    "phantom": {"scans": 24, "patches_per_scan": 10, "nodule_fraction": 0.3},
    "evaluate": {"prevalence": 0.02},
    "models": {
        "squeezenet": {
            "config": {"stem_stride": 2, "fires": [[8, 16], [16, 32]], "pool_before": [0, 1]}
        },
        "mobilenet": {"config": {"stem_stride": 2, "blocks": [[32, 2], [64, 2]]}},
    },
    "recipes": {"tuned": {"epochs": 2}},
}
SCORES = {"auc", "accuracy", "average_precision", "sensitivity", "specificity", "precision"}
SCORES |= {"npv", "f1", "brier", "ece", "partial_auc", "sensitivity_at_specificity"}
LINE = {"calibration_slope", "calibration_intercept"}


def flat(metrics: dict, prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all metrics."""
    for key, value in metrics.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def stages_to_run(copy: RepositoryCopy) -> list[str]:
    """Return the stages whose own inputs have changed, as `dvc repro --dry` prints them."""
    with contextlib.chdir(copy.path), Repo() as repo:
        return [stage.addressing for stage in repo.reproduce(dry=True)]


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> RepositoryCopy:
    """Return a workspace in which a tiny pipeline was reproduced and committed."""
    copy = RepositoryCopy.create(tmp_path_factory.mktemp("copy"))
    copy.change_params(TINY)
    copy("dvc", "repro")
    copy.commit("tiny")
    return copy


@pytest.fixture
def params_put_back(reproduced: RepositoryCopy):
    yield
    reproduced("git", "checkout", "--quiet", "params.yaml")


def test_repro_leaves_nothing_to_do_and_nothing_uncommitted(reproduced: RepositoryCopy) -> None:
    assert reproduced.json("dvc", "status", "--json") == {}
    assert reproduced("git", "status", "--porcelain") == ""
    assert stages_to_run(reproduced) == []


def test_metrics_have_the_expected_keys_and_ranges(reproduced: RepositoryCopy) -> None:
    evaluated = json.loads((reproduced.path / "metrics/evaluate/metrics.json").read_text())
    for split in ("train", "val", "test"):
        found = evaluated[split]
        assert found.keys() >= SCORES
        found_nodules, false = 0.02 * found["sensitivity"], 0.98 * (1 - found["specificity"])
        assert found["ppv_at_prevalence"] == pytest.approx(found_nodules / (found_nodules + false))
        assert all(0 <= value <= 1 for name, value in found.items() if name not in LINE)
        for name in WITH_INTERVALS if split != "train" else ():
            assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"]
            assert found[f"{name}_low"] < found[f"{name}_high"]
    assert 0 < evaluated["threshold"] < 1
    trained = json.loads((reproduced.path / "metrics/train/metrics.json").read_text())
    assert trained["training"].keys() == {"loss", "accuracy"}
    assert trained["validation"].keys() == {"loss", "accuracy", "auc"}
    assert trained["epochs"] == 2
    assert trained["best_epoch"] in (1, 2)
    assert trained["parameters"] > 1000
    assert trained["multiply_adds"] > trained["parameters"]
    split = json.loads((reproduced.path / "metrics/split.json").read_text())
    leaks = split.pop("leaks")
    assert leaks == {"groups": 0, "exact_duplicates": 0, "near_duplicates": 0}
    assert sum(counts["patches"] for counts in split.values()) == 240
    assert sum(counts["groups"] for counts in split.values()) == 24
    assert sum(counts["nodules"] for counts in split.values()) == 72


def test_no_two_metrics_share_a_name(reproduced: RepositoryCopy) -> None:
    # Otherwise DVC prefixes them with their paths in every table.
    files = reproduced.json("dvc", "metrics", "show", "--json")[""]["data"].values()
    names = [name for file in files for name in flat(file["data"])]
    assert len(names) == len(set(names)) > 40


def test_predictions_are_those_that_were_scored_with_rows_of_the_data_set(
    reproduced: RepositoryCopy,
) -> None:
    with (reproduced.path / "data/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["split", "index", "group", "label", "probability"]
    split = json.loads((reproduced.path / "metrics/split.json").read_text())
    for name in ("val", "test"):
        assert sum(row["split"] == name for row in rows) == split[name]["patches"]
    with h5py.File(reproduced.path / "data/phantom.h5") as file:
        labels, groups = file["Y"][:], file["group"][:]
    metrics = json.loads((reproduced.path / "metrics/evaluate/metrics.json").read_text())
    for name in ("val", "test"):
        mine = [row for row in rows if row["split"] == name]
        truth = np.array([int(row["label"]) for row in mine], np.uint8)
        probabilities = np.array([float(row["probability"]) for row in mine])
        again = score(truth, probabilities, threshold=metrics["threshold"], calibration_bins=15)
        for key, value in again._asdict().items():
            assert metrics[name][key] == pytest.approx(value), key
    for row in rows:
        assert int(row["label"]) == labels[int(row["index"])]
        assert int(row["group"]) == groups[int(row["index"])]


def test_plot_data_is_strict_json(reproduced: RepositoryCopy) -> None:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    found = list((reproduced.path / "metrics/evaluate/plots").rglob("*.json"))
    assert {"roc_val.json", "roc_test.json"} <= {path.name for path in found}
    for path in found:
        assert json.loads(path.read_text(), parse_constant=refuse)


def test_pictures_show_the_splits_the_predictions_and_the_metrics(
    reproduced: RepositoryCopy, tmp_path: Path
) -> None:
    metrics = json.loads((reproduced.path / "metrics/evaluate/metrics.json").read_text())
    params = read_params(reproduced.path / "params.yaml")
    with (reproduced.path / "data/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    splits, curves = {}, {}
    for name in ("train", "val", "test"):
        with open_patches(reproduced.path / f"data/splits/{name}.h5", labelled=True) as split:
            splits[name] = split.read(0, len(split)), split.labels
            index = split.read_index()
    for name in ("val", "test"):
        mine = [float(row["probability"]) for row in rows if row["split"] == name]
        auc, *interval = (metrics[name][key] for key in ("auc", "auc_low", "auc_high"))
        probabilities = np.array(mine, np.float32)
        curves[name] = RocCurve(splits[name][1], probabilities, auc, tuple(interval))
    figures.roc(
        curves,
        metrics["threshold"],
        params.evaluate.confidence,
        f"{params.model}, recipe {params.recipe}",
        tmp_path / "roc.png",
    )
    figures.samples(splits, params.seed, tmp_path / "samples.png")
    figures.hardest(
        *splits["test"],
        probabilities,
        index,
        metrics["threshold"],
        params.evaluate.hardest,
        tmp_path / "hardest.png",
    )
    for name in ("roc", "samples", "hardest"):
        drawn, expected = (
            folder / f"{name}.png" for folder in (reproduced.path / "plots", tmp_path)
        )
        assert drawn.read_bytes() == expected.read_bytes(), name
    assert (reproduced.path / "plots/near_duplicates.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("params_put_back")
@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ({"models": {"mobilenet": {"config": {"dropout": 0.1}}}}, []),
        ({"recipes": {"published": {"epochs": 3}}}, []),
        ({"evaluate": {"hardest": 3}}, ["evaluate"]),
        ({"evaluate": {"views": 8}}, ["evaluate"]),
        ({"strategy": "mirrored"}, ["train"]),
        ({"recipes": {"tuned": {"epochs": 3}}}, ["train"]),
        ({"models": {"squeezenet": {"config": {"dropout": 0.1}}}}, ["train"]),
        ({"class_weights": {"tuned": "balanced"}}, ["class_weights"]),
        ({"class_weights": {"published": "none"}}, []),
        ({"split": {"train": 0.6, "val": 0.2, "test": 0.2}}, ["split"]),
    ],
)
def test_a_change_reruns_the_stages_that_read_it_alone(
    reproduced: RepositoryCopy, change: dict, stages: list[str]
) -> None:
    reproduced.change_params(change)
    assert stages_to_run(reproduced) == stages


@pytest.mark.parametrize(
    ("package", "stages"),
    [("tensorflow", ["train", "evaluate"]), ("scipy", ["split", "train", "evaluate"])],
)
def test_an_upgrade_reruns_the_stages_that_compute_with_the_package(
    reproduced: RepositoryCopy, package: str, stages: list[str]
) -> None:
    environment = reproduced.path / "environment.yaml"
    before = environment.read_text(encoding="utf-8")
    try:
        upgraded = before.replace(f'{package}: "', f'{package}: "9.')
        environment.write_text(upgraded, encoding="utf-8")
        assert stages_to_run(reproduced) == stages
    finally:
        environment.write_text(before, encoding="utf-8")


@pytest.mark.usefixtures("params_put_back")
def test_a_wrong_parameter_stops_the_stage_with_one_line(reproduced: RepositoryCopy) -> None:
    reproduced.change_params({"evaluate": {"hardest": 0}})
    output = reproduced("dvc", "repro", status=255)
    message = "error: params.yaml: evaluate.hardest: found 0, expected greater than or equal to 1"
    assert message in output
    assert "Traceback" not in output
    # DVC removes the outputs of a stage before running it; restore them from the cache.
    reproduced("git", "checkout", "--quiet", ".")
    reproduced("dvc", "checkout")
    assert reproduced("git", "status", "--porcelain") == ""


def test_metrics_of_commits_are_compared_on_a_clone_without_a_remote(
    reproduced: RepositoryCopy, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    reproduced("git", "clone", "--quiet", ".", str(clone))

    def dvc(*command: str) -> dict:
        return reproduced.json("sh", "-c", f'cd "{clone}" && dvc {" ".join(command)} --json')

    difference = dvc("metrics", "diff", "HEAD~1", "HEAD")
    epochs = difference["metrics/train/metrics.json"]["epochs"]
    assert epochs["new"] == 2
    assert epochs["old"] != 2
    assert dvc("plots", "diff", "HEAD~1", "HEAD")["data"]["ROC"]


def test_what_was_pushed_is_pulled_elsewhere_and_leaves_nothing_to_do(
    reproduced: RepositoryCopy, tmp_path: Path
) -> None:
    clone, remote = tmp_path / "clone", tmp_path / "remote"
    reproduced("git", "clone", "--quiet", ".", str(clone))
    there = RepositoryCopy(clone)
    for place in (reproduced, there):
        place("dvc", "remote", "add", "--local", "--default", "shared", str(remote))
    try:
        reproduced("dvc", "push")
        assert not (there.path / "models/model.keras").exists()
        there("dvc", "pull")
    finally:
        reproduced("dvc", "remote", "remove", "--local", "shared")
    assert "Data and pipelines are up to date." in there("dvc", "repro")
    assert there("git", "status", "--porcelain") == ""
    for name in ("models/model.keras", "data/predictions.csv", "metrics/evaluate/metrics.json"):
        assert (there.path / name).read_bytes() == (reproduced.path / name).read_bytes()


def test_a_tagged_model_can_be_fetched_by_name(reproduced: RepositoryCopy, tmp_path: Path) -> None:
    reproduced("git", "tag", "--annotate", "nodule-classifier@v1.0.0", "--message", "first")
    got = tmp_path / "classifier.keras"
    get = ("dvc", "artifacts", "get", ".", "nodule-classifier", "--rev", "v1.0.0")
    reproduced(*get, "--out", str(got))
    assert got.read_bytes() == (reproduced.path / "models/model.keras").read_bytes()


def test_an_experiment_in_a_temporary_folder_runs_its_own_code(reproduced: RepositoryCopy) -> None:
    module = reproduced.path / "nodules/phantom/patch_file.py"
    with module.open("a", encoding="utf-8") as file:
        file.write('\nprint("code of this experiment")\n')
    try:
        assert "code of this experiment" in reproduced("dvc", "exp", "run", "--temp", "phantom")
    finally:
        reproduced("git", "checkout", "--quiet", ".")


class Experiment(NamedTuple):
    """What an experiment left in the workspace, and its differences from HEAD."""

    split: dict
    first_scored_row: int
    differences: list[dict]
    params: list[dict]


@pytest.fixture(scope="module")
def mobile(reproduced: RepositoryCopy, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """Run the experiment `mobile`: another model, on an imported pair of files."""
    train, val = write_legacy_pair(tmp_path_factory.mktemp("legacy"))
    importing = ("python", "-m", "nodules", "import", "legacy", str(train), str(val))
    reproduced(*importing, "--out", "data/legacy.h5")
    try:
        reproduced("dvc", "add", "data/legacy.h5")
        changes = ("--set-param", "model=mobilenet", "--set-param", "dataset=data/legacy.h5")
        reproduced("dvc", "exp", "run", "--name", "mobile", *changes)
        with (reproduced.path / "data/predictions.csv").open() as file:
            first_scored_row = min(int(row["index"]) for row in csv.DictReader(file))
        # Compared with HEAD in the workspace, and later by its name.
        pairs: tuple[list[str], ...] = ([], ["HEAD", "mobile"])
        return Experiment(
            json.loads((reproduced.path / "metrics/split.json").read_text()),
            first_scored_row,
            [reproduced.json("dvc", "metrics", "diff", "--json", *pair) for pair in pairs],
            [reproduced.json("dvc", "params", "diff", "--json", *pair) for pair in pairs],
        )
    finally:
        reproduced("git", "checkout", "--quiet", ".")
        reproduced("dvc", "checkout")


def write_legacy_pair(folder: Path) -> list[Path]:
    """Write two files in the tflearn layout: float X, one-hot Y."""
    rng = np.random.default_rng(0)
    paths = []
    for name, count in (("train_again", 96), ("val_again", 64)):
        labels = np.arange(count) % 2
        patches = rng.random((count, 50, 50, 1), dtype=np.float32) / 2
        patches[:, 20:30, 20:30] += labels[:, None, None, None] * np.float32(0.4)
        path = folder / f"{name}.h5"
        with h5py.File(path, "w") as file:
            file["X"] = patches
            file["Y"] = np.eye(2, dtype=np.float32)[labels]
        paths.append(path)
    return paths


def test_another_model_is_an_experiment_and_is_compared(
    reproduced: RepositoryCopy, mobile: Experiment
) -> None:
    for difference, params in zip(mobile.differences, mobile.params, strict=True):
        change = difference["metrics/evaluate/metrics.json"]["test.auc"]
        assert change["diff"] == pytest.approx(change["new"] - change["old"])
        parameters = difference["metrics/train/metrics.json"]["parameters"]
        assert parameters["new"] != parameters["old"]
        assert params["params.yaml"] == {
            "model": {"old": "squeezenet", "new": "mobilenet"},
            "dataset": {"old": "data/phantom.h5", "new": "data/legacy.h5"},
        }
    plots = reproduced.json("dvc", "plots", "diff", "--json", "HEAD", "mobile")
    assert {"ROC", "Precision-recall", "Calibration", "Confusion matrix", "Loss"} <= set(
        plots["data"]
    )
    for name in ("ROC", "ROC, upper left corner"):
        curves = plots["data"][name]
        revisions = {revision for curve in curves for revision in curve["revisions"]}
        assert revisions == {"HEAD", "mobile"}
    makefile = (REPOSITORY / "Makefile").read_text()
    (kept,) = re.findall(r"(?m)^SHOWN := (.*)$", makefile)
    (dropped,) = re.findall(r"(?m)^DROPPED := (.*)$", makefile)
    options = ("--only-changed", "--keep", kept.replace("$$", "$"), "--drop", dropped)
    header, *rows = csv.reader(reproduced("dvc", "exp", "show", "--csv", *options).splitlines())
    assert {"Experiment", "model", "recipe", "dataset", "test.auc", "test.auc_low"} <= set(header)
    assert {"test.auc_high", "test.sensitivity", "test.specificity"} <= set(header)
    assert len(header) <= 12
    assert any("mobile" in row for row in rows)


def test_a_legacy_pair_goes_through_the_pipeline(mobile: Experiment) -> None:
    assert {name: mobile.split[name]["patches"] for name in ("train", "val", "test")} == {
        "train": 96,
        "val": 32,
        "test": 32,
    }
    assert mobile.first_scored_row == 96
