"""Scans in MetaImage files: found by series, their geometry, and patches cut from their slices."""

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nodules.errors import ScanError
from nodules.importers.grey import HOUNSFIELD, Window
from nodules.patches import PATCH_SIZE, Patches

# SimpleITK is loaded late: bad tables are refused without it.
if TYPE_CHECKING:
    import SimpleITK


# LUNA16's masks of the lungs, which bear the names of the scans.
MASKS = "seg-lungs-LUNA16"


@dataclass(frozen=True)
class Crop:
    """How a patch is cut from the slice of a candidate.

    Attributes
    ----------
    size_mm
        Side of the field of view; None for 50 pixels at the scan's own spacing.
    window
        Hounsfield units that become grey 0 and grey 255.
    """

    size_mm: float | None = None
    window: Window = HOUNSFIELD


@dataclass(frozen=True)
class Geometry:
    """Where the voxels of a scan lie in the patient.

    Attributes
    ----------
    size
        (3,) voxels along x, y and z.
    origin
        (3,) centre of the first voxel, mm.
    axes
        (3, 3) columns are the steps, in mm, from a voxel to the next along x, y and z: direction
        cosines times spacing.
    """

    size: NDArray[np.int64]
    origin: NDArray[np.float64]
    axes: NDArray[np.float64]

    def voxels(self, world: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn (n, 3) world coordinates in mm into (n, 3) fractional voxel coordinates x, y, z."""
        return np.asarray(np.linalg.solve(self.axes, (world - self.origin).T).T, np.float64)

    def inside(self, voxels: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Say which of (n, 3) voxel coordinates lie in a voxel of the scan."""
        nearest = nearest_voxels(voxels)
        return np.asarray(((nearest >= 0) & (nearest < self.size)).all(axis=1))


def nearest_voxels(voxels: NDArray[np.float64]) -> NDArray[np.int64]:
    """Round voxel coordinates, halves up, as ITK does."""
    return np.floor(voxels + 0.5).astype(np.int64)


def find_scans(folders: Iterable[Path]) -> dict[str, list[Path]]:
    """Find the MetaImage headers below `folders`, by series: the file's name without `.mhd`.

    Sub-folders named `seg-lungs-LUNA16` are passed over.
    """
    found: dict[str, list[Path]] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ScanError(folder, "no such folder, expected one with SERIESUID.mhd files")
        # Path.rglob does not follow links to folders, and scans often lie on another disk.
        for name in sorted(glob("**/*.mhd", root_dir=folder, recursive=True)):  # noqa: PTH207
            if MASKS in Path(name).parts:
                continue
            path = (folder / name).absolute()
            found.setdefault(path.stem, []).append(path)
    return found


def read_geometry(path: Path) -> Geometry:
    """Read the header of a MetaImage file.

    Raises
    ------
    ScanError
        If the file is no MetaImage of three dimensions and one value a voxel, or its geometry
        cannot be inverted.
    """
    reader = _reader(path)
    try:
        with _quiet_metaio():
            reader.ReadImageInformation()
    except RuntimeError:
        raise ScanError(path, "not a readable MetaImage header") from None
    if (reader.GetDimension(), reader.GetNumberOfComponents()) != (3, 1):
        problem = (
            f"found {reader.GetDimension()} dimensions and {reader.GetNumberOfComponents()} values "
            "a voxel, expected a scan of 3 dimensions and one value"
        )
        raise ScanError(path, problem)
    spacing = np.array(reader.GetSpacing())
    direction = np.array(reader.GetDirection()).reshape(3, 3)
    geometry = Geometry(
        np.array(reader.GetSize()), np.array(reader.GetOrigin()), direction * spacing
    )
    values = np.concatenate([geometry.origin, geometry.axes.ravel()])
    if not (np.isfinite(values).all() and (spacing > 0).all() and np.linalg.det(direction)):
        problem = "found an origin, spacing or direction that is no geometry of a scan"
        raise ScanError(path, f"{problem}, expected numbers, spacing above 0, independent axes")
    return geometry


def cut_patches(path: Path, voxels: NDArray[np.float64], crop: Crop) -> Patches:
    """Read a scan, once, and cut an axial patch around each point.

    A patch lies in the slice nearest its point, in the scan's own rows and columns. What lies
    beyond the border of the scan is grey 0, the low end of the window: air.

    Parameters
    ----------
    path
        A MetaImage header.
    voxels
        (n, 3) fractional voxel coordinates x, y, z, all inside the scan.
    crop
        With `size_mm` of None, pixel (25, 25) of a patch is the voxel nearest the point. Otherwise
        the patch is centred on the point and interpolated linearly in the slice; nothing is
        smoothed before a reduction.

    Returns
    -------
    (n, 50, 50) uint8

    Raises
    ------
    ScanError
        If the voxels cannot be read, or a patch holds NaN.
    """
    import SimpleITK

    try:
        with _quiet_metaio():
            image = _reader(path).Execute()
    except RuntimeError:
        problem = "found voxels missing, truncated or broken, expected those its header describes"
        raise ScanError(path, problem) from None
    low = crop.window.low
    if crop.size_mm is None:
        hu = _crop_pixels(SimpleITK.GetArrayViewFromImage(image), nearest_voxels(voxels), low)
    else:
        hu = _resample(image, voxels, crop.size_mm, low)
    if np.isnan(hu).any():
        raise ScanError(path, "found NaN in a patch, expected Hounsfield units")
    return crop.window.grey(hu)


def _crop_pixels(
    scan: NDArray[np.number], centres: NDArray[np.int64], outside: float
) -> NDArray[np.number]:
    _, height, width = scan.shape
    x, y, z = centres.T[:, :, None, None]
    offsets = np.arange(PATCH_SIZE) - PATCH_SIZE // 2
    rows, columns = y + offsets[:, None], x + offsets
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    patches = scan[z, rows.clip(0, height - 1), columns.clip(0, width - 1)]
    return np.where(inside, patches, outside)


def _resample(
    image: "SimpleITK.Image", voxels: NDArray[np.float64], size_mm: float, outside: float
) -> NDArray[np.float64]:
    import SimpleITK

    spacing = np.array(image.GetSpacing())
    step = np.array([size_mm / PATCH_SIZE, size_mm / PATCH_SIZE, spacing[2]])
    first = voxels - (PATCH_SIZE - 1) / 2 * step / spacing
    first[:, 2] = nearest_voxels(voxels)[:, 2]
    grid = SimpleITK.ResampleImageFilter()
    grid.SetSize((PATCH_SIZE, PATCH_SIZE, 1))
    grid.SetOutputSpacing(step.tolist())
    grid.SetOutputDirection(image.GetDirection())
    grid.SetOutputPixelType(SimpleITK.sitkFloat64)
    grid.SetDefaultPixelValue(outside)
    grid.SetNumberOfThreads(1)  # a patch is too small to share, and each job has its processor
    patches = np.empty((len(voxels), PATCH_SIZE, PATCH_SIZE))
    for patch, corner in zip(patches, first.tolist(), strict=True):
        grid.SetOutputOrigin(image.TransformContinuousIndexToPhysicalPoint(corner))
        patch[:] = SimpleITK.GetArrayFromImage(grid.Execute(image))[0]
    return patches


def _reader(path: Path) -> "SimpleITK.ImageFileReader":
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("MetaImageIO")
    reader.SetFileName(str(path))
    return reader


@contextmanager
def _quiet_metaio() -> Iterator[None]:
    """Keep MetaIO, which prints its complaints, from writing past Python to stderr."""
    # File descriptors belong to the process. In the threads of a Dask worker, two of which may
    # read at a time, the lines go to the worker's log.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stderr = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - os.devnull is no path to look into
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
