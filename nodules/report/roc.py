"""The ROC curves of a report where no page can be opened: as a PNG, and as a Mermaid chart."""

from pathlib import Path

import numpy as np
import vl_convert
from sklearn.metrics import roc_curve

from nodules.report.charts import COLOURS, charts
from nodules.report.content import Report
from nodules.system.atomic import replacing

SIZE = 420
# The points of a Mermaid chart stand at equal distances, so the curves are read off at as many
# false positive rates.
READINGS = 51


def write_roc_png(report: Report, path: Path) -> None:
    """Draw the ROC curves of all revisions on one picture."""
    spec = charts(report)["ROC"] | {"width": SIZE, "height": SIZE, "background": "white"}
    spec["config"] = {"legend": {"orient": "bottom", "symbolOpacity": 1, "labelLimit": SIZE}}
    with replacing(path) as temporary:
        temporary.write_bytes(vl_convert.vegalite_to_png(spec, scale=2))


def roc_mermaid(report: Report) -> str:
    """Write the ROC curves as a chart that GitHub and GitLab draw inside a comment.

    Comments there cannot carry a picture that is not already on a server. The curves are the same,
    read off at `READINGS` false positive rates.
    """
    rates = np.linspace(0, 1, READINGS)
    lines = []
    for each in report.revisions:
        labels, probabilities = each.predictions.labels, each.predictions.probabilities
        fpr, tpr, _ = roc_curve(labels, probabilities)
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
