"""Signed-distance geometry painted in Hounsfield units into a thin slab around one CT slice.

Lengths are in mm. The origin is the centre of the patch; x points right, y down and z through the
slice. The slab consists of a few sub-slices, whose mean is the slice. This reproduces the
partial-volume effect of a finite slice thickness.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .vessels import Tubes, random_directions

FloatArray = NDArray[np.float32]

GRID = 64
"""Side of the rendered square in pixels: the 50-pixel patch plus a margin for the filters."""

SUBSLICES = 3

TUBE_WINDOWS = (6, 9, 13, 20, 32, GRID)
"""Sides in pixels of the windows in which tubes are drawn; those of one size are drawn at once."""


class Slab:
    """Attenuation of a thin slab of the body.

    Parameters
    ----------
    pixel_mm : float
        Side of a pixel.
    thickness_mm : float
        Thickness of the slice, sampled by `SUBSLICES` planes.
    hu : float
        Initial attenuation in HU.

    Attributes
    ----------
    hu : numpy.ndarray of shape (SUBSLICES, GRID, GRID), float32
        Attenuation in HU.
    x, y, z : numpy.ndarray
        Coordinates in mm, shaped to broadcast against `hu`.
    """

    def __init__(self, pixel_mm: float, thickness_mm: float, hu: float) -> None:
        axis = ((np.arange(GRID) - (GRID - 1) / 2) * pixel_mm).astype(np.float32)
        planes = ((np.arange(SUBSLICES) + 0.5) / SUBSLICES - 0.5) * thickness_mm
        self.pixel_mm = pixel_mm
        self.thickness_mm = thickness_mm
        self.x: FloatArray = axis[None, None, :]
        self.y: FloatArray = axis[None, :, None]
        self.z: FloatArray = planes.astype(np.float32)[:, None, None]
        self.hu: FloatArray = np.full((SUBSLICES, GRID, GRID), hu, dtype=np.float32)

    def slice(self) -> FloatArray:
        """Return the mean over the thickness, of shape (GRID, GRID), in HU."""
        mean: FloatArray = self.hu.mean(axis=0)
        return mean

    def coverage(self, distance: FloatArray, softness_mm: float = 0.0) -> FloatArray:
        """Return the fraction of each voxel inside a surface, from 0 to 1.

        Parameters
        ----------
        distance : numpy.ndarray
            Signed distance to the surface in mm, negative inside.
        softness_mm : float
            Width of the transition; at least one pixel, which is plain anti-aliasing.
        """
        width = max(softness_mm, self.pixel_mm)
        covered: FloatArray = np.minimum(np.maximum(0.5 - distance * (1.0 / width), 0.0), 1.0)
        return covered

    def paint(self, coverage: FloatArray, hu: float | FloatArray) -> None:
        """Blend a material of `hu` over the slab, weighted by `coverage`."""
        self.hu += coverage * (hu - self.hu)

    def distance_to(self, centre: NDArray[np.float64] | tuple[float, float, float]) -> FloatArray:
        """Return the distance of each voxel from a point in mm."""
        cx, cy, cz = (np.float32(value) for value in centre)
        square = (self.x - cx) ** 2 + (self.y - cy) ** 2 + (self.z - cz) ** 2
        distance: FloatArray = np.sqrt(square)
        return distance

    def tube_coverage(self, tubes: Tubes) -> FloatArray:
        """Return the coverage by a union of tubes.

        A tube thinner than a pixel is drawn one pixel wide, with its cross-section conserved.
        Thin vessels therefore fade instead of breaking into dots.
        """
        floor = 0.5 * self.pixel_mm
        wide = np.maximum(tubes.start_radius, floor), np.maximum(tubes.end_radius, floor)
        faded = ((tubes.start_radius + tubes.end_radius) / (wide[0] + wide[1])) ** 2
        reach = np.maximum(*wide)[:, None] + self.pixel_mm
        low = np.minimum(tubes.start, tubes.end) - reach
        high = np.maximum(tubes.start, tubes.end) + reach
        edge = 0.5 * np.array([GRID * self.pixel_mm, GRID * self.pixel_mm, self.thickness_mm])
        first = np.clip((low + edge) / self.pixel_mm, 0, GRID - 1).astype(int)[:, :2]
        last = np.clip((high + edge) / self.pixel_mm, 0, GRID - 1).astype(int)[:, :2]
        side = (last - first).max(axis=1) + 1
        seen = ((low < edge) & (high > -edge)).all(axis=1)
        covered = np.zeros_like(self.hu)
        smaller = 0
        for window in TUBE_WINDOWS:
            chosen = np.flatnonzero(seen & (side > smaller) & (side <= window))
            smaller = window
            if not len(chosen):
                continue
            corner = np.minimum(first[chosen], GRID - window)
            radii = np.stack([wide[0][chosen], wide[1][chosen]])
            gap = self._tube_distance(tubes.start[chosen], tubes.end[chosen], radii, corner, window)
            inside = self.coverage(gap) * faded[chosen].astype(np.float32)[:, None, None, None]
            for part, (column, row) in zip(inside, corner.tolist(), strict=True):
                box = covered[:, row : row + window, column : column + window]
                np.maximum(box, part, out=box)
        return covered

    def _tube_distance(
        self,
        start: NDArray[np.float64],
        end: NDArray[np.float64],
        radii: NDArray[np.float64],
        corner: NDArray[np.int64],
        window: int,
    ) -> FloatArray:
        """Return the signed distances from n tubes, each in its own window of the slab.

        Parameters
        ----------
        start, end : numpy.ndarray of shape (n, 3)
        radii : numpy.ndarray of shape (2, n)
            Radii at the start and at the end.
        corner : numpy.ndarray of shape (n, 2)
            First column and first row of each window.
        window : int
            Side of the windows in pixels.

        Returns
        -------
        numpy.ndarray of shape (n, SUBSLICES, window, window), float32
        """

        def per_tube(values: NDArray[np.float64]) -> FloatArray:
            return values.astype(np.float32)[:, None, None, None]

        span = np.arange(window)
        x = self.x[0, 0, corner[:, :1] + span][:, None, None, :] - per_tube(start[:, 0])
        y = self.y[0, corner[:, 1:] + span, 0][:, None, :, None] - per_tube(start[:, 1])
        z = self.z[None] - per_tube(start[:, 2])
        axis = end - start
        square = (axis**2).sum(axis=1) + 1e-6
        step = axis / square[:, None]
        along = (x * per_tube(step[:, 0]) + y * per_tube(step[:, 1])) + z * per_tube(step[:, 2])
        # |p - t a|^2 = |p|^2 + |a|^2 t (t - 2 s), with s the unclipped position along the axis
        clipped = np.minimum(np.maximum(along, 0.0), 1.0)
        gap = (x * x + y * y) + z * z + per_tube(square) * clipped * (clipped - 2.0 * along)
        distance: FloatArray = np.sqrt(np.maximum(gap, 0.0))
        distance -= per_tube(radii[0]) + clipped * per_tube(radii[1] - radii[0])
        return distance


def smooth_field(rng: np.random.Generator, scale_pixels: float) -> FloatArray:
    """Return (GRID, GRID) smoothed Gaussian noise with mean 0 and standard deviation 1."""
    fx, fy = np.fft.rfftfreq(GRID)[None, :], np.fft.fftfreq(GRID)[:, None]
    gaussian = np.exp(-2.0 * (np.pi * scale_pixels) ** 2 * (fx * fx + fy * fy))
    white = rng.standard_normal((GRID, GRID), dtype=np.float32)
    field = np.fft.irfft2(np.fft.rfft2(white) * gaussian, s=(GRID, GRID)).astype(np.float32)
    smooth: FloatArray = (field - field.mean()) / field.std()
    return smooth


def bumpy_radius(
    x: FloatArray,
    y: FloatArray,
    z: FloatArray,
    rng: np.random.Generator,
    *,
    roughness: float,
    frequency: float,
    waves: int = 5,
) -> FloatArray:
    """Return a factor around 1 that deforms a sphere, depending only on direction.

    Parameters
    ----------
    x, y, z : numpy.ndarray
        Coordinates relative to the centre of the sphere.
    rng : numpy.random.Generator
    roughness : float
        Standard deviation of the factor.
    frequency : float
        Typical phase change of the waves over one radius, in radians.
    waves : int
        Number of superposed plane waves.
    """
    norm = np.sqrt(x * x + y * y + z * z) + np.float32(1e-3)
    total = np.zeros_like(norm)
    for _ in range(waves):
        wave = (random_directions(rng, 1)[0] * frequency * rng.uniform(0.5, 1.5)).astype(np.float32)
        phase = np.float32(rng.uniform(0.0, 2.0 * np.pi))
        total += np.sin((wave[0] * x + wave[1] * y + wave[2] * z) / norm + phase)
    factor: FloatArray = 1.0 + np.float32(roughness * np.sqrt(2.0 / waves)) * total
    return factor
