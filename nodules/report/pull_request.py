"""The report on a pull request: its results compared with those of the target branch.

python -m nodules.report.pull_request main          HEAD against main; `make report BASE=main`
python -m nodules.report.pull_request main other    other against main

Writes report/comment.md, report/roc.png and report/comparison.html, and prints the comment. Results
that DVC cannot pull are reproduced in a temporary clone. The working tree is not modified.
"""

import argparse
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from nodules.comparison.reproduction import LoadedRevision, fetch_or_reproduce
from nodules.comparison.revisions import check_different
from nodules.errors import TestSetError
from nodules.evaluation.metrics import ROC_CORNER
from nodules.report.comment import MARKER
from nodules.report.content import Report, make_report
from nodules.report.markdown import as_markdown, escaped
from nodules.report.page import write_page
from nodules.report.roc import roc_mermaid, write_roc_png
from nodules.system.atomic import replacing
from nodules.system.exits import one_line_errors

FOLDER = Path("report")
HEADING = "### Comparison of test results"


def write_pull_request_report(
    base: str, candidate: str, folder: Path, *, resamples: int = 10_000
) -> str:
    """Write the comment, the ROC chart and the HTML page.

    Parameters
    ----------
    base, candidate
        Git revisions or names of DVC experiments.
    folder
        Output folder, which is replaced by one with `comment.md`, `roc.png` and `comparison.html`.
        If the test sets differ, it holds only a comment that says so.
    resamples
        Number of bootstrap resamples.

    Returns
    -------
    str
        Text of the comment.

    Raises
    ------
    RevisionError
        If a revision does not exist, its results can be neither read nor reproduced, or both names
        are the same.
    """
    check_different([base, candidate])
    with ExitStack() as clones:
        loaded = [fetch_or_reproduce(name, clones) for name in (base, candidate)]
        shutil.rmtree(folder, ignore_errors=True)
        try:
            report = make_report([each.revision for each in loaded], resamples=resamples)
        except TestSetError as error:
            content = [f"The results cannot be compared. {escaped(str(error))}."]
        else:
            content = _comparison_parts(report)
            write_roc_png(report, folder / "roc.png")
            write_page(report, folder / "comparison.html")
    comment = "\n\n".join([MARKER, HEADING, *content, _origins(loaded)]) + "\n"
    with replacing(folder / "comment.md") as temporary:
        temporary.write_text(comment, encoding="utf-8")
    return comment


def _comparison_parts(report: Report) -> list[str]:
    baseline, candidate = (escaped(revision.name) for revision in report.revisions)
    legend = f"ROC curves on the test set: {baseline} (blue), {candidate} (orange)."
    curves = f"{legend}\n\n{roc_mermaid(report)}"
    corner = f"Their upper left corner:\n\n{roc_mermaid(report, ROC_CORNER)}"
    return [as_markdown(report), curves, corner]


def _origins(loaded: list[LoadedRevision]) -> str:
    return "\n".join(f"- {escaped(each.origin)}" for each in loaded)


def main() -> None:
    """Write the report and print the comment."""
    parser = argparse.ArgumentParser(
        prog="python -m nodules.report.pull_request",
        description="Write report/comment.md, roc.png and comparison.html, and print the comment.",
    )
    parser.add_argument("base", metavar="BASE", help="the target branch")
    parser.add_argument("candidate", metavar="CANDIDATE", nargs="?", default="HEAD")
    with one_line_errors():
        arguments = parser.parse_args()
        status = ["git", "status", "--porcelain", "--untracked-files=no"]
        if subprocess.run(status, capture_output=True, check=False).stdout:
            print("note: uncommitted changes are not included in the report", file=sys.stderr)
        comment = write_pull_request_report(arguments.base, arguments.candidate, FOLDER)
        sys.stdout.write(comment)


if __name__ == "__main__":
    main()
