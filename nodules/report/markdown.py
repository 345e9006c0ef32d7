"""The comparison report as Markdown, for a comment on a pull request."""

import re

from nodules.report.content import (
    Report,
    Table,
    comparison_table,
    notes,
    params_table,
    power_text,
    scores_table,
    subject,
    verdict,
    warnings,
)
from nodules.system.streams import printable

ZERO_WIDTH_SPACE = "\u200b"
# Characters that Markdown or HTML would treat as markup in the middle of a line.
_MARKUP = re.compile(r"[\\`*_{}\[\]<>|~&$]")
# Characters that start a link or a mention on GitHub or GitLab, in any context and even after a
# backslash. A zero-width space after them prevents the link.
_LINKS = re.compile(
    r"[@#!]"  # mentions, issues, merge requests
    r"|[$&](?=\d)|[%~](?=[\w\"])|\*(?=iteration:)|\[(?=[a-z_]+:)"  # GitLab's other references
    r"|:(?=//|[\w+-]+:)"  # URLs, emoji
    r"|[wW]{3}(?=\.)"  # URLs without a scheme; e-mail addresses contain an @
    r"|(?<![A-Za-z0-9])(?:[gG][hH]|[A-Z][A-Z0-9]+)-(?=\d)"  # issues, also in external trackers
)


def as_markdown(report: Report) -> str:
    """Return the verdicts, a table for each candidate, and the details in a collapsed section."""
    parts = [
        f"**{escaped(verdict(report, *pair))}**. {escaped(power_text(report, pair[1]))}"
        for pair in report.pairs
    ]
    parts += [f"**{escaped(warning)}**" for warning in warnings(report)]
    parts.append(f"{escaped(subject(report))}.")
    for candidate, comparison in report.pairs:
        table = comparison_table(report, candidate, comparison)
        parts += [f"#### {escaped(table.title)}", _table(table)]
    params = params_table(report)
    if params.rows:
        parts += [f"#### {params.title}", _table(params)]
    scores = scores_table(report)
    parts.append(f"<details><summary>{scores.title}, methods and limitations</summary>")
    parts.append(_table(scores))
    parts.append("\n".join(f"- {escaped(note)}" for note in notes(report)))
    parts.append("</details>")
    return "\n\n".join(parts)


def _table(table: Table) -> str:
    lines = [table.head, ["---"] * len(table.head), *table.rows]
    return "\n".join(
        f"| {' | '.join(cell if set(cell) == {'-'} else escaped(cell) for cell in line)} |"
        for line in lines
    )


def escaped(text: str) -> str:
    """Escape markup, links and mentions, and join the lines of a text."""
    text = printable(" ".join(text.split()))
    unlinked = _LINKS.sub(lambda match: match[0] + ZERO_WIDTH_SPACE, text)
    return _MARKUP.sub(r"\\\g<0>", unlinked)
