"""Documents in the browser: the guide's page does what it says, and what is said of Pyodide holds there."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

import nearfield as nf
from browser.harness import ROOT, Pyodide, Site
from test_docs import blocks, run, write_files

GUIDE = ROOT / "docs" / "guide" / "start.md"


def test_the_first_page_answers(page: Page, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train, export, serve: then the pointer on the ring gives a high probability, and in its middle a low one."""
    monkeypatch.chdir(tmp_path)
    write_files(GUIDE, tmp_path)
    names: dict[str, object] = {"__name__": "document"}
    for block in blocks(GUIDE):
        if block.language == "python":
            run(GUIDE, block, names)
    site.folders["/guide/"] = tmp_path / "site"
    page.goto(f"{site.url}/guide/index.html")
    output = page.locator("output")
    expect(output).to_have_text("ready", timeout=30_000)
    for x, pattern in ((240, r"^(9\d|100) %$"), (150, r"^\d %$")):
        page.mouse.move(*(page.locator("canvas").bounding_box()[k] + d for k, d in (("x", x), ("y", 150))))
        expect(output).to_have_text(re.compile(pattern))
    names.clear()
    nf.random.seed(0)  # its state was on the device


def test_training_in_pyodide(pyodide: Pyodide) -> None:
    """The Python blocks of the recipe, in a page and without NumPy."""
    for block in blocks(ROOT / "docs" / "recipes" / "pyodide_page.md"):
        if block.language == "python":
            pyodide.run(f"{block.code}\nNone")
