"""The comparison report as one self-contained HTML page that works offline."""

import base64
import io
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from PIL import Image

from nodules.comparison.revisions import Revision
from nodules.patches.layout import CLASSES, Patches
from nodules.report.charts import charts
from nodules.report.content import (
    Report,
    Table,
    comparison_table,
    notes,
    params_table,
    power_text,
    scores_table,
    subject,
    title,
    verdict,
    warnings,
)
from nodules.report.vega import vega_bundle
from nodules.statistics.decision import called
from nodules.system.atomic import replacing
from nodules.system.streams import printable

MAX_DISAGREEMENTS = 12
_CLASS_NAMES = [name.replace("_", "-") for name in CLASSES]


def write_page(report: Report, path: Path) -> None:
    """Write the report as an HTML page.

    Parameters
    ----------
    report
        Comparison to show.
    path
        HTML file to write. It embeds the scripts and images and loads no other file.
    """
    page = _page_template().render(
        title=title(report),
        subject=subject(report),
        verdicts=[
            (
                comparison.verdict.name.lower(),
                verdict(report, candidate, comparison),
                power_text(report, comparison),
            )
            for candidate, comparison in report.pairs
        ],
        warnings=warnings(report),
        params=params_table(report),
        comparisons=[comparison_table(report, *pair) for pair in report.pairs],
        scores=scores_table(report),
        charts=charts(report),
        confusions=[_confusion_table(revision) for revision in report.revisions],
        disagreements=[_disagreements(report.baseline, other) for other in report.revisions[1:]],
        notes=notes(report),
        vega=vega_bundle(),
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _page_template() -> Template:
    """Return the template, which escapes markup and unprintable characters in all values."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=lambda value: value if hasattr(value, "__html__") else printable(value),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    return environment.get_template("page.html")


def _confusion_table(revision: Revision) -> Table:
    labels = revision.predictions.labels
    calls = called(revision.predictions.probabilities, revision.threshold)
    rows = [
        [f"actual {_CLASS_NAMES[actual]}"]
        + [f"{int(((labels == actual) & (calls == call)).sum()):,}" for call in (0, 1)]
        for actual in (0, 1)
    ]
    return Table(revision.name, ["", *(f"predicted {name}" for name in _CLASS_NAMES)], rows)


def _disagreements(baseline: Revision, candidate: Revision) -> tuple[Table, list[str] | None]:
    """Return the patches whose probability differs most, with their images if available."""
    before, after = baseline.predictions, candidate.predictions
    change = np.abs(after.probabilities - before.probabilities)
    largest = np.argsort(-change, kind="stable")[:MAX_DISAGREEMENTS]
    rows = [
        [
            f"{before.index[row]} ({name})"
            if (name := before.names[row])
            else str(before.index[row]),
            "" if before.groups is None else str(before.groups[row]),
            _CLASS_NAMES[before.labels[row]],
            f"{before.probabilities[row]:.3f}",
            f"{after.probabilities[row]:.3f}",
        ]
        for row in largest
    ]
    head = ["row", "group", "class", baseline.name, candidate.name]
    heading = f"Largest disagreements between {candidate.name} and {baseline.name}"
    patches = baseline.test_patches(before.index[largest])
    if patches is None:
        patches = candidate.test_patches(before.index[largest])
    images = None if patches is None else [_data_uri(patch) for patch in patches]
    return Table(heading, head, rows), images


def _data_uri(patch: Patches) -> str:
    png = io.BytesIO()
    Image.fromarray(patch).save(png, "png")
    return f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
