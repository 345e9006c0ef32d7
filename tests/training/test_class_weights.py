"""Class weights: the balanced formula, fixed weights, and the file between two stages."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from nodules.system.atomic import write_json
from nodules.training.class_weights import class_weights, read_class_weights


@given(nodules=st.integers(1, 500), others=st.integers(1, 500))
def test_balanced_weights_are_those_of_scikit_learn(nodules: int, others: int) -> None:
    labels = np.array([1] * nodules + [0] * others, dtype=np.uint8)
    weights = class_weights(labels, "balanced")
    expected = compute_class_weight("balanced", classes=np.array([0, 1]), y=labels)
    assert [weights["non_nodule"], weights["nodule"]] == pytest.approx(expected.tolist())


def test_none_and_fixed_weights_ignore_the_labels(tmp_path) -> None:
    labels = np.array([0, 0, 1], dtype=np.uint8)
    assert class_weights(labels, "none") == {
        "non_nodule": 1,
        "nodule": 1,
    }
    published = class_weights(labels, [0.4, 0.6])
    assert published == {"non_nodule": 0.4, "nodule": 0.6}
    write_json(tmp_path / "weights.json", published)
    assert read_class_weights(tmp_path / "weights.json") == (0.4, 0.6)
