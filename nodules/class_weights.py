"""Weights that make up for one class being rarer than the other."""

import json
from pathlib import Path

import numpy as np
from sklearn.utils.class_weight import compute_class_weight

from nodules.params import ClassWeightParams
from nodules.patches import CLASSES, Labels


def class_weights(labels: Labels, params: ClassWeightParams) -> dict[str, float]:
    """Weigh the classes for the loss.

    Parameters
    ----------
    labels
        (N,) uint8 of 0 and 1, both present: the train split's, and no others.
    params
        `balanced` is scikit-learn's N / (2 * count), after King and Zeng (2001), "Logistic
        regression in rare events data"; `none` is 1; numbers are taken as they are.

    Returns
    -------
    dict
        `non_nodule` and `nodule` to their weight.
    """
    match params.weights:
        case "balanced":
            weights = compute_class_weight("balanced", classes=np.array([0, 1]), y=labels).tolist()
        case "none":
            weights = [1.0, 1.0]
        case list() as weights:
            pass
    return dict(zip(CLASSES, weights, strict=True))


def read_class_weights(path: Path) -> tuple[float, float]:
    """Read what the `class_weights` stage wrote, as (non-nodule, nodule)."""
    content = json.loads(path.read_text())
    non_nodule, nodule = (content[name] for name in CLASSES)
    return non_nodule, nodule
