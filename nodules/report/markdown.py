"""The report as Markdown, for a comment on a pull request."""

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

# What Markdown or HTML would read as markup in the middle of a line.
MARKUP = "\\`*_{}[]<>|~&"
# What begins the mention of a person, or of an issue or merge request.
MENTION = "@#!"
ZERO_WIDTH_SPACE = "\u200b"


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
    """Keep text from being read as markup or a mention, and on one line."""
    return "".join(map(_escaped_letter, " ".join(text.split())))


def _escaped_letter(letter: str) -> str:
    if letter in MENTION:
        # A backslash stops neither GitHub nor GitLab from finding the person or the issue.
        return f"{letter}{ZERO_WIDTH_SPACE}"
    return f"\\{letter}" if letter in MARKUP else letter
