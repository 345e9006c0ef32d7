"""Where the program is started: the wrong Python, and a repository without a commit."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import REPOSITORY


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("package", "arguments"),
    [
        ("numpy", ["nodules", "inspect", "params.yaml"]),
        ("numpy", ["nodules", "compare", "HEAD"]),
        ("ruamel", ["stages.split"]),
    ],
)
def test_a_python_without_the_packages_is_one_line(package: str, arguments: list[str]) -> None:
    # -S leaves out the installed packages, as the system's own Python does.
    process = run(REPOSITORY, "-S", "-m", *arguments)
    assert process.returncode == 1
    assert process.stderr.startswith(f"error: {package} is not installed in ")
    assert process.stderr.endswith("type `source .venv/bin/activate` first\n")
    assert process.stderr.count("\n") == 1


def test_a_repository_without_a_commit_is_one_line_before_the_first_stage(tmp_path: Path) -> None:
    assert run(tmp_path, "-c", "import stages").returncode == 0
    git = ["git", "-c", "user.name=Nobody", "-c", "user.email=nobody@localhost"]
    commit = [*git, "commit", "--quiet", "--allow-empty", "-m", "1"]
    subprocess.run([*git, "init", "--quiet"], cwd=tmp_path, check=True)
    process = run(tmp_path, "-c", "import stages")
    assert process.returncode == 1
    assert process.stderr == (
        "error: git: found a repository without a commit, expected at least one: type "
        "`git add . && git commit -m 'First commit'`\n"
    )
    subprocess.run(commit, cwd=tmp_path, check=True)
    assert run(tmp_path, "-c", "import stages").returncode == 0
