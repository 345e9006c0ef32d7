"""The table of predictions: what is written is what a comparison reads."""

from pathlib import Path

import numpy as np
import pytest

from nodules.errors import RevisionError
from nodules.predictions import COLUMNS, new_table, write_split
from nodules.revisions import parse_predictions


def test_groups_of_any_text_come_back_from_the_table(tmp_path: Path) -> None:
    names = ["a\r", "a\r\nb", 'a"b', "", " a,b\n", "é", str(2**64 - 1)]
    groups, count = np.array(names, dtype=object), len(names)
    path = tmp_path / "predictions.csv"
    with new_table(path, COLUMNS) as table:
        write_split(
            table, "test", np.arange(count), groups, np.ones(count, np.uint8), np.ones(count)
        )
    text = path.read_bytes().decode()
    found = parse_predictions(text, "HEAD", split="test").groups
    assert found is not None
    assert found.tolist() == names


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
