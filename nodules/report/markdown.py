"""The report as Markdown, for a comment on a pull request."""

import re

from nodules.report.content import (
    Report,
    Table,
    comparison_table,
    notes,
    outlook,
    params_table,
    scores_table,
    subject,
    verdict,
    warnings,
)
from nodules.system.streams import printable

ZERO_WIDTH_SPACE = "\u200b"
# What Markdown or HTML would read as markup in the middle of a line.
_MARKUP = re.compile(r"[\\`*_{}\[\]<>|~&$]")
# What GitHub or GitLab turn into a link or a mention, whatever stands before it and with or without
# a backslash: a zero-width space after each of these keeps them from it.
_LINKS = re.compile(
    r"[@#!]"  # people, issues, merge requests
    r"|[$&](?=\d)|[%~](?=[\w\"])|\*(?=iteration:)|\[(?=[a-z_]+:)"  # what GitLab has besides
    r"|:(?=//|[\w+-]+:)"  # addresses, emoji
    r"|[wW]{3}(?=\.)"  # addresses; those of mail have an @
    r"|(?<![A-Za-z0-9])(?:[gG][hH]|[A-Z][A-Z0-9]+)-(?=\d)"  # issues, also of other trackers
)


def as_markdown(report: Report) -> str:
    """Print the verdicts, a table for each candidate, and the rest to unfold."""
    parts = [
        f"**{escaped(verdict(report, *pair))}**; {escaped(outlook(report, pair[1]))}."
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
    parts.append("<details><summary>Scores with their intervals, and what they rest on</summary>")
    parts.append(_table(scores_table(report)))
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
    """Keep text from being read as markup, a link or a mention, and on one line."""
    text = printable(" ".join(text.split()))
    apart = _LINKS.sub(lambda found: found[0] + ZERO_WIDTH_SPACE, text)
    return _MARKUP.sub(r"\\\g<0>", apart)
