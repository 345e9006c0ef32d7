"""Import of listed images: labels, groups from a table, splits, and what is refused."""

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from nodules.__main__ import main
from nodules.commands.inspect import describe
from nodules.errors import NodulesError
from nodules.importers.image_groups import RowBlocks, TableGroups
from nodules.importers.listed import import_list
from nodules.patches.reader import open_patches

IMAGES = {
    "train/image_0.png": 0,
    "train/image_7.png": 1,
    "val/image_3.png": 1,
    "test/image_12.png": 0,
}
KEY = r"_(\d+)\."


def write_table(path: Path, header: str, rows: list[Any]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(header.split(","))
        table.writerows(rows)
    return path


def write_candidates(path: Path, count: int = 13) -> Path:
    """Write a table like LUNA16's: three rows per scan, 100 mm apart, with the images' classes."""
    nodules = {int(name[:-4].rpartition("_")[2]) for name, label in IMAGES.items() if label}
    rows = [(f"1.2.{row // 3}", 100 * row, 0, 0, int(row in nodules)) for row in range(count)]
    return write_table(path, "seriesuid,coordX,coordY,coordZ,class", rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of four listed images and two others."""
    rng = np.random.default_rng(3)
    for name in (*IMAGES, "train/image_1000007.png", "train/image_2000007.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (50, 50), np.uint8)).save(path)
    (tmp_path / "images/readme.txt").write_text("no image")
    return tmp_path / "images"


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Return a list of the images as text."""
    lines = [f"{name} {label}\n" for name, label in IMAGES.items()]
    (tmp_path / "labels.txt").write_text("".join(lines))
    return tmp_path / "labels.txt"


def columns(path: Path) -> dict[str, list[Any]]:
    """Return all data sets of a patch file except `X`."""
    with h5py.File(path) as file:
        texts = {k: v.asstr() if h5py.check_string_dtype(v.dtype) else v for k, v in file.items()}
        return {name: data[:].tolist() for name, data in texts.items() if name != "X"}


def test_rows_follow_the_list_and_hold_its_images(
    folder: Path, labels: Path, tmp_path: Path
) -> None:
    lines = import_list(folder, [labels], tmp_path / "out.h5")
    assert lines == [
        "2 nodules and 2 others",
        "images left out, in no list: 2, first train/image_1000007.png",
    ]
    assert columns(tmp_path / "out.h5") == {"file": [*IMAGES], "Y": [*IMAGES.values()]}
    with open_patches(tmp_path / "out.h5") as patches:
        for row, name in enumerate(IMAGES):
            with Image.open(folder / name) as image:
                assert np.array_equal(patches.read(row, row + 1)[0], np.asarray(image))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_csv_list_brings_groups_and_splits_and_may_have_other_columns(
    folder: Path, tmp_path: Path, delimiter: str
) -> None:
    rows = [
        ["label", "remark", "path", "split", "group"],
        ["0", "a \n b", "train/image_0.png", "train", "p1"],
        ["1", "", "./train//image_7.png", "train", "p1"],
        [],
        ["1", "", " val/image_3.png ", "val", "p 2"],
    ]
    with (tmp_path / "list.csv").open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    import_list(folder, [tmp_path / "list.csv"], tmp_path / "out.h5")
    found = columns(tmp_path / "out.h5")
    assert found["file"] == ["train/image_0.png", "train/image_7.png", "val/image_3.png"]
    assert found["group"] == ["p1", "p1", "p 2"]
    assert found["split"] == ["train", "train", "val"]
    assert found["Y"] == [0, 1, 1]


def test_names_in_a_csv_header_may_be_quoted(folder: Path, tmp_path: Path) -> None:
    lines = ['"","path","label"', '"1","val/image_3.png",1', '"2","train/image_0.png",0']
    (tmp_path / "list").write_text("\n".join(lines))
    import_list(folder, [tmp_path / "list"], tmp_path / "out.h5")
    assert columns(tmp_path / "out.h5")["Y"] == [1, 0]


def test_an_unlisted_image_may_have_any_name(folder: Path, labels: Path, tmp_path: Path) -> None:
    (folder / os.fsdecode(b"\xff.png")).hardlink_to(folder / "val/image_3.png")
    lines = import_list(folder, [labels], tmp_path / "out.h5")
    assert "images left out, in no list: 3, first train/image_1000007.png" in lines


@pytest.mark.parametrize("name", ["labels.txt", "candidates.csv", "excluded.csv"])
def test_no_input_is_overwritten(folder: Path, labels: Path, tmp_path: Path, name: str) -> None:
    groups = TableGroups(KEY, write_candidates(tmp_path / "candidates.csv"), "seriesuid")
    excluded = tmp_path / "excluded.csv"
    excluded.write_text("seriesuid,coordX,coordY,coordZ,diameter_mm\n1.2.0,0,0,0,9\n")
    before = (tmp_path / name).read_bytes()
    with pytest.raises(NodulesError, match="found the same file as input, expected a new name"):
        import_list(folder, [labels], tmp_path / name, groups=groups, excluded=excluded)
    assert (tmp_path / name).read_bytes() == before


def test_a_path_in_a_text_list_may_have_spaces(folder: Path, tmp_path: Path) -> None:
    (folder / "train/image_0.png").rename(folder / "a b.png")
    (tmp_path / "list").write_text("a b.png\t1\r\n\r\n  val/image_3.png  0")
    import_list(folder, [tmp_path / "list"], tmp_path / "out.h5")
    assert columns(tmp_path / "out.h5") == {"file": ["a b.png", "val/image_3.png"], "Y": [1, 0]}


def test_labels_may_have_names(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("train/image_0.png ben\nval/image_3.png mal\n")
    import_list(folder, [tmp_path / "list"], tmp_path / "out.h5", nodule="mal")
    assert columns(tmp_path / "out.h5")["Y"] == [0, 1]


def test_the_scan_comes_from_the_row_of_a_table_that_the_file_name_gives(
    folder: Path, labels: Path, tmp_path: Path
) -> None:
    table = write_candidates(tmp_path / "candidates.csv")
    groups = TableGroups(KEY, table, "seriesuid", label_column="class")
    import_list(folder, [labels], tmp_path / "out.h5", groups=groups)
    found = columns(tmp_path / "out.h5")
    assert found["candidate"] == [0, 7, 3, 12]
    assert found["group"] == ["1.2.0", "1.2.2", "1.2.1", "1.2.4"]


def test_a_column_of_the_table_may_hold_the_keys(
    folder: Path, labels: Path, tmp_path: Path
) -> None:
    rows = [("p1", "image_0"), ("p9", "other"), ("p2", "image_7"), ("p1", "image_3")]
    rows += [("p3", "image_12"), ("p1", "image_3")]  # the same again
    table = write_table(tmp_path / "patients.csv", "patient,image", rows)
    groups = TableGroups(r"([^/]+)\.png", table, "patient", key_column="image")
    import_list(folder, [labels], tmp_path / "out.h5", groups=groups)
    found = columns(tmp_path / "out.h5")
    assert found["group"] == ["p1", "p2", "p1", "p3"]
    assert "candidate" not in found


def test_blocks_of_rows_stand_in_for_scans_and_a_line_says_so(
    folder: Path, labels: Path, tmp_path: Path
) -> None:
    lines = import_list(folder, [labels], tmp_path / "out.h5", groups=RowBlocks(KEY, 6))
    found = columns(tmp_path / "out.h5")
    assert found["group"] == ["rows 0 to 5", "rows 6 to 11", "rows 0 to 5", "rows 12 to 17"]
    assert found["candidate"] == [0, 7, 3, 12]
    assert "groups are blocks of 6 rows, which stand in for scans" in lines


def test_a_published_split_is_kept_aside(folder: Path, labels: Path, tmp_path: Path) -> None:
    import_list(folder, [labels], tmp_path / "kept.h5", split="^([^/]+)/")
    import_list(folder, [labels], tmp_path / "aside.h5", split="^([^/]+)/", published=True)
    splits = ["train", "train", "val", "test"]
    assert columns(tmp_path / "kept.h5")["split"] == splits
    assert columns(tmp_path / "aside.h5")["published_split"] == splits
    assert "split" not in columns(tmp_path / "aside.h5")
    assert "published   train 2, val 1, test 1" in describe(tmp_path / "aside.h5")


def test_a_candidate_of_class_0_in_an_excluded_finding_is_irrelevant(
    folder: Path, labels: Path, tmp_path: Path
) -> None:
    table = write_candidates(tmp_path / "candidates.csv")
    findings = [
        ("1.2.0", 4.9, 0, 0, -1),  # no diameter: 10 mm, as in the challenge's evaluation
        ("1.2.2", 700, 0, 0, 30),  # of class 1
        ("1.2.3", 1200, 0, 0, 30),  # in another scan
        ("1.2.4", 1200, 3, 0, 5),  # beyond its radius
    ]
    header = "seriesuid,coordX,coordY,coordZ,diameter_mm"
    excluded = write_table(tmp_path / "excluded.csv", header, findings)
    groups = TableGroups(KEY, table, "seriesuid")
    out = tmp_path / "out.h5"
    lines = import_list(folder, [labels], out, groups=groups, excluded=excluded)
    assert columns(out)["irrelevant"] == [1, 0, 0, 0]
    assert "irrelevant  1 patches that the challenge ignores" in describe(out)
    assert "irrelevant, in an excluded finding: 1" in lines
    write_table(tmp_path / "excluded.csv", header, [("1.2.0", 5.1, 0, 0, -1)])
    import_list(folder, [labels], out, groups=groups, excluded=excluded)
    assert columns(out)["irrelevant"] == [0, 0, 0, 0]


def test_an_image_can_be_left_out(folder: Path, labels: Path, tmp_path: Path) -> None:
    leave_out = ["train/image_7.png"]
    lines = import_list(folder, [labels], tmp_path / "out.h5", leave_out=leave_out)
    assert columns(tmp_path / "out.h5")["Y"] == [0, 1, 0]
    assert "images left out on request: 1" in lines
    assert "images left out, in no list: 2, first train/image_1000007.png" in lines


def test_an_image_of_another_size_is_resampled_and_a_line_says_so(
    folder: Path, labels: Path, tmp_path: Path
) -> None:
    Image.fromarray(np.full((50, 47), 9, np.uint8)).save(folder / "train/image_0.png")
    lines = import_list(folder, [labels], tmp_path / "out.h5")
    assert "images that are not square: 1; only their centre is used" in lines
    with open_patches(tmp_path / "out.h5") as patches:
        assert (patches.read(0, 1) == 9).all()


OPTIONS = ["--table", "candidates.csv", "--key", KEY, "--group-column", "seriesuid"]
Change = Callable[[Path], object]


def lists(text: str) -> Change:
    return lambda folder: (folder.parent / "labels.txt").write_text(text)


def table(header: str, *row: object) -> Change:
    return lambda folder: write_table(folder.parent / "candidates.csv", header, [row] * 9)


def short_table(folder: Path) -> None:
    write_candidates(folder.parent / "candidates.csv", 12)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lists("train/image_0.png 2\n"), [], "labels.txt: line 1: label: found '2', expected 0"),
        (lists("\ntrain/image_0.png\n"), [], "labels.txt: line 2: found 'train/image_0.png'"),
        (lists("train/image_0.png,1\n"), [], "line 1: found 'train/image_0.png,1', expected `path"),
        (lists("path,label\n../x.png,1\n"), [], "line 2: path: found '../x.png', expected a path"),
        (lists("/etc/x.png 1\n"), [], "line 1: path: found '/etc/x.png', expected a path within"),
        (lists("path,label\nx.png,\n"), [], "line 2: label: found nothing, expected one for each"),
        (lists("path,label\nx.png\n"), [], "line 2: found 1 fields, expected 2 as in the header"),
        (lists("path,label,split\nx.png,1,dev\n"), [], "line 2: split: found 'dev', expected one"),
        (lists("a/x.png 1\na//x.png 1\n"), [], "line 2: found 'a/x.png' again, as in line 1"),
        (lists("train/image_1.png 1\n"), [], "line 1: found no file images/train/image_1.png, exp"),
        (lists("readme.txt 1\n"), [], "line 1: found images/readme.txt, expected an image (PNG"),
        (lists("train 1\n"), [], "line 1: found images/train, expected an image (PNG"),
        (lists('path,label,r\na.png,1,"x\nb.png,1,y\n'), [], "no CSV text (unexpected end of data"),
        (lists("path,label,label\na.png,0,1\n"), [], "labels.txt: found 2 columns label, expected"),
        (
            lists('path,label,group\na,1,"p\n1"'),
            [],
            "line 2: group: found 'p\\n1', expected a print",
        ),
        (
            lists(f"{'x/' * 600}x.png 1\n"),
            [],
            "line 1: path: found 1,205 characters, expected at m",
        ),
        (lists(f"{'x' * 300}.png 1\n"), [], "line 1: path: cannot be read (file name too long)"),
        (
            lists("x" * 5_000_000),
            [],
            "labels.txt: found a line of 4,194,304 characters or more, exp",
        ),
        (lists("\n"), [], "labels.txt: found no images, expected lines of `path label`"),
        (lists("a\0 1"), [], "labels.txt: line 1: path: found 'a\\x00', expected a path within"),
        (None, ["--nodule", "yes"], "line 2: label: found '1', expected yes or 0"),
        (None, ["--leave-out", "x.png"], "--leave-out: found x.png, expected paths in the lists"),
        (None, ["--leave-out", *IMAGES], "--leave-out: found all images, expected at least one"),
        (None, ["--split", r"(\d)"], "image_0.png: --split found '0', expected one of train, val"),
        (None, ["--published-split"], "--published-split: found no split, expected --split or a"),
        (None, ["--excluded", "x.csv"], "--excluded: found no positions of the images, expected"),
        (None, ["--key", KEY], "--key: found no --table, expected the table it refers to"),
        (None, ["--group-rows", "5"], "--group-rows: found no --key, expected it too"),
        (None, ["--table", "x.csv", "--key", KEY], "--table: found no --group-column, expected it"),
        (None, ["--group-rows", "5", "--key", "(image)"], "--key found 'image', expected a row n"),
        (None, ["--group-rows", "5", "--key", "(x)"], "found no match of '(x)' in 'train/image_0"),
        (
            None,
            ["--group-rows", "5", "--key", "("],
            "--key: '(' is not a regular expression (",
        ),
        (None, OPTIONS, "candidates.csv: cannot be read (no such file or directory), expected a"),
        (
            table("seriesuid,x", "", 1),
            OPTIONS,
            "candidates.csv: row 0: seriesuid: found '', expected a printable name",
        ),
        (
            table("a,seriesuid,a", 1, 2, 3),
            [*OPTIONS[:-1], "a"],
            "candidates.csv: found 2 columns a, expected one",
        ),
        (
            short_table,
            OPTIONS,
            "candidates.csv: found 12 rows and no row 12, expected it for te",
        ),
        (
            short_table,
            [*OPTIONS[:-1], "series"],
            "candidates.csv: found the columns seriesuid, coordX, coordY, coordZ, class, expected",
        ),
        (
            short_table,
            [*OPTIONS, "--key-column", "class"],
            "candidates.csv: row 4 (the first after the header is 0): class: found '0' again, as",
        ),
        (
            short_table,
            [*OPTIONS, "--key-column", "coordX"],
            "candidates.csv: coordX: found no '7', expected it for train/image_7.png",
        ),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    folder: Path,
    labels: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: Change | None,
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if change is not None:
        change(folder)
    command = ["import", "list", "images", "--labels", "labels.txt", "--out", "out.h5", *options]
    monkeypatch.setattr("sys.argv", ["nodules", *command])
    with pytest.raises(SystemExit) as stopped:
        main()
    error = capsys.readouterr().err
    assert stopped.value.code == 1
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out.h5").exists()


def test_a_table_whose_labels_differ_is_refused(folder: Path, labels: Path, tmp_path: Path) -> None:
    table = write_candidates(tmp_path / "candidates.csv")
    (tmp_path / "labels.txt").write_text("val/image_3.png 1\ntrain/image_0.png 1\n")
    groups = TableGroups(KEY, table, "seriesuid", label_column="class")
    with pytest.raises(Exception, match=r"row 0 .*: class: found '0', expected 1 as for train"):
        import_list(folder, [labels], tmp_path / "out.h5", groups=groups)


def test_lists_must_agree_on_their_columns(folder: Path, labels: Path, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("path,label,group\nreadme.png,1,p1\n")
    with pytest.raises(Exception, match=r"other\.csv: group: expected this column in all lists"):
        import_list(folder, [labels, tmp_path / "other.csv"], tmp_path / "out.h5")


def test_the_command_counts_the_scans_and_prints_the_next_steps(
    folder: Path,
    labels: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_candidates(tmp_path / "candidates.csv")
    command = ["import", "list", "images", "--labels", "labels.txt", "--out", "out.h5", *OPTIONS]
    monkeypatch.setattr("sys.argv", ["nodules", *command])
    main()
    printed = capsys.readouterr().out
    assert "groups (scans or patients): 4 of 1 patch each" in printed
    assert "dvc exp run --set-param dataset=data/out.h5" in printed
