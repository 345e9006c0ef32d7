"""LUNA16's tables: candidates and annotated nodules as points in world coordinates."""

import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from nodules.errors import TableError
from nodules.importers.csv_table import read_columns
from nodules.system.streams import printable

SERIES = "seriesuid"
COORDINATES = ("coordX", "coordY", "coordZ")
# Diameter of findings without one, in LUNA16's evaluation.
UNKNOWN_MM = 10.0


@dataclass(frozen=True)
class Points:
    """Points with one value each, in the order of their table.

    Attributes
    ----------
    path
        Table file.
    series
        All seriesuids, in order of first appearance.
    scan
        (n,) int64, index in `series` of each point's scan.
    world
        (n, 3) float64, world coordinates in mm.
    values
        (n,) float64: a candidate's class, or a nodule's diameter in mm.
    rows
        (n,) int64, row in the table; the first after the header is 0.
    """

    path: Path
    series: tuple[str, ...]
    scan: NDArray[np.int64]
    world: NDArray[np.float64]
    values: NDArray[np.float64]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, which: NDArray) -> Self:
        """Return the points selected by an index array or a mask."""
        kept = (column[which] for column in (self.scan, self.world, self.values, self.rows))
        return type(self)(self.path, self.series, *kept)

    def within(self, series: Iterable[str]) -> Self:
        """Return the points whose scan is among `series`."""
        wanted = set(series)
        return self.take(np.array([uid in wanted for uid in self.series], bool)[self.scan])

    def by_scan(self) -> dict[str, NDArray[np.int64]]:
        """Return the indices of the points of each scan with points, in the order of `series`."""
        order = np.argsort(self.scan, kind="stable")
        scans, starts = np.unique(self.scan[order], return_index=True)
        names = (self.series[scan] for scan in scans)
        return dict(zip(names, np.split(order, starts)[1:], strict=True))


class Matches(NamedTuple):
    """Matches between candidates and annotated nodules.

    Attributes
    ----------
    diameter_mm
        (n,) float32 per candidate: for class 1, diameter of the nearest nodule that contains the
        candidate. NaN if there is none, and for class 0.
    found
        (m,) bool per nodule: whether it contains a candidate of class 1.
    contradicting
        (n,) bool per candidate: whether it is of class 0 but lies in a nodule.
    """

    diameter_mm: NDArray[np.float32]
    found: NDArray[np.bool_]
    contradicting: NDArray[np.bool_]


def read_candidates(path: Path) -> Points:
    """Read candidates: `seriesuid,coordX,coordY,coordZ,class`; class is 1 for a nodule, else 0.

    Raises
    ------
    TableError
        If the table breaks this layout.
    """
    points = _read(path, "class")
    unknown = np.flatnonzero(~np.isin(points.values, (0, 1)))
    if len(unknown):
        problem = f"class: found {points.values[unknown[0]]:g}, expected 0 or 1"
        raise TableError(path, problem, row=int(points.rows[unknown[0]]))
    return points


def read_annotations(path: Path) -> Points:
    """Read annotated nodules: `seriesuid,coordX,coordY,coordZ,diameter_mm`.

    Raises
    ------
    TableError
        If the table breaks this layout, or a diameter is not above 0.
    """
    points = _read(path, "diameter_mm")
    empty = np.flatnonzero(points.values <= 0)
    if len(empty):
        problem = f"diameter_mm: found {points.values[empty[0]]:g}, expected a length above 0"
        raise TableError(path, problem, row=int(points.rows[empty[0]]))
    return points


def read_excluded(path: Path) -> Points:
    """Read excluded findings: `seriesuid,coordX,coordY,coordZ,diameter_mm`.

    Findings without a diameter, which is below 0 in the table, get that of the challenge's
    evaluation, 10 mm.

    Raises
    ------
    TableError
        If the table breaks this layout.
    """
    points = _read(path, "diameter_mm")
    return replace(points, values=np.where(points.values < 0, UNKNOWN_MM, points.values))


def irrelevant(candidates: Points, excluded: Points) -> NDArray[np.bool_]:
    """Return which candidates of class 0 lie within the radius of an excluded finding.

    The challenge's evaluation ignores marks there; a mark on a nodule counts in any case.
    """
    class_0 = replace(candidates, values=np.zeros(len(candidates)))
    return match(class_0, excluded).contradicting & (candidates.values == 0)


