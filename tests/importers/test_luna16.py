"""Import of LUNA16: MetaImage scans, tables, processes and clusters."""

import csv
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
import pytest
import SimpleITK
from distributed import Client, LocalCluster
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from nodules.__main__ import main
from nodules.commands.next_steps import next_steps
from nodules.errors import FileError, NodulesError, TableError
from nodules.importers import metaimage
from nodules.importers.luna16 import cluster
from nodules.importers.luna16.importer import Luna16, import_luna16
from nodules.importers.luna16.pool import run_in_order
from nodules.importers.luna16.scans import Crop
from nodules.importers.window import Window
from nodules.patches.reader import open_patches
from nodules.system.regular_file import open_regular
from tests.support import REPOSITORY

CANDIDATES = ("seriesuid", "coordX", "coordY", "coordZ", "class")
ANNOTATIONS = ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm")
OBLIQUE = Rotation.from_euler("zyx", [25, -40, 10], degrees=True).as_matrix()
FLIPPED = np.diag([-1.0, -1.0, 1.0])
SPACING = (0.8, 0.65, 2.5)
ORIGIN = (-103.7, 88.2, -301.5)


def write_scan(
    path: Path, hu: NDArray, direction: NDArray | None = None, **options: Any
) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray(hu)
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN)
    image.SetDirection((np.eye(3) if direction is None else direction).ravel().tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(path), **options)
    return image


def random_scan(shape: tuple[int, int, int] = (5, 70, 64), seed: int = 0) -> NDArray[np.int16]:
    return np.random.default_rng(seed).integers(-1600, 700, shape, dtype=np.int16)


