"""`nodules import`: conversion to patch files, with one sub-command per input format."""

import argparse
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nodules.commands.next_steps import DATA, next_steps, project_root
from nodules.errors import NodulesError, PatchFileError
from nodules.system.streams import printable

if TYPE_CHECKING:  # they take a second to import
    from nodules.importers.image_groups import RowBlocks, TableGroups


def add_to(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    command = commands.add_parser(
        "import",
        help="convert other formats to a patch file",
        description="Convert one of the formats below to a patch file.",
    )
    layouts = command.add_subparsers(required=True, metavar="LAYOUT")
    _add_folder(layouts)
    _add_list(layouts)
    _add_npz(layouts)
    _add_hdf5(layouts)
    _add_legacy(layouts)
    _add_luna16(layouts)
    _add_luna16_patches(layouts)


def _add_folder(layouts: argparse._SubParsersAction) -> None:
    folder = layouts.add_parser(
        "folder",
        help="a folder of images (PNG, JPEG, TIFF, DICOM), one sub-folder per class",
        description="Convert all images below the folders of the two classes, in order of path. "
        "These lie in DIR, or all at the same depth below it, as in PATIENT/nodule. The "
        "central square of each image is resampled to a 50x50 patch; `file` is its path relative "
        "to DIR. 8-bit images keep their grey levels. 0..65535 of 16-bit images and -1000..400 HU "
        "of DICOM CT become 0..255. --window sets another range; other images require it.",
    )
    folder.add_argument("folder", type=Path, metavar="DIR")
    _add_out(folder)
    labels = folder.add_mutually_exclusive_group()
    labels.add_argument(
        "--unlabelled",
        action="store_true",
        help="convert all images below DIR, without labels: the file can be scored, but no network "
        "can be trained on it",
    )
    labels.add_argument(
        "--nodule",
        metavar="NAME",
        help="folder of the nodules (default: detected by name, as in nodule and non_nodule, "
        "1 and 0, positive and negative, malignant and benign)",
    )
    groups = folder.add_mutually_exclusive_group()
    groups.add_argument(
        "--group",
        metavar="REGEX",
        help="regular expression searched for in the path of each image below DIR, without its "
        "class folder; its first group in parentheses is the scan or patient and becomes `group`, "
        "as in '^([^_]+)_'",
    )
    groups.add_argument(
        "--group-from",
        choices=("folder",),
        help="`folder`: the first folder of that path is the scan or patient",
    )
    _add_window(folder, "values (of DICOM: after its slope and intercept, if any)")
    folder.set_defaults(run=_import_folder)


def _add_list(layouts: argparse._SubParsersAction) -> None:
    listed = layouts.add_parser(
        "list",
        help="a folder of images with a list of their labels (CSV or text)",
        description="Convert the images of one or more lists, in the order of their lines. A list "
        "is CSV with the columns path and label, and optionally group and split; or text, with a "
        "path, white space and a label per line. Paths are relative to DIR. Images are converted "
        "as `import folder` does; those in no list are left out and counted.",
    )
    add = listed.add_argument
    add("folder", type=Path, metavar="DIR")
    add("--labels", type=Path, nargs="+", required=True, metavar="LIST", help="lists of images")
    _add_out(listed)
    add("--nodule", metavar="NAME", help="label of the nodules (default: labels are 0 and 1)")
    groups = listed.add_mutually_exclusive_group()
    groups.add_argument(
        "--group",
        metavar="REGEX",
        help="regular expression searched for in the path of each image; its first group in "
        "parentheses is the scan or patient and becomes `group`, as in '^([^_]+)_'",
    )
    groups.add_argument(
        "--table",
        type=Path,
        metavar="CSV",
        help="table that holds the scan or patient of each image, in the row that --key names",
    )
    groups.add_argument(
        "--group-rows",
        type=_positive(int),
        metavar="N",
        help="blocks of N rows of a table that is not at hand stand in for the scans: an image "
        "belongs to the block of the row that --key names",
    )
    add(
        "--key",
        metavar="REGEX",
        help="regular expression like that of --group, for the key of the row: its number (the "
        "first after the header is 0), which becomes `candidate`, or with --key-column a value",
    )
    add("--key-column", metavar="NAME", help="column of --table that holds the keys")
    add("--group-column", metavar="NAME", help="column of --table that becomes `group`")
    add(
        "--label-column",
        metavar="NAME",
        help="column of --table that must agree with the labels, 1 for a nodule and 0 otherwise",
    )
    add(
        "--excluded",
        type=Path,
        metavar="CSV",
        help="LUNA16's annotations_excluded.csv, if --table is its candidates.csv: adds "
        "`irrelevant`, 1 for candidates of class 0 within the radius of such a finding",
    )
    add(
        "--split",
        metavar="REGEX",
        help="regular expression like that of --group, for the split: train, val or test",
    )
    add(
        "--published-split",
        action="store_true",
        help="store the split as `published_split`, which is used only with split.by=published",
    )
    add("--leave-out", nargs="+", default=[], metavar="PATH", help="listed images to leave out")
    _add_window(listed, "values (of DICOM: after its slope and intercept, if any)")
    listed.set_defaults(run=_import_list)


def _add_npz(layouts: argparse._SubParsersAction) -> None:
    npz = layouts.add_parser(
        "npz",
        help="a NumPy archive laid out like MedMNIST's",
        description="Convert train_images, train_labels, val_images, val_labels, test_images and "
        "test_labels. The images are grey, of two classes and any size, and are resampled to "
        "50x50. The split is kept; without test_*, the split stage takes the test split from "
        "val_*.",
    )
    npz.add_argument("archive", type=Path, metavar="FILE.npz")
    _add_out(npz)
    npz.add_argument(
        "--nodule", type=int, choices=(0, 1), default=1, help="label of the nodules (default: 1)"
    )
    npz.set_defaults(run=_import_npz)


def _add_hdf5(layouts: argparse._SubParsersAction) -> None:
    hdf5 = layouts.add_parser(
        "hdf5",
        help="an HDF5 file laid out like a patch file, with patches of another size",
        description="Resample X, (N, H, W) or (N, H, W, 1), uint8 in 0..255 or float in 0..1, to "
        "50x50. If H and W differ, only the central square is used. Y, group and split are copied.",
    )
    hdf5.add_argument("file", type=Path, metavar="FILE.h5")
    _add_out(hdf5)
    _add_window(hdf5, "values of X", "; X may then hold any numbers, such as Hounsfield units")
    hdf5.set_defaults(run=_import_hdf5)


def _add_legacy(layouts: argparse._SubParsersAction) -> None:
    legacy = layouts.add_parser(
        "legacy",
        help="the HDF5 files of a tflearn notebook, one per split",
        description="Join HDF5 files with X and Y, one per split, into one patch file. The split "
        "is kept; without TEST.h5, the split stage takes the test split from VAL.h5.",
    )
    legacy.add_argument("train", type=Path, metavar="TRAIN.h5")
    legacy.add_argument("val", type=Path, metavar="VAL.h5")
    legacy.add_argument("test", type=Path, metavar="TEST.h5", nargs="?")
    _add_out(legacy)
    legacy.set_defaults(run=_import_legacy)


def _add_luna16(layouts: argparse._SubParsersAction) -> None:
    luna16 = layouts.add_parser(
        "luna16",
        help="LUNA16's scans (MetaImage) and candidates (CSV)",
        description="Cut an axial 50x50 patch around each candidate. Pixels outside the scan are "
        "filled with the low end of the window. `group` is the seriesuid and `candidate` the row "
        "in candidates.csv (the first after the header is 0).",
    )
    add = luna16.add_argument
    add(
        "--scans",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR",
        help="folders searched recursively for SERIESUID.mhd or SERIESUID.mha",
    )
    add(
        "--candidates",
        type=Path,
        required=True,
        metavar="CSV",
        help="table of seriesuid, coordX, coordY, coordZ (mm) and class (1 for a nodule, else 0)",
    )
    add(
        "--annotations",
        type=Path,
        metavar="CSV",
        help="table of seriesuid, coordX, coordY, coordZ and diameter_mm: adds `diameter_mm` of "
        "the nodule that contains a candidate of class 1, and reports mismatches",
    )
    _add_out(luna16)
    add(
        "--size-mm",
        type=_positive(float),
        metavar="MM",
        help="side of the field of view, resampled to 50x50 (default: 50 pixels at the scan's own "
        "spacing)",
    )
    _add_window(luna16, "values", " (default: -1000 400, for scans in Hounsfield units)")
    add(
        "--negatives",
        type=_count_or_all,
        default=5,
        metavar="N",
        help="candidates of class 0 to draw per candidate of class 1, or `all` (default: 5)",
    )
    add("--seed", type=_seed, default=0, help="seed of that draw, 0 or more (default: 0)")
    add("--skip-missing", action="store_true", help="skip candidates without a scan")
    add(
        "--skip-outside",
        action="store_true",
        help="skip candidates outside the voxels of their scan",
    )
    workers = luna16.add_mutually_exclusive_group()
    workers.add_argument(
        "--jobs", type=_positive(int), metavar="N", help="processes (default: one per processor)"
    )
    workers.add_argument(
        "--scheduler",
        metavar="tcp://HOST:PORT",
        help="Dask scheduler, whose workers must see the scans under the same paths",
    )
    luna16.set_defaults(run=_import_luna16)


def _add_luna16_patches(layouts: argparse._SubParsersAction) -> None:
    patches = layouts.add_parser(
        "luna16-patches",
        help="fetch 8,105 published patches of LUNA16's candidates and convert them",
        description="Fetch the JPEG patches of github.com/swethasubramanian/LungCancerDetection "
        "and LUNA16's candidates.csv (65 MB), check their hashes and convert them. An interrupted "
        "download is resumed. `group` is the seriesuid, `candidate` the row in candidates.csv, "
        "and `published_split` the division that came with the patches.",
    )
    patches.add_argument(
        "--from",
        dest="folder",
        type=Path,
        metavar="DIR",
        help="folder with src/data of that repository and candidates.csv; what it lacks is fetched "
        "into it (default: data/luna16)",
    )
    _add_out(patches)
    patches.add_argument(
        "--group-rows",
        type=_positive(int),
        metavar="N",
        help="without candidates.csv: blocks of N of its rows stand in for the scans (5500 rows "
        "are some nine scans)",
    )
    patches.add_argument(
        "--excluded",
        type=Path,
        metavar="CSV",
        help="LUNA16's annotations_excluded.csv: adds `irrelevant`, as in `import list`",
    )
    patches.set_defaults(run=_import_luna16_patches)


def _add_out(layout: argparse.ArgumentParser) -> None:
    layout.add_argument("--out", type=Path, required=True, metavar="FILE.h5", help="file to write")


def _add_window(layout: argparse.ArgumentParser, what: str, default: str = "") -> None:
    layout.add_argument(
        "--window",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help=f"{what} that become grey 0 and 255{default}",
    )


def _positive(number: type[int] | type[float]) -> Callable[[str], float]:
    def positive(text: str) -> float:
        value = number(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"found {text}, expected a number above 0")
        return value

    positive.__name__ = number.__name__  # argparse shows this name in error messages
    return positive


def _count_or_all(text: str) -> float | None:
    try:
        return None if text == "all" else _positive(int)(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text}, expected a whole number or all") from None


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"found {text}, expected a whole number, 0 or more")
    return int(text)


