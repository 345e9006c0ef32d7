"""The metrics of a whole evaluation."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from nodules.evaluation.evaluate import EvaluationFiles, evaluate
from nodules.models.file import save_model
from nodules.models.registry import build_model
from nodules.splitting.split import split_patches
from tests.support.small_training import small_params


def test_scores_without_irrelevant_patches_are_given_beside_those_of_all(
    patch_file: Callable[..., Path], random_patches: Callable[[int], np.ndarray], tmp_path: Path
) -> None:
    rows = np.arange(120)
    labels, irrelevant = rows % 2, (rows % 4 == 0) & (rows % 3 > 0)
    folds = np.array(["train", "val", "test"])[rows % 3]
    dataset = patch_file(
        X=random_patches(120), Y=labels, split=folds.tolist(), irrelevant=irrelevant.astype(int)
    )
    params = small_params()
    split_patches(dataset, tmp_path / "splits", params.split, seed=0, search=False)
    model = params.chosen_model
    save_model(build_model("small", model.builder, model.config, seed=1), tmp_path / "m.keras")
    files = EvaluationFiles(
        tmp_path / "m.keras",
        tmp_path / "splits",
        tmp_path / "log",
        tmp_path / "plots",
        tmp_path / "predictions.csv",
    )
    evaluate(params.evaluate, 0, files)

    metrics = json.loads((tmp_path / "log/metrics.json").read_text())
    assert "relevant" not in metrics["train"]  # whose patches are all relevant
    with files.predictions.open() as table:
        test = [row for row in csv.DictReader(table) if row["split"] == "test"]
    kept = [row for row in test if not irrelevant[int(row["index"])]]
    assert 0 < len(kept) < len(test)
    for found, patches in ((metrics["test"], test), (metrics["test"]["relevant"], kept)):
        truth = [int(row["label"]) for row in patches]
        auc = roc_auc_score(truth, [float(row["probability"]) for row in patches])
        assert found["auc"] == pytest.approx(auc)
        assert found["auc_low"] <= found["auc"] <= found["auc_high"]
    assert metrics["test"].keys() - {"relevant"} == metrics["test"]["relevant"].keys()
