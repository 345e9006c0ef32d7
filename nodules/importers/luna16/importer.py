"""Cut patches around LUNA16's candidates into one patch file."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nodules.errors import FileError, TableError
from nodules.importers.luna16.pool import run_in_order
from nodules.importers.luna16.scans import Crop, cut_patches, find_scans, read_scan
from nodules.importers.luna16.tables import (
    Matches,
    Points,
    choose,
    match,
    read_annotations,
    read_candidates,
    without_repeats,
)
from nodules.importers.metaimage import MetaImage
from nodules.patches.summary import counted
from nodules.patches.writer import new_patch_file
from nodules.system.atomic import check_output
from nodules.system.streams import printable

LEGACY_CROP = Crop()

# Header of a scan, and (n, 3) voxel coordinates of its candidates.
_Located = tuple[MetaImage, NDArray[np.float64]]


@dataclass(frozen=True)
class Luna16:
    """Locations of a data set laid out like LUNA16.

    Attributes
    ----------
    scans
        Folders searched recursively for SERIESUID.mhd.
    candidates
        CSV with seriesuid, coordX, coordY, coordZ (mm) and class (1 for a nodule, else 0).
    annotations
        CSV of the nodules with seriesuid, coordX, coordY, coordZ and diameter_mm; None for none.
    """

    scans: Sequence[Path]
    candidates: Path
    annotations: Path | None = None


def import_luna16(
    source: Luna16,
    out: Path,
    *,
    crop: Crop = LEGACY_CROP,
    negatives: int | None = 5,
    seed: int = 0,
    skip_missing: bool = False,
    skip_outside: bool = False,
    jobs: int | None = None,
    scheduler: str | None = None,
) -> list[str]:
    """Write an axial patch for each candidate, scan by scan.

    The file does not depend on the number of processes.

    Parameters
    ----------
    source
        The data set.
    out
        Patch file to write, with `X`, `Y`, `group` (the seriesuid) and `candidate` (the row in the
        table of candidates; the first after the header is 0). With annotations also `diameter_mm`,
        float32: the diameter of the nodule that contains a candidate of class 1, otherwise NaN.
    crop
        Field of view and window.
    negatives
        Number of class-0 candidates to draw per class-1 candidate; None for all.
    seed
        Seed of that draw.
    skip_missing
        Whether to skip candidates of series without a scan, instead of raising TableError.
    skip_outside
        Whether to skip candidates outside their scan, instead of raising TableError.
    jobs, scheduler
        Number of local processes (None: one per processor), or address of a Dask scheduler.

    Returns
    -------
    list of str
        Summary of what was written, then notes; one line each.

    Raises
    ------
    TableError, FileError
        If a table or scan is invalid, a candidate lies outside its scan, or `out` is a table.
    NodulesError
        If a process or the Dask cluster fails.
    """
    tables = (source.candidates, source.annotations)
    check_output(out, [table for table in tables if table is not None])
    rows = read_candidates(source.candidates)
    annotations = read_annotations(source.annotations) if source.annotations else None
    candidates = without_repeats(rows)
    repeats = len(rows) - len(candidates)
    notes = [f"{counted(repeats, 'repeated candidate')} left out"] if repeats else []

    paths = find_scans(source.scans)
    if missing := [uid for uid in candidates.series if uid not in paths]:
        problem = f"{len(missing):,} of {len(candidates.series):,} series have no scan"
        all_missing = len(missing) == len(candidates.series)
        if all_missing or not skip_missing:
            expected = "SERIESUID.mhd below --scans" + (
                "" if all_missing else ", or --skip-missing"
            )
            problem = f"{problem}, the first {printable(missing[0], 60)}; expected {expected}"
            raise TableError(source.candidates, problem)
        notes.append(f"{problem}: their candidates left out")
        candidates = candidates.within(paths)

    chosen = choose(candidates, negatives, seed)
    scans, inside = _locate_all(candidates.take(chosen), paths, crop, skip_outside=skip_outside)
    if skipped := int((~inside).sum()):
        rows_outside = candidates.take(chosen[~inside]).rows
        notes.append(
            f"{counted(skipped, 'candidate')} outside the scan left out, the first in row "
            f"{rows_outside[0]} of {source.candidates}"
        )
        chosen = chosen[inside]
    columns: dict[str, NDArray] = {"candidate": candidates.rows[chosen]}
    if annotations is not None:
        annotations = annotations.within(paths)
        matches = match(candidates, annotations)
        columns["diameter_mm"] = matches.diameter_mm[chosen]
        notes += _describe(matches, candidates, annotations)
    candidates = candidates.take(chosen)
    nodules = int(candidates.values.sum())
    extremes = _write(out, candidates, columns, scans, crop, jobs=jobs, scheduler=scheduler)
    others = len(candidates) - nodules
    if crop.window is None:
        notes += _describe_units(extremes)
    kinds = f"{counted(nodules, 'nodule')} and {counted(others, 'other')}"
    return [f"{kinds} from {counted(len(extremes), 'scan')}", *notes]


def _write(
    out: Path,
    candidates: Points,
    columns: dict[str, NDArray],
    scans: dict[str, _Located],
    crop: Crop,
    *,
    jobs: int | None,
    scheduler: str | None,
) -> dict[str, tuple[float, float]]:
    """Write the patches and return the minimum and maximum of each scan."""
    members = candidates.by_scan()
    calls = [(*scans[uid], crop) for uid in members]
    extremes: dict[str, tuple[float, float]] = {}
    labels = candidates.values.astype(np.uint8)
    dtypes = {"group": np.dtype(object)} | {name: col.dtype for name, col in columns.items()}
    with (
        new_patch_file(out, len(candidates), dtypes) as file,
        closing(run_in_order(cut_patches, calls, jobs=jobs, scheduler=scheduler)) as cut,
    ):
        progress = tqdm(cut, total=len(calls), desc="import", unit="scan")
        for (uid, part), (patches, found) in zip(members.items(), progress, strict=True):
            extremes[uid] = found
            group = np.full(len(part), uid, dtype=object)
            extra = {name: column[part] for name, column in columns.items()}
            file.append(patches, labels[part], group=group, **extra)
    return extremes


def _locate_all(
    candidates: Points, paths: dict[str, list[Path]], crop: Crop, *, skip_outside: bool
) -> tuple[dict[str, _Located], NDArray[np.bool_]]:
    """Read the headers of the scans, so that errors are found before any scan is read.

    Returns
    -------
    scans
        Header of each scan, and the voxel coordinates of its candidates that lie inside.
    inside
        (n,) mask of the candidates inside their scan.
    """
    scans: dict[str, _Located] = {}
    inside = np.ones(len(candidates), bool)
    for uid, part in candidates.by_scan().items():
        image, voxels, within = _locate(
            candidates.take(part), paths[uid], crop, skip_outside=skip_outside
        )
        scans[uid] = image, voxels[within]
        inside[part] = within
    if not inside.any():
        problem = "found all candidates outside their scans, expected at least one inside"
        raise TableError(candidates.path, problem)
    return scans, inside


def _locate(
    candidates: Points, paths: list[Path], crop: Crop, *, skip_outside: bool
) -> tuple[MetaImage, NDArray[np.float64], NDArray[np.bool_]]:
    path, *others = paths
    if others:
        raise FileError(path, f"found the same series in {others[0]}, expected one (--scans?)")
    image, geometry = read_scan(path, crop)
    voxels = geometry.voxels(candidates.world)
    inside = geometry.inside(voxels)
    outside = np.flatnonzero(~inside)
    if len(outside) and not skip_outside:
        row = int(candidates.rows[outside[0]])
        found = ", ".join(f"{v:.1f}" if abs(v) < 1e6 else f"{v:g}" for v in voxels[outside[0]])
        size = " x ".join(map(str, geometry.size))
        problem = f"found voxel ({found}), expected a position inside the {size} voxels of {path}"
        problem = f"{problem}, or --skip-outside"
        raise TableError(candidates.path, problem, row=row)
    return image, voxels, inside


def _describe_units(extremes: dict[str, tuple[float, float]]) -> list[str]:
    """Return a note on scans that seem to be stored with an offset (0 for -1024 HU or less)."""
    shifted = [uid for uid, (lowest, highest) in extremes.items() if lowest >= 0 and highest > 1000]
    if not shifted:
        return []
    found = f"{len(shifted):,} of {len(extremes):,} scans hold no value below 0"
    return [f"{found}, the first {shifted[0]}: are these Hounsfield units? (--window)"]


def _describe(matches: Matches, candidates: Points, annotations: Points) -> list[str]:
    positive = candidates.values == 1
    unmatched = positive & np.isnan(matches.diameter_mm)
    checks = (
        ("annotated nodules have no candidate", annotations, ~matches.found, len(annotations)),
        ("nodule candidates lie outside all nodules", candidates, unmatched, positive.sum()),
        ("other candidates lie in a nodule", candidates, matches.contradicting, (~positive).sum()),
    )
    return [
        f"{which.sum():,} of {total:,} {what}{_first(points, which)}"
        for what, points, which, total in checks
    ]


def _first(points: Points, which: NDArray[np.bool_]) -> str:
    return f", the first in row {points.rows[which][0]} of {points.path}" if which.any() else ""
