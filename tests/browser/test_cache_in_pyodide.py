"""What a page has compiled in one visit is there in the next one: the browser's Cache Storage."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from browser.harness import Pyodide, Site, watched_page

STORED = "caches.open('nearfield').then(store => store.keys()).then(rows => rows.map(row => row.url))"
COMPUTE = """
import nearfield as nf
from nearfield.compiler import build
built, real = [], build.build
build.build = lambda *args, **more: built.append(1) or real(*args, **more)
await nf.init("wasm")
nf.exp(nf.asarray([0.0, 1.0]) * 0.0).tolist(), len(built)
"""


@pytest.mark.slow
def test_a_second_visit_does_not_compile(browser: Browser, site: Site, wheel: Path) -> None:
    """The Program comes from the browser; where it is damaged there, it is compiled again."""
    with watched_page(browser) as page:
        assert Pyodide(page, site, wheel=wheel).run(COMPUTE) == [[1.0, 1.0], 1]
        page.wait_for_function(f"() => {STORED}.then(urls => urls.length === 1)")  # nobody waits for it to be kept
        assert Pyodide(page, site, wheel=wheel).run(COMPUTE) == [[1.0, 1.0], 0]
        page.goto(f"{site.url}/pages/blank.html")
        urls = page.evaluate(STORED)
        assert [url.rpartition(".")[2] for url in urls] == ["program"]
        page.evaluate("async url => (await caches.open('nearfield')).put(url, new Response('damaged'))", urls[0])
        assert Pyodide(page, site, wheel=wheel).run(COMPUTE) == [[1.0, 1.0], 1]


def test_what_is_off_stays_off(browser: Browser, site: Site, wheel: Path) -> None:
    """NEARFIELD_CACHE=off keeps nothing in a page either; a folder that it names is a folder in memory."""
    with watched_page(browser) as page:
        python = Pyodide(page, site, wheel=wheel)
        python.run("import os, pathlib; import nearfield as nf; from nearfield import runtime")
        for setting in ("off", "/tmp/kept"):
            python.run(f"os.environ['NEARFIELD_CACHE'] = {setting!r}; runtime.forget_programs()")
            assert python.run("await nf.init('wasm'); nf.exp(nf.asarray([0.0]) * 2.0).tolist()") == [1.0]
        assert python.run("[path.suffix for path in pathlib.Path('/tmp/kept').iterdir()]") == [".program"]
        assert page.evaluate(STORED) == []
