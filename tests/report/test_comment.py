"""Posting the report as a comment, to mock GitHub and GitLab servers on 127.0.0.1."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from nodules.errors import NodulesError
from nodules.report.comment import MARKER, forge_and_run, github, gitlab, post, read_comment
from tests.support import REPOSITORY

TOKEN = "a-secret"
BOT = {"id": 7, "login": "github-actions[bot]", "type": "Bot"}
PERSON = {"id": 8, "login": "someone", "type": "User"}


class Played:
    """A mock server that stores comments as GitHub or GitLab does.

    Parameters
    ----------
    comments_path, comment_path
        Path to list and create comments; path to change one, up to its number.
    changes
        HTTP method that changes a comment.
    authorised
        Header that a request must carry.
    author
        Key of a comment that holds its author.
    """

    def __init__(
        self,
        comments_path: str,
        comment_path: str,
        changes: str,
        authorised: tuple[str, str],
        author: str,
    ) -> None:
        self.comments: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self._comments_path = comments_path
        self._comment_path = comment_path
        self._changes = changes
        self._authorised = authorised
        self._author = author

    def add(self, body: str, author: dict[str, Any]) -> None:
        number = 1000 + len(self.comments)
        self.comments.append({"id": number, "body": body, self._author: author})

    def bodies(self) -> list[str]:
        return [each["body"] for each in self.comments]

    def answer(self, method: str, target: str, headers: Any, content: Any) -> tuple[int, Any]:
        url = urlsplit(target)
        self.requests.append(f"{method} {url.path}")
        name, value = self._authorised
        if headers.get(name) != value:
            return 401, {"message": "Bad credentials"}
        if (method, url.path) == ("GET", "/user"):
            return 200, BOT
        if url.path == self._comments_path:
            if method == "POST":
                self.add(content["body"], BOT)
                return 201, self.comments[-1]
            query = {key: int(values[0]) for key, values in parse_qs(url.query).items()}
            size = min(query.get("per_page", 30), 100)
            first = (query.get("page", 1) - 1) * size
            return 200, self.comments[first : first + size]
        if method == self._changes:
            for each in self.comments:
                if url.path == f"{self._comment_path}/{each['id']}":
                    each["body"] = content["body"]
                    return 200, each
        return 404, {"message": "Not Found"}


@contextmanager
def served(answer: Callable[..., tuple[int, Any]]) -> Iterator[str]:
    """Serve JSON on a free port and yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def handle_one(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            content = json.loads(self.rfile.read(length)) if length else None
            status, said = answer(self.command, self.path, self.headers, content)
            body = json.dumps(said).encode()
            self.send_response(status)
            if status == 302:
                self.send_header("Location", said)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = do_PUT = handle_one  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Suppress logging."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def github_server() -> Played:
    repository = "/repos/someone/nodules"
    return Played(
        f"{repository}/issues/5/comments",
        f"{repository}/issues/comments",
        "PATCH",
        ("Authorization", f"Bearer {TOKEN}"),
        "user",
    )


def gitlab_server() -> Played:
    notes = "/projects/42/merge_requests/5/notes"
    return Played(notes, notes, "PUT", ("PRIVATE-TOKEN", TOKEN), "author")


def github_environment(url: str) -> dict[str, str]:
    return {
        "GITHUB_ACTIONS": "true",
        "GITHUB_API_URL": url,
        "GITHUB_REPOSITORY": "someone/nodules",
        "GITHUB_REF": "refs/pull/5/merge",
        "GITHUB_RUN_ID": "99",
        "GITHUB_SERVER_URL": "https://forge.example",
        "GITHUB_TOKEN": TOKEN,
    }


def gitlab_environment(url: str) -> dict[str, str]:
    return {
        "GITLAB_CI": "true",
        "CI_API_V4_URL": url,
        "CI_MERGE_REQUEST_PROJECT_ID": "42",
        "CI_MERGE_REQUEST_IID": "5",
        "CI_PIPELINE_URL": "https://forge.example/pipelines/99",
        "GITLAB_TOKEN": TOKEN,
    }


FORGES = pytest.mark.parametrize(
    ("play", "environment"),
    [(github_server, github_environment), (gitlab_server, gitlab_environment)],
    ids=["GitHub", "GitLab"],
)


@FORGES
@pytest.mark.parametrize("others", [0, 1, 99, 100, 250])
def test_one_comment_is_created_and_then_updated_however_many_others_there_are(
    play: Callable[[], Played], environment: Callable[[str], dict[str, str]], others: int
) -> None:
    played = play()
    for number in range(others):
        played.add(f"Comment {number}. {MARKER}", PERSON)
    with served(played.answer) as url:
        forge, _ = forge_and_run(environment(url))
        assert post(forge, f"{MARKER}\nfirst") == "created"
        for number in range(others):
            played.add(f"Answer {number}", BOT)
        assert post(forge, f"{MARKER}\nsecond") == "updated"
        assert post(forge, f"{MARKER}\nthird") == "updated"
    assert [body for body in played.bodies() if body.startswith(MARKER)] == [f"{MARKER}\nthird"]
    assert len(played.comments) == 2 * others + 1


@FORGES
def test_the_comment_of_somebody_who_copied_the_marker_is_left_alone(
    play: Callable[[], Played], environment: Callable[[str], dict[str, str]]
) -> None:
    played = play()
    played.add(f"{MARKER}\nmine", PERSON)
    with served(played.answer) as url:
        forge, _ = forge_and_run(environment(url))
        assert post(forge, f"{MARKER}\nreport") == "created"
        assert post(forge, f"{MARKER}\nagain") == "updated"
    assert played.bodies() == [f"{MARKER}\nmine", f"{MARKER}\nagain"]


@FORGES
def test_a_wrong_token_is_refused_in_one_line_without_the_token(
    play: Callable[[], Played], environment: Callable[[str], dict[str, str]]
) -> None:
    played = play()
    with served(played.answer) as url:
        settings = environment(url)
        settings |= {name: "wrong-secret" for name in settings if name.endswith("_TOKEN")}
        forge, _ = forge_and_run(settings)
        with pytest.raises(NodulesError, match=r"^GET http.*: found status 401 \(.*Bad cred") as no:
            post(forge, f"{MARKER}\nreport")
    assert "\n" not in str(no.value)
    assert "wrong-secret" not in str(no.value)
    assert played.comments == []


def test_a_redirection_does_not_carry_the_token_elsewhere() -> None:
    seen = []

    def elsewhere(method: str, target: str, headers: Any, content: Any) -> tuple[int, Any]:
        seen.append(headers)
        return 200, []

    with (
        served(elsewhere) as other,
        served(lambda *_: (302, f"{other}/")) as url,
    ):
        assert post(github(github_environment(url)), MARKER) == "created"
    assert seen
    assert TOKEN not in str([dict(headers) for headers in seen])


def test_a_server_that_is_not_there_is_named_in_one_line() -> None:
    with served(lambda *_: (200, [])) as gone:
        pass
    with pytest.raises(NodulesError, match=r"^GET http.*: found no valid response \(.*refused"):
        post(gitlab(gitlab_environment(gone)), MARKER)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", f"found '', expected {MARKER} at its start"),
        (f"> {MARKER}\nquoted", "expected"),
        (f"{MARKER}\n" + "x" * 65_536, "expected 65,536 at most"),
    ],
)
def test_only_our_own_comments_are_posted(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "comment.md"
    path.write_text(text)
    with pytest.raises(NodulesError, match=re.escape(problem)):
        read_comment(path, "https://forge.example/run")
    with pytest.raises(NodulesError, match="found no text"):
        read_comment(tmp_path / "missing.md", "https://forge.example/run")


@pytest.mark.parametrize("line", ["/close", "  /label ~bug", "/merge"])
def test_a_comment_contains_no_gitlab_commands(line: str, tmp_path: Path) -> None:
    path = tmp_path / "comment.md"
    path.write_text(f"{MARKER}\nand/or\n{line}\n")
    with pytest.raises(
        NodulesError, match=r"found /\w+ at the start of a line, expected no GitLab"
    ):
        read_comment(path, "https://forge.example/run")


def test_a_comment_is_read_from_a_regular_file_alone_and_no_further_than_needed(
    tmp_path: Path,
) -> None:
    path, secret = tmp_path / "comment.md", tmp_path / "secret.md"
    secret.write_text(f"{MARKER}\nsecret")
    path.symlink_to(secret)
    with pytest.raises(NodulesError, match="found no text"):
        read_comment(path, "run")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(NodulesError, match="found a device or a pipe, expected a regular file"):
        read_comment(path, "run")
    path.unlink()
    with path.open("wb") as file:
        file.write(MARKER.encode())
        file.truncate(2**40)
    with pytest.raises(NodulesError, match="expected 65,536 at most"):
        read_comment(path, "run")


def test_a_comment_names_the_page_and_the_picture_where_they_are(tmp_path: Path) -> None:
    path, run = tmp_path / "comment.md", "https://forge.example/run"
    path.write_text(f"{MARKER}\nThe results cannot be compared.\n")
    assert read_comment(path, run).endswith(f"compared.\n\nWritten by [this run]({run}).\n")
    for name in ("comparison.html", "roc.png"):
        (tmp_path / name).touch()
    expected = (
        f"`comparison.html` and `roc.png` are in the artifact `report` of [this run]({run}).\n"
    )
    assert read_comment(path, run).endswith(expected)


@pytest.mark.parametrize("ref", ["refs/heads/main", "refs/pull/5/merge/../6", "refs/pull/x/merge"])
def test_a_run_without_a_pull_request_is_refused(ref: str) -> None:
    environment = github_environment("http://127.0.0.1:9") | {"GITHUB_REF": ref}
    with pytest.raises(NodulesError, match="expected refs/pull/NUMBER/merge"):
        forge_and_run(environment)
    with pytest.raises(NodulesError, match="GITLAB_TOKEN: found nothing in the environment"):
        forge_and_run(gitlab_environment("http://127.0.0.1:9") | {"GITLAB_TOKEN": ""})
    with pytest.raises(NodulesError, match="neither GITHUB_ACTIONS nor GITLAB_CI"):
        forge_and_run({})


def test_the_posting_job_needs_only_python(tmp_path: Path) -> None:
    played = github_server()
    comment = tmp_path / "comment.md"
    comment.write_text(f"{MARKER}\nnaïve\n", encoding="utf-8")
    # -S excludes all installed packages.
    command = [sys.executable, "-S", "-m", "nodules.report.comment", str(comment)]
    with served(played.answer) as url:
        done = [
            subprocess.run(
                command,
                cwd=REPOSITORY,
                env={"PATH": os.environ["PATH"], **github_environment(url)},
                capture_output=True,
                text=True,
                check=True,
                timeout=120,
            ).stdout
            for _ in range(2)
        ]
    assert done == ["created\n", "updated\n"]
    (body,) = played.bodies()
    assert body.startswith(f"{MARKER}\nnaïve\n")
    assert "[this run](https://forge.example/someone/nodules/actions/runs/99)" in body
