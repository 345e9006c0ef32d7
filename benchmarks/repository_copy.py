"""A temporary copy of this repository in which the pipeline can run and be killed."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

REPOSITORY = Path(__file__).parent.parent
_YAML = YAML(typ="safe", pure=True)


class RepositoryCopy:
    """A git repository with the files of this repository.

    Parameters
    ----------
    path
        Existing folder of the copy.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        author = {"NAME": "Nobody", "EMAIL": "nobody@localhost"}
        # DVC in the copy must not see a surrounding stage or repository.
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith("DVC_")} | {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONUNBUFFERED": "1",  # keeps the last lines of a killed stage
            **{f"GIT_{role}_{k}": v for role in ("AUTHOR", "COMMITTER") for k, v in author.items()},
        }

    @classmethod
    def create(cls, path: Path, changes: Mapping[str, Any] | None = None) -> "RepositoryCopy":
        """Copy and commit all files not ignored by git, including uncommitted changes.

        Parameters
        ----------
        path
            Empty folder for the copy.
        changes
            New values for params.yaml, as nested mappings.
        """
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=REPOSITORY, capture_output=True, text=True, check=True)
        for name in names.stdout.split("\0"):
            if name and (REPOSITORY / name).is_file():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPOSITORY / name, path / name)
        copy = cls(path)
        if changes:
            copy.change_params(changes)
        copy("git", "init", "--quiet")
        copy.commit("everything")
        return copy

    def __call__(self, *command: str, status: int = 0) -> str:
        """Run a command and return its standard output, plus stderr if it is expected to fail.

        Raises
        ------
        AssertionError
            If the exit status is not `status`.
        """
        result = subprocess.run(
            command,
            cwd=self.path,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != status:
            raise AssertionError(f"{command}:\n{result.stdout}\n{result.stderr}")
        return result.stdout if status == 0 else result.stdout + result.stderr

    def json(self, *command: str) -> Any:
        """Run a command and parse its standard output as JSON."""
        return json.loads(self(*command))

    def start_dvc(self, *arguments: str) -> subprocess.Popen[str]:
        """Start DVC in a new session, so that all its processes can be killed together."""
        return subprocess.Popen(
            [sys.executable, "-m", "dvc", *arguments],
            cwd=self.path,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def commit(self, message: str) -> None:
        """Commit all changes."""
        self("git", "add", "--all")
        self("git", "commit", "--quiet", "--message", message)

    def change_params(self, changes: Mapping[str, Any]) -> None:
        """Replace values in params.yaml."""
        file = self.path / "params.yaml"
        content = _YAML.load(file)
        _replace(content, changes)
        _YAML.dump(content, file)

    def output_hashes(self) -> dict[str, str]:
        """Return the hash in dvc.lock of every output, by path."""
        lock = _YAML.load(self.path / "dvc.lock")
        outs = (out for stage in lock["stages"].values() for out in stage["outs"])
        return {out["path"]: out["md5"] for out in outs}


def _replace(base: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _replace(base[key], value)
        else:
            base[key] = value