def _import_folder(arguments: argparse.Namespace) -> None:
    from nodules.importers.folder import import_folder
    from nodules.importers.window import Window

    lines = import_folder(
        arguments.folder,
        arguments.out,
        nodule=arguments.nodule,
        unlabelled=arguments.unlabelled,
        group=arguments.group,
        group_from_folder=arguments.group_from == "folder",
        window=None if arguments.window is None else Window(*arguments.window),
    )
    advice = "; --group or --group-from names the patient of each image"
    _print_written(arguments.out, lines, group_advice=advice)


def _import_list(arguments: argparse.Namespace) -> None:
    from nodules.importers.listed import import_list
    from nodules.importers.window import Window

    lines = import_list(
        arguments.folder,
        arguments.labels,
        arguments.out,
        nodule=arguments.nodule,
        groups=_groups(arguments),
        split=arguments.split,
        published=arguments.published_split,
        excluded=arguments.excluded,
        leave_out=arguments.leave_out,
        window=None if arguments.window is None else Window(*arguments.window),
    )
    advice = "; --group or --table names the patient of each image"
    _print_written(arguments.out, lines, group_advice=advice)


def _groups(arguments: argparse.Namespace) -> "str | TableGroups | RowBlocks | None":
    """Return where `import list` finds the groups, from the options that fit together."""
    from nodules.importers.image_groups import RowBlocks, TableGroups

    needed = {"--key": arguments.key, "--group-column": arguments.group_column}
    of_table = {"--key-column": arguments.key_column, "--label-column": arguments.label_column}
    if arguments.table is not None:
        _require("--table", needed)
        columns = arguments.group_column, arguments.key_column, arguments.label_column
        return TableGroups(arguments.key, arguments.table, *columns)
    for option, value in (needed | of_table).items():
        if value is not None and (option != "--key" or arguments.group_rows is None):
            raise NodulesError(f"{option}: found no --table, expected the table it refers to")
    if arguments.group_rows is not None:
        _require("--group-rows", {"--key": arguments.key})
        return RowBlocks(arguments.key, arguments.group_rows)
    return arguments.group


