"""Count the images with properties that the user may not expect."""

import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from nodules.importers.image_patches import ImagePatch


class ImageProperties:
    """Counts of images with properties that the user may not expect."""

    def __init__(self) -> None:
        self._oblong = 0
        self._wide = 0
        self._wide_range: tuple[float, float] = (math.inf, -math.inf)
        self._rescaled = 0
        self._stored = 0

    def record(self, patches: Iterable[ImagePatch]) -> Iterator[NDArray[np.uint8]]:
        """Count the properties of each image and yield its (50, 50) patch."""
        for made in patches:
            self._oblong += made.oblong
            if made.wide_range is not None:
                low, high = self._wide_range
                self._wide += 1
                self._wide_range = min(low, made.wide_range[0]), max(high, made.wide_range[1])
            self._rescaled += made.rescaled is True
            self._stored += made.rescaled is False
            yield made.patch

    def notes(self) -> list[str]:
        """Return one line per property found."""
        notes = []
        if self._wide:
            notes.append(
                "16-bit images: {:,}, values {}..{}; 0..65535 became grey 0..255 "
                "(--window sets another range)".format(self._wide, *self._wide_range)
            )
        if self._rescaled and self._stored:
            notes.append(
                f"DICOM images without slope and intercept: {self._stored:,}; --window was applied "
                f"to their stored values, and to the rescaled values of the other "
                f"{self._rescaled:,}"
            )
        if self._oblong:
            notes.append(f"images that are not square: {self._oblong:,}; only their centre is used")
        return notes
