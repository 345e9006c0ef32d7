"""A git and DVC repository with a trivial pipeline, for comparing revisions."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import REPOSITORY

PIPELINE = """\
stages:
  evaluate:
    cmd: python evaluate.py
    deps: [evaluate.py]
    params: [model, skill, luck, patches, pixels, compression]
    outs: [data/predictions.csv, data/splits/test.h5]
    metrics: [metrics/evaluate/metrics.json: {cache: false}]
    plots:
      - metrics/train/plots/metrics/val/loss.tsv: {cache: false, x: step, y: loss, template: simple}
"""

# `skill` sets the quality of the predictions; `luck` seeds their noise.
EVALUATE = """\
import csv, json, h5py, numpy as np
from pathlib import Path
from ruamel.yaml import YAML
params = YAML(typ="safe").load(Path("params.yaml"))
count = params["patches"]
data = np.random.default_rng(0)
groups = np.arange(count) // 10
index = 1000 + 3 * np.arange(count)
labels = (np.arange(count) % 5 == 0).astype(int)
shared = data.normal(size=count)
luck = np.random.default_rng(params["luck"]).normal(size=count)
score = params["skill"] * labels + shared + 0.4 * luck - params["skill"] / 2
probabilities = 1 / (1 + np.exp(-score))
for folder in ("data/splits", "metrics/evaluate", "metrics/train/plots/metrics/val"):
    Path(folder).mkdir(parents=True, exist_ok=True)
with open("data/predictions.csv", "w") as file:
    table = csv.writer(file)
    table.writerow(("split", "index", "group", "label", "probability"))
    table.writerow(("val", 1, 999, 1, 0.5))
    # Not in order: rows are matched by their index.
    for row in data.permutation(count):
        table.writerow(("test", index[row], groups[row], labels[row], probabilities[row]))
Path("metrics/evaluate/metrics.json").write_text(json.dumps({"threshold": 0.5}))
Path("metrics/train/plots/metrics/val/loss.tsv").write_text("step\\tloss\\n0\\t0.7\\n1\\t0.5\\n")
with h5py.File("data/splits/test.h5", "w") as file:
    pixels = np.random.default_rng(params["pixels"])
    images = pixels.integers(0, 256, (count, 50, 50), dtype=np.uint8)
    file.create_dataset("X", data=images, compression=params["compression"])
    file["index"] = index
"""

PARAMS = "model: first\nskill: 1.0\nluck: 1\npatches: 400\npixels: 1\ncompression: null\n"
PARAMS += "evaluate:\n  calibration_bins: 8\n"
PACKAGES = 'numpy: "2.0.0"\nscipy: "1.10"\n'


def commands_environment() -> dict[str, str]:
    """Return an environment with the current `python` and `dvc` and a git author."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    author = {"NAME": "Test", "EMAIL": "test@example.com"}
    names = {f"GIT_{role}_{k}": v for role in ("AUTHOR", "COMMITTER") for k, v in author.items()}
    return os.environ | names | {"PATH": places}


class Project:
    """A git and DVC repository."""

    @classmethod
    def create(cls, path: Path, *, git_folder: Path | None = None) -> "Project":
        """Create a repository with one commit and a reproduced pipeline.

        Parameters
        ----------
        path
            Existing folder of the project.
        git_folder
            Folder of the git repository that the project is a part of; by default, `path`.
        """
        project = cls(path)
        top = git_folder or path
        project.run("git", "init", "--quiet", "--initial-branch", "main", str(top))
        project.run("dvc", "init", "--quiet", *([] if top == path else ["--subdir"]))
        shutil.copy(REPOSITORY / ".dvc" / "config", path / ".dvc" / "config")
        shutil.copytree(REPOSITORY / ".dvc" / "plots", path / ".dvc" / "plots")
        for name, text in (
            ("dvc.yaml", PIPELINE),
            ("evaluate.py", EVALUATE),
            ("params.yaml", PARAMS),
            ("environment.yaml", PACKAGES),
            (".gitignore", "/data\n__pycache__\n/dvc_plots\n/report\n"),
        ):
            (path / name).write_text(text)
        project.run("dvc", "repro", "--quiet")
        project.commit("first")
        return project

    def __init__(self, path: Path) -> None:
        self.path = path
        self.environment = commands_environment() | {"PYTHONPATH": str(REPOSITORY)}

    def __call__(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.path,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def run(self, *command: str) -> str:
        result = self(*command)
        assert result.returncode == 0, f"{command}:\n{result.stdout}\n{result.stderr}"
        return result.stdout

    def commit(self, message: str) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)

    def compare(self, *arguments: str) -> str:
        return self.run("python", "-m", "nodules", "compare", "--resamples", "500", *arguments)

    def experiment(self, name: str, *changes: str) -> None:
        settings = [part for change in changes for part in ("--set-param", change)]
        self.run("dvc", "exp", "run", "--quiet", "--name", name, *settings)
        self.run("git", "checkout", "--quiet", ".")
        self.run("dvc", "checkout", "--quiet")


@contextmanager
def data_taken_away(project: Project, aside: Path) -> Iterator[None]:
    """Temporarily move the cache and the data away."""
    places = [project.path / ".dvc" / "cache", project.path / "data"]
    for place in places:
        shutil.move(place, aside / place.name)
    yield
    for place in places:
        shutil.rmtree(place, ignore_errors=True)
        shutil.move(aside / place.name, place)
