"""Nodule mimics, which detectors mistake for nodules: vessels, airways, lung borders, scars."""

from __future__ import annotations

import numpy as np

from .anatomy import (
    paint_airway,
    paint_chest_wall,
    paint_dome,
    paint_fissure,
    paint_lung,
    paint_organ,
    paint_surroundings,
    paint_vessel_through,
    paint_vessels,
)
from .scene import (
    CARTILAGE_HU,
    CORTEX_HU,
    MARROW_HU,
    WALL_HU,
    Finding,
    Scene,
    off_centre,
)
from .vessels import DoubleArray, Tubes, grow_vessels, random_directions, strand, unit


def _run(scene: Scene, flatness: float) -> None:
    """Make vessels run within the slice (`flatness` below 1) or across it (above 1)."""
    scene.flow = random_directions(scene.rng, 1, flatness)[0]


def _paint_central_vessel(scene: Scene, radius: float, length: float) -> None:
    """Paint a vessel through the centre, roughly parallel to those around it."""
    aside = 0.25 * random_directions(scene.rng, 1)
    direction = unit(scene.flow[None] + aside)[0]
    paint_vessel_through(scene, off_centre(scene.rng, radius), direction, radius, length)


def paint_vessel_segment(scene: Scene) -> None:
    """Paint a vessel that runs within the slice for some length."""
    radius = float(np.clip(1.15 * scene.rng.lognormal(0.0, 0.45), 0.65, 3.5))
    _run(scene, 0.5)
    paint_lung(scene, central=_centrality(scene, radius))
    _paint_central_vessel(scene, radius, float(scene.rng.uniform(3.0, 18.0)))
    paint_surroundings(scene, 2.0)


def paint_vessel_cross_section(scene: Scene) -> None:
    """Paint a vessel that crosses the slice: a dot or an ellipse."""
    radius = float(np.clip(1.2 * scene.rng.lognormal(0.0, 0.5), 0.65, 5.5))
    _run(scene, 1.8)
    paint_lung(scene, central=_centrality(scene, radius))
    _paint_central_vessel(scene, radius, 12.0)
    paint_surroundings(scene, 2.0 + radius)


def paint_bifurcation(scene: Scene) -> None:
    """Paint three to five vessels that meet at the centre."""
    rng = scene.rng
    radius = float(np.clip(1.15 * rng.lognormal(0.0, 0.45), 0.6, 3.5))
    _run(scene, 0.7)
    paint_lung(scene, central=_centrality(scene, radius))
    centre = off_centre(rng, radius)
    arms = int(rng.integers(3, 6))
    tubes = grow_vessels(
        rng,
        np.tile(centre, (arms, 1)),
        random_directions(rng, arms, 0.5),
        radius * rng.uniform(0.35, 1.0, arms),
        rng.uniform(5.0, 20.0, arms),
    )
    paint_vessels(scene, tubes)
    paint_surroundings(scene, 2.0 + radius)


def _centrality(scene: Scene, radius: float) -> float:
    """Draw the centrality (0 to 1) of the lung around a vessel of a given radius."""
    return float(np.clip(0.28 * radius + scene.rng.normal(0.0, 0.2), 0.0, 1.0))


def _accompany(scene: Scene, centre: DoubleArray, radius: float, direction: DoubleArray) -> None:
    """Paint a bronchus next to an artery, nearly parallel to it."""
    rng = scene.rng
    angle = scene.angle()
    lumen = radius * rng.uniform(0.35, 0.9)
    gap = radius + 1.2 * lumen + rng.uniform(0.0, 1.5)
    beside = centre + gap * np.array([np.cos(angle), np.sin(angle), 0.0])
    along = direction + 0.4 * random_directions(rng, 1)[0]
    paint_airway(scene, beside, along, lumen, 14.0)


