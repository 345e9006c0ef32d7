"""The report on a pull request: its results against those of the target branch.

python -m nodules.report.pull_request main          HEAD against main; `make report BASE=main`
python -m nodules.report.pull_request main other    other against main

Writes report/comment.md, report/roc.png and report/comparison.html, and prints the first. Results
that DVC cannot pull are made by `dvc repro` in a clone; the working tree is left alone.
"""

import argparse
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from nodules.comparison.reproduction import Obtained, obtain
from nodules.comparison.revisions import check_different
from nodules.errors import TestSetError
from nodules.report.comment import MARKER
from nodules.report.content import Report, make_report
from nodules.report.markdown import as_markdown, escaped
from nodules.report.page import write_page
from nodules.report.roc import roc_mermaid, write_roc_png
from nodules.system.atomic import replacing
from nodules.system.exits import one_line_errors

FOLDER = Path("report")
HEADING = "### Is it better, or is it luck?"


def write_pull_request_report(
    base: str, candidate: str, folder: Path, *, resamples: int = 10_000
) -> str:
    """Write the comment, the picture and the page.

    Parameters
    ----------
    base, candidate
        Git revisions or names of DVC experiments.
    folder
        Made anew: `comment.md`, and `roc.png` and `comparison.html` unless the two were tested on
        different patches, which is all that the comment then says.
    resamples
        Of the bootstrap.

    Returns
    -------
    str
        The comment.

    Raises
    ------
    RevisionError
        If there is no such revision, its results can neither be read nor made, or both are one.
    """
    check_different([base, candidate])
    with ExitStack() as clones:
        obtained = [obtain(name, clones) for name in (base, candidate)]
        shutil.rmtree(folder, ignore_errors=True)
        try:
            report = make_report([each.revision for each in obtained], resamples=resamples)
        except TestSetError as error:
            said = [f"They cannot be compared. {escaped(str(error))}."]
        else:
            said = _compared(report)
            write_roc_png(report, folder / "roc.png")
            write_page(report, folder / "comparison.html")
    comment = "\n\n".join([MARKER, HEADING, *said, _origins(obtained)]) + "\n"
    with replacing(folder / "comment.md") as temporary:
        temporary.write_text(comment, encoding="utf-8")
    return comment


def _compared(report: Report) -> list[str]:
    ours, theirs = (escaped(each.name) for each in report.revisions)
    legend = f"ROC of the test patches: {ours} in blue, {theirs} in orange."
    return [as_markdown(report), f"{legend}\n\n{roc_mermaid(report)}"]


def _origins(obtained: list[Obtained]) -> str:
    return "\n".join(f"- {escaped(each.origin)}" for each in obtained)


def main() -> None:
    """Write the report that the command line asks for, and print its Markdown."""
    parser = argparse.ArgumentParser(
        prog="python -m nodules.report.pull_request",
        description="Write report/comment.md, roc.png and comparison.html, and print the first.",
    )
    parser.add_argument("base", metavar="BASE", help="the target branch")
    parser.add_argument("candidate", metavar="CANDIDATE", nargs="?", default="HEAD")
    with one_line_errors():
        arguments = parser.parse_args()
        changed = ["git", "status", "--porcelain", "--untracked-files=no"]
        if subprocess.run(changed, capture_output=True, check=False).stdout:
            print("note: what is not committed is not in the report", file=sys.stderr)
        comment = write_pull_request_report(arguments.base, arguments.candidate, FOLDER)
        sys.stdout.write(comment)


if __name__ == "__main__":
    main()
