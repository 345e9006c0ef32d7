"""`python -m nodules inspect`: what a patch file holds, or what is wrong with it."""

import argparse
from pathlib import Path


def add_to(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    command = commands.add_parser(
        "inspect",
        help="say what a patch file holds, or what is wrong with it",
        description="Read a whole patch file. Prints what it holds, or one line that says what is "
        "wrong, where, and what was expected (exit status 1).",
    )
    command.add_argument("file", type=Path, metavar="FILE.h5")
    command.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from nodules.inspection import describe

    print(describe(arguments.file))
