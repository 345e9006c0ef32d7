"""Patches under construction, attenuation of tissues, and kinds of findings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from .geometry import Slab
from .scanner import Protocol
from .vessels import DoubleArray, random_directions

# Attenuation in HU. Air is -1000 and water 0 by definition; the others are representative values
# within the usual ranges, around which the paint functions vary.
AIR_HU = -1000.0
EMPHYSEMA_HU = -965.0
FAT_HU = -90.0
WALL_HU = 0.0  # thin soft tissue (bronchial wall, fissure, spicule), always mixed with air
CARTILAGE_HU = 110.0
MARROW_HU = 220.0
CORTEX_HU = 900.0


@dataclass
class Scene:
    """A patch under construction.

    Attributes
    ----------
    slab : Slab
        Attenuation painted so far.
    protocol : Protocol
        Protocol of the scan.
    rng : numpy.random.Generator
        Random generator of the scan.
    flow : numpy.ndarray of shape (3,)
        Main direction of the vessels. Since vessels fan out from the hilum, a patch shows mostly
        dots or mostly lines: a dot among lines stands out, a dot among dots is another vessel.
    """

    protocol: Protocol
    rng: np.random.Generator
    slab: Slab = field(init=False)
    flow: DoubleArray = field(init=False)

    def __post_init__(self) -> None:
        """Start from homogeneous lung."""
        p = self.protocol
        self.slab = Slab(p.pixel_mm, p.thickness_mm, p.lung_hu)
        self.flow = random_directions(self.rng, 1)[0]

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return bool(self.rng.random() < probability)

    def angle(self) -> float:
        """Return a direction in the plane, in radians."""
        return float(self.rng.uniform(0.0, 2.0 * np.pi))


@dataclass(frozen=True)
class Finding:
    """A kind of patch: its name, its fraction within its class and its paint function."""

    name: str
    fraction: float
    paint: Callable[[Scene], None]


def off_centre(rng: np.random.Generator, radius: float) -> DoubleArray:
    """Draw the offset in mm of a candidate of a given radius from the patch centre."""
    plane = rng.normal(0.0, 0.45 + 0.12 * radius, size=2)
    return np.array([plane[0], plane[1], rng.normal(0.0, 0.25 * radius)])
