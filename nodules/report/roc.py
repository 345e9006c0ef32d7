"""The ROC curves of a report as a PNG and as Mermaid charts, for a pull request comment."""

from pathlib import Path

import numpy as np
import vl_convert
from sklearn.metrics import roc_curve

from nodules.report.charts import COLOURS, roc_charts
from nodules.report.content import Report
from nodules.system.atomic import replacing

SIZE = 420
# A Mermaid chart spaces its points equally, so the curves are interpolated at this many equally
# spaced false positive rates.
ROC_POINTS = 51


def write_roc_png(report: Report, path: Path) -> None:
    """Write one PNG with the ROC curves of all revisions, and their upper left corner."""
    panels = [
        chart | {"title": title, "width": SIZE, "height": SIZE}
        for title, chart in roc_charts(report).items()
    ]
    legend = {"orient": "bottom", "symbolOpacity": 1, "labelLimit": SIZE}
    spec = {"hconcat": panels, "background": "white", "config": {"legend": legend}}
    with replacing(path) as temporary:
        temporary.write_bytes(vl_convert.vegalite_to_png(spec, scale=2))


def roc_mermaid(report: Report, size: float = 1) -> str:
    """Return the ROC curves as a Mermaid chart, which GitHub and GitLab render in comments.

    A comment cannot embed an image that is not hosted on a server. The curves are interpolated at
    `ROC_POINTS` false positive rates.

    Parameters
    ----------
    report
        Comparison to show.
    size
        Width and height of the upper left part of the ROC to draw, in 0..1. Curves below it run
        along its lower edge, since Mermaid would draw them outside.
    """
    rates = np.linspace(0, size, ROC_POINTS)
    lines = []
    for revision in report.revisions:
        predictions = revision.predictions
        fpr, tpr, _ = roc_curve(predictions.labels, predictions.probabilities)
        shown = np.maximum(np.interp(rates, fpr, tpr), 1 - size)
        lines.append(f"  line [{', '.join(f'{y:.3f}' for y in shown)}]")
    colours = ", ".join(COLOURS[: len(lines)])
    theme = f'{{"themeVariables": {{"xyChart": {{"plotColorPalette": "{colours}"}}}}}}'
    return "\n".join(
        [
            "```mermaid",
            f"%%{{init: {theme}}}%%",
            "xychart-beta",
            f'  x-axis "False positive rate (1 - specificity)" 0 --> {size:g}',
            f'  y-axis "Sensitivity" {1 - size:g} --> 1',
            *lines,
            "```",
        ]
    )
