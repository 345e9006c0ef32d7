"""Near-duplicates: transformed copies are found, and unrelated patches are not."""

import json
from itertools import combinations
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from nodules.errors import SplitError
from nodules.patches.grid import SAMPLES_PER_ROW
from nodules.patches.layout import SPLITS
from nodules.patches.reader import open_patches
from nodules.patches.symmetry import symmetric_view
from nodules.splitting.figure import MAX_PAIRS, draw_duplicates
from nodules.splitting.fingerprints import fingerprints
from nodules.splitting.leaks import Crossings, CrossPair, across_splits
from nodules.splitting.near_duplicates import (
    MAX_RMS,
    MIN_CORRELATION,
    compare,
    find_duplicates,
)
from nodules.splitting.params import SplitParams
from nodules.splitting.split import split_patches
from tests.support.figures import Drawn, patches_in, texts_in

SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}


def scene(seed: int, size: int = 90) -> NDArray[np.uint8]:
    """Draw blobs, similar to vessels and nodules, in smooth noise."""
    rng = np.random.default_rng(seed)
    blobs = gaussian_filter((rng.random((size, size)) < 0.01) * 60.0, 2) * 25
    return np.clip(blobs + gaussian_filter(rng.normal(0, 60, (size, size)), 1) + 60, 0, 255).astype(
        np.uint8
    )


def patch(seed: int, down: int = 0, right: int = 0) -> NDArray[np.uint8]:
    """Cut a patch from a scene, offset from the centre."""
    return scene(seed)[20 + down : 70 + down, 20 + right : 70 + right]


def write(path: Path, patches: list[NDArray] | NDArray, **columns) -> Path:
    with h5py.File(path, "w") as file:
        file["X"] = np.array(patches)
        file["Y"] = columns.pop("labels", np.arange(len(patches)) % 2)
        for name, values in columns.items():
            file[name] = values
    return path


def near_pairs(path: Path) -> set[tuple[int, int]]:
    with open_patches(path) as patches:
        return {(pair.first, pair.second) for pair in find_duplicates(patches).pairs}


@given(
    original=arrays(np.uint8, (50, 50)),
    view=st.integers(0, 7),
)
def test_any_symmetry_of_any_patch_is_an_exact_duplicate(
    original: NDArray[np.uint8], view: int
) -> None:
    other = original.copy()
    other[3, 7] ^= 1
    block = np.stack([original, symmetric_view(original, view), other])
    hashes = fingerprints(block, 0).hashes
    assert hashes[0] == hashes[1]
    is_symmetry = any((symmetric_view(original, v) == other).all() for v in range(8))
    assert (hashes[0] == hashes[2]) == is_symmetry


def test_the_eight_views_are_numpys_turns_and_flips() -> None:
    square = np.arange(9).reshape(3, 3)
    views = {symmetric_view(square, view).tobytes() for view in range(8)}
    turns = [np.rot90(square, quarter) for quarter in range(4)]
    expected = {np.ascontiguousarray(v).tobytes() for t in turns for v in (t, np.fliplr(t))}
    assert views == expected
    assert len(views) == 8


@pytest.mark.parametrize("view", range(8))
def test_copies_that_are_turned_and_shifted_are_found_at_their_alignment(
    tmp_path: Path, view: int
) -> None:
    strangers = [patch(seed) for seed in range(100, 110)]
    shifted = symmetric_view(patch(1, down=7, right=-5), view)
    path = write(tmp_path / "shifted.h5", [patch(1), *strangers, shifted])
    with open_patches(path) as patches:
        duplicates = find_duplicates(patches)
    (pair,) = duplicates.pairs
    assert pair[:2] == (0, 11)
    assert pair.correlation > 0.95
    assert pair.rms == 0
    # After undoing the symmetry, pixel (y, x) of the copy is at (y + 7, x - 5) in the original.
    assert (pair.down, pair.right) == (7, -5)
    assert (symmetric_view(shifted, pair.view) == patch(1, down=7, right=-5)).all()
    assert (duplicates.copies == np.arange(12)).all()


def test_copies_with_the_noise_of_jpeg_are_found(tmp_path: Path) -> None:
    rough = tmp_path / "copy.jpg"
    Image.fromarray(np.ascontiguousarray(np.rot90(patch(4, right=3)))).save(rough, quality=95)
    path = write(tmp_path / "jpeg.h5", [patch(4), patch(5), np.array(Image.open(rough))])
    assert near_pairs(path) == {(0, 2)}


