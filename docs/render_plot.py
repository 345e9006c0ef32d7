"""Draw one plot of dvc.yaml for two revisions as a PNG, without a browser.

python docs/render_plot.py ROC HEAD mobile docs/roc-comparison.png
"""

import argparse
import subprocess
from pathlib import Path

import vl_convert


def main() -> None:
    """Ask DVC for the plot's Vega-Lite specification and render it."""
    parser = argparse.ArgumentParser(description="Draw one plot of dvc.yaml for two revisions.")
    parser.add_argument("plot", help="its name in dvc.yaml")
    parser.add_argument("revisions", nargs=2, help="commits or experiments")
    parser.add_argument("png", type=Path, help="file to write")
    arguments = parser.parse_args()
    command = ["dvc", "plots", "diff", "--targets", arguments.plot, "--show-vega"]
    asked = subprocess.run(
        [*command, *arguments.revisions], stdout=subprocess.PIPE, text=True, check=True
    )
    arguments.png.write_bytes(vl_convert.vegalite_to_png(asked.stdout, scale=2))


if __name__ == "__main__":
    main()