def _require(option: str, needed: Mapping[str, str | None]) -> None:
    for name, value in needed.items():
        if value is None:
            raise NodulesError(f"{option}: found no {name}, expected it too")


def _import_npz(arguments: argparse.Namespace) -> None:
    from nodules.importers.npz import import_npz

    lines = import_npz(arguments.archive, arguments.out, nodule=arguments.nodule)
    _print_written(arguments.out, lines)


def _import_hdf5(arguments: argparse.Namespace) -> None:
    from nodules.importers.hdf5 import import_hdf5
    from nodules.importers.window import Window

    window = None if arguments.window is None else Window(*arguments.window)
    _print_written(arguments.out, import_hdf5(arguments.file, arguments.out, window=window))


def _import_legacy(arguments: argparse.Namespace) -> None:
    from nodules.importers.legacy import import_legacy

    paths = {"train": arguments.train, "val": arguments.val, "test": arguments.test}
    files = {name: path for name, path in paths.items() if path is not None}
    counts = import_legacy(files, arguments.out)
    _print_written(arguments.out, [", ".join(f"{name} {n:,}" for name, n in counts.items())])


def _import_luna16(arguments: argparse.Namespace) -> None:
    from nodules.importers.luna16.importer import Luna16, import_luna16
    from nodules.importers.luna16.scans import Crop
    from nodules.importers.window import Window

    window = None if arguments.window is None else Window(*arguments.window)
    lines = import_luna16(
        Luna16(arguments.scans, arguments.candidates, arguments.annotations),
        arguments.out,
        crop=Crop(arguments.size_mm, window),
        negatives=arguments.negatives,
        seed=arguments.seed,
        skip_missing=arguments.skip_missing,
        skip_outside=arguments.skip_outside,
        jobs=arguments.jobs,
        scheduler=arguments.scheduler,
    )
    _print_written(arguments.out, lines)


