"""The command line beside DVC: `python -m nodules compare | predict | inspect | import`."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

from nodules.errors import one_line_errors

EPILOG = """\
examples:
  python -m nodules inspect data/mine.h5
  python -m nodules import legacy train_again.h5 val_again.h5 --out data/legacy.h5
  python -m nodules import luna16 --scans LUNA16 --candidates candidates.csv --out data/luna16.h5
  python -m nodules predict models/model.keras data/new.h5 --out scores.csv
  python -m nodules compare main workspace --html report.html

The pipeline itself is DVC's: `dvc repro`, `dvc exp run`, `dvc metrics diff`. README.md says how.
"""


def main() -> None:
    """Run the command that the command line names."""
    arguments = _parser().parse_args()
    with one_line_errors():
        arguments.run(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m nodules",
        description="Check, import and score patch files, HDF5 files of 50x50 CT patches, and "
        "compare revisions of the pipeline.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_inspect(commands)
    _add_import(commands)
    _add_predict(commands)
    _add_compare(commands)
    return parser


def _add_inspect(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "inspect",
        help="say what a patch file holds, or what is wrong with it",
        description="Read a whole patch file. Prints what it holds, or one line that says what is "
        "wrong, where, and what was expected (exit status 1).",
    )
    command.add_argument("file", type=Path, metavar="FILE.h5")
    command.set_defaults(run=_inspect)


def _add_import(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "import", help="turn another layout into a patch file", description="Make a patch file."
    )
    layouts = command.add_subparsers(required=True, metavar="LAYOUT")
    legacy = layouts.add_parser(
        "legacy",
        help="the HDF5 files, one a split, that tflearn notebooks trained on",
        description="Join HDF5 files with X and Y, one a split, into one patch file. Their split "
        "is kept; without TEST.h5 the pipeline cuts a test split from VAL.h5.",
    )
    legacy.add_argument("train", type=Path, metavar="TRAIN.h5")
    legacy.add_argument("val", type=Path, metavar="VAL.h5")
    legacy.add_argument("test", type=Path, metavar="TEST.h5", nargs="?")
    legacy.add_argument("--out", type=Path, required=True, metavar="FILE.h5", help="file to write")
    legacy.set_defaults(run=_import_legacy)
    _add_luna16(layouts)


def _add_luna16(layouts: argparse._SubParsersAction) -> None:
    luna16 = layouts.add_parser(
        "luna16",
        help="the scans of LUNA16 (MetaImage) and its candidates (CSV)",
        description="Cut an axial 50x50 patch around each candidate. What lies beyond the border "
        "of a scan is filled with the window's low end. `group` is the seriesuid, `candidate` the "
        "row in candidates.csv (the first after the header is 0).",
    )
    add = luna16.add_argument
    add(
        "--scans",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR",
        help="searched, with sub-folders, for SERIESUID.mhd",
    )
    add(
        "--candidates",
        type=Path,
        required=True,
        metavar="CSV",
        help="seriesuid, coordX, coordY, coordZ (mm), class (1 for a nodule, or 0)",
    )
    add(
        "--annotations",
        type=Path,
        metavar="CSV",
        help="seriesuid, coordX, coordY, coordZ, diameter_mm: adds `diameter_mm`, of the nodule in "
        "whose radius a candidate of class 1 lies, and reports what does not match",
    )
    add("--out", type=Path, required=True, metavar="FILE.h5", help="file to write")
    size = luna16.add_mutually_exclusive_group()
    size.add_argument(
        "--size",
        choices=("pixels",),
        default="pixels",
        help="50 pixels at the scan's own spacing (default)",
    )
    size.add_argument(
        "--size-mm", type=_positive(float), metavar="MM", help="a field of view, resampled to 50x50"
    )
    add(
        "--window",
        type=float,
        nargs=2,
        default=(-1000.0, 400.0),
        metavar=("LOW", "HIGH"),
        help="Hounsfield units that become grey 0 and 255 (default: -1000 400)",
    )
    add(
        "--negatives",
        type=lambda text: None if text == "all" else _positive(int)(text),
        default=5,
        metavar="N",
        help="candidates of class 0 drawn for each of class 1, or `all` (default: 5)",
    )
    add("--seed", type=int, default=0, help="of that draw (default: 0)")
    add("--skip-missing", action="store_true", help="leave out candidates without a scan")
    where = luna16.add_mutually_exclusive_group()
    where.add_argument(
        "--jobs", type=_positive(int), metavar="N", help="processes (default: all processors)"
    )
    where.add_argument(
        "--scheduler",
        metavar="tcp://HOST:PORT",
        help="a Dask cluster whose workers see the scans under the same paths",
    )
    luna16.set_defaults(run=_import_luna16)


def _positive(number: type[int] | type[float]) -> Callable[[str], float]:
    def positive(text: str) -> float:
        value = number(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"found {text}, expected a number above 0")
        return value

    positive.__name__ = number.__name__  # argparse names the type by it
    return positive


def _add_predict(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "predict",
        help="score patches with a trained model",
        description="Write index,group,probability for each patch: the row in the file, its group "
        "if it has one, and the probability of a nodule.",
    )
    command.add_argument("model", type=Path, metavar="MODEL.keras")
    command.add_argument("patches", type=Path, metavar="PATCHES.h5", help="Y is not needed")
    command.add_argument(
        "--out", type=Path, required=True, metavar="FILE.csv", help="file to write"
    )
    command.add_argument(
        "--views",
        type=int,
        choices=(1, 8),
        default=1,
        help="8: average over the eight symmetric views of a patch, at eight times the cost",
    )
    command.set_defaults(run=_predict)


def _add_compare(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "compare",
        help="say whether revisions differ, or were merely lucky",
        description="Compare revisions on the same test patches: the first with each of the "
        "others. A revision is a commit, a branch, a tag, the name of a DVC experiment, or "
        "workspace. Without any, HEAD is compared with workspace; one alone is compared with "
        "workspace.",
    )
    command.add_argument("revisions", nargs="*", metavar="REVISION")
    form = command.add_mutually_exclusive_group()
    form.add_argument("--md", action="store_true", help="print Markdown, for a comment")
    form.add_argument("--json", action="store_true", help="print everything, for programs")
    command.add_argument(
        "--html", type=Path, metavar="FILE.html", help="write a page that opens offline, too"
    )
    command.add_argument(
        "--resamples",
        type=_resamples,
        default=10_000,
        metavar="N",
        help="of the bootstrap; 10000 by default, 100 at least",
    )
    command.set_defaults(run=_compare)


def _resamples(text: str) -> int:
    number = int(text)
    if number < 100:
        raise argparse.ArgumentTypeError(f"found {number}, expected 100 or more")
    return number


# Each command imports what it needs: TensorFlow alone costs seconds.


def _inspect(arguments: argparse.Namespace) -> None:
    from nodules.inspection import describe

    print(describe(arguments.file))


def _import_legacy(arguments: argparse.Namespace) -> None:
    from nodules.importers.legacy import import_legacy

    files = {"train": arguments.train, "val": arguments.val, "test": arguments.test}
    counts = import_legacy({k: v for k, v in files.items() if v is not None}, arguments.out)
    print(f"wrote {arguments.out}:", ", ".join(f"{name} {n:,}" for name, n in counts.items()))
    _print_next_steps(arguments.out)


def _import_luna16(arguments: argparse.Namespace) -> None:
    from nodules.importers.luna16 import Crop, Luna16, import_luna16

    source = Luna16(arguments.scans, arguments.candidates, arguments.annotations)
    summary, *notes = import_luna16(
        source,
        arguments.out,
        crop=Crop(arguments.size_mm, tuple(arguments.window)),
        negatives=arguments.negatives,
        seed=arguments.seed,
        skip_missing=arguments.skip_missing,
        jobs=arguments.jobs,
        scheduler=arguments.scheduler,
    )
    print("\n".join([f"wrote {arguments.out}: {summary}", *notes]))
    _print_next_steps(arguments.out)


def _print_next_steps(out: Path) -> None:
    print(f"next:\n  dvc add {out}\n  git add {out}.dvc {out.parent}/.gitignore")
    print(f"  dvc exp run --set-param dataset={out}")


def _predict(arguments: argparse.Namespace) -> None:
    from nodules import runtime  # isort: split - sets up TensorFlow, which the next one imports
    from nodules.prediction import predict_file

    runtime.be_deterministic()
    count = predict_file(arguments.model, arguments.patches, arguments.out, views=arguments.views)
    print(f"wrote {arguments.out}: {count:,} patches")


def _compare(arguments: argparse.Namespace) -> None:
    from nodules.report.content import make_report
    from nodules.revisions import read_revisions

    report = make_report(read_revisions(arguments.revisions), resamples=arguments.resamples)
    if arguments.html:
        from nodules.report.page import write_page

        write_page(report, arguments.html)
    if arguments.json:
        from nodules.report.machine import as_json as form
    elif arguments.md:
        from nodules.report.markdown import as_markdown as form
    else:
        from nodules.report.terminal import as_text as form
    print(form(report))


if __name__ == "__main__":
    main()