def write_table(path: Path, rows: list, header: tuple[str, ...] = CANDIDATES) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def world(image: SimpleITK.Image, voxel: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(image.TransformContinuousIndexToPhysicalPoint([float(v) for v in voxel]))


def exact_grey(hu: NDArray, low: int, high: int) -> NDArray[np.uint8]:
    values, inverse = np.unique(hu, return_inverse=True)
    exact = [round(Fraction(int(v) - low, high - low) * 255) for v in values]
    return np.clip(exact, 0, 255).astype(np.uint8)[inverse].reshape(hu.shape)


def contents(path: Path) -> dict[str, NDArray]:
    with h5py.File(path) as file:
        return {name: data[:] for name, data in file.items()}


# Voxels along an axis at which a patch misses, just touches or crosses the border.
def telling(size: int) -> list[int]:
    return [0, 1, 24, 25, 26, size // 2, size - 26, size - 25, size - 24, size - 2, size - 1]


@pytest.fixture
def small(tmp_path: Path) -> Luna16:
    """Write four scans in two folders, with candidates 0 to 42; 3, 20 and 37 are nodules."""
    rng = np.random.default_rng(1)
    images = [
        write_scan(tmp_path / f"scans/subset{i % 2}/1.2.{i}.mhd", random_scan(seed=i))
        for i in range(4)
    ]
    voxels = rng.uniform((0, 0, 0), (63, 69, 4), (43, 3))
    rows = [
        (f"1.2.{i % 4}", *world(images[i % 4], v), int(i in (3, 20, 37)))
        for i, v in enumerate(voxels)
    ]
    return Luna16([tmp_path / "scans"], write_table(tmp_path / "candidates.csv", rows))


@pytest.mark.parametrize(
    "direction",
    [np.eye(3), FLIPPED, OBLIQUE, OBLIQUE @ np.diag([-1.0, 1.0, -1.0]), np.eye(3)[[1, 2, 0]]],
    ids=["axial", "flipped", "oblique", "oblique and flipped", "sagittal"],
)
def test_patches_are_the_voxels_around_candidates_padded_with_air(
    tmp_path: Path, direction: NDArray
) -> None:
    hu = random_scan()
    image = write_scan(tmp_path / "deep/er/1.2.3.mhd", hu, direction)
    rng = np.random.default_rng(0)
    nearest = list(itertools.product(telling(64), telling(70), (0, 2, 4)))
    rows = [
        ("1.2.3", *world(image, voxel + rng.uniform(-0.45, 0.45, 3)), i % 2)
        for i, voxel in enumerate(np.array(nearest))
    ]
    table = write_table(tmp_path / "candidates.csv", rows)
    out = tmp_path / "out.h5"
    import_luna16(Luna16([tmp_path], table), out, negatives=None, jobs=1)
    grey = exact_grey(np.pad(hu, ((0, 0), (25, 25), (25, 25)), constant_values=-1000), -1000, 400)
    with open_patches(out) as patches:
        found = patches.read(0, len(patches))
        assert patches.labels.tolist() == [row[-1] for row in rows]
        assert patches.on_disk()[:].shape == (len(rows), 50, 50)
    for patch, (x, y, z) in zip(found, nearest, strict=True):
        assert np.array_equal(patch, grey[z, y : y + 50, x : x + 50]), (x, y, z)


@pytest.mark.parametrize("size_mm", [20.0, 45.5])
def test_a_fixed_field_of_view_is_interpolated_in_the_slice(tmp_path: Path, size_mm: float) -> None:
    hu = random_scan()
    image = write_scan(tmp_path / "1.2.3.mhd", hu, OBLIQUE @ FLIPPED, useCompression=True)
    corners = [(x, y, z) for x in (0, 63) for y in (0, 69) for z in (0, 4)]
    inner = np.random.default_rng(0).uniform((-0.4, -0.4, -0.4), (63.4, 69.4, 4.4), (40, 3))
    voxels = [*np.array(corners, float), *inner]
    rows = [("1.2.3", *world(image, v), 1) for v in voxels]
    table = write_table(tmp_path / "candidates.csv", rows)
    out = tmp_path / "out.h5"
    import_luna16(Luna16([tmp_path], table), out, crop=Crop(size_mm), jobs=1)
    steps = (np.arange(50) - 24.5) * size_mm / 50
    for (x, y, z), patch in zip(voxels, contents(out)["X"], strict=True):
        places = np.meshgrid(y + steps / SPACING[1], x + steps / SPACING[0], indexing="ij")
        slice_ = hu[round(z)].astype(float)
        expected = map_coordinates(slice_, places, order=1, mode="nearest")
        for place, length in zip(places, slice_.shape, strict=True):
            expected[(place < -0.5) | (place > length - 0.5)] = -1000
        grey = np.clip((expected + 1000) / 1400 * 255, 0, 255)
        assert np.abs(patch - grey).max() <= 0.5 + 1e-6


def test_the_window_maps_to_all_grey_levels_and_padding_to_its_low_end(tmp_path: Path) -> None:
    hu = random_scan()
    image = write_scan(tmp_path / "1.2.3.mhd", hu)
    table = write_table(tmp_path / "candidates.csv", [("1.2.3", *world(image, (0, 0, 0)), 1)])
    for window in ((-1400, 200), (-160, 240)):
        out = tmp_path / "out.h5"
        import_luna16(Luna16([tmp_path], table), out, crop=Crop(window=Window(*window)), jobs=1)
        (patch,) = contents(out)["X"]
        assert np.array_equal(patch[25:, 25:], exact_grey(hu[0, :25, :25], *window))
        assert not patch[:25].any()
        assert not patch[:, :25].any()
        assert (patch.min(), patch.max()) == (0, 255)


def test_groups_candidates_and_labels_are_those_of_the_table(small: Luna16, tmp_path: Path) -> None:
    out = tmp_path / "out.h5"
    lines = import_luna16(small, out, negatives=None, jobs=1)
    assert lines == ["3 nodules and 40 others from 4 scans"]
    with small.candidates.open() as file:
        table = list(csv.DictReader(file))
    found = contents(out)
    assert sorted(found["candidate"]) == list(range(43))
    assert [table[i]["seriesuid"] for i in found["candidate"]] == found["group"].astype(
        str
    ).tolist()
    assert [int(table[i]["class"]) for i in found["candidate"]] == found["Y"].tolist()
    # Scans are in table order, as are the candidates within each scan.
    assert found["candidate"].tolist() == sorted(range(43), key=lambda i: (i % 4, i))


def test_negatives_are_drawn_by_seed_for_each_nodule(small: Luna16, tmp_path: Path) -> None:
    def drawn(**options: Any) -> list[int]:
        import_luna16(small, tmp_path / "out.h5", jobs=1, **options)
        found = contents(tmp_path / "out.h5")
        assert found["candidate"][found["Y"] == 1].tolist() == sorted(
            (3, 20, 37), key=lambda i: (i % 4, i)
        )
        return sorted(found["candidate"][found["Y"] == 0].tolist())

    default = drawn()
    assert len(default) == len(set(default)) == 15
    assert drawn(seed=0) == default
    assert drawn(seed=1) != default
    assert set(drawn(negatives=2)) < set(default)
    assert len(drawn(negatives=14)) == 40


def test_a_scan_is_read_once(
    small: Luna16, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def spy(path: Path) -> BinaryIO:
        read.append(path.name)
        return open_regular(path)

    monkeypatch.setattr(metaimage, "open_regular", spy)
    import_luna16(small, tmp_path / "out.h5", negatives=None, jobs=1)
    assert read == [f"1.2.{i}.{suffix}" for suffix in ("mhd", "raw") for i in range(4)]


@pytest.fixture
def many(tmp_path: Path) -> Luna16:
    """Write 20 scans of 50 candidates: more than a pool of two processes handles at a time."""
    rng = np.random.default_rng(2)
    rows = []
    for i in range(20):
        uid = f"1.3.{i}"
        image = write_scan(tmp_path / f"many/{uid}.mhd", random_scan((3, 40, 40), i), OBLIQUE)
        voxels = rng.uniform((0, 0, 0), (39, 39, 2), (50, 3))
        rows += [(uid, *world(image, v), int(k < 5)) for k, v in enumerate(voxels)]
    return Luna16([tmp_path / "many"], write_table(tmp_path / "many.csv", rows))


def test_the_file_does_not_depend_on_the_number_of_processes(many: Luna16, tmp_path: Path) -> None:
    for jobs in (1, 2):
        import_luna16(many, tmp_path / f"{jobs}.h5", jobs=jobs)
    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "2.h5").read_bytes()


def test_diameters_are_those_of_the_nodules_that_candidates_lie_in(tmp_path: Path) -> None:
    write_scan(tmp_path / "a.mhd", np.zeros((40, 80, 80), np.int16))
    centre = np.array(ORIGIN) + 20
    rows = [
        ("a", *centre, 1),
        ("a", *np.add(centre, (2.9, 0, 0)), 1),  # inside the larger nodule, closer to the smaller
        ("a", *np.add(centre, (0, 5.1, 0)), 1),  # in neither: 10 mm is the diameter
        ("a", *np.add(centre, (0, 0, -4.9)), 0),  # class 0, but inside a nodule
        ("a", *np.add(centre, 15), 0),
    ]
    nodules = [
        ("a", *centre, 10.0),
        ("a", *np.add(centre, (4, 0, 0)), 3.0),
        ("a", *np.add(centre, (0, 0, 12)), 4.0),  # no candidate hits it
        ("not imported", 0, 0, 0, 5.0),
    ]
    table = write_table(tmp_path / "candidates.csv", rows)
    annotations = write_table(tmp_path / "annotations.csv", nodules, ANNOTATIONS)
    out = tmp_path / "out.h5"
    _, *lines = import_luna16(Luna16([tmp_path], table, annotations), out, jobs=1)
    assert lines == [
        f"1 of 3 annotated nodules have no candidate, the first in row 2 of {annotations}",
        f"1 of 3 nodule candidates lie outside all nodules, the first in row 2 of {table}",
        f"1 of 2 other candidates lie in a nodule, the first in row 3 of {table}",
    ]
    expected = np.array([10, 3, np.nan, np.nan, np.nan], np.float32)
    assert np.array_equal(contents(out)["diameter_mm"], expected, equal_nan=True)


def test_series_without_a_scan_are_refused_or_left_out(small: Luna16, tmp_path: Path) -> None:
    partial = Luna16([tmp_path / "scans/subset1"], small.candidates)
    problem = r"2 of 4 series have no scan, the first 1\.2\.0; .*, or --skip-missing$"
    with pytest.raises(TableError, match=problem):
        import_luna16(partial, tmp_path / "out.h5", jobs=1)
    lines = import_luna16(partial, tmp_path / "out.h5", skip_missing=True, jobs=1)
    assert lines[1] == "2 of 4 series have no scan: their candidates left out"
    assert set(contents(tmp_path / "out.h5")["group"]) == {b"1.2.1", b"1.2.3"}


def test_masks_of_the_lungs_beside_the_subsets_are_no_scans(small: Luna16, tmp_path: Path) -> None:
    import_luna16(small, tmp_path / "without.h5", jobs=1)
    for i in range(4):
        mask = np.zeros((5, 70, 64), np.uint8)
        write_scan(tmp_path / f"scans/seg-lungs-LUNA16/1.2.{i}.mhd", mask)
    import_luna16(small, tmp_path / "with.h5", jobs=1)
    assert np.array_equal(
        contents(tmp_path / "with.h5")["X"], contents(tmp_path / "without.h5")["X"]
    )


@pytest.mark.parametrize("folder", ["seg-lungs-LUNA16", "SEG-LUNGS-luna16", "lung_masks", "seg"])
def test_masks_in_a_folder_of_their_own_are_no_scans(
    small: Luna16, tmp_path: Path, folder: str
) -> None:
    for i in range(4):
        write_scan(tmp_path / folder / f"1.2.{i}.mhd", np.zeros((5, 70, 64), np.int16))
    import_luna16(small, tmp_path / "without.h5", jobs=1)
    both = Luna16([tmp_path / folder, *small.scans], small.candidates)
    import_luna16(both, tmp_path / "with.h5", jobs=1)
    assert np.array_equal(
        contents(tmp_path / "with.h5")["X"], contents(tmp_path / "without.h5")["X"]
    )


def test_the_same_series_twice_is_still_refused(small: Luna16, tmp_path: Path) -> None:
    write_scan(tmp_path / "scans/copy/1.2.3.mhd", random_scan(seed=3))
    with pytest.raises(FileError, match="found the same series in"):
        import_luna16(small, tmp_path / "out.h5", jobs=1)


def test_headers_are_found_with_other_suffixes(small: Luna16, tmp_path: Path) -> None:
    import_luna16(small, tmp_path / "before.h5", jobs=1)
    (tmp_path / "scans/subset1/1.2.1.mhd").rename(tmp_path / "scans/subset1/1.2.1.MHD")
    (tmp_path / "scans/subset1/1.2.3.mhd").unlink()
    write_scan(tmp_path / "scans/subset1/1.2.3.mha", random_scan(seed=3))
    import_luna16(small, tmp_path / "after.h5", jobs=1)
    before, after = (contents(tmp_path / f"{name}.h5") for name in ("before", "after"))
    assert np.array_equal(before["X"], after["X"])


def test_candidates_outside_their_scan_are_left_out_on_request(
    small: Luna16, tmp_path: Path
) -> None:
    import_luna16(small, tmp_path / "all.h5", negatives=None, jobs=1)
    for row in (2, 20):
        replace_field(row, "coordX", "-500")(tmp_path)
    with pytest.raises(TableError, match=r"row 20 .*, or --skip-outside$"):
        import_luna16(small, tmp_path / "out.h5", negatives=None, jobs=1)
    lines = import_luna16(small, tmp_path / "out.h5", negatives=None, skip_outside=True, jobs=1)
    assert lines == [
        "2 nodules and 39 others from 4 scans",
        f"2 candidates outside the scan left out, the first in row 2 of {small.candidates}",
    ]
    whole, part = contents(tmp_path / "all.h5"), contents(tmp_path / "out.h5")
    kept = ~np.isin(whole["candidate"], (2, 20))
    for name in ("X", "Y", "group", "candidate"):
        assert np.array_equal(part[name], whole[name][kept])
    for row in range(43):
        replace_field(row, "coordX", "-500")(tmp_path)
    with pytest.raises(TableError, match="found all candidates outside their scans"):
        import_luna16(small, tmp_path / "none.h5", skip_outside=True, jobs=1)
    assert not (tmp_path / "none.h5").exists()


def test_repeated_candidates_are_left_out(small: Luna16, tmp_path: Path) -> None:
    header, *rows = small.candidates.read_text().splitlines()
    small.candidates.write_text("\ufeff" + "\n".join([header, *rows, "", rows[5], rows[3]]) + "\n")
    lines = import_luna16(small, tmp_path / "out.h5", negatives=None, jobs=1)
    assert lines == ["3 nodules and 40 others from 4 scans", "2 repeated candidates left out"]


def replace_field(row: int, column: str, text: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "candidates.csv"
        lines = path.read_text().splitlines()
        fields = lines[row + 1].split(",")
        fields[CANDIDATES.index(column)] = text
        lines[row + 1] = ",".join(fields)
        path.write_text("\n".join(lines))

    return edit


def replace_table(text: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / "candidates.csv").write_bytes(text)


def edit_header(old: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "scans/subset1/1.2.1.mhd"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return edit


def repeat_with_other_class(folder: Path) -> None:
    path = folder / "candidates.csv"
    row = path.read_text().splitlines()[4]
    path.write_text(path.read_text() + row[:-1] + "0\n")


def truncate_voxels(folder: Path) -> None:
    os.truncate(folder / "scans/subset1/1.2.1.raw", 1000)


def replace_by_pipe(name: str) -> Callable[[Path], None]:
    def replace(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return replace


def write_number(number: float) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        write_scan(folder / "scans/subset1/1.2.1.mhd", np.full((5, 70, 64), number, np.float32))

    return write


def write_vectors(folder: Path) -> None:
    image = SimpleITK.GetImageFromArray(np.zeros((5, 70, 64, 2), np.int16), isVector=True)
    SimpleITK.WriteImage(image, str(folder / "scans/subset1/1.2.1.mhd"))


HEADER = b"seriesuid,coordX,coordY,coordZ,class\n"


@pytest.mark.parametrize(
    ("spoil", "error", "parts"),
    [
        (replace_field(7, "class", "2"), TableError, ["row 7", "class: found 2, expected 0 or 1"]),
        (replace_field(7, "coordY", "left"), TableError, ["row 7", "coordY: found 'left'"]),
        (replace_field(7, "coordZ", "nan"), TableError, ["row 7", "coordZ: found 'nan'"]),
        (replace_field(7, "coordX", "1_0"), TableError, ["row 7", "coordX: found '1_0'"]),
        (replace_field(7, "class", "0,9"), TableError, ["row 7", "found 6 fields, expected 5"]),
        (replace_field(3, "coordX", "-500"), TableError, ["row 3", "expected a position inside"]),
        (replace_field(3, "coordX", "1e300"), TableError, ["row 3", "expected a position inside"]),
        (
            replace_field(3, "seriesuid", '"\x1b[31m\n7"'),
            TableError,
            [r"the first \x1b[31m\n7; expected"],
        ),
        (replace_table(b""), TableError, ["found an empty file"]),
        (replace_table(HEADER), TableError, ["found no rows"]),
        (replace_table(HEADER.replace(b"Z", b"W")), TableError, ["coordW", "expected seriesuid"]),
        (replace_table(HEADER + b"1.2.1,0,0,\xff,0"), TableError, ["found no CSV text"]),
        (
            replace_table(HEADER + b"9.9,0,0,0,1"),
            TableError,
            ["1 of 1 series", "the first 9.9; expected SERIES"],
        ),
        (replace_table(HEADER + b"1.2.1,0,0,0,0"), TableError, ["no candidate of class 1"]),
        (repeat_with_other_class, TableError, ["row 43", "the position of row 3 with"]),
        (replace_table(HEADER.decode().encode("utf-16")), TableError, ["bytes that are not UTF-8"]),
        (lambda folder: (folder / "candidates.csv").unlink(), TableError, ["no such file"]),
        (
            replace_by_pipe("candidates.csv"),
            TableError,
            ["candidates.csv: cannot be read (not a r"],
        ),
        (replace_by_pipe("scans/subset1/1.2.1.mhd"), FileError, ["1.2.1.mhd: cannot be read (not"]),
        (replace_by_pipe("scans/subset1/1.2.1.raw"), FileError, ["1.2.1.mhd: 1.2.1.raw: cannot b"]),
        (
            lambda folder: write_scan(folder / "scans/1.2.1.mhd", random_scan()),
            FileError,
            ["1.2.1.mhd: found the same series in", "expected one"],
        ),
        (edit_header("NDims", "NDumps"), FileError, ["1.2.1.mhd: NDims: found no such key"]),
        (edit_header("= 1 0 0 0 1 0", "= 0 0 0 0 0 0"), FileError, ["1.2.1.mhd", "implausible"]),
        (edit_header("= 1 0 0 0 1 0", "= .1 .2 .3 .2 .4 .6"), FileError, ["implausible"]),
        (edit_header("= 0.8", "= 1e-300"), FileError, ["1.2.1.mhd", "implausible"]),
        (edit_header("-103.7", "1e308"), FileError, ["1.2.1.mhd", "implausible"]),
        (edit_header("64 70 5", "640 70 5"), FileError, ["1.2.1.mhd: 1.2.1.raw: found 44,800 b"]),
        (edit_header("1.2.1.raw", "lost.raw"), FileError, ["1.2.1.mhd: lost.raw: cannot be read"]),
        (truncate_voxels, FileError, ["1.2.1.mhd: 1.2.1.raw: found 1,000 bytes of voxels, expect"]),
        (write_number(np.nan), FileError, ["1.2.1.mhd: found NaN or infinity"]),
        (write_number(np.inf), FileError, ["1.2.1.mhd: found NaN or infinity"]),
        (write_vectors, FileError, ["1.2.1.mhd: ElementNumberOfChannels: found '2'"]),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    small: Luna16,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    spoil: Callable[[Path], object],
    error: type[NodulesError],
    parts: list[str],
) -> None:
    out = tmp_path / "made/out.h5"
    spoil(tmp_path)
    with pytest.raises(error) as caught:
        import_luna16(small, out, negatives=5, jobs=1)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)
    assert not list(tmp_path.glob("made/*"))
    # Only the progress bar may be printed.
    shown = capfd.readouterr().err.splitlines()
    assert [line for line in shown if line and not line.startswith("import:")] == []


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("data", [b"", b"<html>Quota exceeded</html>", None])
def test_damaged_compressed_voxels_end_in_one_line(
    small: Luna16, tmp_path: Path, data: bytes | None, jobs: int
) -> None:
    write_scan(tmp_path / "scans/subset1/1.2.1.mhd", random_scan(), useCompression=True)
    path = tmp_path / "scans/subset1/1.2.1.zraw"
    path.write_bytes(path.read_bytes()[:20_000] if data is None else data)
    edit_header("CompressedDataSize", "Comment")(tmp_path)
    with pytest.raises(FileError, match=r"1\.2\.1\.zraw: found damaged voxels"):
        import_luna16(small, tmp_path / "out.h5", jobs=jobs)
    assert not (tmp_path / "out.h5").exists()


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.uint16, np.uint32, np.uint64])
def test_voxels_that_cannot_be_hounsfield_units_need_a_window(
    small: Luna16, tmp_path: Path, dtype: type[np.integer]
) -> None:
    hu = random_scan(seed=1)
    stored = (hu + 1600).clip(0, np.iinfo(dtype).max).astype(dtype)
    write_scan(tmp_path / "scans/subset1/1.2.1.mhd", stored)
    with pytest.raises(
        FileError, match=r"1\.2\.1\.mhd: found voxels .* expected --window LOW HIGH"
    ):
        import_luna16(small, tmp_path / "out.h5", jobs=1)
    crop = Crop(window=Window(600, 2000))
    lines = import_luna16(small, tmp_path / "out.h5", crop=crop, jobs=1)
    assert lines == ["3 nodules and 15 others from 4 scans"]


def test_another_modality_needs_a_window(small: Luna16, tmp_path: Path) -> None:
    edit_header("AnatomicalOrientation = RAI", "Modality = MET_MOD_MR")(tmp_path)
    with pytest.raises(FileError, match=r"found Modality MET_MOD_MR, .* expected --window"):
        import_luna16(small, tmp_path / "out.h5", jobs=1)
    import_luna16(small, tmp_path / "out.h5", crop=Crop(window=Window(-1000, 400)), jobs=1)


def test_a_signed_scan_without_air_is_noticed(small: Luna16, tmp_path: Path) -> None:
    write_scan(tmp_path / "scans/subset1/1.2.1.mhd", random_scan() + np.int16(1600))
    (_, note) = import_luna16(small, tmp_path / "out.h5", jobs=1)
    assert note == (
        "1 of 4 scans hold no value below 0, the first 1.2.1: are these Hounsfield units? "
        "(--window)"
    )


@pytest.mark.parametrize("jobs", [1, 2])
def test_names_that_are_not_utf_8_are_read(small: Luna16, tmp_path: Path, jobs: int) -> None:
    import_luna16(small, tmp_path / "expected.h5", jobs=1)
    folder, voxels = (Path(os.fsdecode(name)) for name in (b"M\xfcller", b"Sch\xe4del.raw"))
    (tmp_path / "scans/subset1").rename(tmp_path / "scans" / folder)
    scan = tmp_path / "scans" / folder / "1.2.1.mhd"
    scan.with_suffix(".raw").rename(scan.parent / voxels)
    scan.write_bytes(scan.read_bytes().replace(b"1.2.1.raw", os.fsencode(voxels)))
    import_luna16(small, tmp_path / "out.h5", jobs=jobs)
    assert (tmp_path / "out.h5").read_bytes() == (tmp_path / "expected.h5").read_bytes()


def test_folders_that_link_to_each_other_are_searched_once(small: Luna16, tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"scans/subset0/loop{i}").symlink_to(tmp_path / "scans")
    lines = import_luna16(small, tmp_path / "out.h5", jobs=1)
    assert lines == ["3 nodules and 15 others from 4 scans"]


def test_bad_settings_are_refused(small: Luna16, tmp_path: Path) -> None:
    with pytest.raises(NodulesError, match="window: found 400 to -1000, expected LOW below HIGH"):
        Window(400, -1000)
    with pytest.raises(FileError, match="no such folder"):
        import_luna16(Luna16([tmp_path / "nowhere"], small.candidates), tmp_path / "out.h5")
    before = small.candidates.read_bytes()
    with pytest.raises(FileError, match="found the same file as input"):
        import_luna16(small, small.candidates)
    assert small.candidates.read_bytes() == before
    with pytest.raises(FileError, match="found a folder"):
        import_luna16(small, tmp_path)
    nodules = write_table(tmp_path / "flat.csv", [("1.2.0", 0, 0, 0, 0)], ANNOTATIONS)
    with pytest.raises(TableError, match="diameter_mm: found 0, expected a length above 0"):
        import_luna16(Luna16(small.scans, small.candidates, nodules), tmp_path / "out.h5")


def test_an_error_in_another_process_is_one_line(
    small: Luna16, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    truncate_voxels(tmp_path)
    with pytest.raises(FileError, match=r"1\.2\.1\.mhd: 1\.2\.1\.raw: found 1,000 b") as caught:
        import_luna16(small, tmp_path / "out.h5", jobs=2)
    assert "\n" not in str(caught.value)
    assert "MetaImage" not in capfd.readouterr().err


def test_a_killed_process_is_one_line() -> None:
    with pytest.raises(NodulesError, match="a worker process was killed"):
        list(run_in_order(os._exit, [(9,)] * 3, jobs=2))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["nodules", "import", "luna16", *map(str, arguments)])
    main()


def test_the_command_says_what_to_do_next(
    small: Luna16,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out.h5"
    needed = ("--scans", *small.scans, "--candidates", small.candidates, "--out", out)
    run(monkeypatch, *needed, "--jobs", 1)
    assert capsys.readouterr().out.splitlines() == [
        f"wrote {out}: 3 nodules and 15 others from 4 scans",
        "groups (scans or patients): 4 of 3 to 6 patches",
        *next_steps(out, labelled=True),
    ]
    default = contents(out)
    run(monkeypatch, *needed, "--jobs", 1, "--negatives", "all", "--window", -1400, 200)
    assert len(contents(out)["X"]) == 43
    import_luna16(small, tmp_path / "api.h5", crop=Crop(40.0), seed=7, jobs=1)
    run(monkeypatch, *needed, "--jobs", 1, "--size-mm", 40, "--seed", 7)
    assert out.read_bytes() == (tmp_path / "api.h5").read_bytes()
    assert not np.array_equal(contents(out)["X"], default["X"])
    for wrong in (
        ("--negatives", 0),
        ("--negatives", "x"),
        ("--size-mm", "nan"),
        ("--jobs", "many"),
        ("--seed", -1),
    ):
        with pytest.raises(SystemExit) as stop:
            run(monkeypatch, *needed, *wrong)
        assert stop.value.code == 2
        assert "lambda" not in capsys.readouterr().err
    truncate_voxels(tmp_path)
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, *needed, "--jobs", 1)
    assert stop.value.code == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")


# Preload script of each worker: slows a scan down so that it can be interrupted.
# The patches of a scan are rounded to grey levels once.
SLOW_SCANS = """
import time, numpy
def slow(values, rint=numpy.rint):
    time.sleep(0.08)
    return rint(values)
numpy.rint = slow
"""
DEADLY_SCANS = """
import os, numpy
numpy.rint = lambda values: os.kill(os.getpid(), 9)
"""

StartCluster = Callable[..., tuple[str, list[subprocess.Popen]]]


@pytest.fixture
def start_cluster(tmp_path: Path) -> Iterator[StartCluster]:
    """Yield a function that starts `dask scheduler` and `dask worker` outside this checkout."""
    processes: list[subprocess.Popen] = []
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def start(arguments: str, **variables: str) -> None:
        command = [sys.executable, "-m", "dask", *arguments.split(), "--no-dashboard"]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | variables
        with (elsewhere / f"{len(processes)}.log").open("w") as log:
            process = subprocess.Popen(
                command, cwd=elsewhere, env=environment, stdout=log, stderr=log
            )
        processes.append(process)

    def start_cluster(workers: int, preload: str, **variables: str) -> tuple:
        address_file = elsewhere / "scheduler.json"
        # The time limits end the processes if the test itself is killed.
        start(
            "scheduler --host 127.0.0.1 --port 0 --scheduler-file scheduler.json --idle-timeout 60",
            **variables,
        )
        (elsewhere / "preload.py").write_text(preload)
        while not address_file.exists() or not address_file.read_text():
            time.sleep(0.05)
        address = json.loads(address_file.read_text())["address"]
        for i in range(workers):
            start(
                f"worker {address} --name {i} --nthreads 1 --no-nanny --death-timeout 30"
                " --preload preload.py"
            )
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=30)
        return address, processes

    yield start_cluster
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()


def test_a_cluster_writes_the_same_file_though_a_worker_dies(
    many: Luna16, tmp_path: Path, start_cluster: StartCluster
) -> None:
    expected, out = tmp_path / "local.h5", tmp_path / "cluster.h5"
    import_luna16(many, expected, negatives=None, jobs=1)
    address, (scheduler, _, worker) = start_cluster(2, SLOW_SCANS)
    command: tuple[object, ...] = (
        *(sys.executable, "-m", "nodules", "import", "luna16", "--scans", *many.scans),
        *("--candidates", many.candidates, "--negatives", "all", "--scheduler", address),
        *("--out", out),
    )
    importing = subprocess.Popen(
        [str(part) for part in command],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with Client(address, set_as_default=False) as client:
        victim = next(a for a, w in client.scheduler_info()["workers"].items() if w["name"] == 1)
        given: set[str] = set()
        while len(given) < 6 or not client.processing()[victim]:
            given.update(client.processing()[victim])
            assert importing.poll() is None
            time.sleep(0.02)
        worker.kill()
        _, errors = importing.communicate(timeout=60)
    assert importing.returncode == 0, errors
    assert worker.wait() == -9
    assert out.read_bytes() == expected.read_bytes()
    # With one worker left, errors are reported as usual.
    truncated = next(Path(folder) / "1.3.0.raw" for folder in many.scans)
    os.truncate(truncated, 1000)
    with pytest.raises(FileError, match=r"1\.3\.0\.mhd: 1\.3\.0\.raw: found 1,000 b"):
        import_luna16(many, out, scheduler=address)
    threading.Timer(1, scheduler.kill).start()
    with pytest.raises(NodulesError, match="connection to the scheduler broke"):
        list(run_in_order(time.sleep, [(10,)] * 2, scheduler=address))
    assert out.read_bytes() == expected.read_bytes()


def test_tasks_in_flight_follow_the_workers_that_join() -> None:
    taken = []

    def tasks() -> Iterator[Callable[[], int]]:
        for number in range(20):
            taken.append(number)
            yield partial(int, number)

    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as local:
        results = cluster.run_on_cluster(tasks(), local.scheduler_address, calls_ahead=2)
        assert next(results) == 0
        assert len(taken) == 2
        local.scale(3)
        local.wait_for_workers(3)
        assert next(results) == 1
        assert len(taken) == 1 + 2 * 3
        assert list(results) == list(range(2, 20))


def test_a_scheduler_that_ends_between_results_is_one_line() -> None:
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as local:
        tasks = (partial(int, number) for number in range(20))
        results = cluster.run_on_cluster(tasks, local.scheduler_address, calls_ahead=2)
        assert next(results) == 0
    with pytest.raises(NodulesError, match="connection to the scheduler broke"):
        list(results)


def test_a_cluster_that_gives_up_is_one_line(
    small: Luna16,
    tmp_path: Path,
    start_cluster: StartCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    with pytest.raises(NodulesError, match="no Dask scheduler answers"):
        import_luna16(small, tmp_path / "out.h5", scheduler="tcp://127.0.0.1:9")
    limits = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
    address, _ = start_cluster(1, DEADLY_SCANS, **limits)
    with pytest.raises(NodulesError, match=r"Dask gave up on a scan \(KilledWorker") as caught:
        import_luna16(small, tmp_path / "out.h5", scheduler=address)
    assert "\n" not in str(caught.value)
    with pytest.raises(NodulesError, match="found no worker in 1 s"):
        import_luna16(small, tmp_path / "out.h5", scheduler=address)
    assert not (tmp_path / "out.h5").exists()