def _import_luna16_patches(arguments: argparse.Namespace) -> None:
    from nodules.importers.luna16.published import import_published

    lines = import_published(
        arguments.folder or project_root() / DATA / "luna16",
        arguments.out,
        group_rows=arguments.group_rows,
        excluded=arguments.excluded,
    )
    _print_written(arguments.out, lines)


def _print_written(out: Path, lines: Sequence[str], *, group_advice: str = "") -> None:
    """Print a summary of the written file and the commands to run next."""
    from nodules.patches.reader import open_patches
    from nodules.patches.summary import NO_GROUPS, SPLIT_WITHOUT_GROUPS, group_sizes

    summary, *notes = lines
    labelled, warning = True, ""
    try:
        with open_patches(out, labelled=False) as patches:
            labelled = patches.known_labels is not None
            if patches.groups is not None:
                notes.insert(0, f"groups (scans or patients): {group_sizes(patches.groups)}")
            elif labelled:
                unsplit = patches.split is None
                warning = f"{NO_GROUPS}{group_advice}" if unsplit else SPLIT_WITHOUT_GROUPS
    except PatchFileError as error:  # such as a group in two splits of the source
        warning = str(error)
    for line in (f"wrote {out}: {summary}", *notes):
        print(printable(line))
    if warning:
        print(f"warning: {printable(warning)}", file=sys.stderr)
    for line in next_steps(out, labelled=labelled):
        print(printable(line))
