"""The published patches of LUNA16, fetched, checked and converted from local stand-ins."""

import csv
import hashlib
import io
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from dvc_data.hashfile.build import build
from dvc_data.hashfile.db import HashFileDB
from dvc_objects.fs.local import LocalFileSystem
from PIL import Image

from nodules.__main__ import main
from nodules.errors import NodulesError
from nodules.importers.luna16 import published
from nodules.importers.luna16.published import (
    LUNA16_PATCHES,
    Part,
    Source,
    images_hash,
    import_published,
)
from nodules.patches.reader import open_patches
from tests.support import REPOSITORY
from tests.support.file_server import FileServer, serving
from tests.support.tiny_project import commands_environment

# Row in the table and label of each image.
PARTS = {"train": {3: 0, 10: 1, 11: 0}, "val": {0: 0, 20: 1}, "test": {7: 1, 19: 0}}
NODULES = {10, 20, 7}
# Where `nodules import luna16-patches` has put the real patches, or a folder with train and val.
REAL = Path(os.environ.get("LUNA16_PATCHES", REPOSITORY / "data/luna16"))


def candidates(count: int = 21) -> bytes:
    """Return a table like candidates.csv, four rows per scan."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["seriesuid", "coordX", "coordY", "coordZ", "class"])
    table.writerows([f"1.2.{row // 4}", -row, 0.5, 7, int(row in NODULES)] for row in range(count))
    return text.getvalue().encode()


def commit_all(folder: Path) -> str:
    """Make a folder a git repository that serves single files, and return its commit."""
    commands = ["init --quiet", "config uploadpack.allowFilter true", "add --all"]
    commands += ["commit --quiet --message first", "rev-parse HEAD"]
    for command in commands:
        result = subprocess.run(
            ["git", *command.split()],
            cwd=folder,
            env=commands_environment(),
            check=True,
            capture_output=True,
        )
    return result.stdout.decode().strip()


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """Return a small repository like the published one, with the hashes of its parts."""
    data = tmp_path / "upstream/src/data"
    rng = np.random.default_rng(2)
    parts = {}
    for part, images in PARTS.items():
        (data / part).mkdir(parents=True)
        # The copies with 1,000,000 added are in no list.
        for row in (*images, *(1_000_000 + row for row in images)):
            pixels = rng.integers(0, 256, (50, 50), np.uint8)
            Image.fromarray(pixels).save(data / part / f"image_{row}.jpg", quality=90)
        labels = data / f"{part}datalabels.txt"
        labels.write_text("".join(f"{part}/image_{n}.jpg {k}\n" for n, k in images.items()))
        digest = hashlib.md5(labels.read_bytes()).hexdigest()
        parts[part] = Part(digest, images_hash(data, labels))
    (data / "train/.DS_Store").write_bytes(b"\0")
    commit = commit_all(tmp_path / "upstream")
    repository = (tmp_path / "upstream").as_uri()
    return Source(
        repository, commit, parts, "", len(candidates()), hashlib.sha256(candidates()).hexdigest()
    )


def build_file(source: Source, folder: Path, out: Path, **options: Any) -> list[str]:
    with serving(FileServer(candidates())) as server:
        return import_published(
            folder, out, source=replace(source, candidates=server.url), **options
        )


def test_the_file_holds_the_images_with_their_scans_and_the_published_split(
    source: Source, tmp_path: Path
) -> None:
    lines = build_file(source, tmp_path / "pieces", tmp_path / "out.h5")
    assert lines[0] == "3 nodules and 4 others"
    assert "images left out, in no list: 7, first test/image_1000007.jpg" in lines
    rows = [row for images in PARTS.values() for row in images]
    with h5py.File(tmp_path / "out.h5") as file:
        assert {*file} == {"X", "Y", "file", "group", "candidate", "published_split"}
        assert file["candidate"][:].tolist() == rows
        assert file["Y"][:].tolist() == [int(row in NODULES) for row in rows]
        assert file["group"].asstr()[:].tolist() == [f"1.2.{row // 4}" for row in rows]
        splits = [part for part, images in PARTS.items() for _ in images]
        assert file["published_split"].asstr()[:].tolist() == splits
        for patch, name in zip(file["X"], file["file"].asstr(), strict=True):
            with Image.open(tmp_path / "upstream/src/data" / name) as image:
                assert np.array_equal(patch, np.asarray(image))


def test_pieces_that_are_there_need_no_network(source: Source, tmp_path: Path) -> None:
    build_file(source, tmp_path / "pieces", tmp_path / "first.h5")
    (tmp_path / "upstream").rename(tmp_path / "gone")
    assert import_published(tmp_path / "pieces", tmp_path / "again.h5", source=source)
    assert (tmp_path / "again.h5").read_bytes() == (tmp_path / "first.h5").read_bytes()


def test_pieces_of_a_person_are_used_and_only_the_others_fetched(
    source: Source, tmp_path: Path
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/candidates.csv").write_bytes(candidates())
    assert import_published(tmp_path / "own", tmp_path / "out.h5", source=source)
    before = (tmp_path / "out.h5").read_bytes()
    # As in a clone of the repository.
    (tmp_path / "upstream/candidates.csv").write_bytes(candidates())
    nowhere = replace(source, repository=(tmp_path / "nowhere").as_uri())
    assert import_published(tmp_path / "upstream", tmp_path / "out.h5", source=nowhere)
    assert (tmp_path / "out.h5").read_bytes() == before


def test_an_interrupted_fetch_is_resumed(source: Source, tmp_path: Path) -> None:
    build_file(source, tmp_path / "pieces", tmp_path / "whole.h5")
    (tmp_path / "pieces/src/data/val/image_20.jpg").unlink()
    (tmp_path / "pieces/candidates.csv").rename(tmp_path / "pieces/.candidates.csv.part")
    build_file(source, tmp_path / "pieces", tmp_path / "out.h5")
    assert (tmp_path / "out.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_without_the_table_blocks_of_rows_stand_in_for_scans(
    source: Source, tmp_path: Path
) -> None:
    lines = import_published(tmp_path / "pieces", tmp_path / "out.h5", group_rows=8, source=source)
    assert "groups are blocks of 8 rows, which stand in for scans" in lines
    with open_patches(tmp_path / "out.h5") as patches:
        assert patches.groups is not None
        assert patches.groups.tolist()[:3] == ["rows 0 to 7", "rows 8 to 15", "rows 8 to 15"]


@pytest.mark.parametrize(
    ("piece", "content", "message"),
    [
        ("src/data/val/image_20.jpg", b"other", "src/data/val: found the md5 of its images "),
        ("src/data/valdatalabels.txt", b"x 1", "valdatalabels.txt: found the md5 "),
        ("candidates.csv", b"other", "candidates.csv: found the sha256 "),
    ],
)
def test_a_piece_that_is_not_the_published_one_is_refused(
    source: Source, tmp_path: Path, piece: str, content: bytes, message: str
) -> None:
    build_file(source, tmp_path / "pieces", tmp_path / "first.h5")
    path = tmp_path / "pieces" / piece
    path.unlink()
    path.write_bytes(content)
    with pytest.raises(NodulesError) as error:
        import_published(tmp_path / "pieces", tmp_path / "out.h5", source=source)
    assert message in str(error.value)
    assert str(error.value).endswith("as published: remove it to fetch it again")
    assert not (tmp_path / "out.h5").exists()


@pytest.mark.parametrize(
    "piece", ["src/data/valdatalabels.txt", "src/data/val/image_20.jpg", "candidates.csv"]
)
def test_a_folder_in_place_of_a_piece_is_one_line(
    source: Source, tmp_path: Path, piece: str
) -> None:
    build_file(source, tmp_path / "pieces", tmp_path / "first.h5")
    (tmp_path / "pieces" / piece).unlink()
    (tmp_path / "pieces" / piece).mkdir()
    with pytest.raises(NodulesError, match=r"cannot be read \(not a regular file\)"):
        import_published(tmp_path / "pieces", tmp_path / "out.h5", source=source)


def test_a_table_without_a_row_or_with_another_class_is_refused(
    source: Source, tmp_path: Path
) -> None:
    rows = candidates().decode().splitlines(keepends=True)
    for table, message in (
        (rows[:-1], "found 20 rows and no row 20, expected it for val/image_20.jpg"),
        (rows[:1] + rows[2:], "row 10 (the first after the header is 0): class: found '0', exp"),
    ):
        content = "".join(table).encode()
        (tmp_path / "pieces").mkdir(exist_ok=True)
        (tmp_path / "pieces/candidates.csv").write_bytes(content)
        wrong = replace(source, sha256=hashlib.sha256(content).hexdigest())
        with pytest.raises(NodulesError) as error:
            import_published(tmp_path / "pieces", tmp_path / "out.h5", source=wrong)
        assert message in str(error.value)


def test_the_command_says_in_one_line_what_cannot_be_fetched(
    source: Source,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["nodules", "import", "luna16-patches", "--from", "pieces", "--out", "out.h5"]
    monkeypatch.setattr("sys.argv", words)
    with serving(FileServer(b"", status=404)) as server:
        changed = replace(source, candidates=server.url)
        monkeypatch.setattr(published, "LUNA16_PATCHES", changed)
        with pytest.raises(SystemExit) as stopped:
            main()
    assert stopped.value.code == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"error: {server.url}: found HTTP status 404 (Not Found), expected a file"
    with serving(FileServer(candidates())) as server:
        changed = replace(source, candidates=server.url)
        monkeypatch.setattr(published, "LUNA16_PATCHES", changed)
        main()
    printed = capsys.readouterr().out
    assert "wrote out.h5: 3 nodules and 4 others" in printed
    assert "groups (scans or patients): 5 of 1 to 2 patches" in printed


def test_the_hash_of_the_images_is_that_of_dvc(source: Source, tmp_path: Path) -> None:
    import_published(tmp_path / "pieces", tmp_path / "out.h5", group_rows=8, source=source)
    data = tmp_path / "pieces/src/data"
    for path in data.glob("val/image_1000*"):
        path.unlink()
    files = LocalFileSystem()
    cache = HashFileDB(files, str(tmp_path / "cache"))
    _, _, tree = build(cache, str(data / "val"), files, "md5", dry_run=True)
    assert tree.hash_info.value == f"{source.parts['val'].images}.dir"


def test_what_cannot_be_written_is_refused_before_anything_is_fetched(
    source: Source, tmp_path: Path
) -> None:
    pieces, excluded = tmp_path / "pieces", tmp_path / "excluded.csv"
    excluded.write_text("seriesuid\n")
    (tmp_path / "folder").mkdir()
    for out, options, message in (
        ("folder", {}, "folder: found a folder"),
        ("out.h5", {"excluded": excluded}, r"excluded\.csv: found the columns seriesuid, expected"),
        ("out.h5", {"excluded": excluded, "group_rows": 8}, "--excluded: found --group-rows, exp"),
    ):
        with pytest.raises(NodulesError, match=message):
            import_published(pieces, tmp_path / out, source=source, **options)
    assert not pieces.exists()


@pytest.mark.skipif(
    not (REAL / "src/data/val").exists(), reason=f"the published patches are not in {REAL}"
)
def test_the_real_patches_have_the_published_hashes_and_pixels(tmp_path: Path) -> None:
    parts = {name: LUNA16_PATCHES.parts[name] for name in ("train", "val")}
    real = replace(LUNA16_PATCHES, parts=parts, repository="nowhere")
    lines = import_published(REAL, tmp_path / "out.h5", group_rows=5500, source=real)
    assert lines[0] == "1,069 nodules and 5,414 others"
    with h5py.File(tmp_path / "out.h5") as file:
        for patch, name in zip(file["X"], file["file"].asstr(), strict=True):
            with Image.open(REAL / "src/data" / name) as image:
                assert image.size == (50, 50)
                assert np.array_equal(patch, np.asarray(image.convert("L"))), name
