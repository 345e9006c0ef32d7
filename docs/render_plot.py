"""Draw one plot of dvc.yaml for two revisions as a PNG, without a browser.

python docs/render_plot.py ROC HEAD my-experiment docs/roc-comparison.png
"""

import subprocess
import sys
from pathlib import Path

import vl_convert


def main() -> None:
    """Ask DVC for the plot's Vega-Lite specification and render it."""
    plot, old, new, path = sys.argv[1:]
    command = ["dvc", "plots", "diff", "--targets", plot, "--show-vega", old, new]
    spec = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    Path(path).write_bytes(vl_convert.vegalite_to_png(spec, scale=2))


if __name__ == "__main__":
    main()
