"""Fingerprints that a patch shares with its rotated, reflected or shifted copies."""

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from nodules.patches.layout import PATCH_SIZE, Patches
from nodules.patches.symmetry import view_permutations

# A shifted copy has keypoints in common with its original: the same spots of the scan, wherever
# they lie in the patch. In crowded synthetic scenes shifted by 6, 8, 10 and 12 pixels, six per
# patch find 100, 99, 97 and 94% of the copies (four: 100, 99, 93 and 86%). In 6,483 LUNA16 patches,
# four find all pairs of one slice that a search over every shift finds.
KEYPOINTS = 6
# Spots weaker than this, in grey levels, are noise. Patches without a stronger one have no
# distinctive content. In LUNA16, 1% of the six strongest spots per patch are below 6.
MIN_STRENGTH = 4.0
# Standard deviations of the difference of Gaussians that finds spots, in pixels.
SPOT_SCALES = (1.5, 3.0)
# A code covers 21 x 21 pixels by 7 x 7 means of 3 x 3.
CELLS = 7
CELL_PIXELS = 3
MARGIN = CELLS * CELL_PIXELS // 2
PEAK_PIXELS = 5  # a spot is the strongest of the 5 x 5 pixels around it

KEYPOINT = np.dtype(
    [("row", np.int32), ("y", np.uint8), ("x", np.uint8), ("code", np.uint8, (CELLS * CELLS,))]
)


class Fingerprints(NamedTuple):
    """The fingerprints of a block of n patches.

    Attributes
    ----------
    hashes
        (n,) uint64, equal if and only if one patch is a symmetric view of the other (the chance of
        a collision among half a million patches is 10^-8).
    uniform
        (n,) bool, True if the patch has a single grey level.
    keypoints
        Structured array of type `KEYPOINT`, at most `KEYPOINTS` per patch.
    """

    hashes: NDArray[np.uint64]
    uniform: NDArray[np.bool_]
    keypoints: NDArray


PIXEL_VIEWS = view_permutations(PATCH_SIZE)
CODE_VIEWS = view_permutations(CELLS)
# Sets of cells that the symmetries permute among themselves.
_ORBITS = [np.array(orbit) for orbit in sorted({tuple(sorted(set(o))) for o in CODE_VIEWS.T})]
# Sums of 2,500 products with integers below 2^32 are exact in float64 in any order.
_WEIGHTS = np.random.default_rng(0).integers(0, 2**32, PATCH_SIZE**2).astype(np.float64)
_VIEW_WEIGHTS = _WEIGHTS[np.argsort(PIXEL_VIEWS, axis=1)].T.copy()


def fingerprints(patches: Patches, first_row: int) -> Fingerprints:
    """Compute the fingerprints of a block.

    Parameters
    ----------
    patches
        (n, 50, 50) uint8.
    first_row
        Row of the first patch in the patch file.
    """
    flat = patches.reshape(len(patches), -1)
    return Fingerprints(
        _hashes(flat), flat.min(axis=1) == flat.max(axis=1), _keypoints(patches, first_row)
    )


def invariant_codes(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Make codes invariant under the symmetries.

    This sorts the cells that the symmetries permute. It never increases distances: that between
    two sorted codes is at most the distance under the best symmetry.

    Parameters
    ----------
    codes
        (m, 49).

    Returns
    -------
    (m, 49) float32
    """
    return np.concatenate([np.sort(codes[:, orbit], axis=1) for orbit in _ORBITS], axis=1).astype(
        np.float32
    )


def smoothing(scale: float) -> NDArray[np.float32]:
    """Return the matrix S for which S P S^T is the patch P smoothed with a Gaussian.

    Parameters
    ----------
    scale
        Standard deviation in pixels. The Gaussian is truncated at three standard deviations and at
        the border of the patch.

    Returns
    -------
    (50, 50) float32
        Each row adds up to 1.
    """
    distance = np.subtract.outer(np.arange(PATCH_SIZE), np.arange(PATCH_SIZE)) / scale
    weights = np.where(np.abs(distance) <= 3, np.exp(-(distance**2) / 2), 0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _hashes(flat: NDArray[np.uint8]) -> NDArray[np.uint64]:
    # The view with the smallest weighted sum represents the patch.
    chosen = np.argmin(flat @ _VIEW_WEIGHTS, axis=1)
    digests = bytearray()
    for patch, view in zip(flat, chosen, strict=True):
        digests += hashlib.blake2b(patch[PIXEL_VIEWS[view]], digest_size=8).digest()
    return np.frombuffer(digests, dtype=np.uint64)


def _keypoints(patches: Patches, first_row: int) -> NDArray:
    strength = np.abs(_spots(patches))
    inside = strength.shape[-1]
    highest = maximum_filter(strength, (1, PEAK_PIXELS, PEAK_PIXELS), mode="constant")
    is_peak = (strength >= highest) & (strength >= MIN_STRENGTH)
    strength = np.where(is_peak, strength, 0).reshape(len(patches), -1)
    strongest = np.argpartition(-strength, KEYPOINTS, axis=1)[:, :KEYPOINTS]
    row, rank = np.nonzero(np.take_along_axis(strength, strongest, axis=1))
    y, x = np.divmod(strongest[row, rank], inside)
    found = np.empty(len(row), dtype=KEYPOINT)
    found["row"], found["y"], found["x"] = first_row + row, y + MARGIN, x + MARGIN
    found["code"] = _codes(patches, row, y + MARGIN, x + MARGIN)
    return found


def _spots(patches: Patches) -> NDArray[np.float32]:
    """Return the difference of Gaussians, (n, 30, 30), without the margin at the border."""
    floats = patches.astype(np.float32)
    narrow, wide = (smoothing(scale)[MARGIN:-MARGIN] for scale in SPOT_SCALES)
    spots = narrow @ floats @ narrow.T - wide @ floats @ wide.T
    return np.asarray(spots, dtype=np.float32)


def _codes(
    patches: Patches, row: NDArray[np.intp], y: NDArray[np.intp], x: NDArray[np.intp]
) -> NDArray[np.uint8]:
    wide = patches.astype(np.uint16)
    sums = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    sums = sums[:, :, :-2] + sums[:, :, 1:-1] + sums[:, :, 2:]
    # `sums` starts one pixel further in, at the centre of the first 3 x 3 cell.
    offsets = CELL_PIXELS * (np.arange(CELLS) - CELLS // 2) - 1
    ys, xs = (y[:, None] + offsets)[:, :, None], (x[:, None] + offsets)[:, None, :]
    cells = sums[row[:, None, None], ys, xs].reshape(-1, CELLS * CELLS)
    return ((cells + CELL_PIXELS**2 // 2) // CELL_PIXELS**2).astype(np.uint8)
