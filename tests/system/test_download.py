"""Downloads: resumed after a cut connection, and refused with another hash."""

import hashlib
import subprocess
from pathlib import Path

import numpy as np
import pytest

from nodules.errors import NodulesError
from nodules.system.download import GIT_FOLDER, download, fetch_from_git, only_fetch_into
from tests.support.file_server import FileServer, serving
from tests.support.tiny_project import commands_environment

CONTENT = np.random.default_rng(1).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def test_a_file_arrives_whole_and_leaves_nothing_else(tmp_path: Path) -> None:
    with serving(FileServer(CONTENT)) as server:
        download(server.url, tmp_path / "new/candidates.csv", len(CONTENT), SHA256)
    assert (tmp_path / "new/candidates.csv").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["candidates.csv"]


def test_a_connection_that_is_cut_is_resumed_where_it_ended(tmp_path: Path) -> None:
    with serving(FileServer(CONTENT, cut_after=2**17)) as server:
        download(server.url, tmp_path / "candidates.csv", len(CONTENT), SHA256)
    assert (tmp_path / "candidates.csv").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=131072-", "bytes=262144-"]


def test_the_next_download_resumes_what_an_earlier_one_left(tmp_path: Path) -> None:
    target = tmp_path / "candidates.csv"
    with (
        serving(FileServer(CONTENT, cut_after=2**16, parts=False)) as server,
        pytest.raises(NodulesError, match="the connection was cut; the next try resumes"),
    ):
        download(server.url, target, len(CONTENT), SHA256)
    assert not target.exists()
    with serving(FileServer(CONTENT)) as server:
        download(server.url, target, len(CONTENT), SHA256)
    assert server.asked == ["bytes=65536-"]
    assert target.read_bytes() == CONTENT


def test_a_server_that_sends_no_parts_sends_the_whole_file_again(tmp_path: Path) -> None:
    (tmp_path / ".candidates.csv.part").write_bytes(b"of another file")
    with serving(FileServer(CONTENT, parts=False)) as server:
        download(server.url, tmp_path / "candidates.csv", len(CONTENT), SHA256)
    assert (tmp_path / "candidates.csv").read_bytes() == CONTENT


def test_a_complete_part_is_not_fetched_again(tmp_path: Path) -> None:
    (tmp_path / ".candidates.csv.part").write_bytes(CONTENT)
    with serving(FileServer(CONTENT)) as server:
        download(server.url, tmp_path / "candidates.csv", len(CONTENT), SHA256)
    assert server.asked == []
    assert (tmp_path / "candidates.csv").read_bytes() == CONTENT


@pytest.mark.parametrize("left", [b"of another file", CONTENT[::-1], 2 * CONTENT])
def test_a_part_of_another_file_is_fetched_afresh(tmp_path: Path, left: bytes) -> None:
    (tmp_path / ".candidates.csv.part").write_bytes(left)
    with serving(FileServer(CONTENT)) as server:
        download(server.url, tmp_path / "candidates.csv", len(CONTENT), SHA256)
    assert (tmp_path / "candidates.csv").read_bytes() == CONTENT
    assert server.asked[-1] is None