def test_patches_without_blobs_are_no_near_duplicates(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    air = rng.integers(0, 5, (30, 50, 50)).astype(np.uint8)
    slope = np.linspace(40, 200, 50).astype(np.uint8)
    walls = np.broadcast_to(slope, (5, 50, 50)) + rng.integers(0, 4, (5, 50, 50))
    empty = np.full((20, 50, 50), 0, np.uint8)
    path = write(tmp_path / "air.h5", np.concatenate([air, walls, empty]).astype(np.uint8))
    with open_patches(path) as patches:
        duplicates = find_duplicates(patches)
    assert not duplicates.pairs
    # Patches of a single grey level are not duplicates of each other.
    assert (duplicates.copies == np.arange(55)).all()


def test_similar_edges_are_not_near_duplicates(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    wall = np.where(np.arange(50) < 25, 40, 200)
    walls = [wall + gaussian_filter(rng.normal(0, 60, (50, 50)), 1) for _ in range(12)]
    path = write(tmp_path / "walls.h5", np.clip(walls, 0, 255).astype(np.uint8))
    assert near_pairs(path) == set()


def brute_force(patches: NDArray[np.uint8], reach: int) -> set[tuple[int, int]]:
    """Try every symmetry and shift of every pair."""
    shifts = range(-reach, reach + 1)
    return {
        (a, b)
        for a, b in combinations(range(len(patches)), 2)
        if any(
            compare(patches[a], patches[b], view, down, right)
            for view in range(8)
            for down in shifts
            for right in shifts
        )
    }


def test_the_search_finds_what_trying_every_shift_finds(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    patches = [
        symmetric_view(patch(seed, *rng.integers(-2, 3, 2)), int(rng.integers(8)))
        for seed in [1, 1, 1, 2, 2, 3, 4, 5, 6]
    ]
    path = write(tmp_path / "small.h5", patches)
    expected = brute_force(np.array(patches), reach=4)
    assert {(0, 1), (0, 2), (1, 2), (3, 4)} == expected
    assert near_pairs(path) == expected
    assignment = np.array([0, 1, 2, 0, 0, 1, 1, 2, 2], np.int8)
    with open_patches(path) as opened:
        for searched in (None, assignment):
            crossings = across_splits(find_duplicates(opened, searched), assignment)
            assert (crossings.exact, crossings.near) == (0, 3)


def test_a_large_search_in_parts_finds_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(11)
    patches = rng.integers(0, 256, (600, 50, 50), dtype=np.uint8)
    expected = set()
    for seed in range(12):
        first, second = seed * 20, 599 - seed * 7
        patches[first] = patch(seed)
        patches[second] = symmetric_view(patch(seed, down=3, right=-4), seed % 8)
        expected.add((first, second))
    path = write(tmp_path / "large.h5", patches)
    assert near_pairs(path) == expected
    # Uses several indexes in turn, each divided into cells instead of searched exhaustively.
    monkeypatch.setattr("nodules.splitting.near_duplicates.INDEXED_KEYPOINTS", 1200)
    monkeypatch.setattr("nodules.splitting.near_duplicates.KEYPOINTS_PER_CELL", 60)
    assert near_pairs(path) == expected


@given(copies=st.lists(st.integers(0, 4), min_size=1, max_size=25), data=st.data())
def test_pairs_across_splits_are_counted_as_by_hand(copies: list[int], data) -> None:
    from nodules.splitting.near_duplicates import Duplicates, Pair

    splits = st.lists(st.integers(0, 2), min_size=len(copies), max_size=len(copies))
    assignment = np.array(data.draw(splits), np.int8)
    _, first, inverse = np.unique(copies, return_index=True, return_inverse=True)
    heads = first[inverse].astype(np.int32)
    couples = list(combinations(sorted(set(heads.tolist())), 2))
    near = data.draw(st.sets(st.sampled_from(couples))) if couples else set()
    pairs = [Pair(a, b, 0, 0, 0, 1.0, 0.9) for a, b in sorted(near)]
    crossings = across_splits(Duplicates(heads, pairs), assignment)
    crossing = [
        (a, b) for a, b in combinations(range(len(copies)), 2) if assignment[a] != assignment[b]
    ]
    assert crossings.exact == sum(heads[a] == heads[b] for a, b in crossing)
    alike = [tuple(sorted((int(heads[a]), int(heads[b])))) in near for a, b in crossing]
    assert crossings.near == sum(alike)
    assert bool(crossings.examples) == bool(crossings.exact + crossings.near)
    for example in crossings.examples:
        assert assignment[example.first] != assignment[example.second]


def leaky(path: Path, **columns) -> tuple[Path, NDArray[np.int64]]:
    """Write 40 scenes, every fourth as three transformed patches; return each patch's scene."""
    rng = np.random.default_rng(5)
    scenes = np.array([s for s in range(40) for _ in range(3 if s % 4 == 0 else 1)])
    patches = [
        symmetric_view(patch(int(s), *rng.integers(-4, 5, 2)), int(rng.integers(8))) for s in scenes
    ]
    return write(path, patches, labels=scenes % 3 == 0, **columns), scenes


def params(near_duplicates: str) -> SplitParams:
    return SplitParams.model_validate(
        {"by": "group", **SHARES, "near_duplicates": near_duplicates, "irrelevant": "keep"}
    )


def split_of(folder: Path, count: int) -> NDArray[np.int64]:
    homes = np.full(count, -1)
    for position, name in enumerate(SPLITS):
        with open_patches(folder / f"{name}.h5") as split:
            homes[split.read_index()] = position
    return homes


@pytest.mark.parametrize("grouped", [False, True])
def test_together_never_splits_a_pair_or_a_group(tmp_path: Path, grouped: bool) -> None:
    groups = np.arange(60) // 2  # tie some scenes to their neighbours
    path, scenes = leaky(tmp_path / "leaky.h5", **({"group": groups} if grouped else {}))
    for seed in range(3):
        counts = split_patches(path, tmp_path / "splits", params("together"), seed)
        homes = split_of(tmp_path / "splits", len(scenes))
        for units in (scenes, groups) if grouped else (scenes,):
            assert all(len(set(homes[units == unit])) == 1 for unit in set(units.tolist()))
        leaks = counts["leaks"]
        assert (leaks["groups"], leaks["exact_duplicates"], leaks["near_duplicates"]) == (0, 0, 0)
        assert leaks["largest_group"] == (4 if grouped else 3)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    return Drawn(monkeypatch, "nodules.splitting.figure")


def test_report_counts_the_pairs_across_splits_and_draws_them(
    tmp_path: Path, drawn: Drawn, capsys: pytest.CaptureFixture[str]
) -> None:
    path, scenes = leaky(tmp_path / "leaky.h5")
    picture = tmp_path / "pairs.png"
    counts = split_patches(path, tmp_path / "splits", params("report"), 0, picture=picture)
    homes = split_of(tmp_path / "splits", len(scenes))
    pairs = combinations(range(len(scenes)), 2)
    crossing = sum(scenes[a] == scenes[b] and homes[a] != homes[b] for a, b in pairs)
    assert crossing > 0
    assert counts["leaks"] == {"groups": 0, "exact_duplicates": 0, "near_duplicates": crossing}
    check_pairs(drawn["pairs.png"], path, scenes, homes, crossing)
    warning = f"{crossing} near-duplicate pairs across splits, see {picture}"
    assert f"warning: {path}: {warning}" in capsys.readouterr().err.splitlines()
    first = picture.read_bytes()
    assert json.dumps(counts) == json.dumps(
        split_patches(path, tmp_path / "splits", params("report"), 0, picture=picture)
    )
    assert picture.read_bytes() == first


def check_pairs(
    figure: Figure, path: Path, scenes: NDArray, homes: NDArray[np.int64], crossing: int
) -> None:
    """Assert that the patches of pairs are one above the other, each with its split and row."""
    rows, captions = (each(figure, SAMPLES_PER_ROW) for each in (patches_in, texts_in))
    shown = min(crossing, MAX_PAIRS)
    assert sum(map(len, rows)) == 2 * shown
    assert figure.get_suptitle().startswith(
        f"Pairs in different splits: 0 exact or mirrored and {crossing} near-duplicates; shown: "
        f"{shown}, "
    )
    with open_patches(path) as patches:
        for band in range(0, len(rows), 2):
            for upper, lower, above, below in zip(
                *rows[band : band + 2], *captions[band : band + 2], strict=True
            ):
                likeness, place = above.split("\n")
                assert MIN_CORRELATION <= float(likeness.removeprefix("r = ")) <= 1
                numbers = []
                for patch_shown, caption in ((upper, place), (lower, below)):
                    split, number = caption.split(" #")
                    numbers.append(int(number))
                    assert split == SPLITS[homes[int(number)]]
                    assert np.array_equal(
                        patch_shown, patches.read(int(number), int(number) + 1)[0]
                    )
                assert scenes[numbers[0]] == scenes[numbers[1]]
                assert homes[numbers[0]] != homes[numbers[1]]


def test_the_picture_states_that_there_are_no_near_duplicates(tmp_path: Path, drawn: Drawn) -> None:
    path = write(tmp_path / "clean.h5", [patch(seed) for seed in range(30)])
    picture = tmp_path / "pairs.png"
    counts = split_patches(path, tmp_path / "splits", params("fail"), 0, picture=picture)
    assert counts["leaks"] == {"groups": 0, "exact_duplicates": 0, "near_duplicates": 0}
    (text,) = drawn["pairs.png"].texts
    expected = "No patch of one split is a duplicate or near-duplicate of a patch of another."
    assert text.get_text() == expected
    assert drawn["pairs.png"].axes == []
    with Image.open(picture) as image:
        assert np.asarray(image.convert("L")).min() < 100  # dark text


def test_fail_refuses_pairs_in_one_line_and_writes_nothing(tmp_path: Path) -> None:
    path, _ = leaky(tmp_path / "leaky.h5")
    with pytest.raises(SplitError) as error:
        split_patches(path, tmp_path / "splits", params("fail"), 0, picture=tmp_path / "no.png")
    sentence = str(error.value)
    assert "near-duplicate pairs in different splits, the first in rows" in sentence
    assert "\n" not in sentence
    assert list(tmp_path.iterdir()) == [path]


def test_together_refuses_to_move_patches_of_a_given_split(tmp_path: Path) -> None:
    patches = [patch(seed) for seed in range(12)]
    names = ["train"] * 4 + ["val"] * 4 + ["test"] * 4
    clean = write(tmp_path / "clean.h5", patches, split=names)
    assert split_patches(clean, tmp_path / "splits", params("together"), 0)["test"]["patches"] == 4
    patches[5] = np.rot90(patches[0])
    torn = write(tmp_path / "torn.h5", patches, split=names)
    with pytest.raises(SplitError, match=r"1 exact and 0 near.* rows 0 \(train\) and 5 \(val"):
        split_patches(torn, tmp_path / "splits", params("together"), 0)


def test_a_chain_that_ties_up_the_data_set_is_refused(tmp_path: Path) -> None:
    patches = [symmetric_view(patch(1), n % 8) for n in range(50)]
    patches += [patch(seed) for seed in range(2, 12)]
    path = write(tmp_path / "chain.h5", patches)
    with pytest.raises(SplitError, match="largest group of joined duplicates holds 50 of 60"):
        split_patches(path, tmp_path / "splits", params("together"), 0)


def test_many_units_are_divided_by_the_fractions(tmp_path: Path) -> None:
    groups = np.arange(2000) // 2
    pixels = np.broadcast_to((np.arange(2000) % 256)[:, None, None], (2000, 50, 50))
    path = write(tmp_path / "many.h5", pixels.astype(np.uint8), group=groups)
    counts = split_patches(path, tmp_path / "splits", params("report"), 0, search=False)
    homes = split_of(tmp_path / "splits", 2000)
    assert (homes[::2] == homes[1::2]).all()
    for name, share in SHARES.items():
        assert counts[name]["patches"] == pytest.approx(2000 * share, abs=4)


def test_near_duplicates_meet_the_rms_and_correlation_limits() -> None:
    shown = compare(patch(1), patch(1, down=3), 0, 3, 0)
    assert shown is not None
    assert shown.rms <= MAX_RMS
    assert shown.correlation >= MIN_CORRELATION
    assert compare(patch(1), patch(2), 0, 0, 0) is None
    brighter = np.clip(patch(1).astype(int) + 20, 0, 255).astype(np.uint8)
    assert compare(patch(1), brighter, 0, 0, 0) is None


def test_the_picture_tells_turned_copies_from_the_same_pixels(tmp_path: Path, drawn: Drawn) -> None:
    patch = scene(1)[:50, :50]
    path = tmp_path / "copies.h5"
    with h5py.File(path, "w") as file:
        file["X"] = np.stack([patch, patch, np.rot90(patch)])
        file["Y"] = [1, 1, 1]
    with open_patches(path) as patches:
        pairs = Crossings(2, 0, [CrossPair(0, 1, None), CrossPair(0, 2, None)])
        draw_duplicates(patches, pairs, np.array([0, 2, 2], np.int8), tmp_path / "copies.png")
    assert texts_in(drawn["copies.png"], SAMPLES_PER_ROW) == [
        ["same pixels\ntrain #0", "turned or mirrored\ntrain #0"],
        ["test #1", "test #2"],
    ]
