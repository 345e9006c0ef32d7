"""The scanner: point spread, noise and grey-level window of an acquisition."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .geometry import GRID, FloatArray

PATCH = 50
WINDOW_LOW_HU = -1000.0
WINDOW_HIGH_HU = 400.0

# Chosen to match the distribution of noise in LUNA16: 20 to 60 HU in most scans, far more in a few
# low-dose scans with a sharp kernel.
NOISE_MEDIAN_HU = 31.0
NOISE_LOG_SD = 0.6


@dataclass(frozen=True)
class Protocol:
    """Acquisition and lung properties that all patches of a scan share.

    Attributes
    ----------
    pixel_mm, thickness_mm : float
        In-plane pixel size and slice thickness.
    transfer : numpy.ndarray of shape (GRID, GRID // 2 + 1), float32
        Modulation transfer function on the grid of `numpy.fft.rfft2`.
    noise_shape : numpy.ndarray of shape (GRID, GRID // 2 + 1), float32
        Amplitude spectrum of the noise, scaled to unit variance.
    noise_hu : float
        Standard deviation of the noise in HU.
    lung_hu, tissue_hu, blood_hu : float
        Attenuation in HU of aerated lung, muscle and blood (contrast-enhanced in some scans).
    emphysema : float
        Severity of emphysema, from 0 (healthy lung) to 1 (largely destroyed).
    vascularity : float
        Factor on the number of visible vessels in the lung.
    """

    pixel_mm: float
    thickness_mm: float
    transfer: FloatArray
    noise_shape: FloatArray
    noise_hu: float
    lung_hu: float
    tissue_hu: float
    blood_hu: float
    emphysema: float
    vascularity: float


def draw_protocol(rng: np.random.Generator) -> Protocol:
    """Draw the acquisition parameters and the lung properties of a scan."""
    sharpness = float(rng.beta(1.3, 1.6))
    pixel_mm = float(np.clip(rng.normal(0.69, 0.08), 0.5, 0.9))
    thickness_mm = float(rng.choice([0.75, 1.0, 1.25, 2.0, 2.5], p=[0.1, 0.15, 0.3, 0.15, 0.3]))
    streak = float(rng.gamma(1.0, 0.9))
    noise = rng.normal(0.0, NOISE_LOG_SD) + 0.9 * (sharpness - 0.45) + 0.12 * (streak - 0.9)
    enhanced = rng.random() < 0.4
    blood_hu = rng.uniform(110.0, 300.0) if enhanced else rng.uniform(30.0, 60.0)
    return Protocol(
        pixel_mm=pixel_mm,
        thickness_mm=thickness_mm,
        transfer=_transfer(sharpness, rng),
        noise_shape=_noise_shape(sharpness, streak, rng),
        noise_hu=float(np.clip(NOISE_MEDIAN_HU * np.exp(noise), 14.0, 260.0)),
        lung_hu=float(np.clip(rng.normal(-858.0, 38.0), -950.0, -760.0)),
        tissue_hu=float(rng.normal(25.0, 20.0)),
        blood_hu=float(blood_hu),
        emphysema=float(rng.random() < 0.25) * float(rng.uniform(0.2, 1.0)),
        vascularity=float(rng.lognormal(0.0, 0.25)),
    )


def acquire(slice_hu: FloatArray, protocol: Protocol, rng: np.random.Generator) -> FloatArray:
    """Blur a slice, add noise and crop it.

    Parameters
    ----------
    slice_hu : numpy.ndarray of shape (GRID, GRID), float32
        Anatomy in HU.
    protocol : Protocol
    rng : numpy.random.Generator

    Returns
    -------
    numpy.ndarray of shape (PATCH, PATCH), float32
        Patch in HU.
    """
    white = np.fft.rfft2(rng.standard_normal((GRID, GRID), dtype=np.float32))
    level = protocol.noise_hu * rng.lognormal(0.0, 0.12)
    spectrum = np.fft.rfft2(slice_hu) * protocol.transfer + white * (level * protocol.noise_shape)
    image = np.fft.irfft2(spectrum, s=(GRID, GRID))
    margin = (GRID - PATCH) // 2
    return image[margin : margin + PATCH, margin : margin + PATCH].astype(np.float32)


def window(hu: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Map -1000..400 HU to 0..255, clipping values outside."""
    grey = (hu - WINDOW_LOW_HU) * (255.0 / (WINDOW_HIGH_HU - WINDOW_LOW_HU))
    patch: NDArray[np.uint8] = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    return patch


def _frequencies() -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return |fx|, |fy| and the radial frequency in cycles per pixel, on the rfft2 grid."""
    fx = np.fft.rfftfreq(GRID).astype(np.float32)[None, :]
    fy = np.abs(np.fft.fftfreq(GRID)).astype(np.float32)[:, None]
    return fx, fy, np.sqrt(fx * fx + fy * fy)


def _transfer(sharpness: float, rng: np.random.Generator) -> FloatArray:
    """Return the MTF: a Gaussian with the mid-frequency boost of an edge-enhancing kernel."""
    _, _, f = _frequencies()
    sigma = 0.95 - 0.45 * sharpness + rng.normal(0.0, 0.05)
    boost = max(0.0, 1.6 * sharpness - 0.3) * rng.uniform(0.4, 1.2)
    shape = np.exp(-2.0 * (np.pi * sigma * f) ** 2)
    return np.asarray(shape * (1.0 + boost * (f / 0.25) ** 2 * np.exp(1 - (f / 0.25) ** 2)))


def _noise_shape(sharpness: float, streak: float, rng: np.random.Generator) -> FloatArray:
    """Return the amplitude spectrum: the ramp of filtered backprojection times the kernel.

    Most scans have streaks along the rows, as caused by the long path through both shoulders.
    Their energy lies at low horizontal frequencies.
    """
    fx, fy, f = _frequencies()
    cut = 0.2 + 0.55 * sharpness**1.5 + rng.normal(0.0, 0.02)
    amplitude = (f + 0.02) ** 0.7 * np.exp(-((f / cut) ** 2.0))
    along, across, streak = (fx, fy, streak) if rng.random() < 0.85 else (fy, fx, 0.4 * streak)
    amplitude = amplitude * (1.0 + streak * np.exp(-((along / (0.03 + 0.25 * across)) ** 2)))
    weight = np.full(fx.shape, 2.0)
    weight[0, 0] = weight[0, -1] = 1.0
    power = float((weight * amplitude**2).sum()) / GRID**2
    return np.asarray(amplitude / np.sqrt(power), dtype=np.float32)