def paint_hilum(scene: Scene) -> None:
    """Paint large, closely packed vessels and bronchi that leave the mediastinum."""
    rng = scene.rng
    paint_lung(scene, central=1.0)
    angle = scene.angle()
    outward = -np.array([np.cos(angle), np.sin(angle), 0.0])
    depth = float(rng.uniform(-3.0, 12.0))
    if scene.chance(0.75):
        _paint_mediastinum(scene, depth, angle)
    for spread in (1.5, *(6.0,) * rng.integers(0, 4)):
        root = rng.normal(0.0, spread, size=3)
        root[2] = rng.normal(0.0, 0.3 * spread)
        direction = outward + rng.uniform(0.4, 1.6) * random_directions(rng, 1)[0]
        direction /= np.linalg.norm(direction)
        radius = rng.uniform(1.2, 5.0)
        paint_vessel_through(scene, root, direction, radius, rng.uniform(4.0, 22.0))
        for _ in range(rng.binomial(2, 0.35)):
            _accompany(scene, root, radius, direction)


def _paint_mediastinum(scene: Scene, depth: float, angle: float) -> None:
    """Paint the mediastinum as overlapping organs with notches between them."""
    rng = scene.rng
    paint_organ(scene, depth + rng.uniform(0.0, 5.0), float(rng.uniform(20.0, 80.0)), angle)
    for _ in range(rng.integers(0, 3)):
        radius = float(rng.uniform(5.0, 16.0))
        paint_organ(scene, depth + rng.uniform(0.0, 8.0), radius, angle + rng.normal(0.0, 0.7))


def paint_mediastinal_border(scene: Scene) -> None:
    """Paint the edge of the heart, the aorta or the mediastinum."""
    rng = scene.rng
    paint_lung(scene)
    angle = scene.angle()
    depth = float(rng.normal(0.0, 5.0))
    _paint_mediastinum(scene, depth, angle)
    if scene.chance(0.3):
        across = angle + rng.normal(0.0, 0.4)
        direction = -np.array([np.cos(across), np.sin(across), rng.normal(0.0, 0.4)])
        root = rng.normal(0.0, 4.0, size=3)
        root[2] = 0.0
        paint_vessel_through(
            scene, root, direction / np.linalg.norm(direction), rng.uniform(1.5, 4.5), 12.0
        )
    if scene.chance(0.3):
        place = np.append(rng.uniform(-16.0, 16.0, size=2), 0.0)
        lumen = float(rng.uniform(1.5, 8.0))
        paint_airway(scene, place, random_directions(rng, 1, 3.0)[0], lumen, 20.0)


def paint_chest_wall_edge(scene: Scene) -> None:
    """Paint the pleura near the centre, sometimes with an inward bulge."""
    rng = scene.rng
    paint_lung(scene, central=float(rng.uniform(0.0, 0.3)))
    depth = float(rng.normal(0.5, 4.0))
    angle = scene.angle()
    if scene.chance(0.4):
        toward = np.array([np.cos(angle), np.sin(angle), 0.0])
        away = rng.uniform(3.0, 12.0)
        gap = scene.slab.distance_to((depth + 0.7 * away) * toward) - away
        scene.slab.paint(scene.slab.coverage(gap), scene.protocol.tissue_hu)
    if scene.chance(0.25):
        opposite = angle + np.pi + rng.normal(0.0, 0.6)
        paint_organ(scene, rng.uniform(2.0, 14.0), rng.uniform(10.0, 60.0), opposite)
    paint_chest_wall(scene, depth, angle)


def paint_rib_end(scene: Scene) -> None:
    """Paint the cartilage or the tip of a rib that indents the pleura."""
    rng = scene.rng
    paint_lung(scene, central=0.0)
    angle = scene.angle()
    depth = float(rng.uniform(1.0, 7.0))
    paint_chest_wall(scene, depth, angle)
    toward = np.array([np.cos(angle), np.sin(angle), 0.0])
    tangent = np.array([-toward[1], toward[0], rng.normal(0.0, 0.5)])
    radius = float(rng.uniform(2.5, 5.0))
    tip = (depth + rng.uniform(0.2, 0.9) * radius) * toward
    far = tip + rng.choice([-1.0, 1.0]) * rng.uniform(5.0, 25.0) * tangent + 6.0 * toward
    cartilage = scene.chance(0.4)
    shell = CARTILAGE_HU if cartilage else CORTEX_HU * rng.uniform(0.4, 0.9)
    paint_vessels(scene, strand(tip, far, radius, radius), hu=shell)
    if not cartilage:
        paint_vessels(scene, strand(tip, far, radius - 1.5, radius - 1.5), hu=MARROW_HU)


