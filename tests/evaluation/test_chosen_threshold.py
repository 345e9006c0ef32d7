"""The threshold and the recipe of a model: only those that dvc.lock records for this file."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from nodules.evaluation.chosen_threshold import Threshold, chosen_threshold
from nodules.evaluation.dvc_lock import NotRecordedError, trained_recipe


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def chosen(model: Path, views: int = 1) -> Threshold:
    return chosen_threshold(model, md5(model), views)


def write_lock(root: Path, rule: str = "youden", views: int = 1) -> None:
    entries = {
        kind: [{"path": name, "hash": "md5", "md5": md5(root / name)}]
        for kind, name in (
            ("deps", "models/model.keras"),
            ("outs", "metrics/evaluate/metrics.json"),
        )
    }
    params = {"params.yaml": {"evaluate": {"threshold": {"rule": rule}, "views": views}}}
    outs = [{**entries["deps"][0]}]
    train = {"outs": outs, "params": {"params.yaml": {"recipe": "tuned"}}}
    stages = {"train": train, "evaluate": {**entries, "params": params}}
    lock = {"schema": "2.0", "stages": stages}
    YAML().dump(lock, root / "dvc.lock")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a model that `evaluate` has scored, in the current folder."""
    for name, content in (
        ("models/model.keras", "weights"),
        ("metrics/evaluate/metrics.json", json.dumps({"threshold": 0.43})),
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    write_lock(tmp_path)
    monkeypatch.chdir(tmp_path)
    return Path("models/model.keras")


def test_the_threshold_of_a_scored_model_is_found(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = (0.43, "chosen on val, metrics/evaluate/metrics.json")
    assert chosen(model) == expected
    monkeypatch.chdir(tmp_path / "models")
    elsewhere = (0.43, f"chosen on val, {tmp_path}/metrics/evaluate/metrics.json")
    assert chosen(Path("model.keras")) == elsewhere


def test_a_model_linked_to_the_cache_belongs_to_its_repository(model: Path) -> None:
    model.rename("cached")
    model.symlink_to("../cached")
    assert chosen(model).value == 0.43


@pytest.mark.parametrize(
    ("rule", "views", "asked", "origin"),
    [
        ("youden", 8, 8, "chosen on val"),
        ("fixed", 1, 1, "fixed in params.yaml"),
        ("fixed", 1, 8, "fixed in params.yaml"),
    ],
)
def test_the_origin_says_how_it_was_chosen(
    model: Path, rule: str, views: int, asked: int, origin: str
) -> None:
    write_lock(Path(), rule, views)
    assert chosen(model, asked).origin == f"{origin}, metrics/evaluate/metrics.json"


@pytest.mark.parametrize(("views", "asked"), [(8, 1), (1, 8)])
def test_a_threshold_for_another_number_of_views_is_not_used(
    model: Path, views: int, asked: int
) -> None:
    write_lock(Path(), "youden", views)
    with pytest.raises(NotRecordedError, match=f"evaluate chose it with --views {views}"):
        chosen(model, asked)


def rewrite(name: str, content: str) -> Callable[[], object]:
    return lambda: Path(name).write_text(content, encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (rewrite("models/model.keras", "other"), "evaluate scored another model, says dvc.lock"),
        (rewrite("metrics/evaluate/metrics.json", "{}"), "is not the file that evaluate wrote"),
        (rewrite("dvc.lock", "stages: {train: {}}"), "dvc.lock records no evaluate"),
        (rewrite("dvc.lock", "stages: {evaluate: 1}"), "dvc.lock records no evaluate"),
        (rewrite("dvc.lock", "a: [\n"), "dvc.lock records no evaluate"),
        (rewrite("dvc.lock", " " * 2_000_000), "dvc.lock has more than 1,000,000 bytes"),
        (rewrite("dvc.lock", "stages: {evaluate: {deps: 3}}"), "evaluate scored another model"),
        (lambda: Path("dvc.lock").unlink(), "dvc.lock is missing or cannot be read"),
        (
            lambda: Path("metrics/evaluate/metrics.json").unlink(),
            "metrics/evaluate/metrics.json is missing or cannot be read",
        ),
    ],
)
def test_no_threshold_is_taken_for_another_model(
    model: Path, change: Callable[[], object], problem: str
) -> None:
    change()
    with pytest.raises(NotRecordedError) as caught:
        chosen(model)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{",
        '{"threshold": "a"}',
        '{"threshold": NaN}',
        '{"threshold": Infinity}',
        '{"threshold": true}',
        '{"threshold": 2}',
        '{"threshold": -0.1}',
    ],
)
def test_metrics_without_a_number_hold_no_threshold(model: Path, content: str) -> None:
    Path("metrics/evaluate/metrics.json").write_text(content, encoding="utf-8")
    write_lock(Path())
    with pytest.raises(NotRecordedError, match=r"threshold.*, expected a number in 0"):
        chosen(model)


def test_a_model_elsewhere_has_no_threshold(model: Path) -> None:
    model.rename("model.keras")
    with pytest.raises(NotRecordedError, match="is not models/model"):
        chosen(Path("model.keras"))


def test_the_recipe_of_a_trained_model_is_found(model: Path) -> None:
    assert trained_recipe(model) == "tuned"


@pytest.mark.parametrize(
    "change",
    [
        rewrite("models/model.keras", "other"),
        rewrite("dvc.lock", "stages: {evaluate: {}}"),
        rewrite("dvc.lock", "stages: {train: {outs: 3}}"),
        lambda: Path("dvc.lock").unlink(),
    ],
)
def test_a_model_that_dvc_lock_does_not_record_has_no_recipe(
    model: Path, change: Callable[[], object]
) -> None:
    change()
    assert trained_recipe(model) is None
