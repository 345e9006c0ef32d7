"""Pictures for people: the ROC curve, samples of the data, and the hardest mistakes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from nodules.patches.layout import PATCH_SIZE, Labels, Patches
from nodules.patches.reader import PatchRows
from nodules.system.atomic import replacing

# Blue and orange of Okabe and Ito's palette, told apart by colour-blind readers too.
COLOURS = {"test": "#0072B2", "val": "#E69F00"}
SAMPLES_PER_ROW = 12
DOTS_PER_INCH = 150
PATCH_INCHES = 0.75
MOST_DUPLICATES = 2 * SAMPLES_PER_ROW


class RocCurve(NamedTuple):
    """What the ROC figure shows of a split."""

    labels: Labels
    probabilities: NDArray[np.floating]
    auc: float
    interval: tuple[float, float]


class Duplicate(NamedTuple):
    """A pair in the figure of duplicates: the patches, where they stand, how alike they are."""

    patches: tuple[Patches, Patches]
    places: tuple[str, str]
    likeness: str


def roc(curves: Mapping[str, RocCurve], threshold: float, confidence: float, path: Path) -> None:
    """Draw ROC curves with their AUC, its interval, and the operating point on each.

    Parameters
    ----------
    curves
        By split.
    threshold
        Of the operating point.
    confidence
        Level of the intervals.
    path
        PNG to write.
    """
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1, linestyle="--")
    for name, curve in curves.items():
        fpr, tpr, _ = roc_curve(curve.labels, curve.probabilities)
        interval = "{:g}% interval {:.3f} to {:.3f}".format(100 * confidence, *curve.interval)
        label = f"{name}: AUC {curve.auc:.3f} ({interval})"
        axes.plot(fpr, tpr, color=COLOURS[name], label=label)
        called = curve.probabilities >= threshold
        point = called[curve.labels == 0].mean(), called[curve.labels == 1].mean()
        axes.plot(*point, "o", color=COLOURS[name], markeredgecolor="white", clip_on=False)
    axes.plot([], [], "o", color="0.5", label=f"threshold {threshold:.3f}")
    axes.set(
        xlabel="False positive rate (1 - specificity)",
        ylabel="True positive rate (sensitivity)",
        xlim=(0, 1),
        ylim=(0, 1.01),
        aspect="equal",
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False, fontsize=8)
    _save(figure, path)


def samples(splits: Mapping[str, tuple[PatchRows, Labels]], seed: int, path: Path) -> None:
    """Show patches picked at random: a row of nodules and a row of non-nodules for each split.

    Parameters
    ----------
    splits
        (N, 50, 50) uint8 patches and (N,) labels by split.
    seed
        Of the picking.
    path
        PNG to write.
    """
    rng = np.random.default_rng(seed)
    rows: dict[str, Patches] = {}
    for name, (patches, labels) in splits.items():
        for label, kind in ((1, "nodules"), (0, "non-nodules")):
            found = np.flatnonzero(labels == label)
            picked = rng.choice(found, min(SAMPLES_PER_ROW, len(found)), replace=False)
            rows[f"{name}\n{kind}"] = patches[np.sort(picked)]
    figure, grid = _patch_grid(len(rows), SAMPLES_PER_ROW)
    for axes, (title, row) in zip(grid, rows.items(), strict=True):
        _row_title(axes[0], title)
        for ax, patch in zip(axes, row, strict=False):
            _show(ax, patch)
    _save(figure, path)


def hardest(
    patches: PatchRows,
    labels: Labels,
    probabilities: NDArray[np.floating],
    index: NDArray[np.int64],
    threshold: float,
    count: int,
    path: Path,
) -> None:
    """Show the most confident mistakes: false positives above, false negatives below.

    Parameters
    ----------
    patches, labels, probabilities, index
        (N, 50, 50), (N,), (N,) and (N,): of one split. Each patch is captioned with its
        probability and its row in the data set.
    threshold
        Of the calls.
    count
        How many to show of each kind.
    path
        PNG to write.
    """
    called = probabilities >= threshold
    order = np.argsort(probabilities, kind="stable")
    kinds = {
        "false\npositives": order[called[order] & (labels[order] == 0)][::-1],
        "false\nnegatives": order[~called[order] & (labels[order] == 1)],
    }
    shown = {title: worst[:count] for title, worst in kinds.items()}
    rows = [max(1, -(-len(worst) // SAMPLES_PER_ROW)) for worst in shown.values()]
    figure, grid = _patch_grid(sum(rows), SAMPLES_PER_ROW, caption_inches=0.25)
    blocks = np.split(grid, np.cumsum(rows)[:-1])
    for block, (title, worst) in zip(blocks, shown.items(), strict=True):
        axes = block.ravel()
        _row_title(axes[0], f"{title}\n({len(worst)} of {len(kinds[title])})")
        for ax, row, patch in zip(axes, worst, patches[worst], strict=False):
            _show(ax, patch)
            ax.set_title(f"{probabilities[row]:.3f}\n#{index[row]}", fontsize=5, pad=2)
    _save(figure, path)


def near_duplicates(pairs: Sequence[Duplicate], *, exact: int, near: int, path: Path) -> None:
    """Show duplicates that stand in different splits, one above the other; or that there are none.

    Parameters
    ----------
    pairs
        The ones to show, the most alike first.
    exact, near
        How many pairs there are of either kind.
    path
        PNG to write.
    """
    if not pairs:
        figure = Figure(figsize=(6, 1))
        sentence = "No patch of one split is a duplicate or near-duplicate of a patch of another."
        figure.text(0.5, 0.5, sentence, ha="center", va="center", fontsize=8)
        _save(figure, path)
        return
    bands = -(-len(pairs) // SAMPLES_PER_ROW)
    figure, grid = _patch_grid(2 * bands, SAMPLES_PER_ROW, caption_inches=0.25)
    title = f"Pairs in different splits: {exact:,} exact and {near:,} near-duplicates"
    figure.suptitle(f"{title}; shown: {len(pairs)}", fontsize=8)
    for number, pair in enumerate(pairs):
        band, column = divmod(number, SAMPLES_PER_ROW)
        for row, (patch, place) in enumerate(zip(pair.patches, pair.places, strict=True)):
            axes = grid[2 * band + row, column]
            _show(axes, patch)
            axes.set_title(f"{pair.likeness}\n{place}" if row == 0 else place, fontsize=5, pad=2)
    _save(figure, path)


def _patch_grid(
    rows: int, columns: int, caption_inches: float = 0.0
) -> tuple[Figure, NDArray[np.object_]]:
    """Make a figure of rows x columns axes without frames."""
    size = ((columns + 1) * PATCH_INCHES, rows * (PATCH_INCHES + caption_inches))
    layout = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    figure = Figure(figsize=size, layout=layout)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    return figure, grid


def _row_title(axes: Axes, title: str) -> None:
    axes.text(-0.15, 0.5, title, ha="right", va="center", fontsize=7, transform=axes.transAxes)


def _show(axes: Axes, patch: Patches) -> None:
    extent = (0, PATCH_SIZE, PATCH_SIZE, 0)
    axes.imshow(patch, cmap="gray", vmin=0, vmax=255, interpolation="nearest", extent=extent)


def _save(figure: Figure, path: Path) -> None:
    # Without metadata the file depends on the picture alone, not on matplotlib's version.
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH, metadata={"Software": None})
