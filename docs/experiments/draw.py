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
BLUE, ORANGE = "#3b8fd0", "#e69f00"
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
        if row.get(f"{x}_min"):
            ends = [float(row[f"{x}_min"]), float(row[f"{x}_max"])]
            axes.plot(ends, [place, place], color=COLOURS[row["network"]])
    axes.set_yticks(range(len(rows)), [label(row) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(AXES.get(x, x))
    axes.locator_params(axis="x", nbins=4)


AXES = {
    "auc_val": "AUC (val)",
    "auc_test": "AUC (test)",
    "auc_all": "AUC (all)",
    "sensitivity_all": "sensitivity (all)",
    "sensitivity_test": "sensitivity (test)",
    "loss_test": "loss (test)",
}


def _curves(axes: Axes, rows: Rows, by: str, x: str, y: str, colours: list[str]) -> None:
    for colour, (name, points) in zip(
        colours, groupby(rows, key=lambda row: row[by]), strict=False
    ):
        each = list(points)
        xs, ys = ([float(row[key]) for row in each] for key in (x, y))
        axes.plot(xs, ys, marker=".", color=colour, label=name)
    axes.set_ylabel(AXES.get(y, y))
    axes.legend(title=by.replace("_", " "))


def real_patches(rows: Rows) -> Figure:
    """AUC and sensitivity of each training, with one view and with eight."""
    figure, axes = _figure(3.4, 2)

    def label(row: dict[str, str]) -> str:
        views = "1 view" if row["views"] == "1" else f"{row['views']} views"
        return f"{row['network']}, seed {row['seed']}, {views}"

    for each, x in zip(axes, ("auc_all", "sensitivity_all"), strict=True):
        _dots(each, rows, x, label)
    return figure


def published_squeezenet(rows: Rows) -> Figure:
    """AUC by epoch for each seed."""
    figure, (axes,) = _figure(2.8)
    _curves(axes, rows, "seed", "epoch", "auc_val", [BLUE, ORANGE, "#009e73"])
    axes.set_xlabel("epoch")
    return figure


def initial_weights(rows: Rows) -> Figure:
    """AUC by epoch for both initializations."""
    figure, (axes,) = _figure(2.8)
    _curves(axes, rows, "initialization", "epoch", "auc_val", [BLUE, ORANGE])
    axes.set_xlabel("epoch")
    axes.set_xticks([1, 2, 3, 4])
    return figure


def running_statistics(rows: Rows) -> Figure:
    """AUC and loss on test for each kind of statistics."""
    figure, axes = _figure(3.6, 2)
    _dots(axes[0], rows, "auc_test", lambda row: f"{row['network']}: {row['statistics']}")
    _dots(axes[1], rows, "loss_test", lambda row: f"{row['network']}: {row['statistics']}")
    return figure


def ablation(rows: Rows) -> Figure:
    """AUC on val and test, and sensitivity, of each recipe."""
    figure, axes = _figure(4.2, 3)
    for each, x in zip(axes, ("auc_val", "auc_test", "sensitivity_test"), strict=True):
        _dots(each, rows, x, lambda row: f"{row['network']}: {row['recipe']}")
    return figure


def recipe_search(rows: Rows) -> Figure:
    """AUC and sensitivity of each attempt."""
    figure, axes = _figure(3.8, 2)
    for each, x in zip(axes, ("auc_all", "sensitivity_all"), strict=True):
        _dots(each, rows, x, lambda row: _attempt(row))
    return figure


def _attempt(row: dict[str, str]) -> str:
    change = row["change"].split(":")[0].split(" between")[0].split(" of")[0].split(",")[0]
    return ", ".join(filter(None, (f"{row['network']}: {row['learning_rate']}", change)))


def constant_rate(rows: Rows) -> Figure:
    """AUC by epoch for each average, one panel per learning rate."""
    figure, axes = _figure(3.2, 2)
    colours = ["#cde5f7", "#8fc1e9", BLUE, "#1f5f91", "#0b2f4d"]
    for each, rate in zip(axes, ("0.002", "0.004"), strict=True):
        mine = [row for row in rows if row["learning_rate"] == rate]
        mine.sort(key=lambda row: float(row["average"]))
        _curves(each, mine, "average", "epoch", "auc_all", colours)
        each.set_title(f"learning rate {rate}")
        each.set_xlabel("epoch")
    axes[1].set_ylabel("")
    return figure


def time_to_auc(rows: Rows) -> Figure:
    """AUC by minutes of training."""
    figure, (axes,) = _figure(3.2)
    _curves(axes, rows, "network", "minutes", "auc_val", [BLUE, ORANGE])
    axes.axhline(0.97, color="grey", linestyle="--", linewidth=1)
    axes.set_xlabel("minutes")
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


def kills(rows: Rows) -> Figure:
    """Moment of each kill, by stage."""
    figure, (axes,) = _figure(2.2)
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    resumed = {False: ("x", BLUE, "started from scratch"), True: ("o", ORANGE, "resumed")}
    for is_resumed, (marker, colour, label) in resumed.items():
        mine = [row for row in rows if bool(row["resumed_after_epoch"]) is is_resumed]
        places = [stages.index(row["stage"]) for row in mine]
        seconds = [float(row["seconds"]) for row in mine]
        axes.plot(seconds, places, marker, color=colour, label=label)
    axes.set_yticks(range(len(stages)), stages)
    axes.set_ylim(len(stages) - 0.5, -0.5)
    axes.set_xlabel("seconds since the start of the stage")
    axes.legend()
    return figure


FIGURES: dict[str, Callable[[Rows], Figure]] = {
    "ablation": ablation,
    "constant-rate": constant_rate,
    "initial-weights": initial_weights,
    "kills": kills,
    "published-squeezenet": published_squeezenet,
    "real-patches": real_patches,
    "recipe-search": recipe_search,
    "running-statistics": running_statistics,
    "throughput": throughput,
    "time-to-auc": time_to_auc,
}

if __name__ == "__main__":
    main()