def test_a_server_that_sends_too_much_is_not_heard_out(tmp_path: Path) -> None:
    with (
        serving(FileServer(1000 * CONTENT)) as server,
        pytest.raises(NodulesError, match=r"found more than 300,000 bytes, expected the sha256"),
    ):
        download(server.url, tmp_path / "candidates.csv", len(CONTENT), SHA256)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Location": "http://[::1"},
        {"Location": f"http://{'a' * 300}.x/"},
        {"Location": "file:///etc/passwd"},
    ],
)
def test_a_redirect_to_what_is_no_address_is_one_line(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    with (
        serving(FileServer(b"", status=302, headers=headers)) as server,
        pytest.raises(NodulesError, match=rf"^{server.url}: no connection to 127\.0\.0\.1"),
    ):
        download(server.url, tmp_path / "candidates.csv", len(CONTENT), SHA256)


def test_a_length_that_is_no_number_is_ignored(tmp_path: Path) -> None:
    headers = {"Content-Length": "9" * 5000, "Connection": "close"}
    with serving(FileServer(CONTENT, headers=headers)) as server:
        download(server.url, tmp_path / "candidates.csv", len(CONTENT), SHA256)
    assert (tmp_path / "candidates.csv").read_bytes() == CONTENT


def test_two_commands_do_not_fetch_into_one_folder(tmp_path: Path, upstream: Path) -> None:
    commit = git(upstream, "rev-parse", "HEAD")
    with (
        only_fetch_into(tmp_path),
        pytest.raises(NodulesError, match="another command fetches into this folder"),
    ):
        download("http://localhost:1", tmp_path / "candidates.csv", 1, SHA256)
    with (
        only_fetch_into(tmp_path / "out"),
        pytest.raises(NodulesError, match="another command fetches into this folder"),
    ):
        fetch_from_git(upstream.as_uri(), commit, tmp_path / "out", ["src/a/"])


def test_a_file_with_another_hash_is_refused_and_fetched_afresh_next_time(tmp_path: Path) -> None:
    target = tmp_path / "candidates.csv"
    with serving(FileServer(b"another")) as server:
        found = hashlib.sha256(b"another").hexdigest()
        with pytest.raises(NodulesError, match=rf"found a file with the sha256 {found}, expected"):
            download(server.url, target, len(CONTENT), SHA256)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("status", "text"), [(404, "Not Found"), (503, "Service Unavailable")])
def test_an_error_of_the_server_is_one_line(tmp_path: Path, status: int, text: str) -> None:
    with serving(FileServer(CONTENT, status=status)) as server:
        expected = rf"^{server.url}: found HTTP status {status} \({text}\), expected a file$"
        with pytest.raises(NodulesError, match=expected):
            download(server.url, tmp_path / "candidates.csv", len(CONTENT), SHA256)
    assert len(server.asked) == 1


def test_no_connection_is_one_line(tmp_path: Path) -> None:
    with serving(FileServer(CONTENT)) as server:
        pass
    expected = r"no connection to 127\.0\.0\.1:\d+ \(\[Errno \d+\] Connection refused\)$"
    with pytest.raises(NodulesError, match=expected):
        download(server.url, tmp_path / "candidates.csv", len(CONTENT), SHA256)


def git(folder: Path, *arguments: str) -> str:
    result = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env=commands_environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    return result.stdout.strip()


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    """Return a repository of two commits that serves single files, as GitHub does."""
    folder = tmp_path / "upstream"
    for name in ("src/a/1", "src/a/2", "src/b/3", "src/list.txt", "other"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{name}\n" * 3)
    git(folder, "init", "--quiet")
    for subject in ("first", "second"):
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", subject)
        (folder / "src/a/1").write_text("later\n")
    git(folder, "config", "uploadpack.allowFilter", "true")
    return folder


def fetched(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and GIT_FOLDER not in path.parts
    }


def test_only_the_named_files_of_the_commit_are_fetched(upstream: Path, tmp_path: Path) -> None:
    commit, out = git(upstream, "rev-parse", "HEAD~1"), tmp_path / "out"
    fetch_from_git(upstream.as_uri(), commit, out, ["src/a/"])
    assert fetched(out) == {name: f"{name}\n" * 3 for name in ("src/a/1", "src/a/2")}
    objects = git(
        out, f"--git-dir={GIT_FOLDER}", "cat-file", "--batch-all-objects", "--batch-check"
    )
    assert objects.count(" blob ") == 2
    fetch_from_git(upstream.as_uri(), commit, out, ["src/list.txt"])
    assert fetched(out).keys() == {"src/a/1", "src/a/2", "src/list.txt"}


def test_what_was_fetched_is_not_fetched_again(upstream: Path, tmp_path: Path) -> None:
    commit, out = git(upstream, "rev-parse", "HEAD~1"), tmp_path / "out"
    fetch_from_git(upstream.as_uri(), commit, out, ["src/a/"])
    upstream.rename(tmp_path / "gone")
    (out / "src/a/1").unlink()
    (out / "src/a/2").write_text("half")
    fetch_from_git(upstream.as_uri(), commit, out, ["src/a/"])
    assert fetched(out) == {name: f"{name}\n" * 3 for name in ("src/a/1", "src/a/2")}
    with pytest.raises(NodulesError, match="upstream: git checkout failed"):
        fetch_from_git(upstream.as_uri(), commit, out, ["src/b/"])


def test_a_git_repository_around_the_folder_stays_as_it_is(upstream: Path, tmp_path: Path) -> None:
    commit, around = git(upstream, "rev-parse", "HEAD"), tmp_path / "around"
    around.mkdir()
    (around / "mine").write_text("mine\n")
    git(around, "init", "--quiet")
    git(around, "add", "--all")
    before = git(around, "status", "--porcelain"), (around / ".git/config").read_text()
    fetch_from_git(upstream.as_uri(), commit, around / "data", ["src/a/"])
    assert git(around, "ls-files") == "mine"
    (around / ".gitignore").write_text("/data\n/.gitignore\n")
    assert (git(around, "status", "--porcelain"), (around / ".git/config").read_text()) == before


@pytest.mark.parametrize(
    ("repository", "commit", "reason"),
    [
        ("upstream", "1" * 40, "not our ref 1111"),
        ("missing", "1" * 40, "'{}/missing' does not appear to be a git repository"),
    ],
)
def test_a_missing_commit_or_repository_is_one_line(
    upstream: Path, tmp_path: Path, repository: str, commit: str, reason: str
) -> None:
    with pytest.raises(NodulesError) as error:
        fetch_from_git(str(tmp_path / repository), commit, tmp_path / "out", ["src/a/"])
    assert reason.format(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)
    assert fetched(tmp_path / "out") == {}


def test_a_machine_without_git_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NodulesError, match="git: not found, expected it to be installed"):
        fetch_from_git("x", "1" * 40, tmp_path / "out", ["src/a/"])


