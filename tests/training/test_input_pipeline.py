"""Augmentation and batches: effects, invariants, and dependence on (seed, epoch, step) only."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from nodules.training.augmentation import augment
from nodules.training.input_pipeline import epoch_order, steps_per_epoch, training_batches
from nodules.training.recipe import AugmentationParams

NOTHING = AugmentationParams(
    symmetries=False, shift=0, rotation=0.0, zoom=0.0, contrast=0.0, brightness=0.0, noise=0.0
)
EVERYTHING = AugmentationParams(
    symmetries=True, shift=2, rotation=10.0, zoom=0.1, contrast=0.1, brightness=0.1, noise=0.1
)


def augmented(patches: np.ndarray, seed: int = 0, **changes) -> np.ndarray:
    params = NOTHING.model_copy(update=changes)
    return augment(tf.constant(patches, tf.float32), params, tf.constant([seed, 0])).numpy()


def eight_symmetries(patch: np.ndarray) -> list[np.ndarray]:
    turned = [np.rot90(patch, turns) for turns in range(4)]
    return turned + [np.fliplr(patch) for patch in turned]


def test_no_augmentation_changes_nothing(random_patches) -> None:
    patches = random_patches(4)
    assert np.array_equal(augmented(patches), patches)


def test_symmetries_are_all_eight_and_no_other(random_patches) -> None:
    patch = random_patches(1)[0]
    results = augmented(np.repeat(patch[None], 400, axis=0), symmetries=True)
    counts = [sum(np.array_equal(r, s) for r in results) for s in eight_symmetries(patch)]
    assert sum(counts) == 400
    # 50 of each are expected; the probability of fewer than 20 of any is below 1e-6.
    assert min(counts) >= 20


def test_shifts_move_by_whole_pixels_up_to_the_largest() -> None:
    patch = np.zeros((50, 50))
    patch[25, 25] = 255
    results = augmented(np.repeat(patch[None], 300, axis=0), shift=2)
    moves = {tuple(np.argwhere(result == 255)[0] - 25) for result in results}
    assert moves == {(down, right) for down in range(-2, 3) for right in range(-2, 3)}


def test_a_shift_repeats_the_edge(random_patches) -> None:
    patch = random_patches(1)
    for seed in range(20):
        moved = augmented(patch, seed, shift=3)[0]
        padded = np.pad(patch[0], 3, mode="edge")
        windows = [padded[a : a + 50, b : b + 50] for a in range(7) for b in range(7)]
        assert any(np.array_equal(moved, window) for window in windows)


def turned_disc(degrees: float) -> np.ndarray:
    """Draw a disc 15 pixels right of the centre, rotated counter-clockwise about the centre."""
    angle = np.deg2rad(degrees)
    row, column = 24.5 - 15 * np.sin(angle), 24.5 + 15 * np.cos(angle)
    distance = np.hypot(np.arange(50)[:, None] - row, np.arange(50) - column)
    return 255 * np.clip(6 - distance, 0, 1)


def test_a_rotation_turns_about_the_centre_up_to_the_largest_angle() -> None:
    patches = np.repeat(turned_disc(0)[None], 300, axis=0)
    results = augmented(patches, rotation=30.0)
    rows, columns = np.mgrid[:50, :50] - 24.5
    mass = results.sum(axis=(1, 2))
    angles = np.rad2deg(np.arctan2(-(results * rows).sum((1, 2)), (results * columns).sum((1, 2))))
    assert -30.5 < angles.min() < -27
    assert 27 < angles.max() < 30.5
    assert mass == pytest.approx(patches[0].sum(), rel=0.02)
    for result, angle in zip(results[:20], angles, strict=False):
        assert np.abs(result - turned_disc(angle)).mean() < 1


def test_a_zoom_changes_sizes_by_up_to_its_factor_and_keeps_the_centre() -> None:
    distance = np.hypot(*(np.mgrid[:50, :50] - 24.5))
    patches = np.repeat((255 * np.clip(10 - distance, 0, 1))[None], 300, axis=0)
    results = augmented(patches, zoom=0.2)
    factors = np.sqrt(results.sum(axis=(1, 2)) / patches[0].sum())
    assert 0.79 < factors.min() < 0.82
    assert 1.18 < factors.max() < 1.21
    rows = np.arange(50) - 24.5
    assert (results.sum(axis=2) @ rows) / results.sum(axis=(1, 2)) == pytest.approx(0, abs=0.01)


def test_changes_of_place_together_are_one_affine_map_with_the_move_last() -> None:
    # A central disc shows only the shift, regardless of rotation.
    distance = np.hypot(*(np.mgrid[:50, :50] - 24.5))
    patches = np.repeat((255 * np.clip(8 - distance, 0, 1))[None], 300, axis=0)
    results = augmented(patches, symmetries=True, shift=3, rotation=45.0, zoom=0.2)
    away = np.arange(50) - 24.5
    mass = results.sum(axis=(1, 2))
    for axis in (1, 2):
        moved = (results.sum(axis=axis) @ away) / mass
        assert moved == pytest.approx(np.round(moved), abs=0.05)
        assert set(np.round(moved)) == {-3, -2, -1, 0, 1, 2, 3}


def test_symmetries_and_shifts_together_keep_every_pixel(random_patches) -> None:
    patch = random_patches(1)[0]
    results = augmented(np.repeat(patch[None], 100, axis=0), symmetries=True, shift=1)
    windows = [
        np.pad(symmetric, 1, mode="edge")[a : a + 50, b : b + 50]
        for symmetric in eight_symmetries(patch)
        for a in range(3)
        for b in range(3)
    ]
    assert all(any(np.array_equal(result, window) for window in windows) for result in results)


def test_contrast_and_brightness_are_one_change_a_patch_within_their_bounds() -> None:
    patches = np.full((500, 50, 50), 100.0)
    brighter = augmented(patches, brightness=0.1)
    assert brighter.std(axis=(1, 2)) == pytest.approx(0, abs=1e-3)
    assert 100 - 25.5 <= brighter.min() < 78
    assert 122 < brighter.max() <= 100 + 25.5
    stronger = augmented(patches, contrast=0.2)
    assert 80 <= stronger.min() < 83
    assert 117 < stronger.max() <= 120.001


def test_noise_is_white_and_its_level_differs_between_patches() -> None:
    deviations = augmented(np.full((300, 50, 50), 128.0), noise=0.04).std(axis=(1, 2))
    assert deviations.min() < 1
    assert 9 < deviations.max() < 0.04 * 255 * 1.1


def test_intensities_stay_in_range(random_patches) -> None:
    changed = augmented(random_patches(64), contrast=0.5, brightness=0.5, noise=0.2)
    assert changed.min() == 0
    assert changed.max() == 255


def batches(patches: np.ndarray, labels: np.ndarray, *, epochs: int = 2, seed: int = 7, **changes):
    arguments: dict[str, Any] = {
        "batch_size": 8,
        "augmentation": EVERYTHING,
        "class_weights": (0.4, 0.6),
        "label_smoothing": 0.0,
    }
    dataset = training_batches(patches, labels, epochs=epochs, seed=seed, **(arguments | changes))
    return list(dataset.as_numpy_iterator())


def test_batches_depend_on_seed_epoch_and_step_alone(random_patches) -> None:
    patches, labels = random_patches(40), np.arange(40, dtype=np.uint8) % 2
    first = batches(patches, labels, epochs=3)
    again = batches(patches, labels, epochs=2)
    other = batches(patches, labels, epochs=2, seed=8)
    assert len(first) == 15
    for one, two in zip(first, again, strict=False):
        for a, b in zip(one, two, strict=True):
            assert np.array_equal(a, b)
    assert not np.array_equal(first[0][0], other[0][0])
    assert not np.array_equal(first[0][0], first[5][0])


def test_batches_from_a_later_epoch_on_are_those_that_are_left(random_patches) -> None:
    patches, labels = random_patches(40), np.arange(40, dtype=np.uint8) % 2
    whole = batches(patches, labels, epochs=3)
    rest = batches(patches, labels, epochs=3, first_epoch=2)
    assert len(rest) == 5
    for one, two in zip(whole[10:], rest, strict=True):
        for a, b in zip(one, two, strict=True):
            assert np.array_equal(a, b)


def test_an_epoch_holds_each_patch_once_with_its_label_and_weight() -> None:
    values = np.arange(40, dtype=np.uint8)
    patches = np.broadcast_to(values[:, None, None], (40, 50, 50))
    labels = values % 3 == 0
    found = batches(patches, labels.astype(np.uint8), epochs=2, augmentation=NOTHING)
    for epoch in (found[:5], found[5:]):
        x, y, w = (np.concatenate(parts) for parts in zip(*epoch, strict=True))
        order = x[:, 0, 0, 0].astype(int)
        assert sorted(order) == list(range(40))
        assert (y[:, 1] == labels[order]).all()
        assert (y.sum(axis=1) == 1).all()
        assert w == pytest.approx(np.where(labels[order], 0.6, 0.4))


def test_label_smoothing_is_divided_between_both_classes(random_patches) -> None:
    y = batches(random_patches(8), np.ones(8, np.uint8), epochs=1, label_smoothing=0.1)[0][1]
    assert y == pytest.approx(np.tile([0.05, 0.95], (8, 1)))


@pytest.mark.parametrize("count", [1, 7, 8, 9, 100])
def test_steps_are_full_batches_but_never_none(count: int) -> None:
    assert steps_per_epoch(count, 8) == max(1, count // 8)


def test_epochs_are_different_permutations() -> None:
    orders = [epoch_order(1000, seed=1, epoch=epoch) for epoch in range(3)]
    for order in orders:
        assert sorted(order) == list(range(1000))
    # Two random permutations agree in one place on average, and very rarely in ten.
    assert (orders[0] == orders[1]).sum() < 10
