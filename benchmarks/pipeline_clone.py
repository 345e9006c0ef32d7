"""A clone of the repository in a temporary folder, in which the pipeline can run and be killed."""

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


class PipelineClone:
    """The files that git knows or would add, changes included, in a repository of their own.

    Parameters
    ----------
    path
        An empty folder.
    changes
        To params.yaml, as nested mappings; a value replaces the one that is there.
    """

    def __init__(self, path: Path, changes: Mapping[str, Any]) -> None:
        self.path = path
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=REPOSITORY, capture_output=True, text=True, check=True)
        for name in names.stdout.split("\0"):
            if name and (REPOSITORY / name).is_file():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPOSITORY / name, path / name)
        self.change_params(changes)
        self.git("init", "--quiet")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "clone")

    def git(self, *arguments: str) -> None:
        """Run git, as nobody in particular."""
        author = ("-c", "user.name=clone", "-c", "user.email=clone@localhost")
        subprocess.run(["git", *author, *arguments], cwd=self.path, check=True)

    def change_params(self, changes: Mapping[str, Any]) -> None:
        """Lay changes over params.yaml."""
        file = self.path / "params.yaml"
        content = _YAML.load(file)
        _lay_over(content, changes)
        _YAML.dump(content, file)

    def dvc(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start DVC in a session of its own, whose processes can be killed together."""
        places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return subprocess.Popen(
            [sys.executable, "-m", "dvc", *arguments],
            cwd=self.path,
            # Of a stage that runs this, or of a repository around it, DVC is to know nothing.
            env={k: v for k, v in os.environ.items() if not k.startswith("DVC_")}
            # What a killed stage has printed last is to be seen.
            | {"PATH": places, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            **options,
        )

    def output_hashes(self) -> dict[str, str]:
        """Give the hash in dvc.lock of each output of each stage, by path."""
        lock = _YAML.load(self.path / "dvc.lock")
        outs = (out for stage in lock["stages"].values() for out in stage["outs"])
        return {out["path"]: out["md5"] for out in outs}


def _lay_over(base: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _lay_over(base[key], value)
        else:
            base[key] = value
