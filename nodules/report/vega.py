"""The Vega libraries as one script, for pages that work offline.

python -m nodules.report.vega .dvc
"""

import argparse
from pathlib import Path

import vl_convert
from dvc.config import Config

from nodules.errors import FileError
from nodules.system.atomic import replacing
from nodules.system.exits import one_line_errors

# Templates of the page of `dvc plots`, relative to the folder .dvc. The second is the first with
# Vega in the place of the marker.
TEMPLATE = "plots/page.html"
OFFLINE_TEMPLATE = "plots/offline.html"
MARKER = "<!-- `make setup` writes a copy of this template with Vega in this place. -->"


def vega_bundle() -> str:
    """Return a self-contained script that defines `vega`, `vegaLite` and `vegaEmbed`."""
    snippet = "window.vega = vega; window.vegaLite = vegaLite; window.vegaEmbed = vegaEmbed;"
    return vl_convert.javascript_bundle(snippet)


def make_plots_offline(dvc_folder: Path) -> None:
    """Make `dvc plots` write pages that hold Vega and open without a network, wherever they are.

    Writes a template of 0.9 MB and sets it in config.local, unless that names another one. Git
    ignores both files.

    Parameters
    ----------
    dvc_folder
        The folder .dvc, with `TEMPLATE`.

    Raises
    ------
    FileError
        If the template has no place for the script.
    """
    template = dvc_folder / TEMPLATE
    before, marker, after = template.read_text(encoding="utf-8").partition(MARKER)
    if not marker:
        raise FileError(template, f"found no comment {MARKER!r}, expected the place for Vega")
    with replacing(dvc_folder / OFFLINE_TEMPLATE) as temporary:
        page = f"{before}<script>{vega_bundle()}</script>{after}"
        temporary.write_text(page, encoding="utf-8")
    # DVC stops at a setting that names a missing file, so it is set last.
    with Config(str(dvc_folder)).edit("local") as config:
        config["plots"].setdefault("html_template", OFFLINE_TEMPLATE)


def main() -> None:
    """Write the template and its setting."""
    parser = argparse.ArgumentParser(description="Make the pages of `dvc plots` work offline.")
    parser.add_argument("dvc_folder", type=Path, metavar="FOLDER", help="the folder .dvc")
    with one_line_errors():
        make_plots_offline(parser.parse_args().dvc_folder)


if __name__ == "__main__":
    main()
