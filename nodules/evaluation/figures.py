"""Figures: ROC curves, sample patches, and the most confident mistakes."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from nodules.evaluation.metrics import ROC_CORNER
from nodules.patches.grid import SAMPLES_PER_ROW, patch_grid, row_title, save_figure, show_patch
from nodules.patches.layout import Labels, Patches
from nodules.patches.reader import PatchRows
from nodules.statistics.decision import called
from nodules.system.streams import printable

# As many as fit below a patch.
CAPTION_CHARACTERS = 22

# Blue and orange of Okabe and Ito's palette, which colour-blind readers can distinguish.
COLOURS = {"test": "#0072B2", "val": "#E69F00"}


class RocCurve(NamedTuple):
    """Data of one split in the ROC figure."""

    labels: Labels
    probabilities: NDArray[np.floating]
    auc: float
    interval: tuple[float, float]


def roc(
    curves: Mapping[str, RocCurve], threshold: float, confidence: float, title: str, path: Path
) -> None:
    """Draw ROC curves with their AUC, its confidence interval, and the operating point.

    The second panel enlarges the upper left corner.

    Parameters
    ----------
    curves
        Data by split.
    threshold
        Threshold of the operating point.
    confidence
        Level of the intervals.
    title
        Title of the figure.
    path
        PNG file to write.
    """
    figure = Figure(figsize=(10, 5.3), layout="constrained")
    figure.suptitle(title, parse_math=False)
    whole, corner = figure.subplots(1, 2)
    whole.plot([0, 1], [0, 1], color="0.8", linewidth=1, linestyle="--")
    for name, curve in curves.items():
        fpr, tpr, _ = roc_curve(curve.labels, curve.probabilities)
        interval = "{:g}% interval {:.3f} to {:.3f}".format(100 * confidence, *curve.interval)
        label = f"{name}: AUC {curve.auc:.3f} ({interval})"
        calls = called(curve.probabilities, threshold)
        point = calls[curve.labels == 0].mean(), calls[curve.labels == 1].mean()
        in_corner = point[0] <= ROC_CORNER and point[1] >= 1 - ROC_CORNER
        for axes in (whole, corner):
            axes.plot(fpr, tpr, color=COLOURS[name], label=label)
            if axes is whole or in_corner:  # unclipped, to be whole at the edge
                axes.plot(*point, "o", color=COLOURS[name], markeredgecolor="white", clip_on=False)
    whole.plot([], [], "o", color="0.5", label=f"threshold {threshold:.3f}")
    for axes, size in ((whole, 1), (corner, ROC_CORNER)):
        axes.set(
            xlabel="False positive rate (1 - specificity)",
            ylabel="True positive rate (sensitivity)",
            xlim=(0, size),
            ylim=(1 - size, 1 + size / 100),
            aspect="equal",
        )
        axes.spines[["top", "right"]].set_visible(False)
    corner.set_title("upper left corner, enlarged", fontsize=10)
    whole.legend(loc="lower right", frameon=False, fontsize=8)
    save_figure(figure, path)


def samples(splits: Mapping[str, tuple[PatchRows, Labels]], seed: int, path: Path) -> None:
    """Draw random patches: a row of nodules and a row of non-nodules per split.

    Parameters
    ----------
    splits
        (N, 50, 50) uint8 patches and (N,) labels by split.
    seed
        Seed of the random choice.
    path
        PNG file to write.
    """
    rng = np.random.default_rng(seed)
    rows: dict[str, Patches] = {}
    for name, (patches, labels) in splits.items():
        for label, kind in ((1, "nodules"), (0, "non-nodules")):
            found = np.flatnonzero(labels == label)
            picked = rng.choice(found, min(SAMPLES_PER_ROW, len(found)), replace=False)
            rows[f"{name}\n{kind}"] = patches[np.sort(picked)]
    figure, grid = patch_grid(len(rows), SAMPLES_PER_ROW)
    for axes, (title, row) in zip(grid, rows.items(), strict=True):
        row_title(axes[0], title)
        for ax, patch in zip(axes, row, strict=False):
            show_patch(ax, patch)
    save_figure(figure, path)


def hardest(
    patches: PatchRows,
    labels: Labels,
    probabilities: NDArray[np.floating],
    index: NDArray[np.int64],
    threshold: float,
    count: int,
    path: Path,
    names: Sequence[str] | None = None,
) -> None:
    """Draw the most confident mistakes: false positives above, false negatives below.

    Parameters
    ----------
    patches, labels, probabilities, index
        (N, 50, 50), (N,), (N,) and (N,) of one split. Captions give the probability of each patch
        and its row in the data set.
    threshold
        Smallest probability that is called a nodule.
    count
        Maximum number of patches of each kind.
    path
        PNG file to write.
    names
        (N,) names of the patches, shortened to fit in the captions; None for none.
    """
    calls = called(probabilities, threshold)
    order = np.argsort(probabilities, kind="stable")
    kinds = {
        "false\npositives": order[calls[order] & (labels[order] == 0)][::-1],
        "false\nnegatives": order[~calls[order] & (labels[order] == 1)],
    }
    shown = {title: worst[:count] for title, worst in kinds.items()}
    rows = [max(1, -(-len(worst) // SAMPLES_PER_ROW)) for worst in shown.values()]
    figure, grid = patch_grid(sum(rows), SAMPLES_PER_ROW, caption_inches=0.25)
    figure.suptitle(
        f"Test patches misclassified at the threshold {threshold:.3f}: probability of a nodule, "
        "row in the data set (#)",
        fontsize=8,
    )
    blocks = np.split(grid, np.cumsum(rows)[:-1])
    for block, (title, worst) in zip(blocks, shown.items(), strict=True):
        axes = block.ravel()
        row_title(axes[0], f"{title}\n({len(worst)} of {len(kinds[title])})")
        for ax, row, patch in zip(axes, worst, patches[worst], strict=False):
            show_patch(ax, patch)
            title = f"{probabilities[row]:.3f}\n#{index[row]}"
            if names is not None:
                title = f"{probabilities[row]:.3f}  #{index[row]}\n{shortened(names[row])}"
            # A file name may hold a dollar sign, which would begin a formula.
            ax.set_title(title, fontsize=5, pad=2, parse_math=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # of a file name
        save_figure(figure, path)


def shortened(name: str, length: int = CAPTION_CHARACTERS) -> str:
    """Return a name as one printable line that fits under a patch, with its middle left out.

    Examples
    --------
    >>> shortened("LIDC-IDRI-0001_slice_073.png", 20)
    'LIDC-IDRI..._073.png'
    """
    text = printable(name)
    if len(text) <= length:
        return text
    ends = length - 3
    return f"{text[: ends // 2 + ends % 2]}...{text[-(ends // 2) :]}"
