"""Normal anatomy around a patch: parenchyma, vessels, airways, fissures, chest wall, organs."""

from __future__ import annotations

import numpy as np

from .geometry import FloatArray, smooth_field
from .scene import AIR_HU, CORTEX_HU, EMPHYSEMA_HU, FAT_HU, MARROW_HU, WALL_HU, Scene
from .vessels import DoubleArray, Tubes, grow_vessels, random_directions, strand, unit

THIN_VESSEL_MM = 0.52
"""Minimum initial radius of background vessels."""

FIELD_MM = 24.0
"""Half the side of the region in which vessels start, slightly larger than the patch."""


def paint_parenchyma(scene: Scene) -> None:
    """Paint the texture of the lung: unresolved vessels, a dependent gradient, emphysema."""
    slab, rng = scene.slab, scene.rng
    slope = rng.normal(0.0, 0.8, size=2).astype(np.float32)
    slab.hu += np.float32(rng.normal(0.0, 14.0)) + slope[0] * slab.x + slope[1] * slab.y
    slab.hu += np.float32(rng.uniform(8.0, 32.0)) * smooth_field(rng, 1.3)
    if scene.chance(scene.protocol.emphysema):
        fraction = 1.5 * smooth_field(rng, 3.0) + np.float32(rng.normal(0.0, 0.7))
        slab.paint(np.clip(fraction, 0.0, 1.0), EMPHYSEMA_HU)
    if scene.chance(0.06):
        fraction = 0.5 * smooth_field(rng, 7.0) + np.float32(0.1)
        slab.paint(np.clip(fraction, 0.0, 1.0), scene.protocol.lung_hu + rng.uniform(60.0, 260.0))


def paint_vessels(scene: Scene, tubes: Tubes, hu: float | None = None) -> None:
    """Paint vessels with the attenuation of this scan's blood, or with `hu`."""
    slab = scene.slab
    slab.paint(slab.tube_coverage(tubes), scene.protocol.blood_hu if hu is None else hu)


def paint_background_vessels(
    scene: Scene, *, central: float | None = None, clearing_mm: float = 0.0
) -> None:
    """Paint vessels at random positions.

    Parameters
    ----------
    scene : Scene
    central : float, optional
        Location from 0 under the pleura (few, thin vessels) to 1 at the hilum; random by default.
    clearing_mm : float
        Minimum distance of the starts of vessels from the centre of the patch.
    """
    rng = scene.rng
    if central is None:
        central = float(rng.beta(1.2, 2.0))
    count = rng.poisson((32.0 + 12.0 * central) * scene.protocol.vascularity)
    largest = 1.0 + 2.4 * central**1.5
    exponent = 2.0 - 0.9 * central
    steep = (THIN_VESSEL_MM / largest) ** exponent
    radius = THIN_VESSEL_MM * (1.0 - rng.random(count) * (1.0 - steep)) ** (-1.0 / exponent)
    start = rng.uniform(-FIELD_MM, FIELD_MM, size=(count, 3))
    start[:, 2] = rng.normal(0.0, 3.0, size=count)
    start = start[np.hypot(start[:, 0], start[:, 1]) > clearing_mm]
    radius = radius[: len(start)]
    direction = unit(scene.flow + rng.uniform(0.2, 2.0) * random_directions(rng, len(start)))
    length = rng.uniform(6.0, 22.0, len(start)) + 4.0 * radius
    paint_vessels(scene, grow_vessels(rng, start, direction, radius, length))


def paint_vessel_through(
    scene: Scene, centre: DoubleArray, direction: DoubleArray, radius: float, length: float
) -> None:
    """Paint a vessel that passes through a point."""
    tubes = grow_vessels(
        scene.rng,
        np.stack([centre, centre]),
        np.stack([direction, -direction]),
        np.full(2, radius),
        np.full(2, length),
        branching=float(scene.rng.uniform(0.05, 0.4)),
    )
    paint_vessels(scene, tubes)


def paint_lung(scene: Scene, clearing_mm: float = 0.0, central: float | None = None) -> None:
    """Paint the lung around a finding: parenchyma and vessels."""
    paint_parenchyma(scene)
    paint_background_vessels(scene, central=central, clearing_mm=clearing_mm)


