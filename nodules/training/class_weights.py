"""Class weights against class imbalance."""

import json
from pathlib import Path

import numpy as np

from nodules.patches.layout import CLASSES, Labels
from nodules.training.recipe import ClassWeights


def class_weights(labels: Labels, rule: ClassWeights) -> dict[str, float]:
    """Compute the weights of the classes in the loss.

    Parameters
    ----------
    labels
        (N,) uint8 of 0 and 1, both present: the labels of the train split.
    rule
        `balanced` is N / (2 * count), as in scikit-learn, after King and Zeng (2001), "Logistic
        regression in rare events data"; `none` is 1; numbers are used as given.

    Returns
    -------
    dict
        Weights of `non_nodule` and `nodule`.
    """
    match rule:
        case "balanced":
            weights = (len(labels) / (2 * np.bincount(labels, minlength=2))).tolist()
        case "none":
            weights = [1.0, 1.0]
        case list() as weights:
            pass
    return dict(zip(CLASSES, weights, strict=True))


def read_class_weights(path: Path) -> tuple[float, float]:
    """Read the output of the `class_weights` stage as (non-nodule, nodule)."""
    content = json.loads(path.read_text(encoding="utf-8"))
    non_nodule, nodule = (content[name] for name in CLASSES)
    return non_nodule, nodule
