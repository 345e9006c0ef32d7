"""Open pages in headless Chromium without network access."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.support.requirements import needs

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)

needs_chromium = needs(CHROMIUM, "found no Chromium to open pages: apt-get install chromium")


class OpenedPage(NamedTuple):
    """The document after its scripts have run, and its console messages."""

    document: str
    console: list[str]

    def curves(self) -> list[str]:
        """Return the SVG paths of all lines drawn by Vega."""
        lines = re.findall(r'<g class="mark-line role-mark[^"]*"[^>]*>(.*?)</g>', self.document)
        return [path for line in lines for path in re.findall(r' d="(M[^"]*L[^"]*)"', line)]


def open_offline(page: Path, profile: Path) -> OpenedPage:
    """Open a page.

    Parameters
    ----------
    page
        HTML file to open.
    profile
        Writable folder for the Chromium profile.
    """
    assert CHROMIUM is not None
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={profile}",
        "--virtual-time-budget=10000",
        "--enable-logging=stderr",
        "--v=0",
        "--dump-dom",
    ]
    opened = subprocess.run(
        [CHROMIUM, *options, page.as_uri()], capture_output=True, text=True, check=True, timeout=120
    )
    console = re.findall(r"CONSOLE.*?\] (.*)", opened.stderr)
    return OpenedPage(opened.stdout, console)
