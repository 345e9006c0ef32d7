"""`nodules predict`: predict the probability of a nodule for patches or images."""

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from nodules.errors import NodulesError
from nodules.runtime import be_deterministic
from nodules.system.streams import printable

if TYPE_CHECKING:
    from nodules.evaluation.chosen_threshold import Threshold


def add_to(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    command = commands.add_parser(
        "predict",
        help="score patches or images with a trained model",
        description="Write a CSV file with one row per patch or image: index,group,probability "
        "(of a nodule), then file and candidate if they are known, then threshold,nodule if there "
        "is a threshold.",
    )
    add = command.add_argument
    add("model", type=Path, metavar="MODEL.keras")
    add(
        "sources",
        type=Path,
        nargs="+",
        metavar="SOURCE",
        help="one patch file (Y is optional), or image files (PNG, JPEG, TIFF, DICOM) and folders, "
        "which are searched recursively",
    )
    add("--out", type=Path, required=True, metavar="FILE.csv", help="file to write")
    add(
        "--threshold",
        type=_threshold,
        metavar="P",
        help="smallest probability that is called a nodule (default: the one that evaluate chose "
        "for this model, if dvc.lock records that it did)",
    )
    add(
        "--window",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="values of the images that become grey 0 and 255, as for `import folder`",
    )
    add(
        "--views",
        type=int,
        choices=(1, 8),
        default=1,
        help="8: average over the eight symmetric views of a patch, which takes eight times as "
        "long (default: 1)",
    )
    command.set_defaults(run=_run)


def _threshold(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:  # which NaN is not
        raise argparse.ArgumentTypeError(f"found {text}, expected a number in 0..1")
    return value


_threshold.__name__ = "float"  # argparse shows this name in error messages


def _run(arguments: argparse.Namespace) -> None:
    from nodules.importers.new_images import NewImages, are_images
    from nodules.importers.window import Window
    from nodules.models.archive import check_archive, read_archive
    from nodules.patches.reader import open_patches
    from nodules.patches.summary import counted
    from nodules.system.atomic import check_output

    # Check the inputs before importing TensorFlow, which takes seconds.
    check_archive(arguments.model)
    window = None if arguments.window is None else Window(*arguments.window)
    images = NewImages(arguments.sources, window) if are_images(arguments.sources) else None
    if images is None:
        with open_patches(arguments.sources[0], labelled=False):
            pass
        if window is not None:
            raise NodulesError("--window: found a patch file, expected images or folders")
    check_output(arguments.out, [arguments.model, *(images.paths if images else arguments.sources)])
    # Read once: the threshold is that of the network which scores, whatever replaces the file.
    archive = read_archive(arguments.model)
    threshold = _chosen(arguments, archive.md5)

    be_deterministic()

    from nodules.evaluation.predict_file import NewPatches, open_new_patches, predict

    with ExitStack() as stack:
        if images is None:
            patches = stack.enter_context(open_new_patches(arguments.sources[0]))
        else:
            patches = NewPatches(len(images), images.blocks(), {"file": images.names})
        scored = predict(
            archive,
            patches,
            arguments.out,
            views=arguments.views,
            threshold=threshold.value if threshold else None,
        )
    number = counted(scored.patches, "patch" if images is None else "image")
    called = "" if scored.nodules is None else f", {scored.nodules:,} called nodule"
    print(f"wrote {printable(arguments.out)}: {number}{called}")
    for note in images.notes() if images else []:
        print(printable(note))


def _chosen(arguments: argparse.Namespace, md5: str) -> "Threshold | None":
    """Return the threshold, and print where it comes from."""
    from nodules.evaluation.chosen_threshold import Threshold, chosen_threshold
    from nodules.evaluation.dvc_lock import NotRecordedError

    if arguments.threshold is not None:
        return Threshold(arguments.threshold, "--threshold")
    try:
        threshold = chosen_threshold(arguments.model, md5, arguments.views)
    except NotRecordedError as error:
        print(f"no threshold: {error}; --threshold adds the decision")
        return None
    print(f"threshold {threshold.value:.3f}: {threshold.origin}")
    return threshold
