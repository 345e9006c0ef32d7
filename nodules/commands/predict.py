"""`nodules predict`: predict the probability of a nodule for each patch of a file."""

import argparse
from pathlib import Path

from nodules.runtime import be_deterministic
from nodules.system.streams import printable


def add_to(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    command = commands.add_parser(
        "predict",
        help="score patches with a trained model",
        description="Write index,group,probability, one row per patch: the patch's row in the "
        "file, its group (if any) and its probability of showing a nodule.",
    )
    command.add_argument("model", type=Path, metavar="MODEL.keras")
    command.add_argument("patches", type=Path, metavar="PATCHES.h5", help="Y is optional")
    command.add_argument(
        "--out", type=Path, required=True, metavar="FILE.csv", help="file to write"
    )
    command.add_argument(
        "--views",
        type=int,
        choices=(1, 8),
        default=1,
        help="8: average over the eight symmetric views of a patch, which takes eight times as "
        "long (default: 1)",
    )
    command.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from nodules.models.archive import check_archive
    from nodules.patches.reader import open_patches

    # Check the inputs before importing TensorFlow, which takes seconds.
    check_archive(arguments.model)
    with open_patches(arguments.patches, labelled=False):
        pass

    be_deterministic()

    from nodules.evaluation.predict_file import predict_file

    count = predict_file(arguments.model, arguments.patches, arguments.out, views=arguments.views)
    print(f"wrote {printable(arguments.out)}: {count:,} patches")
