"""`nodules inspect`: validation and summary of a patch file."""

import argparse
from pathlib import Path

from nodules.system.streams import printable


def add_to(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    command = commands.add_parser(
        "inspect",
        help="check a patch file and print a summary",
        description="Check all values of a patch file and print a summary. If the file is invalid, "
        "print one line with the place, what was found and what was expected (exit status 1).",
    )
    command.add_argument("file", type=Path, metavar="FILE.h5")
    command.set_defaults(run=_run)


def describe(path: Path) -> str:
    """Check all values of a patch file and return a summary of several lines.

    Parameters
    ----------
    path
        Patch file, with or without `Y`.

    Raises
    ------
    PatchFileError
        If the file is invalid; the message describes the first problem.
    """
    # Imported here to keep `--help` fast.
    from nodules.patches.grey_levels import GreyLevels
    from nodules.patches.layout import SPLITS
    from nodules.patches.reader import open_patches
    from nodules.patches.summary import NO_GROUPS, group_sizes

    with open_patches(path, labelled=False) as patches:
        levels = GreyLevels()
        for _, block in patches.blocks():
            levels.add(block)
        percentiles = [levels.percentile(fraction) for fraction in (0.05, 0.5, 0.95)]
        count = len(patches)
        lines = {
            "patches": f"{count:,} (X {patches.stored_as})",
            "grey levels": "5% {} | median {} | 95% {}, of 0..255".format(*percentiles),
            "nodules": "no Y: usable for prediction, not for training",
            "groups": NO_GROUPS,
            "split": "no split: the split stage creates one",
        }
        if patches.known_labels is not None:
            nodules = int(patches.known_labels.sum())
            lines["nodules"] = f"{nodules:,} ({nodules / count:.1%})"
        if patches.groups is not None:
            lines["groups"] = group_sizes(patches.groups)
        published = patches.read_published_split()
        for name, split in {"split": patches.split, "published": published}.items():
            if split is not None:
                lines[name] = ", ".join(f"{each} {(split == each).sum():,}" for each in SPLITS)
        if (irrelevant := patches.read_irrelevant()) is not None:
            lines["irrelevant"] = f"{irrelevant.sum():,} patches that the challenge ignores"
        if sources := patches.read_sources():
            lines["sources"] = f"{' and '.join(sources)} of each patch"
        if warning := levels.warning():
            lines["warning"] = warning
    return "\n".join(
        [f"{printable(path)}: a patch file", *(f"  {k:12}{v}" for k, v in lines.items())]
    )


def _run(arguments: argparse.Namespace) -> None:
    print(describe(arguments.file))
