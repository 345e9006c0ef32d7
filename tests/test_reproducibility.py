"""The same commit produces the same bytes through DVC, even if training is killed."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from benchmarks.kills import SMALL
from benchmarks.repository_copy import RepositoryCopy
from benchmarks.reproducibility import differing, table

PATIENCE = 300  # seconds, for operations that take one second on an idle machine
TRAINED = ("models/model.keras", "metrics/train/plots", "metrics/train/metrics.json")


def test_a_killed_experiment_resumes_in_the_workspace_with_identical_results(
    tmp_path: Path,
) -> None:
    copy = RepositoryCopy.create(
        tmp_path, SMALL | {"recipes": {"tuned": {"epochs": 12, "batch_size": 8}}}
    )
    # Runs in a temporary DVC folder that the next run does not know.
    with copy.start_dvc("exp", "run", "--temp", "train") as process:
        end = time.monotonic() + PATIENCE
        while not list((tmp_path / ".dvc/tmp/training").glob("experiment-*.npz")):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < end
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert not (tmp_path / "models/model.keras").exists()
    with copy.start_dvc("repro", "train") as process:
        output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    assert "resuming after epoch" in output
    resumed = copy.output_hashes()
    provenance = json.loads((tmp_path / "metrics/train/provenance.json").read_text())
    assert provenance["resumed_after_epoch"] >= 1
    assert len(provenance["seconds_per_epoch"]) == 12 - provenance["resumed_after_epoch"]
    assert provenance["deterministic"] is True
    assert list((tmp_path / ".dvc/tmp/training").iterdir()) == []
    with copy.start_dvc("repro", "--single-item", "--force", "--no-run-cache", "train") as process:
        output, _ = process.communicate(timeout=PATIENCE)
    assert "resuming after epoch" not in output
    whole = copy.output_hashes()
    assert {path: whole[path] for path in TRAINED} == {path: resumed[path] for path in TRAINED}


@pytest.mark.parametrize("second", [{"a": "1", "b": "3"}, {"a": "1"}])
def test_an_output_that_differs_or_is_missing_is_named(second: dict[str, str]) -> None:
    runs = [{"a": "1", "b": "2"}, second]
    assert differing(runs) == ["b"]
    rows = table(runs).splitlines()[2:]
    assert [row.split("|")[-2].strip() for row in rows] == ["same", "**differs**"]
