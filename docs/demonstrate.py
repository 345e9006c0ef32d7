"""Make docs/demonstration.md: three commits in a clone, and the reports that they get.

python docs/demonstrate.py               as committed, some 30 minutes on two cores
python docs/demonstrate.py --epochs 6    shorter trainings

The embedded data set is frozen with its split first, so that `seed` changes the training alone.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ruamel.yaml import YAML

REPOSITORY = Path(__file__).parent.parent
DOCUMENT = REPOSITORY / "docs" / "demonstration.md"
PICTURES = REPOSITORY / "docs" / "demonstration"
DATASET = "data/frozen.h5"
SPLITS = [f"data/splits/{name}.h5" for name in ("train", "val", "test")]
OTHER_SEED = 1
# Desktop and telephone: width and height in pixels.
SCREENS = {"desktop": (1280, 1500), "phone": (500, 1100)}

TEXT = """\
# Demonstration
Three commits, and the comment and page that each of the last two would get as a pull request
against the one before it. {training}.

Made by `{command}`, which writes this file anew.

The embedded data set was frozen first, together with its split, so that `seed` changes the training
alone:

```console
$ dvc repro split
$ python -m nodules import legacy {splits} --out {dataset}
$ dvc add {dataset}
```

| commit | what it changes |
| --- | --- |
| `squeezenet` | `dataset: {dataset}`{epochs} |
| `mobilenet` | `model: mobilenet` |
| `other-seed` | `seed: {seed}` |

## Another network
`python -m nodules.report.pull_request squeezenet mobilenet` gives this comment:

---

{first}

---

with this picture:

![ROC curves of both networks](demonstration/mobilenet-roc.png)

and this page{screens}:

![The page on a desktop](demonstration/mobilenet-desktop.png)

## Another seed
The verdict is about the AUC, how well the nodules are ranked above the rest. Scores at a threshold
also follow where the validation split put the threshold. And every test here compares two trained
networks: none of them knows how much a third training would differ.

`python -m nodules.report.pull_request mobilenet other-seed`:

---

{second}

---

![ROC curves of both seeds](demonstration/other-seed-roc.png)
"""


class Clone:
    """A clone of this repository's last commit."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._environment = os.environ | {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        }
        for role in ("AUTHOR", "COMMITTER"):
            self._environment[f"GIT_{role}_NAME"] = "Demonstration"
            self._environment[f"GIT_{role}_EMAIL"] = "demonstration@example.com"
        subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(path)], check=True)

    def run(self, *command: str) -> str:
        """Run a command and give what it prints."""
        print("$", *command, file=sys.stderr)
        done = subprocess.run(
            command,
            cwd=self.path,
            env=self._environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout

    def commit(self, name: str, *changes: str) -> None:
        """Change parameters, reproduce, and commit all of it under a tag."""
        file = self.path / "params.yaml"
        yaml = YAML()
        yaml.width = 120
        params = yaml.load(file)
        for change in changes:
            key, value = change.split("=")
            *blocks, last = key.split(".")
            place = params
            for block in blocks:
                place = place[block]
            place[last] = yaml.load(value)
        yaml.dump(params, file)
        self.run("dvc", "repro", "evaluate")
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", name)
        self.run("git", "tag", name)

    def report(self, base: str, candidate: str) -> str:
        """Make a report, keep its pictures, and give its comment."""
        comment = self.run("python", "-m", "nodules.report.pull_request", base, candidate)
        shutil.copy(self.path / "report" / "roc.png", PICTURES / f"{candidate}-roc.png")
        page = self.path / "report" / "comparison.html"
        shutil.move(page, self.path.parent / f"{candidate}.html")
        return comment.strip()


def photograph(page: Path, name: str) -> None:
    """Keep pictures of the page, where there is a Chromium to take them."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        print("there is no Chromium: the pictures of the page stay as they are", file=sys.stderr)
        return
    for screen, (width, height) in SCREENS.items():
        subprocess.run(
            [
                browser,
                *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                f"--user-data-dir={page.parent / 'profile'}",
                "--virtual-time-budget=10000",
                f"--window-size={width},{height}",
                f"--screenshot={PICTURES / f'{name}-{screen}.png'}",
                page.as_uri(),
            ],
            check=True,
            stderr=subprocess.DEVNULL,
        )


def main() -> None:
    """Make the commits, their reports and the document."""
    parser = argparse.ArgumentParser(description="Make docs/demonstration.md.")
    parser.add_argument("--epochs", type=int, metavar="N", help="default: as committed")
    epochs = parser.parse_args().epochs
    PICTURES.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="demonstration-"))
    clone = Clone(folder / "clone")
    clone.run("dvc", "repro", "split")
    clone.run("python", "-m", "nodules", "import", "legacy", *SPLITS, "--out", DATASET)
    clone.run("dvc", "add", "--quiet", DATASET)
    fewer = [f"recipes.tuned.epochs={epochs}"] if epochs else []
    clone.commit("squeezenet", f"dataset={DATASET}", *fewer)
    clone.commit("mobilenet", "model=mobilenet")
    first = clone.report("squeezenet", "mobilenet")
    photograph(folder / "mobilenet.html", "mobilenet")
    clone.commit("other-seed", f"seed={OTHER_SEED}")
    second = clone.report("mobilenet", "other-seed")
    training = (
        f"Trained for {epochs} epochs only, so these are not the networks' results"
        if epochs
        else "Trained as committed"
    )
    DOCUMENT.write_text(
        TEXT.format(
            training=training,
            command=f"python docs/demonstrate.py{f' --epochs {epochs}' if epochs else ''}",
            splits=" ".join(SPLITS),
            dataset=DATASET,
            epochs=f", `recipes.tuned.epochs: {epochs}`" if epochs else "",
            seed=OTHER_SEED,
            first=first,
            second=second,
            screens=" ([at a telephone's width](demonstration/mobilenet-phone.png))",
        )
    )
    print(f"wrote {DOCUMENT}; the clone and the pages are in {folder}", file=sys.stderr)


if __name__ == "__main__":
    main()
