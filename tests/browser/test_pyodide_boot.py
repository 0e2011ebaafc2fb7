"""The wheel in the browser: installed from its address, imported with the standard library alone."""

import pytest
from playwright.sync_api import Browser, Page

from browser.harness import ROOT, Pyodide, Site, screenshot, watched_page

INIT = ROOT / "src" / "nearfield" / "__init__.py"
has_package = pytest.mark.skipif(not INIT.exists(), reason="there is no nearfield/__init__.py yet")


def test_browser_has_webgpu(page: Page, site: Site) -> None:
    """What later tests rely on: an adapter, with no isolation asked for."""
    page.goto(f"{site.url}/pages/blank.html")
    assert page.evaluate("navigator.gpu.requestAdapter().then(adapter => adapter !== null)")
    assert not page.evaluate("crossOriginIsolated")
    assert screenshot(page, "blank").stat().st_size > 0


def test_isolation_is_a_matter_of_the_path(page: Page, site: Site) -> None:
    """The same page below /isolated/ has SharedArrayBuffer."""
    page.goto(f"{site.url}/isolated/pages/blank.html")
    assert page.evaluate("crossOriginIsolated && typeof SharedArrayBuffer") == "function"


def test_site_serves_nothing_outside_its_folders(page: Page, site: Site) -> None:
    """Neither unknown prefixes nor climbing paths."""
    for path in ("/pyproject.toml", "/pages/%2e%2e/%2e%2e/conftest.py", "/pages/../../conftest.py"):
        assert page.request.get(site.url + path).status == 404


def test_run_gives_json(pyodide: Pyodide) -> None:
    """Values come back, `await` works, errors are Python's, and blocking on a promise is possible."""
    assert pyodide.run("import asyncio; await asyncio.sleep(0); {'a': [1, 2.5, None, 'ü']}") == {
        "a": [1, 2.5, None, "ü"]
    }
    assert pyodide.run("from pyodide.ffi import can_run_sync; can_run_sync()") is True
    with pytest.raises(AssertionError, match=r"(?s)in Pyodide:\nFile \"<exec>\", line 2.*ZeroDivisionError"):
        pyodide.run("\n1 / 0")


@has_package
def test_import_needs_only_the_standard_library(pyodide: Pyodide) -> None:
    """`import nearfield` in the browser: nothing from outside, and no NumPy to be had."""
    code = """
        import sys
        before = set(sys.modules)
        import nearfield
        loaded = {name.split(".")[0] for name in set(sys.modules) - before}
        ours = {"nearfield", "js", "pyodide_js", "pyodide", "_pyodide", "_pyodide_core"}
        sorted(loaded - set(sys.stdlib_module_names) - ours)
    """
    assert pyodide.run(code) == []
    assert pyodide.run("import importlib.util; importlib.util.find_spec('numpy') is None") is True
    assert pyodide.run("import nearfield; nearfield.__file__").endswith("site-packages/nearfield/__init__.py")


@pytest.mark.slow
def test_pyodide_boots_isolated_too(browser: Browser, site: Site) -> None:
    """Cross-origin isolation changes nothing for Pyodide itself."""
    with watched_page(browser) as page:
        python = Pyodide(page, site, wheel=None, isolated=True)
        assert python.run("import sys; sys.platform") == "emscripten"
        assert page.evaluate("crossOriginIsolated")
