"""Find LUNA16's scans by series, read their geometry, and cut patches from their slices."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nodules.errors import FileError
from nodules.importers.metaimage import MetaImage, read_header, read_slices
from nodules.importers.window import HOUNSFIELD, Window
from nodules.patches.layout import PATCH_SIZE, Patches
from nodules.system.streams import printable

# SimpleITK is imported lazily: only resampling needs it.
if TYPE_CHECKING:
    import SimpleITK


# Folder of LUNA16's lung masks, which have the same file names as the scans.
MASKS = "seg-lungs-luna16"
# Other names of folders of masks. Scans may lie in such a folder too, but not beside another file
# of the same series.
MASK_FOLDER = re.compile(r"(^|[^a-z])(seg|segs|mask|masks|segmentation|segmentations)([^a-z]|$)")
SUFFIXES = (".mhd", ".mha")

# No scan exceeds these limits; within them, arithmetic neither overflows nor divides by zero.
MIN_SPACING_MM, MAX_SPACING_MM = 1e-3, 1e3
MAX_ORIGIN_MM = 1e6
MIN_VOLUME = 1e-6  # spanned by the direction vectors

# Modalities of MetaImage headers whose values may be Hounsfield units.
CT = ("", "MET_MOD_CT", "MET_MOD_UNKNOWN")


@dataclass(frozen=True)
class Crop:
    """Field of view and window of the patches.

    Attributes
    ----------
    size_mm
        Side of the field of view in mm; None for 50 pixels at the scan's own spacing.
    window
        Values that become grey 0 and grey 255; None for -1000 and 400, which requires scans in
        Hounsfield units.
    """

    size_mm: float | None = None
    window: Window | None = None


@dataclass(frozen=True)
class Geometry:
    """Positions of a scan's voxels in world coordinates.

    Attributes
    ----------
    size
        (3,) number of voxels along x, y and z.
    origin
        (3,) centre of the first voxel in mm.
    axes
        (3, 3). Columns are the steps in mm from one voxel to the next along x, y and z: direction
        cosines times spacing.
    """

    size: NDArray[np.int64]
    origin: NDArray[np.float64]
    axes: NDArray[np.float64]

    def voxels(self, world: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert (n, 3) world coordinates in mm to (n, 3) fractional voxel coordinates x, y, z."""
        with np.errstate(all="ignore"):  # far beyond any scan, coordinates overflow
            voxels = np.linalg.solve(self.axes, (world - self.origin).T).T
        return np.asarray(voxels, np.float64)

    def inside(self, voxels: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return a mask of the (n, 3) voxel coordinates that lie in a voxel of the scan."""
        nearest = np.floor(voxels + 0.5)  # kept as floats, since coordinates may exceed integers
        return np.asarray(((nearest >= 0) & (nearest < self.size)).all(axis=1))


def nearest_voxels(voxels: NDArray[np.float64]) -> NDArray[np.int64]:
    """Round voxel coordinates, halves up, like ITK."""
    return np.floor(voxels + 0.5).astype(np.int64)


def find_scans(folders: Iterable[Path]) -> dict[str, list[Path]]:
    """Find the MetaImage headers below `folders`, keyed by series: the file name without suffix.

    Links to folders are followed, and each folder is searched once. Names that begin with a dot
    and folders named `seg-lungs-LUNA16` are skipped. Of several files of one series, those in
    folders named like masks are skipped.
    """
    found: dict[str, list[Path]] = {}
    masks = set()
    for folder in folders:
        if not folder.is_dir():
            raise FileError(folder, "no such folder, expected one with SERIESUID.mhd files")
        top = folder.absolute()
        for path in sorted(_headers(top)):
            found.setdefault(path.stem, []).append(path)
            folders_from_top = path.relative_to(top.parent).parts[:-1]
            if any(MASK_FOLDER.search(name.lower()) for name in folders_from_top):
                masks.add(path)
    return {
        uid: [path for path in paths if path not in masks] or paths for uid, paths in found.items()
    }


def _headers(top: Path) -> Iterator[Path]:
    searched = set()
    if top.name.lower() == MASKS:
        return
    # Path.rglob does not follow links to folders, and scans often lie on another disk.
    for name, folders, files in os.walk(top, followlinks=True):
        here = os.stat(name)  # noqa: PTH116 - a Path of each folder costs more than the walk
        if (here.st_dev, here.st_ino) in searched:
            folders.clear()
            continue
        searched.add((here.st_dev, here.st_ino))
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f.lower() != MASKS)
        for file in files:
            if file.lower().endswith(SUFFIXES) and not file.startswith("."):
                yield Path(name, file)


def read_scan(path: Path, crop: Crop) -> tuple[MetaImage, Geometry]:
    """Read the header of a scan and check that `crop` can be applied to it.

    Raises
    ------
    FileError
        If the header is not that of a scan, its geometry is implausible, or `crop` has no window
        and the voxels are not in Hounsfield units.
    """
    image = read_header(path)
    if crop.window is None:
        _expect_hounsfield(image)
    spacing, origin = np.array(image.spacing), np.array(image.origin)
    with np.errstate(all="ignore"):
        volume = abs(np.linalg.det(image.direction))  # 1 for orthogonal direction cosines
    plausible = (
        (spacing >= MIN_SPACING_MM).all()
        and (spacing <= MAX_SPACING_MM).all()
        and (np.abs(origin) <= MAX_ORIGIN_MM).all()
        and MIN_VOLUME <= volume <= 1 / MIN_VOLUME
    )
    if not plausible:
        found = "found an implausible origin, spacing or direction"
        expected = f"spacing of {MIN_SPACING_MM:g} to {MAX_SPACING_MM:g} mm, independent axes"
        raise FileError(path, f"{found}, expected {expected}")
    geometry = Geometry(np.array(image.size), origin, image.direction * spacing)
    return image, geometry


def _expect_hounsfield(image: MetaImage) -> None:
    kind = image.dtype.kind
    if kind == "u" or (kind == "i" and np.iinfo(image.dtype).min > HOUNSFIELD.low):
        found = f"found voxels of type {image.dtype.name}"
        problem = f"{found}, which cannot hold the {HOUNSFIELD.low:g} HU of air"
    elif image.modality not in CT:
        problem = f"found Modality {printable(image.modality, 60)}, which has no Hounsfield units"
    else:
        return
    raise FileError(image.path, f"{problem}, expected --window LOW HIGH")


def cut_patches(
    image: MetaImage, voxels: NDArray[np.float64], crop: Crop
) -> tuple[Patches, tuple[float, float]]:
    """Read a scan once and cut an axial patch around each point.

    A patch lies in the slice nearest its point, along the scan's rows and columns. Pixels outside
    the scan are grey 0, the low end of the window (air).

    Parameters
    ----------
    image
        Header of the scan.
    voxels
        (n, 3) fractional voxel coordinates x, y, z, all inside the scan.
    crop
        Field of view and window. If `size_mm` is None, pixel (25, 25) of a patch is the voxel
        nearest the point. Otherwise the patch is centred on the point and interpolated linearly
        within the slice, without smoothing even if it is reduced.

    Returns
    -------
    patches
        (n, 50, 50) uint8.
    extremes
        Minimum and maximum of the whole scan.

    Raises
    ------
    FileError
        If the voxel files do not hold exactly what the header describes, or a patch holds NaN or
        infinity.
    """
    window = HOUNSFIELD if crop.window is None else crop.window
    nearest = nearest_voxels(voxels)
    if crop.size_mm is None:
        volume, extremes = read_slices(image, nearest[:, 2])
        values = _crop_pixels(volume, nearest, window.low)
    else:
        # Through rounding errors, the adjacent slices get tiny weights.
        wanted = np.concatenate([nearest[:, 2] + step for step in (-1, 0, 1)])
        volume, extremes = read_slices(image, wanted)
        values = _resample(_to_sitk(image, volume), voxels, crop.size_mm, window.low)
    if not np.isfinite(values).all():
        raise FileError(image.path, "found NaN or infinity in a patch, expected Hounsfield units")
    return window.grey(values), extremes


def _to_sitk(image: MetaImage, volume: NDArray[np.number]) -> "SimpleITK.Image":
    import SimpleITK

    scan = SimpleITK.GetImageFromArray(volume)
    scan.SetSpacing(image.spacing)
    scan.SetOrigin(image.origin)
    scan.SetDirection(image.direction.ravel().tolist())
    return scan


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
    grid.SetNumberOfThreads(1)  # a patch is too small to split; jobs run in parallel
    patches = np.empty((len(voxels), PATCH_SIZE, PATCH_SIZE))
    for patch, corner in zip(patches, first.tolist(), strict=True):
        grid.SetOutputOrigin(image.TransformContinuousIndexToPhysicalPoint(corner))
        patch[:] = SimpleITK.GetArrayFromImage(grid.Execute(image))[0]
    return patches
