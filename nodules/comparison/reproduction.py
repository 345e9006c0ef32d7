"""The results of a commit, read where DVC has them or made anew in a clone of its own."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo
from tqdm import tqdm

from nodules import VARIABLES_SET
from nodules.comparison.revisions import PREDICTIONS, WORKSPACE, Revision, read_revision, resolve
from nodules.errors import ResultsMissingError, RevisionError
from nodules.system.environment import ENVIRONMENT_FILE, update_environment
from nodules.system.streams import printable


@dataclass(frozen=True)
class Obtained:
    """A revision with its results, and a sentence about where these come from."""

    revision: Revision
    origin: str


def obtain(name: str, clones: ExitStack) -> Obtained:
    """Get the results of a commit, whatever it takes.

    They are read from git, DVC's cache or its remote where the commit's dvc.lock still describes
    its code and parameters. Otherwise, or where they are in none of these places, `dvc repro`
    makes them in a clone. The working tree is left alone, and what is made goes into the cache.

    Parameters
    ----------
    name
        A git revision or the name of a DVC experiment.
    clones
        Keeps the clone for as long as the revision is read.

    Raises
    ------
    RevisionError
        If there is no such revision, or `dvc repro` fails on it.
    """
    commit = resolve(name)
    clone = clones.enter_context(_clone(commit))
    last, outdated = _stages(name, clone)
    if outdated:
        why = f"its dvc.lock is out of date in {', '.join(outdated)}"
    else:
        try:
            origin = f"{name} ({commit[:7]}): the results that its dvc.lock names."
            return Obtained(read_revision(name), origin)
        except ResultsMissingError:
            why = "neither DVC's cache nor a remote has what its dvc.lock names"
    tqdm.write(printable(f"{name}: {why}: `dvc repro` makes its results"), sys.stderr)
    _reproduce(name, commit, clone, last)
    made = read_revision(WORKSPACE, clone)
    origin = f"{name} ({commit[:7]}): made here by `dvc repro`, since {why}"
    if outdated:
        origin += "; commit what `dvc repro` gives"
    elif _git(clone, "status", "--porcelain", "dvc.lock"):
        origin += "; not byte for byte the same"
    return Obtained(replace(made, name=name, commit=commit[:7], stale=False), f"{origin}.")


@contextmanager
def _clone(commit: str) -> Iterator[Path]:
    """Check a commit out, with this repository's cache behind it."""
    repository = Repo()
    with tempfile.TemporaryDirectory(prefix="nodules-", ignore_cleanup_errors=True) as folder:
        clone = Path(folder) / "clone"
        _git(
            Path(repository.root_dir),
            *("clone", "--quiet", "--shared", "--no-checkout", ".", str(clone)),
        )
        _git(clone, "checkout", "--quiet", "--detach", commit)
        with Repo(str(clone)).config.edit("local") as config:
            config["cache"]["dir"] = repository.cache.legacy.path
        yield clone


def _stages(name: str, clone: Path) -> tuple[str, list[str]]:
    """Name the stage that makes the predictions, and those up to it that dvc.lock is wrong about.

    These are the stages whose code or parameters have changed since; data that is merely missing
    is no change.
    """
    repository = Repo(str(clone))
    try:
        with repository.lock:
            (predictions,) = repository.find_outs_by_path(str(clone / PREDICTIONS))
            last = predictions.stage
            stages = repository.stage.collect(last.addressing, with_deps=True)
            return last.name, [
                stage.name for stage in stages if stage.cmd and stage.changed(allow_missing=True)
            ]
    except DvcException as error:
        found = f"found no stage that makes {PREDICTIONS} ({error})"
        raise RevisionError(name, f"{found}, expected one in dvc.yaml") from None


def _reproduce(name: str, commit: str, clone: Path, stage: str) -> None:
    repository = Repo()
    if repository.config["core"].get("remote"):
        try:
            repository.fetch(revs=[commit], workspace=False, run_cache=True)
        except (DvcException, OSError) as error:
            tqdm.write(printable(f"{name}: not all of it could be fetched ({error})"), sys.stderr)
    Repo(str(clone)).checkout(allow_missing=True)
    # With the versions of the commit, its stages would refuse those that are installed.
    if (clone / ENVIRONMENT_FILE).exists():
        update_environment(clone / ENVIRONMENT_FILE)
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", stage],
        cwd=clone,
        env={k: v for k, v in os.environ.items() if k not in VARIABLES_SET} | {"PATH": places},
        stdin=subprocess.DEVNULL,
        # What is printed is the report; this is progress.
        stdout=sys.stderr.fileno(),
        check=False,
    )
    if done.returncode:
        problem = f"`dvc repro` ends with status {done.returncode} (its output is above)"
        raise RevisionError(name, f"{problem}, expected results to compare")


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
    )
    return done.stdout.strip()
