"""Fetch files from the network: resumable, and checked against known hashes."""

import fcntl
import hashlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import requests
from tqdm import tqdm

from nodules.errors import FileError, NodulesError
from nodules.system.atomic import cannot_write
from nodules.system.git import environment_without_repository
from nodules.system.regular_file import open_regular
from nodules.system.streams import error_text, os_error_text, printable

# Seconds without an answer, or without a byte of it.
TIMEOUT_S = 60
# Attempts without any progress.
ATTEMPTS = 3
CHUNK_BYTES = 2**16
GIT_FOLDER = ".fetched.git"
RAW_ATTRIBUTES = "-text -filter -ident -working-tree-encoding"


@contextmanager
def only_fetch_into(folder: Path) -> Iterator[None]:
    """Create a folder, and let no other process fetch into it until the block ends.

    Raises
    ------
    FileError
        If another process fetches into it, or it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise cannot_write(folder, error) from None
    try:
        with suppress(OSError):  # not every file system has locks
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                problem = "another command fetches into this folder, expected it to end first"
                raise FileError(folder, problem) from None
        yield
    finally:
        os.close(lock)


def download(url: str, target: Path, size: int, sha256: str) -> None:
    """Download a file, or the rest of it if an earlier download was interrupted.

    Parameters
    ----------
    url
        HTTP or HTTPS address.
    target
        File to create. Until it is complete, its content is in `.NAME.part` next to it.
    size
        Length of the file in bytes; a server that sends more is not listened to.
    sha256
        Hash of the file, in hexadecimal.

    Raises
    ------
    NodulesError
        If there is no connection, it is cut again and again, the server answers with an error, or
        the file has another hash.
    FileError
        If the file cannot be written.
    """
    part = target.with_name(f".{target.name}.part")
    try:
        with only_fetch_into(target.parent):
            # What an earlier download left may be of another file.
            for afresh in (False, True) if part.exists() else (True,):
                if afresh:
                    part.unlink(missing_ok=True)
                _fetch(url, part, size)
                found = file_hash(part, "sha256")
                if found == sha256:
                    os.replace(part, target)
                    return
            longer = part.stat().st_size > size
            part.unlink()
    except OSError as error:
        raise cannot_write(target, error) from None
    problem = f"more than {size:,} bytes" if longer else f"a file with the sha256 {found}"
    raise NodulesError(f"{url}: found {problem}, expected the sha256 {sha256}")


def fetch_from_git(repository: str, commit: str, folder: Path, paths: Sequence[str]) -> None:
    """Fetch files of one commit of a git repository into a folder, without its history.

    git checks the hash of each file. Files that were fetched before are not fetched again.

    Parameters
    ----------
    repository
        URL or path of the repository.
    commit
        Hash of the commit.
    folder
        Folder of the files, which get the same paths as in the repository. Its sub-folder
        `.fetched.git` keeps what was fetched.
    paths
        Files and folders in the repository; those of earlier calls stay, too.

    Raises
    ------
    NodulesError
        If git is missing, there is no connection, or the repository has no such commit.
    FileError
        If the folder cannot be written, or one of the paths in it is a link.
    """
    place = folder / GIT_FOLDER
    patterns = place / "info" / "sparse-checkout"
    for link in (folder / parent for path in paths for parent in (Path(path), *Path(path).parents)):
        if link != folder and link.is_symlink():  # git would replace it
            raise FileError(link, "found a link, expected files, or a folder to fetch them into")
    with only_fetch_into(folder):
        # Those of git commands that were killed.
        for lock in place.glob("*.lock"):
            lock.unlink()
        _git(folder, repository, "init", "--quiet", "--template=", "--object-format=sha1")
        try:
            patterns.parent.mkdir(exist_ok=True)
            # Files get the bytes that were hashed, whatever the attributes in effect.
            (place / "info" / "attributes").write_text(f"* {RAW_ATTRIBUTES}\n", "utf-8")
            before = patterns.read_text("utf-8").splitlines() if patterns.exists() else []
            wanted = dict.fromkeys([*before, *(f"/{path}" for path in paths)])
            patterns.write_text("".join(f"{pattern}\n" for pattern in wanted), "utf-8")
        except OSError as error:
            raise cannot_write(folder, error) from None
        head = _git(folder, repository, "rev-parse", "--quiet", "--verify", "HEAD", check=False)
        if head != commit:
            # Files follow on checkout, from servers that support it, as GitHub does.
            fetch = ("fetch", "--quiet", "--depth=1", "--filter=blob:none", "--no-tags")
            _git(folder, repository, *fetch, "origin", commit)
        _git(folder, repository, "checkout", "--quiet", "--force", "--detach", commit)


def file_hash(path: Path, algorithm: str) -> str:
    """Return the hash of a file in hexadecimal; raise FileError if it cannot be read."""
    digest = hashlib.new(algorithm)
    try:
        with open_regular(path) as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise FileError(path, f"cannot be read ({os_error_text(error)})") from None
    return digest.hexdigest()


def _fetch(url: str, part: Path, size: int) -> None:
    """Fetch the rest of a file, in as many attempts as bring more of it."""
    attempts = ATTEMPTS
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _append(url, part, size)
            return
        # A ValueError is a redirect to what is no address.
        except (requests.RequestException, ValueError) as error:
            grown = part.exists() and part.stat().st_size > before
            attempts = ATTEMPTS if grown else attempts - 1
            if not attempts:
                raise NodulesError(f"{url}: {_problem(url, error)}") from None


def _append(url: str, part: Path, size: int) -> None:
    """Fetch the rest of a file, or all of it from a server that cannot send parts."""
    have = part.stat().st_size if part.exists() else 0
    if have >= size:
        return
    # Compressed, the bytes that are missing could not be counted.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
        if not answer.ok:
            problem = f"found HTTP status {answer.status_code} ({answer.reason}), expected a file"
            raise NodulesError(f"{url}: {printable(problem)}")
        resumed = answer.status_code == HTTPStatus.PARTIAL_CONTENT
        have = have if resumed else 0
        name = f"fetch {part.name[1:-5]}"
        with (
            part.open("ab" if resumed else "wb") as file,
            tqdm(desc=name, total=size, initial=have, unit="B", unit_scale=True) as progress,
        ):
            for chunk in answer.iter_content(CHUNK_BYTES):
                progress.update(file.write(chunk))
                have += len(chunk)
                if have > size:
                    return


def _problem(url: str, error: Exception) -> str:
    host = urlsplit(url).netloc
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection was cut; the next try resumes"
    # The message of the outermost exception is a chain of all the others.
    cause: BaseException = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    if isinstance(error, requests.Timeout) or isinstance(cause, TimeoutError):
        return f"no answer from {host} within {TIMEOUT_S} s; the next try resumes"
    return f"no connection to {host} ({error_text(cause)})"


def _git(folder: Path, repository: str, *arguments: str, check: bool = True) -> str:
    """Run git on the repository in `folder`, and return what it prints."""
    options = {
        "core.autocrlf": "false",
        "core.hooksPath": os.devnull,
        "core.sparseCheckout": "true",
        "core.sparseCheckoutCone": "false",
        "http.lowSpeedLimit": "1",  # bytes per second
        "http.lowSpeedTime": str(TIMEOUT_S),
        "remote.origin.url": repository,
    }
    command = ["git", f"--git-dir={folder / GIT_FOLDER}", f"--work-tree={folder}"]
    for name, value in options.items():
        command += ["-c", f"{name}={value}"]
    environment = environment_without_repository()
    environment |= {"GIT_NO_LAZY_FETCH": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        result = subprocess.run(
            [*command, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        raise NodulesError("git: not found, expected it to be installed") from None
    if result.returncode and check:
        lines = result.stderr.decode("utf-8", "replace").splitlines()
        fatal = next((line for line in lines if line.startswith(("fatal: ", "error: "))), "")
        status = result.returncode
        ended = f"status {status}" if status > 0 else signal.strsignal(-status)
        reason = printable(fatal.partition(": ")[2] or ended, 200)
        raise NodulesError(f"{printable(repository)}: git {arguments[0]} failed ({reason})")
    return result.stdout.decode("utf-8", "replace").strip()
