"""Pulmonary nodules of all common types, as they appear on CT.

Sizes and proportions were chosen by visual comparison with LUNA16 (nodules of 3 mm and more, most
of them small). The nodule types are named as in the Fleischner Society's glossary (Hansell et al.,
Radiology 2008).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .anatomy import (
    paint_airway,
    paint_chest_wall,
    paint_lung,
    paint_organ,
    paint_surroundings,
    paint_vessel_through,
    paint_vessels,
)
from .geometry import FloatArray, bumpy_radius, smooth_field
from .scene import AIR_HU, WALL_HU, Finding, Scene, off_centre
from .vessels import DoubleArray, Tubes, grow_vessels, random_directions, strand

DIAMETER_LOG_SD = 0.55
SMALLEST_MM, LARGEST_MM = 3.0, 30.0
NODULE_HU = 40.0

NEAR_WALL = 0.55
"""Fraction of nodules with the chest wall in the patch; nodules are more often peripheral."""


@dataclass
class Body:
    """The body of a nodule: its centre, radius and signed distance of each voxel (`gap`)."""

    centre: DoubleArray
    radius: float
    gap: FloatArray


def _diameter(rng: np.random.Generator, median: float) -> float:
    """Draw a diameter in mm, given the median in mm."""
    drawn = median * rng.lognormal(0.0, DIAMETER_LOG_SD)
    return float(np.clip(drawn, SMALLEST_MM, LARGEST_MM))


def _shape_body(
    scene: Scene, diameter: float, *, roughness: float = 0.06, frequency: float = 2.5
) -> Body:
    """Create the body of a nodule: a randomly rotated ellipsoid with a bumpy surface."""
    rng = scene.rng
    slab = scene.slab
    radius = 0.5 * diameter
    centre = off_centre(rng, radius)
    x, y, z = (
        np.broadcast_to(axis - np.float32(c), slab.hu.shape)
        for axis, c in zip((slab.x, slab.y, slab.z), centre, strict=True)
    )
    axis = random_directions(rng, 1)[0].astype(np.float32)
    stretch = np.float32(rng.lognormal(0.0, 0.22))
    along = (axis[0] * x + axis[1] * y + axis[2] * z) * (1.0 / stretch - 1.0)
    x, y, z = x + axis[0] * along, y + axis[1] * along, z + axis[2] * along
    factor = bumpy_radius(x, y, z, rng, roughness=roughness, frequency=frequency)
    factor *= bumpy_radius(x, y, z, rng, roughness=0.35 * roughness, frequency=2.2 * frequency)
    gap = np.sqrt(x * x + y * y + z * z) - np.float32(radius) * factor
    return Body(centre, radius, gap.astype(np.float32))


def _paint_body(scene: Scene, body: Body, hu: float, softness: float | None = None) -> None:
    """Fill a body with tissue of `hu`; without `softness`, its margin is randomly hazy."""
    if softness is None:
        softness = 0.5 + 0.15 * body.radius * float(scene.rng.uniform(0.0, 2.0))
    scene.slab.paint(scene.slab.coverage(body.gap, softness), hu)


def _paint_haze(scene: Scene, body: Body, density: float) -> None:
    """Paint ground glass: patchy, partly filled air spaces without a sharp edge."""
    rng = scene.rng
    softness = float(rng.uniform(1.5, 3.0 + 0.6 * body.radius))
    patchy = np.float32(rng.uniform(0.05, 0.35)) * smooth_field(rng, 2.0)
    filled = scene.slab.coverage(body.gap, softness) * (density * (1.0 + patchy))
    scene.slab.paint(np.clip(filled, 0.0, 1.0), WALL_HU)


def _solid_hu(scene: Scene) -> float:
    """Draw the attenuation of solid tissue in HU; some nodules contain diffuse calcium."""
    calcium = scene.rng.uniform(50.0, 250.0) if scene.chance(0.12) else 0.0
    return float(NODULE_HU + scene.rng.normal(0.0, 35.0) + calcium)


def _feed(scene: Scene, body: Body, count: int) -> None:
    """Attach vessels to a nodule."""
    rng = scene.rng
    direction = random_directions(rng, count, 0.6)
    radius = rng.uniform(0.4, 1.0, count) * min(1.0, 0.35 * body.radius) + 0.1
    start = body.centre + 0.8 * body.radius * direction
    length = rng.uniform(4.0, 20.0, count)
    paint_vessels(scene, grow_vessels(rng, start, direction, radius, length, branching=0.2))


def _spicules(scene: Scene, body: Body, count: int) -> None:
    """Paint tapering strands that radiate from a nodule in all directions."""
    rng = scene.rng
    direction = random_directions(rng, count, 0.7)
    start = body.centre + 0.6 * body.radius * direction
    length = body.radius * rng.uniform(0.6, 2.0, count) + 1.0
    bent = direction + 0.25 * random_directions(rng, count)
    width = rng.uniform(0.3, 0.7, count) + 0.05 * body.radius
    strands = Tubes(start, start + length[:, None] * bent, width, np.full(count, 0.1))
    paint_vessels(scene, strands, hu=WALL_HU)


def _nodule_background(scene: Scene, diameter: float) -> None:
    """Paint the lung around a nodule: mostly peripheral, sometimes with a bronchus nearby."""
    rng = scene.rng
    central = float(rng.beta(0.9, 2.8))
    paint_lung(scene, clearing_mm=0.4 * diameter + 2.0, central=central)
    if scene.chance(0.35 * central):
        angle = scene.angle()
        lumen = float(rng.uniform(0.8, 2.5))
        away = 0.5 * diameter + 2.0 * lumen + rng.uniform(0.0, 9.0)
        place = away * np.array([np.cos(angle), np.sin(angle), 0.0])
        paint_airway(scene, place, random_directions(rng, 1, 2.0)[0], lumen, 16.0)


def paint_solid_nodule(scene: Scene) -> None:
    """Paint a round or oval nodule of soft tissue."""
    diameter = _diameter(scene.rng, 7.0)
    _nodule_background(scene, diameter)
    body = _shape_body(scene, diameter)
    _feed(scene, body, int(scene.rng.binomial(3, 0.2)))
    _paint_body(scene, body, _solid_hu(scene))
    paint_surroundings(scene, body.radius, wall=NEAR_WALL)


def paint_lobulated_nodule(scene: Scene) -> None:
    """Paint a nodule with a wavy outline."""
    diameter = _diameter(scene.rng, 12.0)
    _nodule_background(scene, diameter)
    roughness = float(scene.rng.uniform(0.1, 0.2))
    body = _shape_body(scene, diameter, roughness=roughness, frequency=4.0)
    _feed(scene, body, int(scene.rng.binomial(4, 0.25)))
    _paint_body(scene, body, _solid_hu(scene))
    paint_surroundings(scene, body.radius, wall=NEAR_WALL)


def paint_spiculated_nodule(scene: Scene) -> None:
    """Paint a nodule with strands that radiate into the lung."""
    diameter = _diameter(scene.rng, 11.0)
    _nodule_background(scene, diameter)
    roughness = float(scene.rng.uniform(0.1, 0.22))
    body = _shape_body(scene, diameter, roughness=roughness, frequency=5.0)
    haze = float(scene.rng.uniform(0.0, 0.35))
    scene.slab.paint(scene.slab.coverage(body.gap - 1.0, 3.0 + body.radius) * haze, -300.0)
    _spicules(scene, body, int(scene.rng.integers(8, 40)))
    _feed(scene, body, int(scene.rng.binomial(4, 0.4)))
    _paint_body(scene, body, _solid_hu(scene))
    paint_surroundings(scene, body.radius, wall=NEAR_WALL)


def paint_ground_glass_nodule(scene: Scene) -> None:
    """Paint a hazy nodule through which vessels remain visible."""
    diameter = _diameter(scene.rng, 9.0)
    _nodule_background(scene, 0.0)
    body = _shape_body(scene, diameter, roughness=0.12)
    density = float(scene.rng.uniform(0.2, 0.6))
    _paint_haze(scene, body, density)
    paint_surroundings(scene, body.radius, wall=NEAR_WALL)


def paint_part_solid_nodule(scene: Scene) -> None:
    """Paint a ground-glass nodule with one or more solid parts."""
    diameter = _diameter(scene.rng, 13.0)
    _nodule_background(scene, 0.5 * diameter)
    rng = scene.rng
    body = _shape_body(scene, diameter, roughness=0.15, frequency=3.5)
    density = float(rng.uniform(0.25, 0.6))
    _paint_haze(scene, body, density)
    for _ in range(rng.integers(1, 4)):
        core = _shape_body(scene, diameter * rng.uniform(0.25, 0.6), roughness=0.2, frequency=4.0)
        _paint_body(scene, core, _solid_hu(scene), float(rng.uniform(0.8, 2.5)))
    _feed(scene, body, int(rng.binomial(3, 0.4)))
    paint_surroundings(scene, body.radius, wall=NEAR_WALL)


def paint_calcified_nodule(scene: Scene) -> None:
    """Paint a small, dense granuloma."""
    diameter = min(_diameter(scene.rng, 5.0), 12.0)
    _nodule_background(scene, diameter)
    body = _shape_body(scene, diameter)
    _feed(scene, body, int(scene.rng.binomial(3, 0.3)))
    _paint_body(scene, body, float(scene.rng.uniform(200.0, 1000.0)), 0.5)
    paint_surroundings(scene, body.radius, wall=NEAR_WALL)


def paint_cavitated_nodule(scene: Scene) -> None:
    """Paint a nodule that contains air: a cavity, or bubbles (open bronchi)."""
    diameter = _diameter(scene.rng, 15.0)
    _nodule_background(scene, diameter)
    rng = scene.rng
    body = _shape_body(scene, diameter, roughness=0.1, frequency=4.0)
    _spicules(scene, body, int(rng.integers(0, 20)))
    _paint_body(scene, body, _solid_hu(scene))
    bubbles = 1 if scene.chance(0.5) else int(rng.integers(2, 5))
    for _ in range(bubbles):
        hole = _shape_body(scene, diameter * rng.uniform(0.3, 0.7) / bubbles, roughness=0.12)
        _paint_body(scene, hole, AIR_HU + rng.uniform(40.0, 200.0), rng.uniform(0.8, 2.5))
    paint_surroundings(scene, body.radius, wall=NEAR_WALL)


def paint_vessel_attached_nodule(scene: Scene) -> None:
    """Paint a nodule attached to a vessel."""
    diameter = _diameter(scene.rng, 7.0)
    _nodule_background(scene, diameter)
    rng = scene.rng
    body = _shape_body(scene, diameter, roughness=0.1)
    direction = random_directions(rng, 1, 0.35)[0]
    radius = float(rng.uniform(0.5, 0.3 * body.radius + 0.6))
    beside = body.centre + body.radius * rng.uniform(0.0, 1.0) * random_directions(rng, 1)[0]
    paint_vessel_through(scene, beside, direction, radius, 22.0)
    _paint_body(scene, body, _solid_hu(scene))
    paint_surroundings(scene, body.radius, wall=NEAR_WALL)


def paint_pleura_attached_nodule(scene: Scene) -> None:
    """Paint a nodule attached to the pleura, by a broad base or by a pleural tag."""
    diameter = _diameter(scene.rng, 8.5)
    _nodule_background(scene, diameter)
    rng = scene.rng
    body = _shape_body(scene, diameter, roughness=0.1)
    _paint_body(scene, body, _solid_hu(scene))
    angle = scene.angle()
    depth = body.radius * rng.uniform(0.3, 1.1)
    if scene.chance(0.3):
        depth += rng.uniform(1.0, 6.0)
        reach = body.centre + (depth + 3.0) * np.array([np.cos(angle), np.sin(angle), 0.0])
        paint_vessels(scene, strand(body.centre, reach, 0.6, 1.0), hu=WALL_HU)
    if scene.chance(0.8):
        paint_chest_wall(scene, depth, angle)
    else:
        paint_organ(scene, depth, float(rng.uniform(12.0, 60.0)), angle)


NODULES = (
    Finding("solid nodule", 0.33, paint_solid_nodule),
    Finding("lobulated nodule", 0.10, paint_lobulated_nodule),
    Finding("spiculated nodule", 0.14, paint_spiculated_nodule),
    Finding("part-solid nodule", 0.08, paint_part_solid_nodule),
    Finding("ground-glass nodule", 0.055, paint_ground_glass_nodule),
    Finding("calcified nodule", 0.06, paint_calcified_nodule),
    Finding("cavitated nodule", 0.025, paint_cavitated_nodule),
    Finding("vessel-attached nodule", 0.07, paint_vessel_attached_nodule),
    Finding("pleura-attached nodule", 0.16, paint_pleura_attached_nodule),
)
