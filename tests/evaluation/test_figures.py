"""What the pictures of an evaluation show."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from numpy.typing import NDArray
from PIL import Image

from nodules.evaluation.figures import COLOURS, RocCurve, hardest, roc, samples
from nodules.evaluation.metrics import ROC_CORNER
from nodules.patches.grid import SAMPLES_PER_ROW, patch_grid, save_figure, show_patch
from tests.support.figures import Drawn, patches_in, texts_in


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    return Drawn(monkeypatch, "nodules.evaluation.figures")


def plain(count: int, first: int = 0) -> NDArray[np.uint8]:
    """Return patches of one grey level each: `first`, `first + 1`, ..."""
    return np.tile(np.arange(first, first + count, dtype=np.uint8)[:, None, None], (1, 50, 50))


def greys(rows: list[list[NDArray[np.uint8]]]) -> list[list[int]]:
    """Return the grey level of each plain patch."""
    assert all(patch.shape == (50, 50) and np.ptp(patch) == 0 for row in rows for patch in row)
    return [[int(patch[0, 0]) for patch in row] for row in rows]


def test_the_roc_figure_draws_each_curve_with_its_auc_and_operating_point(
    drawn: Drawn, tmp_path: Path
) -> None:
    curves = {
        "val": RocCurve(np.array([0, 1]), np.array([0.1, 0.9]), 1.0, (0.9, 1.0)),
        # By hand: of 0.8, 0.6, 0.4, 0.2, the first and the third are nodules.
        "test": RocCurve(
            np.array([1, 0, 1, 0], np.uint8), np.array([0.8, 0.6, 0.4, 0.2]), 0.75, (0.5, 1.0)
        ),
    }
    roc(curves, 0.5, 0.95, "a network, recipe $x$", tmp_path / "roc.png")
    assert drawn["roc.png"].get_suptitle() == "a network, recipe $x$"
    axes, _ = drawn["roc.png"].axes
    assert axes.get_xlabel() == "False positive rate (1 - specificity)"
    assert axes.get_ylabel() == "True positive rate (sensitivity)"
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "val: AUC 1.000 (95% interval 0.900 to 1.000)",
        "test: AUC 0.750 (95% interval 0.500 to 1.000)",
        "threshold 0.500",
    ]
    chance, val, val_point, test, test_point, _ = axes.lines
    assert np.asarray(chance.get_xydata()).tolist() == [[0, 0], [1, 1]]
    assert np.asarray(val.get_xydata()).tolist() == [[0, 0], [0, 1], [1, 1]]
    assert np.asarray(val_point.get_xydata()).tolist() == [[0, 1]]
    steps = [[0, 0], [0, 0.5], [0.5, 0.5], [0.5, 1], [1, 1]]
    assert np.asarray(test.get_xydata()).tolist() == steps
    assert np.asarray(test_point.get_xydata()).tolist() == [[0.5, 0.5]]
    for name, lines in (("val", (val, val_point)), ("test", (test, test_point))):
        assert {to_hex(line.get_color()) for line in lines} == {COLOURS[name].lower()}


def test_the_roc_figure_enlarges_the_upper_left_corner_with_the_points_in_it(
    drawn: Drawn, tmp_path: Path
) -> None:
    labels = np.array([0] * 10 + [1] * 10)
    # At 0.5: val calls 9 of 10 nodules and 1 of 10 others, test 9 and 3.
    val = np.where(labels == 1, 0.9, 0.1)
    val[[0, 19]] = 0.6, 0.4
    test = val.copy()
    test[[1, 2]] = 0.7
    curves = {
        name: RocCurve(labels, p, 0.9, (0, 1)) for name, p in {"val": val, "test": test}.items()
    }
    roc(curves, 0.5, 0.95, "", tmp_path / "roc.png")
    whole, corner = drawn["roc.png"].axes
    assert corner.get_xlim() == (0, ROC_CORNER)
    assert corner.get_ylim()[0] == 1 - ROC_CORNER
    enlarged, lines = (
        [np.asarray(line.get_xydata()).tolist() for line in axes.lines] for axes in (corner, whole)
    )
    assert [line for line in enlarged if len(line) > 1] == [line for line in lines if len(line) > 2]
    assert [line for line in enlarged if len(line) == 1] == [[[0.1, 0.9]]]


def test_samples_are_distinct_patches_of_the_class_and_split_that_the_row_names(
    drawn: Drawn, tmp_path: Path
) -> None:
    labels = np.arange(40) % 2
    splits = {
        "train": (plain(40), labels),
        "test": (plain(8, first=100), np.array([1, 0, 0, 0, 0, 0, 0, 1])),
    }
    samples(splits, 1, tmp_path / "one.png")
    samples(splits, 2, tmp_path / "two.png")
    assert texts_in(drawn["one.png"], SAMPLES_PER_ROW) == [
        ["train\nnodules"],
        ["train\nnon-nodules"],
        ["test\nnodules"],
        ["test\nnon-nodules"],
    ]
    one, two = (greys(patches_in(drawn[n], SAMPLES_PER_ROW)) for n in ("one.png", "two.png"))
    # In their order in the file; of the 20 patches of a class, 12 fit in a row.
    for label, row in zip((1, 0), one, strict=False):
        assert len(row) == SAMPLES_PER_ROW
        assert row == sorted(set(row))
        assert {grey % 2 for grey in row} == {label}
    assert one[2:] == [[100, 107], [101, 102, 103, 104, 105, 106]]
    assert one[:2] != two[:2]


def test_the_hardest_patches_are_the_most_confident_mistakes_with_their_captions(
    drawn: Drawn, tmp_path: Path
) -> None:
    # Rows 0 to 14 are false positives, the last the most confident; 15 and 16 false negatives.
    probabilities = np.array([*np.linspace(0.6, 0.95, 15), 0.3, 0.1, 0.9, 0.2])
    labels = np.array([0] * 15 + [1, 1] + [1, 0], np.uint8)
    index = 1000 + np.arange(19)
    hardest(plain(19), labels, probabilities, index, 0.5, 14, tmp_path / "hardest.png")
    figure = drawn["hardest.png"]
    assert figure.get_suptitle().startswith("Test patches misclassified at the threshold 0.500: ")
    shown = greys(patches_in(figure, SAMPLES_PER_ROW))
    assert shown == [[14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3], [2, 1], [16, 15]]
    texts = texts_in(figure, SAMPLES_PER_ROW)
    assert texts[0][:2] == ["false\npositives\n(14 of 15)", "0.950\n#1014"]
    assert texts[1] == ["0.650\n#1002", "0.625\n#1001"]
    assert texts[2] == ["false\nnegatives\n(2 of 2)", "0.100\n#1016", "0.300\n#1015"]


def test_without_mistakes_the_picture_says_so(drawn: Drawn, tmp_path: Path) -> None:
    path = tmp_path / "hardest.png"
    hardest(plain(2), np.array([0, 1], np.uint8), np.array([0.1, 0.9]), np.arange(2), 0.5, 24, path)
    assert patches_in(drawn["hardest.png"], SAMPLES_PER_ROW) == [[], []]
    assert texts_in(drawn["hardest.png"], SAMPLES_PER_ROW) == [
        ["false\npositives\n(0 of 0)"],
        ["false\nnegatives\n(0 of 0)"],
    ]


def test_a_patch_is_drawn_upright_in_its_grey_levels(tmp_path: Path) -> None:
    patch = np.full((50, 50), 100, np.uint8)
    patch[:25, :25] = 200  # top left
    patch[25:, 25:] = 30  # bottom right
    figure, grid = patch_grid(1, 1)
    show_patch(grid[0, 0], patch)
    save_figure(figure, tmp_path / "patch.png")
    with Image.open(tmp_path / "patch.png") as image:
        pixels = np.asarray(image.convert("L"))
    rows, columns = np.nonzero(pixels < 255)
    top, bottom, left, right = rows.min(), rows.max(), columns.min(), columns.max()
    height, width = bottom - top, right - left
    quarters = {
        (down, across): int(pixels[top + height * down // 4, left + width * across // 4])
        for down in (1, 3)
        for across in (1, 3)
    }
    assert quarters == {(1, 1): 200, (1, 3): 100, (3, 1): 100, (3, 3): 30}
    # The bytes depend on the picture alone.
    save_figure(figure, tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "patch.png").read_bytes()
