"""LUNA16's candidates as published 50x50 JPEG patches: fetch them and convert them.

The patches are those of https://github.com/swethasubramanian/LungCancerDetection (MIT; the data of
LUNA16 are CC BY 4.0). `image_N.jpg` is the candidate in row N of LUNA16's first candidates.csv.
Images in no label list are turned copies of nodules.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from nodules.errors import FileError, NodulesError
from nodules.importers.image_groups import RowBlocks, TableGroups
from nodules.importers.label_list import read_lists
from nodules.importers.listed import import_list
from nodules.importers.luna16.tables import read_excluded
from nodules.system.atomic import check_output
from nodules.system.download import download, fetch_from_git, file_hash

PATCHES = "src/data"
CANDIDATES = "candidates.csv"
KEY = r"_(\d+)\.jpg$"


@dataclass(frozen=True)
class Part:
    """One part of the published division.

    Attributes
    ----------
    labels
        MD5 of its label list.
    images
        MD5 of its listed images together, as `images_hash` computes it.
    """

    labels: str
    images: str


@dataclass(frozen=True)
class Source:
    """Where the patches and the table come from, and their hashes.

    Attributes
    ----------
    repository, commit
        Git repository of the patches, and its commit.
    parts
        Parts of the published division: sub-folders of `src/data`, next to their label lists.
    candidates, size, sha256
        Address of candidates.csv, its length in bytes, and its hash.
    leave_out
        Listed images to leave out.
    """

    repository: str
    commit: str
    parts: Mapping[str, Part]
    candidates: str
    size: int
    sha256: str
    leave_out: tuple[str, ...] = ()


LUNA16_PATCHES = Source(
    "https://github.com/swethasubramanian/LungCancerDetection",
    "36e7980a891089921d18993ea631c89035296e76",
    {
        "train": Part("13913d7bc207a45f6b0367942f1962da", "c1d6eda81be233952164806d54b61b83"),
        "val": Part("c5d80b8fc799a3c64c5c0af56e449963", "931326271bf98327e762b2c13cb0c953"),
        "test": Part("1dc76e2741073add11b6aec7d0e27f27", "c900491536efe8de85279979e2a74b81"),
    },
    "https://zenodo.org/records/3723295/files/candidates.csv",
    54_876_815,
    "0541d5aff00bf27ce3160d4f4e38cd6ed9a6c3c87ba3d9bbf3da9e4e1375cc2c",
    # Cut at the border of the scan, 50x47: nothing tells on which side.
    ("train/image_393762.jpg",),
)


def import_published(
    folder: Path,
    out: Path,
    *,
    group_rows: int | None = None,
    excluded: Path | None = None,
    source: Source | None = None,
) -> list[str]:
    """Fetch what is missing in a folder, check all of it, and convert it to a patch file.

    Parameters
    ----------
    folder
        Folder with `src/data` of the repository and candidates.csv, as far as they are there.
    out
        Patch file to write, with `X`, `Y`, `group` (the seriesuid), `candidate` (the row in
        candidates.csv), `file` and `published_split`.
    group_rows
        Blocks of this number of rows stand in for the scans, so that candidates.csv is not needed;
        None to use candidates.csv.
    excluded
        Table of excluded findings, as in `import_list`.
    source
        Where the patches and the table come from; None for `LUNA16_PATCHES`.

    Returns
    -------
    list of str
        Summary of what was written, then notes; one line each.

    Raises
    ------
    NodulesError
        If something cannot be fetched, is not what was published, or cannot be converted.
    """
    source = source or LUNA16_PATCHES
    table = folder / CANDIDATES
    check_output(out, [])  # before anything is fetched, as the next checks
    if excluded is not None:
        if group_rows is not None:
            raise NodulesError("--excluded: found --group-rows, expected candidates.csv instead")
        read_excluded(excluded)
    _fetch_patches(source, folder)
    if group_rows is None and not table.exists():
        download(source.candidates, table, source.size, source.sha256)
    elif group_rows is None:
        _check(table, file_hash(table, "sha256"), source.sha256, "sha256")
    return import_list(
        folder / PATCHES,
        [_label_list(folder, part) for part in source.parts],
        out,
        groups=(
            RowBlocks(KEY, group_rows)
            if group_rows
            else TableGroups(KEY, table, "seriesuid", label_column="class")
        ),
        split="^([a-z]+)/",
        published=True,
        excluded=excluded,
        leave_out=source.leave_out,
    )


def images_hash(folder: Path, label_list: Path) -> str:
    """Return the MD5 of the images of a label list, together.

    It is DVC's hash of a folder that holds these images and no other file.
    """
    paths = sorted(folder / entry.name for entry in read_lists([label_list]))
    entries = [{"md5": file_hash(path, "md5"), "relpath": path.name} for path in paths]
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def _fetch_patches(source: Source, folder: Path) -> None:
    missing = [part for part in source.parts if not _is_complete(source, folder, part)]
    for part in tqdm(missing, desc="fetch patches", unit="part", disable=not missing):
        paths = [f"{PATCHES}/{part}/", f"{PATCHES}/{part}datalabels.txt"]
        fetch_from_git(source.repository, source.commit, folder, paths)
    for part, hashes in source.parts.items():
        labels = _label_list(folder, part)
        _check(labels, file_hash(labels, "md5"), hashes.labels, "md5")
        found = images_hash(folder / PATCHES, labels)
        _check(folder / PATCHES / part, found, hashes.images, "md5 of its images")


def _is_complete(source: Source, folder: Path, part: str) -> bool:
    """Return whether the label list of a part is there, and all of its images, right or wrong."""
    labels = _label_list(folder, part)
    if not labels.exists():
        return False
    _check(labels, file_hash(labels, "md5"), source.parts[part].labels, "md5")
    return all((folder / PATCHES / entry.name).exists() for entry in read_lists([labels]))


def _label_list(folder: Path, part: str) -> Path:
    return folder / PATCHES / f"{part}datalabels.txt"


def _check(path: Path, found: str, expected: str, kind: str) -> None:
    if found != expected:
        problem = f"found the {kind} {found}, expected {expected}"
        raise FileError(path, f"{problem}, as published: remove it to fetch it again")