def paint_airway(
    scene: Scene,
    centre: DoubleArray,
    direction: DoubleArray,
    radius: float,
    length: float,
) -> None:
    """Paint a bronchus: a tube of soft tissue around a lumen of air."""
    half = 0.5 * length * direction
    wall = (0.35 + 0.2 * radius) * scene.rng.uniform(0.8, 1.4)
    outer = strand(centre - half, centre + half, radius + wall, radius + wall)
    inner = strand(centre - 1.2 * half, centre + 1.2 * half, radius, radius)
    scene.slab.paint(scene.slab.tube_coverage(outer), WALL_HU)
    scene.slab.paint(scene.slab.tube_coverage(inner), AIR_HU + 15.0)


def paint_fissure(scene: Scene, offset_mm: float) -> None:
    """Paint a fissure, a thin, gently curved sheet, at a distance from the centre."""
    slab, rng = scene.slab, scene.rng
    angle = scene.angle()
    across = np.cos(angle) * slab.x + np.sin(angle) * slab.y
    along = np.cos(angle) * slab.y - np.sin(angle) * slab.x
    bend = rng.normal(0.0, 0.006)
    sheet = np.abs(across - offset_mm + bend * along**2 + rng.normal(0.0, 1.0) * slab.z)
    drawn = slab.coverage(sheet.astype(np.float32) - 0.4, 1.5 * slab.pixel_mm)
    slab.paint(drawn * np.float32(rng.uniform(0.15, 0.6)), WALL_HU)


def paint_chest_wall(scene: Scene, depth_mm: float, angle: float | None = None) -> float:
    """Paint the chest wall: pleura, muscle, fat and ribs outside a concave lung border.

    Parameters
    ----------
    scene : Scene
    depth_mm : float
        Distance from the centre of the patch to the pleura; negative if the centre is outside.
    angle : float, optional
        Direction of the wall in radians; random by default.

    Returns
    -------
    float
        Direction of the wall in radians.
    """
    slab, rng = scene.slab, scene.rng
    if angle is None:
        angle = scene.angle()
    curvature = rng.uniform(22.0, 110.0)
    back = curvature - depth_mm
    x = slab.x + np.float32(back * np.cos(angle))
    y = slab.y + np.float32(back * np.sin(angle))
    arc = np.arctan2(
        np.cos(angle) * y - np.sin(angle) * x, np.cos(angle) * x + np.sin(angle) * y
    ) * np.float32(curvature)
    wave = rng.uniform(0.0, 1.0) * np.sin(arc / rng.uniform(5.0, 12.0) + rng.uniform(0, 6.3))
    slope = rng.normal(0.0, 0.35)
    outward = (np.hypot(x, y) - curvature + wave + slope * slab.z).astype(np.float32)
    tissue = np.full_like(outward, scene.protocol.tissue_hu)
    _layer_fat(scene, tissue, outward)
    _layer_ribs(scene, tissue, outward, arc.astype(np.float32))
    slab.paint(slab.coverage(-outward), tissue)
    return angle


def _layer_fat(scene: Scene, tissue: FloatArray, outward: FloatArray) -> None:
    """Add a sheet of fat between the muscles of the wall or under the pleura."""
    rng = scene.rng
    if scene.chance(0.45):
        depth, width = rng.uniform(1.5, 14.0), rng.uniform(0.8, 5.0)
        inside = scene.slab.coverage(np.abs(outward - np.float32(depth)) - width, 2.0)
        tissue += inside * np.float32(rng.uniform(0.5, 1.0)) * (FAT_HU - tissue)


def _layer_ribs(scene: Scene, tissue: FloatArray, outward: FloatArray, arc: FloatArray) -> None:
    """Add ribs to the wall: shells of cortical bone around marrow, elongated along the wall."""
    rng = scene.rng
    place = rng.uniform(-30.0, 10.0)
    depth = rng.uniform(3.0, 6.5)
    while place < 30.0:
        half_length = rng.uniform(4.0, 18.0)
        thickness = rng.uniform(2.2, 4.5)
        place += half_length
        if scene.chance(0.7):
            tilt = rng.normal(0.0, 0.1)
            radial = (outward - depth + tilt * (arc - place)) / np.float32(thickness)
            lengthwise = (arc - place) / np.float32(half_length)
            norm = (np.abs(radial) ** 2.5 + np.abs(lengthwise) ** 2.5) ** np.float32(0.4)
            gap = (norm - 1.0) * np.float32(thickness)
            cortex = np.float32(CORTEX_HU * rng.uniform(0.45, 1.1))
            tissue += scene.slab.coverage(gap) * (cortex - tissue)
            marrow = np.float32(MARROW_HU * rng.uniform(0.3, 1.3))
            shell = rng.uniform(0.8, 1.8)
            tissue += scene.slab.coverage(gap + shell, 1.2) * (marrow - tissue)
        place += half_length + rng.uniform(6.0, 22.0)


