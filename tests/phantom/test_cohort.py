"""The phantom: reproducible bytes, exact counts, grey levels and per-scan noise."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from types import GeneratorType

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from nodules.phantom.cohort import PhantomScan, generate_phantom
from nodules.phantom.lesions import NODULES
from nodules.phantom.mimics import MIMICS
from nodules.phantom.scanner import window


def small_phantom(seed: int = 0) -> Iterator[PhantomScan]:
    return generate_phantom(scans=4, patches_per_scan=6, nodule_fraction=0.3, seed=seed)


def pixels(scans: Iterator[PhantomScan]) -> bytes:
    return b"".join(scan.patches.tobytes() for scan in scans)


def noise_of(patch: NDArray[np.uint8]) -> float:
    """Return the median absolute residual after smoothing, which is robust to edges."""
    grey = patch.astype(float)
    return float(np.median(np.abs(grey - ndimage.gaussian_filter(grey, 1.5))))


@pytest.fixture(scope="module")
def cohort() -> list[PhantomScan]:
    """Return a cohort large enough to contain every finding."""
    return list(generate_phantom(scans=100, patches_per_scan=6, nodule_fraction=0.4, seed=3))


def test_the_same_seed_gives_the_same_bytes() -> None:
    assert pixels(small_phantom()) == pixels(small_phantom())


def test_another_seed_gives_other_bytes() -> None:
    assert pixels(small_phantom(0)) != pixels(small_phantom(1))


def test_scans_are_made_one_at_a_time() -> None:
    # Generating all million scans would take over an hour.
    scans = generate_phantom(scans=1_000_000, patches_per_scan=1, nodule_fraction=0.2, seed=0)
    assert next(scans).group == 0


def test_global_random_state_is_neither_read_nor_changed() -> None:
    np.random.seed(1)
    first = pixels(small_phantom())
    np.random.seed(2)
    expected = np.random.random()
    np.random.seed(2)
    second = pixels(small_phantom())
    assert first == second
    assert np.random.random() == expected


def test_scans_come_one_at_a_time_and_a_huge_cohort_costs_nothing_up_front() -> None:
    huge = generate_phantom(scans=50_000, patches_per_scan=2, nodule_fraction=0.2, seed=0)
    assert isinstance(huge, GeneratorType)
    assert [scan.group for scan in islice(huge, 3)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("scans", "per_scan", "fraction"), [(4, 6, 0.3), (3, 5, 0.0), (3, 5, 1.0), (7, 3, 0.17)]
)
def test_the_number_of_nodules_is_exact(scans: int, per_scan: int, fraction: float) -> None:
    made = list(
        generate_phantom(scans=scans, patches_per_scan=per_scan, nodule_fraction=fraction, seed=5)
    )
    assert len(made) == scans
    assert sum(int(scan.labels.sum()) for scan in made) == round(fraction * scans * per_scan)


def test_every_scan_has_its_patches_labels_and_findings(cohort: list[PhantomScan]) -> None:
    nodules = {finding.name for finding in NODULES}
    for scan in cohort:
        assert scan.patches.shape == (6, 50, 50)
        assert scan.patches.dtype == np.uint8
        assert scan.labels.shape == (6,)
        assert scan.labels.dtype == np.uint8
        assert [name in nodules for name in scan.findings] == (scan.labels == 1).tolist()


def test_nodules_are_spread_unevenly_and_stand_anywhere_in_a_scan(
    cohort: list[PhantomScan],
) -> None:
    counts = [int(scan.labels.sum()) for scan in cohort]
    assert min(counts) == 0
    assert max(counts) == 6
    by_place = np.stack([scan.labels for scan in cohort]).mean(axis=0)
    assert by_place.min() > 0.25
    assert by_place.max() < 0.55


def test_every_finding_appears(cohort: list[PhantomScan]) -> None:
    seen = {name for scan in cohort for name in scan.findings}
    assert seen == {finding.name for finding in (*NODULES, *MIMICS)}


def test_noise_is_the_scans_own(cohort: list[PhantomScan]) -> None:
    noise = np.log([[noise_of(patch) for patch in scan.patches] for scan in cohort])
    between = np.median(noise, axis=1).std()
    within = np.median(noise.std(axis=1))
    assert between > 1.5 * within


def test_nodules_are_brighter_at_the_centre_than_plain_lung(cohort: list[PhantomScan]) -> None:
    centres: dict[str, list[float]] = {}
    for scan in cohort:
        for patch, name in zip(scan.patches, scan.findings, strict=True):
            centres.setdefault(name, []).append(float(patch[23:27, 23:27].mean()))
    lung = np.mean(centres["plain lung"])
    hollow = {"cavitated nodule"}
    for name in {finding.name for finding in NODULES} - hollow:
        assert np.mean(centres[name]) > lung + 20, name
    assert np.mean(centres["calcified nodule"]) > np.mean(centres["solid nodule"])
    assert np.mean(centres["solid nodule"]) > np.mean(centres["ground-glass nodule"])


def test_window_maps_hounsfield_units_to_grey_levels() -> None:
    hu = np.array([-2000.0, -1000.0, -300.0, 0.0, 400.0, 3000.0])
    np.testing.assert_array_equal(window(hu), [0, 0, 128, 182, 255, 255])
