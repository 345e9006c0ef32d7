"""Figures that show patches in a grid."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from nodules.patches.layout import PATCH_SIZE, Patches
from nodules.system.atomic import replacing

SAMPLES_PER_ROW = 12
DOTS_PER_INCH = 150
PATCH_INCHES = 0.75


def patch_grid(
    rows: int, columns: int, caption_inches: float = 0.0
) -> tuple[Figure, NDArray[np.object_]]:
    """Create a figure with rows x columns axes without frames."""
    size = ((columns + 1) * PATCH_INCHES, rows * (PATCH_INCHES + caption_inches))
    layout = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    figure = Figure(figsize=size, layout=layout)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    return figure, grid


def row_title(axes: Axes, title: str) -> None:
    """Write a title to the left of the first axes of a row."""
    axes.text(-0.15, 0.5, title, ha="right", va="center", fontsize=7, transform=axes.transAxes)


def show_patch(axes: Axes, patch: Patches) -> None:
    """Draw a (50, 50) uint8 patch in its grey levels."""
    extent = (0, PATCH_SIZE, PATCH_SIZE, 0)
    axes.imshow(patch, cmap="gray", vmin=0, vmax=255, interpolation="nearest", extent=extent)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG whose bytes depend only on the picture."""
    # By default Matplotlib adds its version.
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH, metadata={"Software": None})
