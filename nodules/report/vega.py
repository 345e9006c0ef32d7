"""The Vega libraries as one script, for pages that work offline.

python -m nodules.report.vega .dvc/tmp/vega.js
"""

import argparse
from pathlib import Path

import vl_convert

from nodules.system.atomic import replacing
from nodules.system.exits import one_line_errors


def vega_bundle() -> str:
    """Return a self-contained script that defines `vega`, `vegaLite` and `vegaEmbed`."""
    snippet = "window.vega = vega; window.vegaLite = vegaLite; window.vegaEmbed = vegaEmbed;"
    return vl_convert.javascript_bundle(snippet)


def main() -> None:
    """Write the script, which the HTML page of `dvc plots` loads."""
    parser = argparse.ArgumentParser(description="Write the Vega libraries as one script.")
    parser.add_argument("script", type=Path, help="file to write")
    with one_line_errors(), replacing(parser.parse_args().script) as temporary:
        temporary.write_text(vega_bundle(), encoding="utf-8")


if __name__ == "__main__":
    main()
