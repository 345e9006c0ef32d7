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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from nodules.errors import NodulesError
from nodules.system.exits import one_line_errors

# Invisible first line of the comment, by which a later run finds it.
MARKER = "<!-- nodules: report -->"
# GitHub's limit on the length of a comment; GitLab's is larger.
MAX_CHARACTERS = 65_536
PER_PAGE = 100
TIMEOUT_S = 30


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
            If the server cannot be reached, returns an error status or does not return JSON.
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
            problem = f"found no valid response ({error}), expected JSON"
        raise NodulesError(f"{method} {self._url}{path}: {problem}") from None

    def pages(self, path: str) -> list[dict[str, Any]]:
        """Return all items of a paginated list."""
        items: list[dict[str, Any]] = []
        page = 1
        while page_items := self("GET", f"{path}?per_page={PER_PAGE}&page={page}"):
            items += page_items
            page += 1
        return items


class Forge(NamedTuple):
    """The comments of one pull request or merge request.

    Attributes
    ----------
    api
        Client that sends the token.
    comments
        Path that lists the comments and creates one.
    comment
        Path of a single comment, without its id.
    update_method
        HTTP method that replaces a comment.
    is_own
        Whether this bot wrote a comment, rather than somebody who copied the marker.
    """

    api: Api
    comments: str
    comment: str
    update_method: str
    is_own: Callable[[dict[str, Any]], bool]


def github(environment: Mapping[str, str]) -> Forge:
    """Return the pull request of a GitHub Actions workflow run.

    Parameters
    ----------
    environment
        Environment variables: GITHUB_API_URL, GITHUB_REPOSITORY, GITHUB_REF of the form
        refs/pull/NUMBER/merge, and GITHUB_TOKEN.
    """
    ref = _required(environment, "GITHUB_REF")
    number = re.fullmatch(r"refs/pull/(\d+)/merge", ref)
    if not number:
        raise NodulesError(f"GITHUB_REF: found {ref}, expected refs/pull/NUMBER/merge")
    headers = {
        "Authorization": f"Bearer {_required(environment, 'GITHUB_TOKEN')}",
        "Accept": "application/vnd.github+json",
        "X-GitHub-Api-Version": "2022-11-28",
    }
    issues = f"/repos/{_required(environment, 'GITHUB_REPOSITORY')}/issues"
    return Forge(
        Api(_required(environment, "GITHUB_API_URL"), headers),
        comments=f"{issues}/{number[1]}/comments",
        comment=f"{issues}/comments",
        update_method="PATCH",
        is_own=lambda comment: comment["user"]["type"] == "Bot",
    )


def gitlab(environment: Mapping[str, str]) -> Forge:
    """Return the merge request of a GitLab CI pipeline.

    Parameters
    ----------
    environment
        Environment variables: CI_API_V4_URL, CI_MERGE_REQUEST_PROJECT_ID, CI_MERGE_REQUEST_IID,
        and GITLAB_TOKEN, an access token with the scope `api`.
    """
    token = _required(environment, "GITLAB_TOKEN")
    api = Api(_required(environment, "CI_API_V4_URL"), {"PRIVATE-TOKEN": token})
    project = _required(environment, "CI_MERGE_REQUEST_PROJECT_ID")
    number = _required(environment, "CI_MERGE_REQUEST_IID")
    notes = f"/projects/{project}/merge_requests/{number}/notes"
    return Forge(
        api,
        comments=notes,
        comment=notes,
        update_method="PUT",
        is_own=lambda note: note["author"]["id"] == api("GET", "/user")["id"],
    )


def post(forge: Forge, body: str) -> str:
    """Update our comment, or create it if there is none.

    Returns
    -------
    str
        `updated` or `created`.
    """
    for comment in forge.api.pages(forge.comments):
        if (comment["body"] or "").startswith(MARKER) and forge.is_own(comment):
            forge.api(forge.update_method, f"{forge.comment}/{comment['id']}", {"body": body})
            return "updated"
    forge.api("POST", forge.comments, {"body": body})
    return "created"


def read_comment(path: Path, run: str) -> str:
    """Read a comment written by another job and append a link to the run of that job.

    Parameters
    ----------
    path
        Markdown file that starts with `MARKER`.
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
        found = f"found {command[0].strip()} at the start of a line"
        raise NodulesError(f"{path}: {found}, expected no GitLab quick actions")
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
                raise NodulesError(f"{path}: found a device or a pipe, expected a regular file")
            content = file.read(4 * MAX_CHARACTERS + 1)
        return content.decode("utf-8")
    except (OSError, ValueError) as error:
        raise NodulesError(f"{path}: found no text ({error}), expected a comment") from None


def _run_link(folder: Path, run: str) -> str:
    """Return a link to the run, and the names of its page and ROC chart if it wrote them."""
    names = ("comparison.html", "roc.png")
    if all((folder / name).is_file() for name in names):
        return f"`{names[0]}` and `{names[1]}` are in the artifact `report` of [this run]({run})."
    return f"Written by [this run]({run})."


def forge_and_run(environment: Mapping[str, str]) -> tuple[Forge, str]:
    """Return the pull request and the URL of the run, from the CI environment variables.

    Raises
    ------
    NodulesError
        If the environment is neither GitHub Actions nor GitLab CI, or a variable is missing.
    """
    if environment.get("GITHUB_ACTIONS"):
        repository, run = (_required(environment, f"GITHUB_{k}") for k in ("REPOSITORY", "RUN_ID"))
        server = _required(environment, "GITHUB_SERVER_URL")
        return github(environment), f"{server}/{repository}/actions/runs/{run}"
    if environment.get("GITLAB_CI"):
        return gitlab(environment), _required(environment, "CI_PIPELINE_URL")
    raise NodulesError("found neither GITHUB_ACTIONS nor GITLAB_CI set, expected one of them")


def _required(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "")
    if not value:
        raise NodulesError(f"{name}: found nothing in the environment, expected a value")
    return value


def main() -> None:
    """Post the comment."""
    parser = argparse.ArgumentParser(
        prog="python3 -m nodules.report.comment",
        description="Create or update the report comment on the pull request of this CI run.",
    )
    parser.add_argument("comment", type=Path, metavar="COMMENT.md")
    with one_line_errors():
        forge, run = forge_and_run(os.environ)
        print(post(forge, read_comment(parser.parse_args().comment, run)))


if __name__ == "__main__":
    main()