def paint_diaphragm_dome(scene: Scene) -> None:
    """Paint the dome of the diaphragm, partly in the slice."""
    rng = scene.rng
    paint_lung(scene)
    paint_dome(scene, float(rng.uniform(40.0, 140.0)), float(rng.uniform(-1.0, 4.0)))
    paint_surroundings(scene, 8.0)


def paint_bronchovascular_pair(scene: Scene) -> None:
    """Paint an artery with the bronchi that run alongside it."""
    rng = scene.rng
    radius = float(rng.uniform(0.9, 4.0))
    _run(scene, rng.uniform(0.6, 2.5))
    paint_lung(scene, central=_centrality(scene, 1.5 * radius))
    direction = scene.flow
    centre = off_centre(rng, radius)
    paint_vessel_through(scene, centre, direction, radius, float(rng.uniform(5.0, 16.0)))
    for _ in range(1 + rng.binomial(2, 0.3)):
        _accompany(scene, centre, radius, direction)
    if scene.chance(0.3):
        _paint_mediastinum(scene, radius + float(rng.uniform(2.0, 15.0)), scene.angle())


def paint_scar(scene: Scene) -> None:
    """Paint a band of scar tissue or plate atelectasis, often attached to the pleura."""
    rng = scene.rng
    paint_lung(scene)
    angle = scene.angle()
    toward = np.array([np.cos(angle), np.sin(angle), rng.normal(0.0, 0.3)])
    count = int(rng.integers(1, 5))
    start = rng.normal(0.0, 1.5, size=(count, 3))
    reach = (toward + 0.35 * random_directions(rng, count)) * rng.uniform(4.0, 16.0, (count, 1))
    width = rng.uniform(0.4, 1.4, count)
    band = Tubes(start - 0.5 * reach, start + reach, width, np.full(count, 0.3))
    paint_vessels(scene, band, hu=float(rng.uniform(-350.0, 20.0)))
    if scene.chance(0.6):
        paint_chest_wall(scene, float(rng.uniform(3.0, 14.0)), angle)


def paint_plain_lung(scene: Scene) -> None:
    """Paint lung with no particular finding at the centre."""
    paint_lung(scene, central=float(scene.rng.beta(1.0, 2.5)))
    paint_surroundings(scene, 3.0)


def paint_fissure_crossing(scene: Scene) -> None:
    """Paint a fissure through the centre."""
    paint_lung(scene)
    paint_fissure(scene, float(scene.rng.normal(0.0, 1.5)))
    paint_surroundings(scene, 6.0)


def paint_consolidation(scene: Scene) -> None:
    """Paint patchy, dense lung without a clear border: infection, dependent atelectasis."""
    rng = scene.rng
    paint_lung(scene)
    for _ in range(rng.integers(3, 9)):
        place = rng.uniform(-14.0, 14.0, size=3)
        gap = scene.slab.distance_to(place) - rng.uniform(1.0, 8.0)
        cover = scene.slab.coverage(gap, rng.uniform(3.0, 10.0))
        scene.slab.paint(cover * np.float32(rng.uniform(0.1, 0.6)), WALL_HU)
    paint_surroundings(scene, 3.0)


MIMICS = (
    Finding("vessel segment", 0.28, paint_vessel_segment),
    Finding("vessel cross-section", 0.11, paint_vessel_cross_section),
    Finding("vessel bifurcation", 0.14, paint_bifurcation),
    Finding("hilum", 0.11, paint_hilum),
    Finding("mediastinal border", 0.08, paint_mediastinal_border),
    Finding("chest wall", 0.09, paint_chest_wall_edge),
    Finding("rib end", 0.02, paint_rib_end),
    Finding("diaphragm dome", 0.02, paint_diaphragm_dome),
    Finding("bronchovascular pair", 0.07, paint_bronchovascular_pair),
    Finding("scar", 0.03, paint_scar),
    Finding("plain lung", 0.025, paint_plain_lung),
    Finding("fissure", 0.02, paint_fissure_crossing),
    Finding("consolidation", 0.02, paint_consolidation),
)
