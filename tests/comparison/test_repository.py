"""Repositories that are a part of another one, belong to another user or are damaged."""

import os
import shutil
import subprocess
from pathlib import Path

import pygit2
import pytest

from nodules.comparison.repository import open_revision
from nodules.errors import NodulesError
from tests.support.messages import assert_one_line_error
from tests.support.tiny_project import Project, data_taken_away


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project in a subfolder of a git repository, with an experiment."""
    top = tmp_path_factory.mktemp("top")
    (top / "apps" / "nodules").mkdir(parents=True)
    (top / "README").write_text("a larger repository\n")
    project = Project.create(top / "apps" / "nodules", git_folder=top)
    project.experiment("second", "model=second", "skill=2.5", "luck=2")
    return project


@pytest.fixture
def copied(part: Project, tmp_path: Path) -> Project:
    """Return a copy of the repository, to damage."""
    shutil.copytree(part.path, tmp_path / "copied" / "apps" / "nodules")
    shutil.copytree(part.path.parents[1] / ".git", tmp_path / "copied" / ".git")
    return Project(tmp_path / "copied" / "apps" / "nodules")


def test_a_project_in_a_subfolder_is_compared(part: Project) -> None:
    text = part.compare("HEAD", "second")
    assert "second vs. HEAD: better AUC" in text
    assert ["skill", "1.0", "2.5"] in [line.split() for line in text.splitlines()]
    assert "The AUCs are equal." in part.compare("HEAD", "workspace")


def test_a_project_is_compared_from_any_of_its_folders(part: Project) -> None:
    (part.path / "notes").mkdir()
    result = subprocess.run(
        ["python", "-m", "nodules", "compare", "HEAD", "workspace", "--resamples", "100"],
        cwd=part.path / "notes",
        env=part.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "The AUCs are equal." in result.stdout


def test_in_a_subfolder_missing_results_are_reproduced(part: Project, tmp_path: Path) -> None:
    with data_taken_away(part, tmp_path):
        (part.path / "data").mkdir()
        comment = part.run("python", "-m", "nodules.report.pull_request", "main", "second")
        assert "**second vs. main: better AUC" in comment
        assert comment.count("reproduced with") == 2
        assert "second vs. main: better AUC" in part.compare("main", "second", "--make")


def test_in_a_git_hook_the_clone_is_reproduced_and_not_the_repository(
    copied: Project, tmp_path: Path
) -> None:
    top = copied.path.parents[1]
    hook = {"GIT_DIR": str(top / ".git"), "GIT_WORK_TREE": str(top)}
    head = (top / ".git/HEAD").read_text()
    shutil.rmtree(copied.path / ".dvc/cache")
    process = subprocess.run(
        ["python", "-m", "nodules", "compare", "main", "second", "--make", "--resamples", "100"],
        cwd=copied.path,
        env=copied.environment | hook,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "second vs. main: better AUC" in process.stdout
    assert (top / ".git/HEAD").read_text() == head


def test_a_commit_without_dvc_in_the_same_folder_is_refused_in_one_line(copied: Project) -> None:
    copied.run("git", "rm", "-r", "--quiet", "--cached", ".")
    copied.run("git", "commit", "--quiet", "--message", "moved")
    result = copied("python", "-m", "nodules", "compare", "HEAD", "workspace")
    assert result.returncode == 1
    assert result.stderr.startswith("error: HEAD: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
def test_the_repository_of_another_user_is_refused_with_gits_advice(
    copied: Project, tmp_path: Path
) -> None:
    top = copied.path.parents[1]
    for path in (top, *top.rglob("*")):
        os.chown(path, 12345, 12345, follow_symlinks=False)
    advice = f"git config --global --add safe.directory {top}"
    refusal = f"{top}: found a git repository that belongs to another user, expected your own; "
    compare = ("python", "-m", "nodules", "compare", "HEAD", "second", "--resamples", "100")
    assert_one_line_error(copied(*compare), f"{refusal}if you trust it: {advice}\n")
    report = ("python", "-m", "nodules.report.pull_request", "main", "second")
    assert_one_line_error(copied(*report), refusal)
    # Following the advice resolves the error.
    copied.environment["HOME"] = str(tmp_path)
    copied.run(*advice.split())
    assert "second vs. HEAD: better AUC" in copied.run(*compare)


def test_any_other_refusal_of_git_is_one_line(
    part: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object, path: str) -> None:
        raise pygit2.GitError(f"{path}: unsupported extension name extensions.mine\nmore")

    monkeypatch.chdir(part.path)
    monkeypatch.setattr(pygit2.Repository, "__init__", refuse)
    with pytest.raises(NodulesError) as refused:
        open_revision("HEAD")
    expected = "extensions.mine), expected one of git and DVC"
    assert str(refused.value).startswith(f"{part.path}: found no readable repository (")
    assert str(refused.value).endswith(expected)


def test_damaged_repositories_are_refused_in_one_line(copied: Project) -> None:
    compare = ("python", "-m", "nodules", "compare", "HEAD", "second")
    git = copied.path.parents[1] / ".git"
    config = (git / "config").read_text()
    (git / "config").write_text("[core")
    assert_one_line_error(copied(*compare), f"{copied.path}: found no readable repository (")
    (git / "config").write_text(config)
    for path in git.glob("objects/??/*"):
        path.chmod(0o600)
        path.write_bytes(b"damaged")
    assert_one_line_error(copied(*compare))
    shutil.rmtree(git)
    assert_one_line_error(copied(*compare), f"{copied.path}: found no readable repository (")
