"""Images to score: files and folders of the command line, in order and in blocks."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nodules.errors import FileError
from nodules.importers import new_images
from nodules.importers.image_patches import image_patch
from nodules.importers.new_images import NewImages, are_images
from nodules.importers.window import Window

NAMES = ("b/2.png", "b/1.png", "b/p/3.tif", "a.png")


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, with four images."""
    rng = np.random.default_rng(2)
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (60, 60), np.uint8)).save(tmp_path / name)
    (tmp_path / "b/notes.txt").write_text("no image", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_sources_keep_their_order_and_folders_are_sorted(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(new_images, "BLOCK_PATCHES", 3)
    found = NewImages([Path("b"), Path("a.png")], Window(0, 100))
    assert found.names.tolist() == ["b/1.png", "b/2.png", "b/p/3.tif", "a.png"]
    blocks = [*found.blocks()]
    assert [(start, len(block)) for start, block in blocks] == [(0, 3), (3, 1)]
    expected = [image_patch(Path(name), Window(0, 100)).patch for name in found.names]
    assert np.array_equal(np.concatenate([block for _, block in blocks]), expected)
    assert found.notes() == ["b: files left out, not images: 1, first notes.txt"]


def test_an_image_named_more_than_once_is_scored_once(images: Path) -> None:
    found = NewImages([Path("b/2.png"), Path("b"), Path("a.png"), images / "a.png", Path("b/p")])
    assert found.names.tolist() == ["b/2.png", "b/1.png", "b/p/3.tif", "a.png"]
    assert found.notes()[0] == "images named more than once: 3; each is scored once"


def text(name: str) -> Callable[[], object]:
    return lambda: Path(name).write_text("no image", encoding="utf-8")


@pytest.mark.parametrize(
    ("make", "sources", "problem"),
    [
        (str, ["gone.png"], "gone.png: no such file, expected a patch file, images or folders"),
        (str, ["a.png", "gone"], "gone: no such file"),
        (text("x.h5"), ["a.png", "x.h5"], "x.h5: found another kind of file, expected an image ("),
        (lambda: Path("c").mkdir(), ["c"], "c: found no image, expected at least one (PNG, JPEG"),
        (lambda: os.mkfifo("pipe"), ["a.png", "pipe"], "pipe: found another kind of file"),
    ],
)
def test_what_is_no_image_is_refused(
    images: Path, make: Callable[[], object], sources: list[str], problem: str
) -> None:
    make()
    with pytest.raises(FileError) as caught:
        NewImages([Path(source) for source in sources])
    assert str(caught.value).startswith(problem)


def test_one_file_that_is_no_image_is_a_patch_file(images: Path) -> None:
    for name, expected in (("b", True), ("a.png", True), ("gone.JPG", True), ("gone.h5", False)):
        assert are_images([Path(name)]) is expected
    assert are_images([Path("x.h5"), Path("y.h5")])
    assert not are_images([Path("b/notes.txt")])
