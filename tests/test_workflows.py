"""CI workflows: code of a pull request never runs with a write token."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.support import REPOSITORY

WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
TRUSTED = "${{ github.event.pull_request.base.sha }}"


def read(path: Path) -> dict[str, Any]:
    return YAML(typ="safe").load(path)


JOBS = [(path, name) for path in WORKFLOWS for name in read(path)["jobs"]]


@pytest.mark.parametrize(("path", "name"), JOBS, ids=[f"{p.stem}-{name}" for p, name in JOBS])
def test_a_job_that_may_write_runs_the_target_branch_alone(path: Path, name: str) -> None:
    workflow = read(path)
    assert workflow["permissions"] == {}
    assert "pull_request_target" not in workflow["on"]
    assert "secrets." not in path.read_text(encoding="utf-8")
    job = workflow["jobs"][name]
    checkouts = [
        step.get("with", {})
        for step in job["steps"]
        if step.get("uses", "").startswith("actions/checkout@")
    ]
    assert [each["persist-credentials"] for each in checkouts] == [False]
    if set(job["permissions"].values()) == {"read"}:
        assert "github.token" not in str(job)
    else:
        assert job["permissions"] == {"contents": "read", "pull-requests": "write"}
        assert checkouts[0]["ref"] == TRUSTED
        assert "head.repo.full_name == github.repository" in job["if"]


@pytest.mark.parametrize(("path", "name"), JOBS, ids=[f"{p.stem}-{name}" for p, name in JOBS])
def test_branch_names_are_not_interpolated_into_scripts(path: Path, name: str) -> None:
    for step in read(path)["jobs"][name]["steps"]:
        assert "${{" not in step.get("run", "")


@pytest.mark.parametrize(
    "name",
    ["$(shell touch x)", "$(touch x)", "a'; touch x; '", '"; touch x; "', "`touch x`", "-x", "a#b"],
)
@pytest.mark.parametrize("given", ["argument", "environment"])
def test_make_takes_what_it_is_given_as_text(name: str, given: str, tmp_path: Path) -> None:
    """Run the Makefile with a `python` that prints its arguments."""
    for file in (
        ".venv/bin/python",
        ".venv/installed",
        ".dvc/plots/offline.html",
        "requirements.lock",
    ):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    (tmp_path / ".venv" / "bin" / "python").chmod(0o755)
    (tmp_path / "Makefile").write_text((REPOSITORY / "Makefile").read_text())
    # In dependency order.
    for age, file in enumerate((".dvc/plots/offline.html", ".venv/installed", "requirements.lock")):
        os.utime(tmp_path / file, (10**9 - age, 10**9 - age))
    values = {"BASE": name, "EPOCHS": name}
    for target in ("report", "verify"):
        done = subprocess.run(
            ["make", "--silent", target]
            + ([f"{key}={value}" for key, value in values.items()] if given == "argument" else []),
            cwd=tmp_path,
            env=os.environ | (values if given == "environment" else {}),
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.splitlines()[-1] == name
    assert not (tmp_path / "x").exists()


def test_the_tests_run_on_every_python_that_the_project_supports() -> None:
    github = read(REPOSITORY / ".github" / "workflows" / "tests.yml")
    gitlab = read(REPOSITORY / ".gitlab-ci.yml")
    expected = ["3.11", "3.12", "3.13"]
    assert github["jobs"]["test"]["strategy"]["matrix"]["python"] == expected
    assert gitlab["test"]["parallel"]["matrix"] == [{"SUPPORTED": expected}]
    # The Makefile would use it as the interpreter.
    assert "PYTHON" not in gitlab["test"]["parallel"]["matrix"][0]
    assert 'requires-python = ">=3.11,<3.14"' in (REPOSITORY / "pyproject.toml").read_text()


def test_on_gitlab_merge_requests_share_no_cache() -> None:
    jobs = read(REPOSITORY / ".gitlab-ci.yml")
    caches = [job["cache"] for job in jobs.values() if isinstance(job, dict) and "cache" in job]
    assert [each["key"] for each in caches] == ["dvc-$CI_MERGE_REQUEST_IID"]


def test_on_gitlab_the_job_that_posts_runs_the_target_branch_and_others_have_no_token() -> None:
    jobs = read(REPOSITORY / ".gitlab-ci.yml")
    assert jobs["comment"]["environment"] == {"name": "comments", "action": "access"}
    *_, checkout, post = jobs["comment"]["script"]
    assert checkout == "git checkout --quiet --detach FETCH_HEAD"
    assert post == "python3 -m nodules.report.comment report/comment.md"
    for name, job in jobs.items():
        if name != "comment" and isinstance(job, dict):
            assert "environment" not in job
            assert "TOKEN" not in str(job)
