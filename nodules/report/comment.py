"""Posting the report as the one comment on its pull request, which later reports replace.

python3 -m nodules.report.comment report/comment.md

Runs in GitHub Actions (with GITHUB_TOKEN) or GitLab CI (with GITLAB_TOKEN) and needs nothing but
Python, so that the job that holds the token installs nothing.
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

# The first line of the comment, which nobody sees, finds it again.
MARKER = "<!-- nodules: report -->"
# GitHub's limit; GitLab's is larger.
MOST_CHARACTERS = 65_536
PER_PAGE = 100
TIMEOUT_S = 30


class Forge(Protocol):
    """Where the pull request is."""

    def find(self) -> int | None:
        """Give the number of the comment that begins with `MARKER`, if there is one."""

    def create(self, body: str) -> None:
        """Add a comment."""

    def update(self, comment: int, body: str) -> None:
        """Replace the text of a comment."""


class Api:
    """A JSON interface over HTTP.

    Parameters
    ----------
    url
        What every path is appended to.
    headers
        Sent with each request, and to no other server that it may be redirected to.
    """

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url = url.rstrip("/")
        self._headers = dict(headers)

    def __call__(self, method: str, path: str, content: Mapping[str, str] | None = None) -> Any:
        """Send a request and read its answer.

        Raises
        ------
        NodulesError
            If the server cannot be reached, refuses, or does not answer with JSON.
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
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                said = " ".join(error.read(200).decode(errors="replace").split())
            problem = f"found status {error.code} ({said or error.reason}), expected success"
        except (OSError, ValueError) as error:
            problem = f"found no answer in JSON ({error}), expected one"
        raise NodulesError(f"{method} {self._url}{path}: {problem}") from None

    def pages(self, path: str) -> list[dict[str, Any]]:
        """Read a list that the server gives in pages."""
        found: list[dict[str, Any]] = []
        page = 1
        while some := self("GET", f"{path}?per_page={PER_PAGE}&page={page}"):
            found += some
            page += 1
        return found


class GitHub:
    """A pull request on GitHub, as a workflow sees it.

    Parameters
    ----------
    environment
        GITHUB_API_URL, GITHUB_REPOSITORY, GITHUB_REF of the form refs/pull/NUMBER/merge, and
        GITHUB_TOKEN.
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
        """Find the comment; people who copy the marker are not answered in their name."""
        return next(
            (
                each["id"]
                for each in self._api.pages(self._comments)
                if (each["body"] or "").startswith(MARKER) and each["user"]["type"] == "Bot"
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
    """A merge request on GitLab, as a pipeline sees it.

    Parameters
    ----------
    environment
        CI_API_V4_URL, CI_MERGE_REQUEST_PROJECT_ID, CI_MERGE_REQUEST_IID, and GITLAB_TOKEN, an
        access token with the scope `api`.
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
        """Find the note among those of the token's own user."""
        me = self._api("GET", "/user")["id"]
        return next(
            (
                each["id"]
                for each in self._api.pages(self._notes)
                if each["body"].startswith(MARKER) and each["author"]["id"] == me
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
    """Update the comment, or create it where there is none.

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
    """Read a comment that another job wrote, and add which run that was and what else it wrote.

    Parameters
    ----------
    path
        Markdown that begins with `MARKER`.
    run
        Address of the run that wrote it.

    Raises
    ------
    NodulesError
        If the file is missing, is no such comment, or is too long to be one; or if GitLab would
        take a line of it as a command, which it would carry out with the token's rights.
    """
    text = _text_of(path)
    if not text.startswith(MARKER):
        raise NodulesError(f"{path}: found {text[:40]!r}, expected {MARKER} at its start")
    if command := re.search(r"^\s*/\w+", text, re.MULTILINE):
        found = command[0].strip()
        raise NodulesError(f"{path}: found {found} at a line's start, expected no quick actions")
    body = f"{text}\n{_whereabouts(path.parent, run)}\n"
    if len(body) > MOST_CHARACTERS:
        problem = f"found {len(body):,} characters, expected {MOST_CHARACTERS:,} at most"
        raise NodulesError(f"{path}: {problem}")
    return body


def _text_of(path: Path) -> str:
    """Read a file that the code of a pull request wrote, which may be anything, of any size."""
    try:
        # Not through a link, to files that only this job can read; and waiting for no pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise NodulesError(f"{path}: found no regular file, expected a comment")
            content = file.read(4 * MOST_CHARACTERS + 1)
        return content.decode("utf-8")
    except (OSError, ValueError) as error:
        raise NodulesError(f"{path}: found no text ({error}), expected a comment") from None


def _whereabouts(folder: Path, run: str) -> str:
    """Say where the page and the picture are; of what cannot be compared there are none."""
    names = ("comparison.html", "roc.png")
    if all((folder / name).is_file() for name in names):
        return f"`{names[0]}` and `{names[1]}` are in `report`, of [this run]({run})."
    return f"By [this run]({run})."


def forge_and_run(environment: Mapping[str, str]) -> tuple[Forge, str]:
    """Tell from the environment where the pull request is, and which run reports on it.

    Raises
    ------
    NodulesError
        If this is neither GitHub Actions nor GitLab CI, or a variable is missing.
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
