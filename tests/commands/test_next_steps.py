"""The commands printed after an import."""

from pathlib import Path

import pytest

from nodules.commands.next_steps import next_steps
from tests.support import REPOSITORY

COMMANDS = [
    "  dvc add data/x.h5",
    "  git add data/x.h5.dvc data/.gitignore",
    "  git commit -m 'Add the data set x.h5'",
    "  dvc exp run --set-param dataset=data/x.h5",
]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a DVC project, which is the current folder."""
    (tmp_path / "project/.dvc").mkdir(parents=True)
    (tmp_path / "project/data").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def test_a_file_in_the_project_is_added_committed_and_used(project: Path) -> None:
    assert next_steps(Path("data/x.h5"), labelled=True) == ["next:", *COMMANDS]
    assert next_steps(project / "data/x.h5", labelled=True) == ["next:", *COMMANDS]


def test_a_file_outside_the_project_is_first_copied_into_it(project: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.h5"
    found = f"{out} lies outside the DVC project {project}, where `dvc add` fails"
    lines = [f"{found}: copy it there first", "next:", f"  cp {out} data/x.h5", *COMMANDS]
    assert next_steps(out, labelled=True) == lines
    (project / "data/x.h5").touch()
    assert f"  cp {out} data/x_2.h5" in next_steps(out, labelled=True)
    (project / "data/x_2.h5.dvc").touch()  # tracked, and not pulled
    assert f"  cp {out} data/x_3.h5" in next_steps(out, labelled=True)


def test_a_link_out_of_the_project_leads_outside(project: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (project / "scratch").symlink_to(tmp_path / "disk")
    assert "  cp scratch/x.h5 data/x.h5" in next_steps(Path("scratch/x.h5"), labelled=True)


def test_commands_run_at_the_root_of_the_project(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project / "data")
    assert next_steps(Path("x.h5"), labelled=True) == ["next:", f"  cd {project}", *COMMANDS]


def test_without_a_project_the_checkout_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = next_steps(Path("x.h5"), labelled=True)
    assert lines[1:4] == ["next:", f"  cd {REPOSITORY}", f"  cp {tmp_path}/x.h5 data/x.h5"]


def test_patches_without_labels_can_only_be_scored(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert next_steps(Path("my x.h5"), labelled=False) == [
        "next:",
        "  nodules predict models/model.keras 'my x.h5' --out scores.csv",
    ]
    monkeypatch.chdir(project / "data")
    (command,) = next_steps(Path("x.h5"), labelled=False)[1:]
    assert command == f"  nodules predict {project}/models/model.keras x.h5 --out scores.csv"
