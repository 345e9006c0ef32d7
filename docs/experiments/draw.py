"""Draw the figure of each CSV file in this folder: `python docs/experiments/draw.py`.

Each PNG stores the hash of its CSV, by which a test finds a figure that is out of date.
"""

import csv
import hashlib
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

HERE = Path(__file__).parent
HASH_KEY = "Source-SHA256"
BLUE, ORANGE, GREEN = "#3b8fd0", "#e69f00", "#009e73"
COLOURS = {"squeezenet": BLUE, "mobilenet": ORANGE}

Rows = list[dict[str, str]]


def main() -> None:
    """Draw all figures."""
    mpl.rcParams.update({"axes.grid": True, "grid.alpha": 0.3, "font.size": 9})
    for name, draw in FIGURES.items():
        source = HERE / f"{name}.csv"
        with source.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        figure = draw(rows)
        figure.savefig(
            source.with_suffix(".png"), dpi=110, metadata={HASH_KEY: source_hash(source)}
        )


def source_hash(source: Path) -> str:
    """Return the SHA-256 of a CSV file."""
    return hashlib.sha256(source.read_bytes()).hexdigest()


def _figure(height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(8, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False, sharey=True)[0]
    return figure, list(axes)


def _dots(axes: Axes, rows: Rows, x: str, label: Callable[[dict[str, str]], str]) -> None:
    """Draw one dot per row, in the order of the file, coloured by network."""
    for place, row in enumerate(rows):
        axes.plot(float(row[x]), place, "o", color=COLOURS[row["network"]])
    axes.set_yticks(range(len(rows)), [label(row) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(AXES.get(x, x))
    axes.locator_params(axis="x", nbins=4)


AXES = {
    "auc_val": "AUC (val)",
    "auc_test": "AUC (test)",
    "auc_all": "AUC (all)",
    "sensitivity_all": "sensitivity (all)",
    "loss_test": "loss (test)",
}


def published_squeezenet(rows: Rows) -> Figure:
    """AUC by epoch for each seed."""
    figure, (axes,) = _figure(2.8)
    seeds = groupby(rows, key=lambda row: row["seed"])
    for colour, (seed, points) in zip((BLUE, ORANGE, GREEN), seeds, strict=True):
        each = list(points)
        epochs, aucs = ([float(row[key]) for row in each] for key in ("epoch", "auc_val"))
        axes.plot(epochs, aucs, marker=".", color=colour, label=seed)
    axes.set_xlabel("epoch")
    axes.set_ylabel(AXES["auc_val"])
    axes.legend(title="seed")
    return figure


def running_statistics(rows: Rows) -> Figure:
    """AUC and loss on test for each kind of statistics."""
    figure, axes = _figure(3.6, 2)
    _dots(axes[0], rows, "auc_test", lambda row: f"{row['network']}: {row['statistics']}")
    _dots(axes[1], rows, "loss_test", lambda row: f"{row['network']}: {row['statistics']}")
    return figure


def throughput(rows: Rows) -> Figure:
    """Patches per second of each program."""
    figure, axes = _figure(3.2, 2)
    for each, name in zip(axes, COLOURS, strict=True):
        mine = [row for row in rows if row["network"] == name]
        values = [float(row["patches_per_s"]) for row in mine]
        each.barh([row["measured"] for row in mine], values, color=COLOURS[name])
        each.set_xlabel("patches/s")
        each.set_title(name)
    axes[0].invert_yaxis()
    return figure


FIGURES: dict[str, Callable[[Rows], Figure]] = {
    "published-squeezenet": published_squeezenet,
    "running-statistics": running_statistics,
    "throughput": throughput,
}

if __name__ == "__main__":
    main()
