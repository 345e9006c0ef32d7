"""The report as plain text."""

from nodules.report.content import (
    Report,
    Table,
    comparison_table,
    notes,
    outlook,
    params_table,
    subject,
    verdict,
    warnings,
)


def as_text(report: Report) -> str:
    """Print the verdicts, a table for each candidate, and the parameters changed."""
    parts = [subject(report)]
    for candidate, comparison in report.pairs:
        parts.append(_aligned(comparison_table(report, candidate, comparison)))
    params = params_table(report)
    if params.rows:
        parts.append(_aligned(params))
    parts.append("\n".join(notes(report)))
    if found := warnings(report):
        parts.append("\n".join(found))
    for candidate, comparison in report.pairs:
        said = verdict(report, candidate, comparison)
        parts.append(f"{said};\n  {outlook(report, comparison)}")
    return "\n\n".join(parts)


def _aligned(table: Table) -> str:
    lines = [table.head, *table.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    return "\n".join([table.title, *(f"  {line}" for line in padded)])