def test_locks_of_a_killed_git_do_not_stop_the_next_fetch(upstream: Path, tmp_path: Path) -> None:
    commit, out = git(upstream, "rev-parse", "HEAD~1"), tmp_path / "out"
    fetch_from_git(upstream.as_uri(), commit, out, ["src/a/"])
    for name in ("index.lock", "shallow.lock", "config.lock", "HEAD.lock"):
        (out / GIT_FOLDER / name).touch()
    fetch_from_git(upstream.as_uri(), commit, out, ["src/b/"])
    assert fetched(out).keys() == {"src/a/1", "src/a/2", "src/b/3"}


def test_settings_of_the_user_do_not_change_the_files(
    upstream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (upstream / ".gitattributes").write_text("* text eol=crlf ident\n")
    git(upstream, "add", "--all")
    git(upstream, "commit", "--quiet", "--message", "third")
    template = tmp_path / "template"
    (template / "info").mkdir(parents=True)
    (template / "info/sparse-checkout").write_text("/other\n")
    attributes = tmp_path / "attributes"
    attributes.write_text("1 filter=other\n* eol=crlf\n")
    lines = ["[core]", f"attributesFile = {attributes}", "sparseCheckoutCone = true"]
    lines += ["[init]", f"templateDir = {template}", '[filter "other"]', "smudge = echo other"]
    (tmp_path / "config").write_text("\n".join(lines))
    commit = git(upstream, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    monkeypatch.setenv("GIT_TEMPLATE_DIR", str(template))
    monkeypatch.setenv("GIT_DEFAULT_HASH", "sha256")
    monkeypatch.setenv("GIT_CONFIG", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_NO_LAZY_FETCH", "1")
    fetch_from_git(upstream.as_uri(), commit, tmp_path / "out", ["src/a/"])
    assert fetched(tmp_path / "out") == {"src/a/1": "later\n", "src/a/2": "src/a/2\n" * 3}


def test_a_file_in_place_of_the_repository_is_one_line(upstream: Path, tmp_path: Path) -> None:
    (tmp_path / GIT_FOLDER).touch()
    with pytest.raises(NodulesError, match=r"git init failed \(invalid gitfile format"):
        fetch_from_git(upstream.as_uri(), "1" * 40, tmp_path, ["src/a/"])


def test_a_link_in_place_of_a_folder_is_kept(upstream: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/src").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NodulesError, match="out/src: found a link, expected files, or a folder"):
        fetch_from_git(upstream.as_uri(), "1" * 40, tmp_path / "out", ["src/a/"])
    assert (tmp_path / "out/src").is_symlink()


def test_a_git_that_is_killed_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "git").write_text("#!/bin/sh\nkill -XFSZ $$\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(NodulesError, match=r"^x: git init failed \(File size limit exceeded\)$"):
        fetch_from_git("x", "1" * 40, tmp_path / "out", ["src/a/"])
