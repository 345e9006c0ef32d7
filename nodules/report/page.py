"""The comparison report as one self-contained HTML page that works offline."""

import base64
import io
import json
from html import escape as escape_markup
from pathlib import Path
from string import Template

import numpy as np
from numpy.typing import NDArray
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
    required_sample_text,
    scores_table,
    subject,
    verdict,
    warnings,
)
from nodules.report.vega import vega_bundle
from nodules.system.atomic import replacing
from nodules.system.streams import printable

TEMPLATE = Path(__file__).with_name("page.html")
DISAGREEMENTS = 12


def write_page(report: Report, path: Path) -> None:
    """Write the report as an HTML page.

    Parameters
    ----------
    report
        Comparison to show.
    path
        HTML file to write. It embeds the scripts and images and loads no other file.
    """
    specs = charts(report)
    specs_by_id = {f"chart-{number}": spec for number, spec in enumerate(specs.values())}
    sections = [
        *_verdicts(report),
        *_warnings(report),
        _section("Parameters changed", _params(report)),
        *_comparisons(report),
        _section("Scores with their intervals", _card(_table(scores_table(report)))),
        _section("Curves of the test patches, and of the training", _charts(list(specs))),
        _section("Test patches at each revision's threshold", _confusions(report)),
        *_disagreements(report),
        _section("What this rests on", _list(notes(report))),
    ]
    names = [revision.name for revision in report.revisions]
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(f"{', '.join(names[1:])} against {names[0]}"),
        subject=escape(subject(report)),
        sections="\n".join(sections),
        library=vega_bundle(),
        # A revision name that contains `</script>` must not end the script element.
        charts=json.dumps(specs_by_id, allow_nan=False).replace("<", "\\u003c"),
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def escape(text: str) -> str:
    """Escape markup and unprintable characters."""
    return escape_markup(printable(text))


def _verdicts(report: Report) -> list[str]:
    return [
        f'<div class="card verdict {comparison.verdict.name.lower()}">'
        f"<strong>{escape(verdict(report, candidate, comparison))}</strong>"
        f"<p>{escape(_sentence(required_sample_text(report, comparison)))}</p></div>"
        for candidate, comparison in report.pairs
    ]


def _warnings(report: Report) -> list[str]:
    return [
        f'<div class="card verdict worse"><strong>{escape(_sentence(warning))}</strong></div>'
        for warning in warnings(report)
    ]


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _params(report: Report) -> str:
    table = params_table(report)
    if not table.rows:
        return _card("<p>None.</p>")
    return _card(_table(table, wide=True))


def _comparisons(report: Report) -> list[str]:
    tables = (comparison_table(report, *pair) for pair in report.pairs)
    return [_section(table.title, _card(_table(table))) for table in tables]


def _charts(titles: list[str]) -> str:
    cards = (
        f'<div class="card"><h3>{escape(title)}</h3>'
        f'<div class="chart" id="chart-{number}"></div></div>'
        for number, title in enumerate(titles)
    )
    return f'<div class="grid">{"".join(cards)}</div>'


def _confusions(report: Report) -> str:
    return f'<div class="grid">{"".join(map(_confusion, report.revisions))}</div>'


def _confusion(revision: Revision) -> str:
    labels = revision.predictions.labels
    called = revision.predictions.probabilities >= revision.threshold
    kinds = [name.replace("_", "-") for name in CLASSES]
    rows = [
        [f"is {kinds[actual]}"]
        + [f"{int(((labels == actual) & (called == call)).sum()):,}" for call in (0, 1)]
        for actual in (0, 1)
    ]
    head = ["", *(f"called {kind}" for kind in kinds)]
    return _card(_table(Table(revision.name, head, rows)), revision.name)


def _disagreements(report: Report) -> list[str]:
    """Return, for each candidate, a section of the patches whose probability changes most."""
    sections = []
    baseline = report.baseline
    for candidate in report.revisions[1:]:
        before, after = baseline.predictions, candidate.predictions
        change = np.abs(after.probabilities - before.probabilities)
        largest = np.argsort(-change, kind="stable")[:DISAGREEMENTS]
        patches = baseline.test_patches(before.index[largest])
        if patches is None:
            patches = candidate.test_patches(before.index[largest])
        content = (
            _card(_table(_disagreement_table(baseline, candidate, largest)))
            if patches is None
            else _images(baseline, candidate, largest, patches)
        )
        title = f"Where {candidate.name} and {baseline.name} disagree most"
        sections.append(_section(title, content))
    return sections


def _disagreement_table(baseline: Revision, candidate: Revision, rows: NDArray[np.intp]) -> Table:
    before, after = baseline.predictions, candidate.predictions
    cells = [
        [
            str(before.index[row]),
            "" if before.groups is None else str(before.groups[row]),
            CLASSES[before.labels[row]].replace("_", "-"),
            f"{before.probabilities[row]:.3f}",
            f"{after.probabilities[row]:.3f}",
        ]
        for row in rows
    ]
    return Table("", ["row", "group", "class", baseline.name, candidate.name], cells)


def _images(
    baseline: Revision, candidate: Revision, rows: NDArray[np.intp], patches: Patches
) -> str:
    table = _disagreement_table(baseline, candidate, rows)
    figures = []
    for (row, group, kind, before, after), patch in zip(table.rows, patches, strict=True):
        of_group = f", group {group}" if group else ""
        scores = [f"{baseline.name} {before}", f"{candidate.name} {after}"]
        lines = [f"#{row}{of_group}", kind, *scores]
        caption = "<br>".join(map(escape, lines))
        image = f'<img alt="{escape(kind)} {row}" src="{_data_uri(patch)}">'
        figures.append(f'<figure class="card">{image}<figcaption>{caption}</figcaption></figure>')
    return f'<div class="grid small">{"".join(figures)}</div>'


def _data_uri(patch: Patches) -> str:
    png = io.BytesIO()
    Image.fromarray(patch).save(png, "png")
    return f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"


def _section(title: str, content: str) -> str:
    return f"<h2>{escape(title)}</h2>\n{content}"


def _card(content: str, title: str = "") -> str:
    heading = f"<h3>{escape(title)}</h3>" if title else ""
    return f'<div class="card">{heading}<div class="scroll">{content}</div></div>'


def _table(table: Table, *, wide: bool = False) -> str:
    kind = ' class="wide"' if wide else ""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.head)
    rows = (
        f"<tr>{''.join(f'<td{kind}>{escape(cell)}</td>' for cell in row)}</tr>"
        for row in table.rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _list(sentences: list[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>"
