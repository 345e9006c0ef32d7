"""Scoring returns the network output for each patch, in patch order."""

import numpy as np
import pytest

from nodules.inference.probabilities import nodule_probabilities
from nodules.models.registry import build_model
from tests.support.small_training import small_params


@pytest.mark.parametrize("count", [1, 16, 77])
def test_batches_scored_side_by_side_are_the_network_applied_to_all(
    count: int, random_patches
) -> None:
    model = build_model("small", "squeezenet", small_params().chosen_model.config, seed=3)
    patches = random_patches(count)
    expected = model(patches[..., np.newaxis].astype(np.float32), training=False).numpy()[:, 1]
    found = nodule_probabilities(model, patches, batch_size=16)
    assert found.dtype == np.float32
    assert found == pytest.approx(expected, abs=1e-6)
    if count > 1:
        assert np.ptp(found) > 0
