"""Post the report as a comment on its pull request, replacing the previous report.

python3 -m nodules.report.comment report/comment.md

Runs in GitHub Actions (with GITHUB_TOKEN) or GitLab CI (with GITLAB_TOKEN). It uses only the
standard library, so the job that holds the token installs no packages.
"""

import argparse
import json
import os
import re
import stat
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from nodules.errors import NodulesError
from nodules.system.exits import one_line_errors

# Invisible first line of the comment, by which a later run finds it.
MARKER = "<!-- nodules: report -->"
# GitHub's limit on the length of a comment; GitLab's is larger.
MAX_CHARACTERS = 65_536
PER_PAGE = 100
TIMEOUT_S = 30


class Forge(Protocol):
    """The comments of one pull request or merge request."""

    def find(self) -> int | None:
        """Return the id of the comment that starts with `MARKER`, or None."""

    def create(self, body: str) -> None:
        """Add a comment."""

    def update(self, comment: int, body: str) -> None:
        """Replace the text of a comment."""


class Api:
    """A client of a JSON API over HTTP.

    Parameters
    ----------
    url
        Base URL, to which each path is appended.
    headers
        Headers of every request. They are not sent on to the target of a redirect.
    """

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url = url.rstrip("/")
        self._headers = dict(headers)

    def __call__(self, method: str, path: str, content: Mapping[str, str] | None = None) -> Any:
        """Send a request and return the decoded response.

        Raises
        ------
        NodulesError
            If the server cannot be reached, returns an error status, or does not return JSON.
        """
        request = urllib.request.Request(
            f"{self._url}{path}",
            None if content is None else json.dumps(content).encode(),
            {"Content-Type": "application/json", "User-Agent": "nodules"},
            method=method,
        )
        for name, value in self._headers.items():
            request.add_unredirected_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                reason = " ".join(error.read(200).decode(errors="replace").split())
            problem = f"found status {error.code} ({reason or error.reason}), expected success"
        except (OSError, ValueError) as error:
            problem = f"found no answer in JSON ({error}), expected one"
        raise NodulesError(f"{method} {self._url}{path}: {problem}") from None

    def pages(self, path: str) -> list[dict[str, Any]]:
        """Return all items of a paginated list."""
        items: list[dict[str, Any]] = []
        page = 1
        while page_items := self("GET", f"{path}?per_page={PER_PAGE}&page={page}"):
            items += page_items
            page += 1
        return items


class GitHub:
    """The pull request of a GitHub Actions workflow run.

    Parameters
    ----------
    environment
        Environment variables: GITHUB_API_URL, GITHUB_REPOSITORY, GITHUB_REF of the form
        refs/pull/NUMBER/merge, and GITHUB_TOKEN.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        ref = _required(environment, "GITHUB_REF")
        number = re.fullmatch(r"refs/pull/(\d+)/merge", ref)
        if not number:
            raise NodulesError(f"GITHUB_REF: found {ref}, expected refs/pull/NUMBER/merge")
        self._api = Api(
            _required(environment, "GITHUB_API_URL"),
            {
                "Authorization": f"Bearer {_required(environment, 'GITHUB_TOKEN')}",
                "Accept": "application/vnd.github+json",
                "X-GitHub-Api-Version": "2022-11-28",
            },
        )
        self._repository = f"/repos/{_required(environment, 'GITHUB_REPOSITORY')}"
        self._comments = f"{self._repository}/issues/{number[1]}/comments"

    def find(self) -> int | None:
        """Return the id of the comment; comments by people who copied the marker are ignored."""
        return next(
            (
                comment["id"]
                for comment in self._api.pages(self._comments)
                if (comment["body"] or "").startswith(MARKER) and comment["user"]["type"] == "Bot"
            ),
            None,
        )

    def create(self, body: str) -> None:
        """Add a comment."""
        self._api("POST", self._comments, {"body": body})

    def update(self, comment: int, body: str) -> None:
        """Replace the text of a comment."""
        self._api("PATCH", f"{self._repository}/issues/comments/{comment}", {"body": body})


class GitLab:
    """The merge request of a GitLab CI pipeline.

    Parameters
    ----------
    environment
        Environment variables: CI_API_V4_URL, CI_MERGE_REQUEST_PROJECT_ID, CI_MERGE_REQUEST_IID,
        and GITLAB_TOKEN, an access token with the scope `api`.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._api = Api(
            _required(environment, "CI_API_V4_URL"),
            {"PRIVATE-TOKEN": _required(environment, "GITLAB_TOKEN")},
        )
        project = _required(environment, "CI_MERGE_REQUEST_PROJECT_ID")
        number = _required(environment, "CI_MERGE_REQUEST_IID")
        self._notes = f"/projects/{project}/merge_requests/{number}/notes"

    def find(self) -> int | None:
        """Return the id of the note, searching only notes by the owner of the token."""
        user = self._api("GET", "/user")["id"]
        return next(
            (
                note["id"]
                for note in self._api.pages(self._notes)
                if note["body"].startswith(MARKER) and note["author"]["id"] == user
            ),
            None,
        )

    def create(self, body: str) -> None:
        """Add a note."""
        self._api("POST", self._notes, {"body": body})

    def update(self, comment: int, body: str) -> None:
        """Replace the text of a note."""
        self._api("PUT", f"{self._notes}/{comment}", {"body": body})


