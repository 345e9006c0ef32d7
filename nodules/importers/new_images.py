"""Images to score: files and folders given on the command line, converted block by block."""

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nodules.errors import FileError
from nodules.importers.image_patches import image_patches
from nodules.importers.image_properties import ImageProperties
from nodules.importers.image_tree import EXPECTED, find_files, find_images, utf8_name
from nodules.importers.images import has_image_suffix, is_image
from nodules.importers.window import Window
from nodules.patches.layout import BLOCK_PATCHES, Patches


class NewImages:
    """Unlabelled images, in the order of the command line and below a folder in order of path.

    An image that several sources contain is included once.

    Parameters
    ----------
    sources
        Image files, and folders, which are searched recursively.
    window
        Values that become grey 0 and 255, as in `import_folder`.

    Attributes
    ----------
    paths
        Paths of the images: those of the command line, and below its folders.
    names
        (N,) str objects, the same paths as text.

    Raises
    ------
    FileError
        If a source does not exist, is not an image, or holds none.
    """

    def __init__(self, sources: Sequence[Path], window: Window | None = None) -> None:
        self._window = window
        self._properties = ImageProperties()
        self._left_out: list[str] = []
        found: dict[str, Path] = {}
        self._repeats = 0
        for path in (path for source in sources for path in self._images(source)):
            # Links are kept apart: a folder may name one image twice.
            place = os.path.abspath(path)  # noqa: PTH100
            self._repeats += found.setdefault(place, path) is not path
        self.paths = [*found.values()]
        texts = [utf8_name(Path(), str(path)) for path in self.paths]
        self.names: NDArray[np.object_] = np.array(texts, dtype=object)

    def __len__(self) -> int:
        return len(self.paths)

    def blocks(self) -> Iterator[tuple[int, Patches]]:
        """Yield (n, 50, 50) uint8 blocks of patches, each with its first row number.

        Raises
        ------
        FileError
            For the first image that is damaged, not grey, or needs a window.
        """
        patches = self._properties.record(image_patches(self.paths, self._window))
        for start in range(0, len(self.paths), BLOCK_PATCHES):
            yield start, np.stack(list(islice(patches, BLOCK_PATCHES)))

    def notes(self) -> list[str]:
        """Return one line per property that the user may not expect, of the images so far."""
        repeats = f"images named more than once: {self._repeats:,}; each is scored once"
        named = [repeats] if self._repeats else []
        return [*named, *self._properties.notes(), *self._left_out]

    def _images(self, source: Path) -> list[Path]:
        if not source.exists():
            raise FileError(source, "no such file, expected a patch file, images or folders")
        if not source.is_dir():
            if not is_image(source):
                problem = f"found another kind of file, expected an image ({EXPECTED}) or a folder"
                raise FileError(source, f"{problem}; a patch file is scored alone")
            return [source]
        found = find_images(source, find_files(source).files)
        if not found.names:
            raise FileError(source, f"found no image, expected at least one ({EXPECTED})")
        self._left_out += [f"{source}: {note}" for note in found.notes("not images")]
        return [source / name for name in found.names]


def are_images(sources: Sequence[Path]) -> bool:
    """Return whether these are images or folders, and not one patch file."""
    if len(sources) > 1:
        return True
    (source,) = sources
    return has_image_suffix(source) or source.is_dir() or (source.exists() and is_image(source))
