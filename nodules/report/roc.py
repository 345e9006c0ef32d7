"""The ROC curves of a report as a PNG and as a Mermaid chart, for a pull request comment."""

from pathlib import Path

import numpy as np
import vl_convert
from sklearn.metrics import roc_curve

from nodules.report.charts import COLOURS, charts
from nodules.report.content import Report
from nodules.system.atomic import replacing

SIZE = 420
# A Mermaid chart spaces its points equally, so the curves are interpolated at this many equally
# spaced false positive rates.
ROC_POINTS = 51


def write_roc_png(report: Report, path: Path) -> None:
    """Write one PNG with the ROC curves of all revisions."""
    spec = charts(report)["ROC"] | {"width": SIZE, "height": SIZE, "background": "white"}
    spec["config"] = {"legend": {"orient": "bottom", "symbolOpacity": 1, "labelLimit": SIZE}}
    with replacing(path) as temporary:
        temporary.write_bytes(vl_convert.vegalite_to_png(spec, scale=2))


def roc_mermaid(report: Report) -> str:
    """Return the ROC curves as a Mermaid chart, which GitHub and GitLab render in comments.

    A comment cannot embed an image that is not hosted on a server. The curves are interpolated at
    `ROC_POINTS` false positive rates.
    """
    rates = np.linspace(0, 1, ROC_POINTS)
    lines = []
    for revision in report.revisions:
        predictions = revision.predictions
        fpr, tpr, _ = roc_curve(predictions.labels, predictions.probabilities)
        lines.append(f"  line [{', '.join(f'{y:.3f}' for y in np.interp(rates, fpr, tpr))}]")
    colours = ", ".join(COLOURS[: len(lines)])
    theme = f'{{"themeVariables": {{"xyChart": {{"plotColorPalette": "{colours}"}}}}}}'
    return "\n".join(
        [
            "```mermaid",
            f"%%{{init: {theme}}}%%",
            "xychart-beta",
            '  x-axis "False positive rate (1 - specificity)" 0 --> 1',
            '  y-axis "Sensitivity" 0 --> 1',
            *lines,
            "```",
        ]
    )
