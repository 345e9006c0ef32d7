"""Draw the example pictures in docs/images: SqueezeNet compared with MobileNet.

python docs/draw_examples.py --epochs 6

Both are trained as DVC experiments in temporary folders and removed afterwards; the workspace stays
as it is.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import vl_convert

PICTURES = Path(__file__).parent / "images"
NAMES = ("squeezenet-example", "mobilenet-example")
# Width and height in pixels.
SCREENS = {"desktop": (1280, 1500), "phone": (500, 1100)}


def main() -> None:
    """Train two networks and draw how they compare."""
    parser = argparse.ArgumentParser(description="Draw the pictures in docs/images.")
    parser.add_argument("--epochs", type=int, metavar="N", required=True, help="length of training")
    epochs = parser.parse_args().epochs
    for name in NAMES:
        changes = [f"model={name.removesuffix('-example')}", f"recipes.tuned.epochs={epochs}"]
        settings = [word for change in changes for word in ("--set-param", change)]
        _run("dvc", "exp", "run", "--temp", "--name", name, *settings)
    try:
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder, "comparison.html")
            _run(sys.executable, "-m", "nodules", "compare", *NAMES, "--html", str(page))
            _take_screenshots(page)
        plot = _run("dvc", "plots", "diff", "--targets", "ROC", "--show-vega", *NAMES)
        (PICTURES / "roc-comparison.png").write_bytes(drawn(json.loads(plot)))
    finally:
        _run("dvc", "exp", "remove", *NAMES)


def drawn(plot: dict[str, Any]) -> bytes:
    """Return the PNG of a plot of DVC."""
    # Symbols long enough to tell a dashed line from a solid one; they share one colour.
    legend = {"symbolSize": 900}
    return vl_convert.vegalite_to_png(plot | {"config": {"legend": legend}}, scale=2)


def _run(*command: str) -> str:
    print("$", *command, file=sys.stderr)
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def _take_screenshots(page: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        print("Chromium not found: the screenshots are not updated", file=sys.stderr)
        return
    for screen, (width, height) in SCREENS.items():
        _run(
            browser,
            *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            f"--user-data-dir={page.parent / 'profile'}",
            "--virtual-time-budget=10000",
            f"--window-size={width},{height}",
            f"--screenshot={PICTURES / f'comparison-{screen}.png'}",
            page.as_uri(),
        )


if __name__ == "__main__":
    main()
