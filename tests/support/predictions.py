"""Labels and probabilities drawn for tests, and scikit-learn's scores of them."""

import numpy as np
from hypothesis import strategies as st
from sklearn import metrics


@st.composite
def predictions(draw) -> tuple[np.ndarray, np.ndarray]:
    """Draw labels of both classes, and probabilities with ties."""
    labels = [0, 1, *draw(st.lists(st.integers(0, 1), max_size=60))]
    size = len(labels)
    tenths = draw(st.lists(st.integers(0, 20), min_size=size, max_size=size))
    return np.array(labels, dtype=np.uint8), np.array(tenths) / 20


@st.composite
def paired_predictions(draw) -> tuple[np.ndarray, np.ndarray]:
    """Draw labels, at least two per class, and two sets of probabilities with ties."""
    labels = [0, 0, 1, 1, *draw(st.lists(st.integers(0, 1), max_size=30))]
    tenths = st.lists(st.integers(0, 10), min_size=len(labels), max_size=len(labels))
    return np.array(labels, np.uint8), np.array([draw(tenths), draw(tenths)]) / 10


def draw_binormal(
    rng: np.random.Generator, patches: int, separations: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Draw labels and two correlated scores; separations are in standard deviations."""
    labels = (np.arange(patches) % 4 == 0).astype(np.uint8)
    shared = rng.normal(size=patches)
    own = rng.normal(size=(2, patches))
    return labels, 0.7 * shared + 0.7 * own + np.outer(separations, labels)


def scikit_learn_scores(
    labels: np.ndarray, probabilities: np.ndarray, threshold: float
) -> dict[str, float]:
    calls = probabilities >= threshold
    return {
        "auc": metrics.roc_auc_score(labels, probabilities),
        "average_precision": metrics.average_precision_score(labels, probabilities),
        "sensitivity": metrics.recall_score(labels, calls),
        "specificity": metrics.recall_score(labels, calls, pos_label=0),
        "accuracy": metrics.accuracy_score(labels, calls),
        "brier": metrics.brier_score_loss(labels, probabilities),
    }
