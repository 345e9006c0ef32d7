"""The script with which the page of `dvc plots` draws without a network."""

import sys
from pathlib import Path

import pytest

from nodules.report.vega import main


def test_the_script_defines_what_the_page_of_dvc_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "vega.js"
    monkeypatch.setattr(sys, "argv", ["vega", str(script)])
    main()
    text = script.read_text(encoding="utf-8")
    assert all(f"window.{name}=" in text for name in ("vega", "vegaLite", "vegaEmbed"))
    assert "https://cdn." not in text
