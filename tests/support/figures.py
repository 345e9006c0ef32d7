"""What a figure shows, read from Matplotlib before it becomes a PNG."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nodules.patches.grid import save_figure


class Drawn:
    """The figures that a module saves, by file name; they are written as well."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
        self.figures: dict[str, Figure] = {}
        monkeypatch.setattr(f"{module}.save_figure", self._save)

    def _save(self, figure: Figure, path: Path) -> None:
        self.figures[path.name] = figure
        save_figure(figure, path)

    def __getitem__(self, name: str) -> Figure:
        return self.figures[name]


def patches_in(figure: Figure, columns: int) -> list[list[NDArray[np.uint8]]]:
    """Return the patches of each row of a grid; places without a patch are left out."""
    shown = [[np.asarray(image.get_array()) for image in axes.images] for axes in figure.axes]
    assert all(len(images) <= 1 for images in shown)
    return [
        [patch for images in shown[start : start + columns] for patch in images]
        for start in range(0, len(shown), columns)
    ]


def texts_in(figure: Figure, columns: int) -> list[list[str]]:
    """Return the titles and texts of each row of a grid, without empty ones."""
    found = [[*(text.get_text() for text in axes.texts), axes.get_title()] for axes in figure.axes]
    return [
        [text for texts in found[start : start + columns] for text in texts if text]
        for start in range(0, len(found), columns)
    ]
