"""Write the patches of many images, with their labels and other columns, to a patch file."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nodules.importers.image_patches import image_patches
from nodules.importers.image_properties import ImageProperties
from nodules.importers.window import Window
from nodules.patches.layout import Labels
from nodules.patches.writer import new_patch_file

BLOCK_IMAGES = 256


def write_images(
    out: Path,
    images: Sequence[Path],
    labels: Labels | None,
    columns: Mapping[str, NDArray],
    window: Window | None,
) -> list[str]:
    """Write one patch per image, in blocks, and return notes on the images.

    Parameters
    ----------
    out
        Patch file to write.
    images
        N image files.
    labels
        (N,) uint8, 1 for a nodule; None for a file without labels.
    columns
        Further (N,) data sets by name.
    window
        Values that become grey 0 and 255; by default the range of each image's type.

    Raises
    ------
    FileError
        If an image is damaged, not grey, or needs a window.
    """
    properties = ImageProperties()
    patches = properties.record(image_patches(images, window))
    count = len(images)
    dtypes = {name: column.dtype for name, column in columns.items()}
    with (
        new_patch_file(out, count, dtypes, labelled=labels is not None) as file,
        tqdm(patches, desc="import", total=count, unit="image") as progress,
    ):
        remaining = iter(progress)
        for start in range(0, count, BLOCK_IMAGES):
            rows = slice(start, start + BLOCK_IMAGES)
            extra = {name: column[rows] for name, column in columns.items()}
            block = np.stack(list(islice(remaining, BLOCK_IMAGES)))
            file.append(block, None if labels is None else labels[rows], **extra)
    return properties.notes()
