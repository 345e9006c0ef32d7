"""`nodules compare`: whether the difference between revisions is larger than chance."""

import argparse
from contextlib import ExitStack
from pathlib import Path


def add_to(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    command = commands.add_parser(
        "compare",
        help="test whether revisions differ by more than chance",
        description="Compare revisions on the same test patches: the first with each of the "
        "others. A revision is a commit, a branch, a tag, the name of a DVC experiment, or "
        "workspace. A single revision is compared with workspace; the default is HEAD. "
        "The exit status is 0 after a comparison, 1 after an error (or what --fail-if-worse "
        "rejects) and 2 for invalid arguments.",
    )
    command.add_argument("revisions", nargs="*", metavar="REVISION")
    output = command.add_mutually_exclusive_group()
    output.add_argument("--md", action="store_true", help="print Markdown, for a comment")
    output.add_argument("--json", action="store_true", help="print everything, for programs")
    command.add_argument(
        "--html", type=Path, metavar="FILE.html", help="also write a page that opens offline"
    )
    command.add_argument(
        "--resamples",
        type=_resamples,
        default=10_000,
        metavar="N",
        help="number of bootstrap resamples; 10000 by default, at least 100",
    )
    command.add_argument(
        "--make",
        action="store_true",
        help="reproduce missing or outdated results of commits and experiments with `dvc repro` "
        "in a temporary clone",
    )
    command.add_argument(
        "--fail-if-worse",
        action="store_true",
        help="exit with status 1 if the verdict on any revision is worse or, with --margin, unless "
        "all are non-inferior",
    )
    command.add_argument(
        "--margin",
        type=_margin,
        metavar="AUC",
        help="also say whether each revision is non-inferior or equivalent: its AUC is lower by "
        "less than this, or differs by less, for example 0.01",
    )
    command.set_defaults(run=_run)


def _resamples(text: str) -> int:
    if not text.isdecimal() or int(text) < 100:
        raise argparse.ArgumentTypeError(f"found {text}, expected a whole number, 100 or more")
    return int(text)


def _margin(text: str) -> float:
    try:
        margin = float(text)
    except ValueError:
        margin = 0.0
    if not 0 < margin < 1:
        raise argparse.ArgumentTypeError(f"found {text}, expected a number between 0 and 1")
    return margin


def _run(arguments: argparse.Namespace) -> None:
    from nodules.system.atomic import check_output

    if arguments.html:
        check_output(arguments.html, [])
    # Clones hold the patches that the page shows.
    with ExitStack() as clones:
        _compare(arguments, clones)


def _compare(arguments: argparse.Namespace, clones: ExitStack) -> None:
    from nodules.report.content import check_none_worse, make_report

    if arguments.make:
        from nodules.comparison.reproduction import read_or_reproduce

        revisions = read_or_reproduce(arguments.revisions, clones)
    else:
        from nodules.comparison.revisions import read_revisions

        revisions = read_revisions(arguments.revisions)
    report = make_report(revisions, resamples=arguments.resamples, margin=arguments.margin)
    if arguments.html:
        from nodules.report.page import write_page

        write_page(report, arguments.html)
    if arguments.json:
        from nodules.report.as_json import as_json as render
    elif arguments.md:
        from nodules.report.markdown import as_markdown as render
    else:
        from nodules.report.text import as_text as render
    print(render(report))
    if arguments.fail_if_worse:
        check_none_worse(report)
