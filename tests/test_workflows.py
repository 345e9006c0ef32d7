"""What the workflows promise: no code of a pull request meets a token that may write."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

REPOSITORY = Path(__file__).parent.parent
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


def test_the_tests_run_on_every_python_that_the_project_supports() -> None:
    github = read(REPOSITORY / ".github" / "workflows" / "tests.yml")
    gitlab = read(REPOSITORY / ".gitlab-ci.yml")
    expected = ["3.11", "3.12", "3.13"]
    assert github["jobs"]["test"]["strategy"]["matrix"]["python"] == expected
    assert gitlab["test"]["parallel"]["matrix"] == [{"SUPPORTED": expected}]
    # The Makefile would take it for the interpreter.
    assert "PYTHON" not in gitlab["test"]["parallel"]["matrix"][0]
    assert 'requires-python = ">=3.11,<3.14"' in (REPOSITORY / "pyproject.toml").read_text()


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
