"""Figure of duplicates in different splits."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from nodules.patches.grid import SAMPLES_PER_ROW, patch_grid, save_figure, show_patch
from nodules.patches.layout import SPLITS
from nodules.patches.reader import PatchFile
from nodules.splitting.assignment import Assignment
from nodules.splitting.leaks import Crossings

MAX_PAIRS = 2 * SAMPLES_PER_ROW


def draw_duplicates(
    patches: PatchFile, crossings: Crossings, assignment: Assignment, path: Path
) -> None:
    """Draw pairs of duplicates in different splits, or state that there are none.

    Parameters
    ----------
    patches
        Data set.
    crossings
        Duplicates across splits; the first `MAX_PAIRS` are drawn.
    assignment
        (N,) indices in `SPLITS`.
    path
        PNG file to write.
    """
    pairs = crossings.examples[:MAX_PAIRS]
    if not pairs:
        figure = Figure(figsize=(6, 1))
        sentence = "No patch of one split is a duplicate or near-duplicate of a patch of another."
        figure.text(0.5, 0.5, sentence, ha="center", va="center", fontsize=8)
        save_figure(figure, path)
        return
    bands = -(-len(pairs) // SAMPLES_PER_ROW)
    figure, grid = patch_grid(2 * bands, SAMPLES_PER_ROW, caption_inches=0.25)
    counts = f"{crossings.exact:,} exact or mirrored and {crossings.near:,} near-duplicates"
    figure.suptitle(
        f"Pairs in different splits: {counts}; shown: {len(pairs)}, one above the other, with "
        "their rows in the data set (#); r: correlation where they overlap",
        fontsize=7,
    )
    for number, (first, second, pair) in enumerate(pairs):
        band, column = divmod(number, SAMPLES_PER_ROW)
        shown = [patches.read(row, row + 1)[0] for row in (first, second)]
        if pair is not None:
            likeness = f"r = {pair.correlation:.3f}"
        else:
            likeness = "same pixels" if np.array_equal(*shown) else "turned or mirrored"
        captions = {
            first: f"{likeness}\n{_place(first, assignment)}",
            second: _place(second, assignment),
        }
        for offset, (patch, caption) in enumerate(zip(shown, captions.values(), strict=True)):
            axes = grid[2 * band + offset, column]
            show_patch(axes, patch)
            axes.set_title(caption, fontsize=5, pad=2)
    save_figure(figure, path)


def _place(row: int, assignment: Assignment) -> str:
    return f"{SPLITS[assignment[row]]} #{row}"
