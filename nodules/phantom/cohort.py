"""The cohort: number of nodules per scan, and the patches of each scan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .lesions import NODULES
from .mimics import MIMICS
from .scanner import PATCH, acquire, draw_protocol, window
from .scene import Finding, Scene

UNEVENNESS = 1.2
"""Shape parameter of the gamma distribution of nodules over scans; lower is more uneven."""


@dataclass(frozen=True)
class PhantomScan:
    """The patches of one synthetic scan.

    Attributes
    ----------
    patches : numpy.ndarray of shape (n, 50, 50), uint8
        -1000..400 HU mapped to 0..255.
    labels : numpy.ndarray of shape (n,), uint8
        1 for a nodule, 0 otherwise.
    group : int
        Index of the scan, from 0.
    findings : tuple of str
        Name of the finding at the centre of each patch.
    """

    patches: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    group: int
    findings: tuple[str, ...]


def generate_phantom(
    *, scans: int, patches_per_scan: int, nodule_fraction: float, seed: int
) -> Iterator[PhantomScan]:
    """Yield synthetic scans one at a time.

    Parameters
    ----------
    scans, patches_per_scan : int
        Size of the cohort.
    nodule_fraction : float
        Fraction of nodules in the whole cohort, from 0 to 1, met exactly except for rounding.
    seed : int
        Seed of the generator. The same seed gives the same bytes; scan ``i`` depends on the seed,
        on ``i`` and on its number of nodules.

    Yields
    ------
    PhantomScan
    """
    counts = _deal_nodules(
        round(nodule_fraction * scans * patches_per_scan),
        scans,
        patches_per_scan,
        np.random.default_rng([seed, 0]),
    )
    for scan, nodules in enumerate(counts):
        rng = np.random.default_rng([seed, 1 + scan])  # NumPy treats [seed, 0] like seed
        yield _image_scan(scan, int(nodules), patches_per_scan, rng)


def _deal_nodules(
    total: int, scans: int, capacity: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return an uneven number of nodules per scan, at most `capacity`, `total` overall."""
    counts = np.zeros(scans, dtype=np.int64)
    burden = rng.gamma(UNEVENNESS, size=scans) + 1e-6
    while total > counts.sum():
        weight = burden * (counts < capacity)
        dealt = counts + rng.multinomial(total - counts.sum(), weight / weight.sum())
        counts = np.minimum(dealt, capacity)
    return counts


def _image_scan(
    scan: int, nodules: int, patches_per_scan: int, rng: np.random.Generator
) -> PhantomScan:
    """Draw a protocol, then paint and acquire each patch of the scan with it."""
    protocol = draw_protocol(rng)
    labels = np.zeros(patches_per_scan, dtype=np.uint8)
    labels[:nodules] = 1
    rng.shuffle(labels)
    patches = np.empty((patches_per_scan, PATCH, PATCH), dtype=np.uint8)
    findings = []
    for patch, label in zip(patches, labels, strict=True):
        finding = _draw(NODULES if label else MIMICS, rng)
        scene = Scene(protocol, rng)
        finding.paint(scene)
        patch[...] = window(acquire(scene.slab.slice(), protocol, rng))
        findings.append(finding.name)
    return PhantomScan(patches, labels, scan, tuple(findings))


def _draw(findings: Sequence[Finding], rng: np.random.Generator) -> Finding:
    """Draw a finding with probabilities proportional to the fractions."""
    fractions = np.array([finding.fraction for finding in findings])
    return findings[rng.choice(len(findings), p=fractions / fractions.sum())]
