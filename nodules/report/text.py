"""The comparison report as plain text, without control characters."""

from nodules.report.content import (
    Report,
    Table,
    comparison_table,
    notes,
    params_table,
    power_text,
    subject,
    verdict,
    warnings,
)
from nodules.system.streams import printable


def as_text(report: Report) -> str:
    """Return a table for each candidate, the changed parameters, the notes and the verdicts."""
    parts = [printable(subject(report))]
    for candidate, comparison in report.pairs:
        parts.append(_aligned(comparison_table(report, candidate, comparison)))
    params = params_table(report)
    if params.rows:
        parts.append(_aligned(params))
    parts.append("\n".join(map(printable, notes(report))))
    if problems := warnings(report):
        parts.append("\n".join(map(printable, problems)))
    for candidate, comparison in report.pairs:
        line = verdict(report, candidate, comparison)
        parts.append(f"{printable(line)}\n  {power_text(report, comparison)}")
    return "\n\n".join(parts)


def _aligned(table: Table) -> str:
    lines = [list(map(printable, line)) for line in (table.head, *table.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    return "\n".join([printable(table.title), *(f"  {line}" for line in padded)])
