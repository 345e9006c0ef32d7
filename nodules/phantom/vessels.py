"""Branching, tapering and bending vessel trees in three dimensions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DoubleArray = NDArray[np.float64]

THINNEST_MM = 0.2
"""Radius below which a vessel ends, since it is no longer visible on a clinical scan."""

TAPER_PER_MM = 0.05
GENERATIONS = 7


class Tubes(NamedTuple):
    """Straight, tapering vessel segments.

    Attributes
    ----------
    start, end : numpy.ndarray of shape (m, 3)
        Both ends of each segment in mm.
    start_radius, end_radius : numpy.ndarray of shape (m,)
        Radius at each end in mm.
    """

    start: DoubleArray
    end: DoubleArray
    start_radius: DoubleArray
    end_radius: DoubleArray


def strand(start: DoubleArray, end: DoubleArray, start_radius: float, end_radius: float) -> Tubes:
    """Return a single segment."""
    return Tubes(start[None], end[None], np.array([start_radius]), np.array([end_radius]))


def join(parts: list[Tubes]) -> Tubes:
    """Concatenate several sets of segments."""
    return Tubes(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def random_directions(rng: np.random.Generator, count: int, flatness: float = 1.0) -> DoubleArray:
    """Return unit vectors, shape (count, 3).

    Parameters
    ----------
    rng : numpy.random.Generator
    count : int
    flatness : float
        Factor on the z component before normalisation: below 1, the vectors tend to lie in the
        slice; above 1, to cross it.
    """
    vectors = rng.normal(size=(count, 3))
    vectors[:, 2] *= flatness
    return unit(vectors)


def grow_vessels(
    rng: np.random.Generator,
    start: DoubleArray,
    direction: DoubleArray,
    radius: DoubleArray,
    length: DoubleArray,
    *,
    branching: float = 0.4,
    wander: float = 0.25,
) -> Tubes:
    """Grow all vessel trees together, one segment per generation.

    Parameters
    ----------
    rng : numpy.random.Generator
    start, direction : numpy.ndarray of shape (n, 3)
        Starting points of the trunks in mm, and their initial directions as unit vectors.
    radius, length : numpy.ndarray of shape (n,)
        Initial radius and length of the trunks in mm.
    branching : float
        Probability that a segment ends in a bifurcation. The radii of the daughters obey Murray's
        law, r0^3 = r1^3 + r2^3 (Murray, PNAS 1926).
    wander : float
        Typical change of direction between segments, in radians.
    """
    grown: list[Tubes] = []
    bend = rng.normal(0.0, 0.04, size=start.shape)
    for _ in range(GENERATIONS):
        step = np.minimum(
            length, np.clip(3.0 * radius, 3.0, 7.0) * rng.uniform(0.7, 1.4, len(radius))
        )
        end = start + step[:, None] * direction
        thin = radius - np.minimum(TAPER_PER_MM * step, 0.35 * radius)
        grown.append(Tubes(start, end, radius, thin))
        length = length - step
        forks = (rng.random(len(radius)) < branching)[:, None]
        fraction = np.where(forks[:, 0], rng.uniform(0.1, 0.5, len(radius)), 0.0)
        side = unit(direction + random_directions(rng, len(radius)))
        onward = unit(
            direction
            + bend * step[:, None]
            + rng.normal(0.0, wander / np.sqrt(2.0), size=direction.shape)
            - forks * fraction[:, None] * 0.5 * side
        )
        split = np.flatnonzero(forks[:, 0])
        start = np.concatenate([end, end[split]])
        direction = np.concatenate([onward, side[split]])
        bend = np.concatenate([bend, -bend[split]])
        radius = np.concatenate(
            [thin * (1.0 - fraction) ** (1 / 3), thin[split] * fraction[split] ** (1 / 3)]
        )
        length = np.concatenate([length, length[split] * rng.uniform(0.4, 0.9, len(split))])
        alive = (length > 0.5) & (radius > THINNEST_MM)
        start, direction, bend = start[alive], direction[alive], bend[alive]
        radius, length = radius[alive], length[alive]
        if not len(radius):
            break
    return join(grown)


def unit(vectors: DoubleArray) -> DoubleArray:
    """Scale the vectors, shape (n, 3), to length 1."""
    norm = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    scaled: DoubleArray = vectors / np.maximum(norm, 1e-9)[:, None]
    return scaled
