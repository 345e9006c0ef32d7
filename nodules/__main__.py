"""The command line alongside DVC: `nodules compare | predict | inspect | import`."""

import argparse
from typing import NoReturn

from nodules.commands import compare, importing, inspect, predict
from nodules.system.exits import one_line_errors
from nodules.system.streams import printable

EPILOG = """\
examples:
  nodules inspect data/mine.h5
  nodules import folder images --out data/mine.h5
  nodules import legacy train_again.h5 val_again.h5 --out data/legacy.h5
  nodules import luna16 --scans LUNA16 --candidates candidates_V2.csv --out data/luna16.h5
  nodules predict models/model.keras images --out scores.csv
  nodules compare main workspace --html report.html

DVC runs the pipeline itself: `dvc repro`, `dvc exp run`, `dvc metrics diff`. See README.md.
"""


class _Parser(argparse.ArgumentParser):
    """Argument parser that escapes control characters in its error messages."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message, then exit with status 2."""
        super().error(printable(message))


class _PrintVersion(argparse.Action):
    """Print the version, which is looked up only if it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print it and exit."""
        from nodules.system.environment import installed_version

        print(f"{parser.prog} {installed_version('nodules')}")
        parser.exit()


def main() -> None:
    """Run the command given on the command line."""
    with one_line_errors():
        arguments = _parser().parse_args()
        arguments.run(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="nodules",
        description="Inspect, import and score patch files (HDF5 files of 50x50 CT patches), and "
        "compare revisions of the pipeline.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action=_PrintVersion, nargs=0, help="print the version and exit"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (inspect, importing, predict, compare):
        command.add_to(commands)
    return parser


if __name__ == "__main__":
    main()
