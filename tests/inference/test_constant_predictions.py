"""Detection of constant predictions."""

import numpy as np
import pytest

from nodules.inference.constant_predictions import constant_predictions


@pytest.mark.parametrize(
    "probabilities",
    [
        [0.4386672, 0.4386673, 0.4386672],
        [0.5, 0.504],
        [0.0, 0.0, 1e-9],
        [1.0, 1.0, 0.9999999],
        [0.165, 0.1655],
    ],
)
def test_constant_probabilities_are_detected(probabilities: list[float]) -> None:
    said = constant_predictions(np.array(probabilities, np.float32), "val patches")
    assert said is not None
    assert said.startswith(f"the probabilities of all {len(probabilities)} val patches lie within ")


@pytest.mark.parametrize(
    "probabilities",
    [
        [0.44, 0.45],  # weak
        [0.001, 0.009],  # of a rare class
        [0.5] * 99 + [0.6],  # one patch stands out
        [0.0, 1.0],
        [0.3],  # a single patch
    ],
)
def test_weak_networks_are_not_called_constant(probabilities: list[float]) -> None:
    assert constant_predictions(np.array(probabilities, np.float32), "val patches") is None
