"""Training on several devices gives the same result as on one."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.support import REPOSITORY


@pytest.fixture(scope="module", params=[1, 4], ids="{0} ghost batches".format)
def trainings(request: pytest.FixtureRequest, tmp_path_factory) -> dict[str, dict]:
    """Train in a separate process, because devices are fixed when TensorFlow starts."""
    folder = tmp_path_factory.mktemp("strategies")
    command = [
        sys.executable,
        "-m",
        "tests.support.train_on_two_devices",
        folder,
        str(request.param),
    ]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_two_devices_train_as_one_does(trainings: dict[str, dict]) -> None:
    one, two = trainings["one_device"], trainings["mirrored"]
    assert two["replicas"] == 2
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)
    assert two["probabilities"] == pytest.approx(one["probabilities"], abs=5e-3)
    # The weights changed by much more than the tolerance.
    assert np.std(one["probabilities"]) > 0.05


several_ghost_batches = pytest.mark.parametrize("trainings", [4], indirect=True)


@several_ghost_batches
def test_a_stopped_training_on_two_devices_ends_as_if_it_had_not_been(
    trainings: dict[str, dict],
) -> None:
    assert trainings["resumed"] == trainings["mirrored"]


@several_ghost_batches
def test_two_devices_drop_features_too(trainings: dict[str, dict]) -> None:
    loss = trainings["dropout"]["loss"]
    assert np.isfinite(loss)
    assert loss != pytest.approx(trainings["mirrored"]["loss"], rel=1e-3)


@several_ghost_batches
@pytest.mark.parametrize(
    ("case", "problem"),
    [
        ("uneven batch", "strategy: found batches of 15 patches, expected a multiple of the 2"),
        (
            "ghost batches",
            "models.small.recipes.short.ghost_batches: found 3, expected 1, or a multiple of the 2",
        ),
    ],
)
def test_unsupported_multi_device_settings_are_one_line(
    trainings: dict[str, dict], case: str, problem: str
) -> None:
    assert trainings[case]["error"].endswith(f"{problem} devices")
