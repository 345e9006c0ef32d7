"""Prediction tables: no cell is a spreadsheet formula, and values survive a round trip."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodules.comparison.revisions import parse_predictions
from nodules.errors import RevisionError
from nodules.evaluation.figures import hardest
from nodules.evaluation.predictions import COLUMNS, group_cell, group_of, new_table, write_split


@given(st.lists(st.text("'=+-@\t\r\n ,;\"a1.", max_size=6), min_size=1, max_size=20))
def test_groups_of_any_name_are_read_back(names: list[str]) -> None:
    assert [group_of(group_cell(name)) for name in names] == names


def test_a_table_of_hostile_groups_is_read_back_and_holds_no_formula(tmp_path: Path) -> None:
    groups = ["=cmd|' /C calc'!A0", "+1+1", "-1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1"]
    groups += ["\uff1d1", "'=1", "''", "'a'", "a\r", "a\r\nb", "\r", 'a"b', "a,b", "a=1", "ä"]
    path = tmp_path / "predictions.csv"
    count = len(groups)
    with new_table(path, COLUMNS) as table:
        columns = np.arange(count), np.array(groups, object), np.zeros(count, np.uint8)
        write_split(table, "test", *columns, np.full(count, 0.5))
    text = path.read_bytes().decode("utf-8")
    found = parse_predictions(text, "it", split="test").groups
    assert found is not None
    assert found.tolist() == groups
    with path.open(newline="", encoding="utf-8") as file:
        cells = [row["group"] for row in csv.DictReader(file)]
    assert [cell for cell in cells if cell.strip()[:1] in tuple("=+-@\uff1d")] == ["-1"]


@pytest.mark.parametrize("group", [-1, 0, 7, "scan-1", "1.2.840", "-3", "+4.5", "'", "it's", ""])
def test_ordinary_groups_are_written_as_they_are(group: int | str) -> None:
    assert group_cell(group) == str(group)


def test_an_empty_name_is_a_group_where_other_splits_have_names() -> None:
    rows = ["val,1,scan,0,0.5", "test,2,,0,0.5", "test,3,,1,0.5"]
    text = "\n".join(["split,index,group,label,probability", *rows])
    found = parse_predictions(text, "HEAD", split="test").groups
    assert found is not None
    assert found.tolist() == ["", ""]


@pytest.mark.parametrize("row", ["test,1,a\rb,0,0.5", f"test,{2**70},,0,0.5", "test,-1,,0,0.5"])
def test_a_table_that_is_no_csv_is_one_line(row: str) -> None:
    text = f"split,index,group,label,probability\n{row}\n"
    with pytest.raises(RevisionError, match="HEAD: line "):
        parse_predictions(text, "HEAD", split="test")


def test_the_files_of_patches_follow_and_name_them(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    sources = {
        "file": np.array(["p1/a.png", "=1/-b.png"], object),
        "candidate": np.array([7, 8]),
    }
    columns = np.arange(2), None, np.zeros(2, np.uint8), np.full(2, 0.5)
    with new_table(path, (*COLUMNS, *sources)) as table:
        write_split(table, "test", *columns, sources)
    assert path.read_bytes().decode().splitlines() == [
        "split,index,group,label,probability,file,candidate",
        "test,0,,0,0.5,p1/a.png,7",
        "test,1,,0,0.5,'=1/-b.png,8",
    ]
    text = path.read_bytes().decode()
    assert parse_predictions(text, "it", split="test").names == ("a.png", "-b.png")
    only = "split,index,group,label,probability,candidate\ntest,1,,0,0.5,8\n"
    assert parse_predictions(only, "it", split="test").names == ("candidate 8",)


@pytest.mark.parametrize("extra", ["volume", "file,volume", "", "probability"])
def test_other_columns_are_refused(extra: str) -> None:
    text = f"split,index,group,label,probability,{extra}\n"
    with pytest.raises(RevisionError, match="then file or candidate if known"):
        parse_predictions(text, "HEAD", split="test")


@pytest.mark.parametrize("name", ["$a$ ^_{.png", "結節.png", "a\x1b[31m.png", "long_" * 40])
def test_hardest_patches_are_named_by_any_file(tmp_path: Path, name: str, recwarn) -> None:
    rng = np.random.default_rng(0)
    patches = rng.integers(0, 256, (4, 50, 50), np.uint8)
    labels, probabilities = np.array([0, 1, 0, 1], np.uint8), np.array([0.9, 0.1, 0.2, 0.8])
    pictures = []
    for names in ([name] * 4, None):
        path = tmp_path / "hardest.png"
        hardest(patches, labels, probabilities, np.arange(4), 0.5, 4, path, names)
        pictures.append((tmp_path / "hardest.png").read_bytes())
    assert pictures[0] != pictures[1]
    assert not recwarn.list
