"""Opens the repository, or one of its revisions, through DVC; each failure is one line."""

import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.fs import GitFileSystem
from dvc.repo import Repo
from dvc.scm import RevError, SCMError, resolve_rev
from pygit2 import GitError

from nodules.errors import NodulesError, RevisionError

WORKSPACE = "workspace"

_OWNED_BY_ANOTHER = re.compile(r"repository path '(.+)' is not owned by current user")


def open_repository(root: Path | None = None) -> Repo:
    """Open the repository of a folder; by default, of the current one.

    Raises
    ------
    NodulesError
        If there is none, or git refuses to open it or cannot read it.
    """
    place = root or Path()
    try:
        repository = Repo(str(place))
        # Opened here and not at first use: both libraries of DVC, each with its own errors.
        _ = repository.scm.dulwich, repository.scm.pygit2
    except GitError as error:
        if owned := _OWNED_BY_ANOTHER.search(str(error)):
            found = f"{owned[1]}: found a git repository that belongs to another user"
            trust = f"git config --global --add safe.directory {shlex.quote(owned[1])}"
            raise NodulesError(f"{found}, expected your own; if you trust it: {trust}") from None
        raise _unreadable(place, error) from None
    except (DvcException, ValueError) as error:
        raise _unreadable(place, error) from None
    return repository


def open_revision(name: str, root: Path | None = None) -> Repo:
    """Open the repository as of a revision or the workspace.

    The cache and the default remote are those of the workspace.

    Parameters
    ----------
    name
        Git revision, name of a DVC experiment, or `workspace`.
    root
        Folder of the repository; by default, the current folder.

    Raises
    ------
    NodulesError
        As in `open_repository`.
    RevisionError
        If there is no such revision, or it has no DVC repository in the same folder.
    """
    check_name(name)
    repository = open_repository(root)
    if name == WORKSPACE:
        return repository
    with revision_errors(name):
        files = _files(repository, name)
        # `Repo(rev=...)` looks for DVC in the top folder of the git repository only.
        folder = files.join("/", *_folder_in_git(repository).parts)
        return Repo(folder, fs=files, scm=repository.scm, config=_storage(repository))


def clone_folder(repository: Repo, clone: Path) -> Path:
    """Return the folder of DVC in a clone of the repository's git repository."""
    return clone / _folder_in_git(repository)


def default_remote(repository: Repo) -> str | None:
    """Return the name of the default remote, or None."""
    return repository.config["core"].get("remote")


def resolve(name: str) -> str:
    """Return the full hash of a commit or experiment.

    Raises
    ------
    RevisionError
        If there is no such revision.
    """
    return open_revision(name).get_rev()


def check_name(name: str) -> None:
    """Check that git can look up a name.

    Raises
    ------
    RevisionError
        If it is empty, or not in the encoding of the locale.
    """
    if not name:
        raise RevisionError("revision", "found an empty name, expected a commit or a branch")
    try:
        name.encode()
    except UnicodeEncodeError:  # contains bytes that Python could not decode
        encoding = sys.getfilesystemencoding()
        problem = f"found characters outside the locale's encoding ({encoding})"
        raise RevisionError(name, f"{problem}, expected a name in it, or a commit hash") from None


@contextmanager
def revision_errors(name: str) -> Iterator[None]:
    """Convert the exceptions of DVC and git for a missing or unreadable revision."""
    try:
        yield
    except RevError:
        problem = "no such revision, expected a commit, a branch, a tag, an experiment"
        raise RevisionError(name, f"{problem} (`dvc exp list`) or {WORKSPACE}") from None
    except (SCMError, DvcException, GitError) as error:
        raise RevisionError(name, first_line(error)) from None


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _files(repository: Repo, name: str) -> GitFileSystem:
    try:
        files = GitFileSystem(scm=repository.scm, rev=resolve_rev(repository.scm, name))
        _ = files.fs  # the commit is opened on access
    except (AttributeError, ValueError):
        # Raised by pygit2 if the name is invalid, or refers to a file or folder of a commit.
        raise RevError(name) from None
    return files


def _folder_in_git(repository: Repo) -> Path:
    """Return the path of DVC's folder relative to the top folder of the git repository."""
    return Path(repository.root_dir).resolve().relative_to(Path(repository.scm.root_dir).resolve())


def _storage(repository: Repo) -> dict[str, Any]:
    """Return the settings of the cache and the default remote, with absolute paths."""
    storage: dict[str, Any] = {"cache": {"dir": repository.cache.legacy.path}}
    if remote := default_remote(repository):
        settings = repository.config["remote"].get(remote, {})
        storage |= {"core": {"remote": remote}, "remote": {remote: settings}}
    return storage


def _unreadable(place: Path, error: Exception) -> NodulesError:
    found = f"found no readable repository ({first_line(error)})"
    return NodulesError(f"{place.absolute()}: {found}, expected one of git and DVC")