def post(forge: Forge, body: str) -> str:
    """Update the comment, or create it if there is none.

    Returns
    -------
    str
        `updated` or `created`.
    """
    comment = forge.find()
    if comment is None:
        forge.create(body)
        return "created"
    forge.update(comment, body)
    return "updated"


def read_comment(path: Path, run: str) -> str:
    """Read a comment written by another job and append a link to the run of that job.

    Parameters
    ----------
    path
        Markdown that begins with `MARKER`.
    run
        URL of the run that wrote the comment.

    Raises
    ------
    NodulesError
        If the file is missing, does not start with `MARKER` or is too long, or if a line of it is
        a GitLab quick action, which GitLab would execute with the rights of the token.
    """
    text = _read_untrusted(path)
    if not text.startswith(MARKER):
        raise NodulesError(f"{path}: found {text[:40]!r}, expected {MARKER} at its start")
    if command := re.search(r"^\s*/\w+", text, re.MULTILINE):
        found = command[0].strip()
        raise NodulesError(f"{path}: found {found} at a line's start, expected no quick actions")
    body = f"{text}\n{_run_link(path.parent, run)}\n"
    if len(body) > MAX_CHARACTERS:
        problem = f"found {len(body):,} characters, expected {MAX_CHARACTERS:,} at most"
        raise NodulesError(f"{path}: {problem}")
    return body


def _read_untrusted(path: Path) -> str:
    """Read an untrusted text file, written by the code of a pull request."""
    try:
        # O_NOFOLLOW: a link could point to files that only this job can read. O_NONBLOCK: opening
        # a named pipe must not block.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise NodulesError(f"{path}: found no regular file, expected a comment")
            content = file.read(4 * MAX_CHARACTERS + 1)
        return content.decode("utf-8")
    except (OSError, ValueError) as error:
        raise NodulesError(f"{path}: found no text ({error}), expected a comment") from None


def _run_link(folder: Path, run: str) -> str:
    """Return a link to the run, and the names of its page and ROC chart if it wrote them."""
    names = ("comparison.html", "roc.png")
    if all((folder / name).is_file() for name in names):
        return f"`{names[0]}` and `{names[1]}` are in `report`, of [this run]({run})."
    return f"By [this run]({run})."


def forge_and_run(environment: Mapping[str, str]) -> tuple[Forge, str]:
    """Return the pull request and the URL of the run, from the variables of the CI environment.

    Raises
    ------
    NodulesError
        If the environment is neither GitHub Actions nor GitLab CI, or a variable is missing.
    """
    if environment.get("GITHUB_ACTIONS"):
        repository, run = (_required(environment, f"GITHUB_{k}") for k in ("REPOSITORY", "RUN_ID"))
        server = _required(environment, "GITHUB_SERVER_URL")
        return GitHub(environment), f"{server}/{repository}/actions/runs/{run}"
    if environment.get("GITLAB_CI"):
        return GitLab(environment), _required(environment, "CI_PIPELINE_URL")
    raise NodulesError("found neither GITHUB_ACTIONS nor GITLAB_CI set, expected to run in one")


def _required(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "")
    if not value:
        raise NodulesError(f"{name}: found nothing in the environment, expected a value")
    return value


def main() -> None:
    """Post the comment."""
    parser = argparse.ArgumentParser(
        prog="python3 -m nodules.report.comment",
        description="Create or update the report's comment on the pull request of this CI run.",
    )
    parser.add_argument("comment", type=Path, metavar="COMMENT.md")
    with one_line_errors():
        forge, run = forge_and_run(os.environ)
        print(post(forge, read_comment(parser.parse_args().comment, run)))


if __name__ == "__main__":
    main()