def without_repeats(candidates: Points) -> Points:
    """Drop candidates that repeat the scan, position and class of an earlier one.

    Raises
    ------
    TableError
        If two candidates share scan and position but not class.
    """
    places = np.column_stack([candidates.scan, candidates.world])
    # The sort is stable, so equal positions stay in row order.
    order = np.lexsort(places.T)
    again = np.flatnonzero((places[order][1:] == places[order][:-1]).all(axis=1))
    first, second = order[again], order[again + 1]
    conflicts = np.flatnonzero(candidates.values[first] != candidates.values[second])
    if len(conflicts):
        rows = candidates.rows[first[conflicts[0]]], candidates.rows[second[conflicts[0]]]
        problem = f"class: found the position of row {rows[0]} with another class, expected one"
        raise TableError(candidates.path, problem, row=int(rows[1]))
    return candidates.take(np.delete(np.arange(len(candidates)), second))


def choose(candidates: Points, negatives: int | None, seed: int) -> NDArray[np.int64]:
    """Choose all candidates of class 1, and draw a number of class 0 per candidate of class 1.

    Parameters
    ----------
    candidates
        Candidates of both classes.
    negatives
        Number of class-0 candidates to draw, over all scans, per class-1 candidate; None for all.
    seed
        Seed of the draw. With the same seed, a smaller draw is a subset of a larger one.

    Returns
    -------
    (k,) int64
        Indices of the chosen candidates, ascending.
    """
    if negatives is None:
        return np.arange(len(candidates))
    positive = np.flatnonzero(candidates.values == 1)
    if not len(positive):
        problem = "found no candidate of class 1, expected at least one"
        raise TableError(candidates.path, problem)
    shuffled = np.random.default_rng(seed).permutation(np.flatnonzero(candidates.values == 0))
    return np.sort(np.concatenate([positive, shuffled[: negatives * len(positive)]]))


def match(candidates: Points, annotations: Points) -> Matches:
    """Match candidates to nodules as LUNA16 does: a hit lies within the nodule's radius."""
    from scipy.spatial.distance import cdist

    diameter = np.full(len(candidates), np.nan, np.float32)
    found = np.zeros(len(annotations), bool)
    contradicting = np.zeros(len(candidates), bool)
    nodules_of = annotations.by_scan()
    for uid, members in candidates.by_scan().items():
        if uid not in nodules_of:
            continue
        nodules = nodules_of[uid]
        distance = cdist(candidates.world[members], annotations.world[nodules])
        hit = distance <= annotations.values[nodules] / 2
        positive = candidates.values[members] == 1
        found[nodules] = hit[positive].any(axis=0)
        contradicting[members] = hit.any(axis=1) & ~positive
        nearest = nodules[np.where(hit, distance, np.inf).argmin(axis=1)]
        matched = hit.any(axis=1) & positive
        diameter[members[matched]] = annotations.values[nearest[matched]]
    return Matches(diameter, found, contradicting)


def _read(path: Path, value: str) -> Points:
    series: dict[str, int] = {}
    scan, numbers = array("q"), array("d")
    for row, (uid, *fields) in enumerate(read_columns(path, (SERIES, *COORDINATES, value))):
        scan.append(series.setdefault(uid.strip(), len(series)))
        numbers.extend(_numbers(path, row, fields, (*COORDINATES, value)))
    table = np.frombuffer(numbers).reshape(-1, len(COORDINATES) + 1)
    rows = np.arange(len(scan))
    world, values = table[:, :-1], table[:, -1]
    return Points(path, tuple(series), np.frombuffer(scan, np.int64), world, values, rows)


def _numbers(path: Path, row: int, fields: list[str], names: Sequence[str]) -> list[float]:
    numbers = []
    for name, text in zip(names, fields, strict=True):
        try:
            number = float(text.replace("_", "?"))  # Python would read 1_000 as 1000
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise TableError(
                path, f"{name}: found '{printable(text, 60)}', expected a number", row=row
            )
        numbers.append(number)
    return numbers