def paint_organ(
    scene: Scene, depth_mm: float, radius_mm: float, angle: float | None = None
) -> None:
    """Paint a convex organ that bulges into the lung: heart, aorta, mediastinum or diaphragm.

    Parameters
    ----------
    scene : Scene
    depth_mm : float
        Distance from the centre of the patch to the surface; negative if the centre is inside.
    radius_mm : float
        In-plane radius of curvature.
    angle : float, optional
        Direction of the organ in radians; random by default.
    """
    slab, rng = scene.slab, scene.rng
    if angle is None:
        angle = scene.angle()
    away = depth_mm + radius_mm
    x = slab.x - np.float32(away * np.cos(angle))
    y = slab.y - np.float32(away * np.sin(angle))
    turn = np.arctan2(y, x)
    bulge = rng.uniform(0.3, 2.2)
    wave = sum(
        bulge / order**0.7 * np.sin(order * radius_mm / 12.0 * turn + rng.uniform(0.0, 6.3))
        for order in (1, 2, 3)
    )
    slope = rng.normal(0.0, 0.8)
    gap = np.hypot(x, y) - radius_mm + wave + slope * slab.z
    filled = rng.random() < 0.6
    hu = scene.protocol.blood_hu if filled else scene.protocol.tissue_hu
    motion = rng.uniform(0.0, 6.0) if scene.chance(0.35) else 0.0
    slab.paint(slab.coverage(gap.astype(np.float32), motion), hu)
    if radius_mm > 20.0 and scene.chance(0.4):
        depth, width = rng.uniform(0.5, 6.0), rng.uniform(1.0, 4.0)
        fat = slab.coverage(np.abs(gap + depth).astype(np.float32) - np.float32(width), 2.0)
        slab.paint(fat * np.float32(rng.uniform(0.5, 1.0)), FAT_HU)
    if radius_mm < 20.0 and scene.chance(0.12):
        toward = np.cos(turn - rng.uniform(0.0, 6.3))
        plaque = slab.coverage(np.abs(gap + 1.0).astype(np.float32) - 0.8)
        slab.paint(plaque * (toward > rng.uniform(0.6, 0.95)), CORTEX_HU)


def paint_dome(scene: Scene, radius_mm: float, height_mm: float) -> None:
    """Paint the dome of the diaphragm (or another organ) where the slice grazes it.

    Parameters
    ----------
    scene : Scene
    radius_mm : float
        Radius of the sphere.
    height_mm : float
        Height of the sphere above the slice. Its flat top blurs over many pixels.
    """
    rng = scene.rng
    offset = rng.normal(0.0, 13.0, size=2)
    gap = scene.slab.distance_to((offset[0], offset[1], radius_mm - height_mm)) - radius_mm
    scene.slab.paint(
        scene.slab.coverage(gap.astype(np.float32), scene.slab.thickness_mm + 1.0),
        scene.protocol.tissue_hu + rng.normal(30.0, 15.0),
    )


def paint_surroundings(scene: Scene, room_mm: float, wall: float = 0.36) -> None:
    """Paint a border of the lung at a random distance, in some of the patches.

    Parameters
    ----------
    scene : Scene
    room_mm : float
        Radius around the centre to keep free.
    wall : float
        Probability that the border is the chest wall.
    """
    rng = scene.rng
    kind = rng.random()
    if kind < wall:
        angle = paint_chest_wall(scene, room_mm + 18.0 * rng.beta(1.0, 1.4))
        if scene.chance(0.12):
            opposite = angle + np.pi + rng.normal(0.0, 0.5)
            paint_organ(scene, room_mm + rng.uniform(1.0, 14.0), rng.uniform(12.0, 60.0), opposite)
    elif kind < wall + 0.15:
        paint_organ(scene, room_mm + rng.uniform(1.0, 15.0), rng.uniform(9.0, 60.0))
    elif kind < wall + 0.2:
        paint_fissure(scene, float(rng.normal(0.0, 8.0)))
