"""Results of a commit, fetched through DVC or reproduced in a temporary clone."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo
from tqdm import tqdm

from nodules import VARIABLES_SET
from nodules.comparison.repository import (
    WORKSPACE,
    clone_folder,
    default_remote,
    open_repository,
    resolve,
)
from nodules.comparison.revisions import PREDICTIONS, Revision, compared_names, read_revision
from nodules.errors import ResultsMissingError, RevisionError
from nodules.system.environment import ENVIRONMENT_FILE, update_environment
from nodules.system.git import environment_without_repository
from nodules.system.streams import printable


@dataclass(frozen=True)
class LoadedRevision:
    """A revision with its results, and a statement of where they come from.

    Attributes
    ----------
    reproduced
        Whether `dvc repro` has computed the results just now.
    """

    revision: Revision
    origin: str
    reproduced: bool


def read_or_reproduce(names: Sequence[str], clones: ExitStack) -> list[Revision]:
    """Read the revisions to compare; commits without results are reproduced.

    Prints where the results of each reproduced commit come from.

    Parameters
    ----------
    names, clones
        As in `read_revisions` and `fetch_or_reproduce`.

    Raises
    ------
    RevisionError
        As in `read_revision` (for the workspace) and `fetch_or_reproduce`.
    """
    # The workspace first: it is not reproduced, and is refused before anything is trained.
    found = {name: read_revision(name) for name in compared_names(names) if name == WORKSPACE}
    for name in compared_names(names):
        if name != WORKSPACE:
            loaded = fetch_or_reproduce(name, clones)
            found[name] = loaded.revision
            if loaded.reproduced:
                tqdm.write(printable(f"note: {loaded.origin}"), sys.stderr)
    return [found[name] for name in compared_names(names)]


def fetch_or_reproduce(name: str, clones: ExitStack) -> LoadedRevision:
    """Fetch the results of a commit, or reproduce them in a temporary clone.

    The results are read from git, DVC's cache or its remote if the commit's dvc.lock matches its
    code and parameters. If it does not, or if they are missing, `dvc repro` runs in a clone and
    adds its outputs to the cache. The working tree is not modified.

    Parameters
    ----------
    name
        Git revision or name of a DVC experiment.
    clones
        Exit stack that deletes the clone when it closes. The revision must not be read after that.

    Raises
    ------
    RevisionError
        If there is no such revision, or `dvc repro` fails.
    """
    commit = resolve(name)
    clone = clones.enter_context(_clone(name, commit))
    target, outdated = _pipeline_state(name, clone)
    if outdated:
        why = f"its dvc.lock is outdated ({', '.join(outdated)})"
    else:
        try:
            origin = f"{name} ({commit[:7]}): results recorded in its dvc.lock."
            return LoadedRevision(read_revision(name), origin, reproduced=False)
        except ResultsMissingError:
            why = "its results are neither in DVC's cache nor on a remote"
    tqdm.write(printable(f"{name}: {why}; running `dvc repro` in a temporary clone"), sys.stderr)
    _reproduce(name, commit, clone, target)
    reproduced = read_revision(WORKSPACE, clone)
    origin = f"{name} ({commit[:7]}): reproduced with `dvc repro`, because {why}"
    if outdated:
        origin += ". Run `dvc repro` and commit its results"
    elif _git(name, clone, "status", "--porcelain", "dvc.lock"):
        origin += ". The reproduced files differ from those in dvc.lock"
    revision = replace(reproduced, name=name, commit=commit[:7], stale=False)
    return LoadedRevision(revision, f"{origin}.", reproduced=True)


@contextmanager
def _clone(name: str, commit: str) -> Iterator[Path]:
    """Check out a commit in a temporary clone that shares this repository's DVC cache.

    Yields the folder of DVC, which may be a subfolder of the clone.
    """
    repository = open_repository()
    with tempfile.TemporaryDirectory(prefix="nodules-", ignore_cleanup_errors=True) as folder:
        clone = Path(folder) / "clone"
        top = Path(repository.scm.root_dir)
        _git(name, top, "clone", "--quiet", "--shared", "--no-checkout", ".", str(clone))
        _git(name, clone, "checkout", "--quiet", "--detach", commit)
        project = clone_folder(repository, clone)
        with Repo(str(project)).config.edit("local") as config:
            config["cache"]["dir"] = repository.cache.legacy.path
        yield project


def _pipeline_state(name: str, clone: Path) -> tuple[str, list[str]]:
    """Return the stage that writes the predictions, and which of its pipeline is outdated.

    A stage is outdated if its code or parameters differ from dvc.lock. Missing data does not count
    as a change.
    """
    repository = Repo(str(clone))
    try:
        with repository.lock:
            (predictions,) = repository.find_outs_by_path(str(clone / PREDICTIONS))
            target = predictions.stage
            stages = repository.stage.collect(target.addressing, with_deps=True)
            return target.name, [
                stage.name for stage in stages if stage.cmd and stage.changed(allow_missing=True)
            ]
    except DvcException as error:
        found = f"found no stage that produces {PREDICTIONS} ({error})"
        raise RevisionError(name, f"{found}, expected one in dvc.yaml") from None


def _reproduce(name: str, commit: str, clone: Path, stage: str) -> None:
    repository = open_repository()
    if default_remote(repository):
        try:
            repository.fetch(revs=[commit], workspace=False, run_cache=True)
        except (DvcException, OSError) as error:
            tqdm.write(printable(f"{name}: some files could not be fetched ({error})"), sys.stderr)
    Repo(str(clone)).checkout(allow_missing=True)
    # The commit's environment file records other package versions, which its stages would reject.
    if (clone / ENVIRONMENT_FILE).exists():
        update_environment(clone / ENVIRONMENT_FILE)
    search_path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    process = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", stage],
        cwd=clone,
        env={k: v for k, v in environment_without_repository().items() if k not in VARIABLES_SET}
        | {"PATH": search_path},
        stdin=subprocess.DEVNULL,
        # stdout is reserved for the report; the progress of `dvc repro` goes to stderr.
        stdout=sys.stderr.fileno(),
        check=False,
    )
    if process.returncode:
        problem = f"`dvc repro` exited with status {process.returncode}, expected 0"
        raise RevisionError(name, f"{problem} (its output is above)")


def _git(name: str, folder: Path, *arguments: str) -> str:
    try:
        process = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env=environment_without_repository(),
            check=False,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
        )
    except FileNotFoundError:
        raise RevisionError(name, "found no command git, expected it on the PATH") from None
    if process.returncode:
        reason = next(iter(process.stderr.splitlines()[-1:]), f"status {process.returncode}")
        raise RevisionError(name, f"`git {arguments[0]}` failed ({reason}), expected a clone")
    return process.stdout.strip()
