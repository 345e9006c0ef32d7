"""Run the pipeline twice for each model and recipe and compare the hashes of all outputs.

python -m benchmarks.reproducibility             # or: make verify
python -m benchmarks.reproducibility --epochs 1  # or: make verify EPOCHS=1

Runs on the built-in data set in a temporary copy, including uncommitted changes. Exits with status
1 if an output differs.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import add_models, new_parser
from benchmarks.repository_copy import RepositoryCopy
from nodules.params import read_params
from nodules.system.exits import one_line_errors

RECIPES = ("tuned", "published")


def run_twice(copy: RepositoryCopy) -> list[dict[str, str]]:
    """Run every stage twice, ignoring DVC's caches.

    Returns
    -------
    list of dict
        Output hashes by path, one dict per run.
    """
    runs = []
    for _ in range(2):
        with copy.start_dvc("repro", "--force", "--no-run-cache") as process:
            output, _ = process.communicate()
        if process.returncode:
            sys.exit(f"{output}\nerror: dvc repro exits with status {process.returncode}")
        runs.append(copy.output_hashes())
    return runs


def differing(runs: list[dict[str, str]]) -> list[str]:
    """Return the paths of the outputs that differ between runs."""
    paths = {path for run in runs for path in run}
    return sorted(path for path in paths if len({run.get(path) for run in runs}) > 1)


def table(runs: list[dict[str, str]]) -> str:
    """Return the hashes of two runs as a Markdown table."""
    lines = ["| output | first run | second run | |", "| --- | --- | --- | --- |"]
    different = differing(runs)
    for path in sorted({path for run in runs for path in run}):
        first, second = (run.get(path, "none") for run in runs)
        verdict = "**differs**" if path in different else "same"
        lines.append(f"| {path} | `{first}` | `{second}` | {verdict} |")
    return "\n".join(lines)


def main() -> None:
    """Compare two runs for each combination and print the tables."""
    parser = new_parser("benchmarks.reproducibility", __doc__)
    add_models(parser, list(read_params().models))
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=RECIPES)
    parser.add_argument("--epochs", type=int, help="number of epochs, instead of the recipe's")
    parser.add_argument("--scans", type=int, help="number of scans in the data set")
    arguments = parser.parse_args()
    found: list[str] = []
    with one_line_errors():
        read_params()
        for model in arguments.models:
            for recipe in arguments.recipes:
                changes: dict[str, Any] = {
                    "model": model,
                    "recipe": recipe,
                    "dataset": "data/phantom.h5",
                }
                if arguments.epochs:
                    changes["recipes"] = {recipe: {"epochs": arguments.epochs}}
                if arguments.scans:
                    changes["phantom"] = {"scans": arguments.scans}
                with tempfile.TemporaryDirectory() as folder:
                    runs = run_twice(RepositoryCopy.create(Path(folder), changes))
                print(f"\n{model}, {recipe}:\n\n{table(runs)}", flush=True)
                found += [f"{model}, {recipe}: {path}" for path in differing(runs)]
    if found:
        sys.exit("error: outputs differ between two runs: " + "; ".join(found))


if __name__ == "__main__":
    main()
