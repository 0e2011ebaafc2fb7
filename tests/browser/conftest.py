"""A browser for the session, a page for each test, Pyodide for each file of tests."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from browser.harness import PYODIDE, ROOT, Pyodide, Site, launch, watched_page

HERE = Path(__file__).parent
CASES = pytest.StashKey[Counter[str]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever stands in this folder is a test in the browser."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def site(wheel: Path) -> Iterator[Site]:
    """The web server: pages of tests, the runner, the wheel, Pyodide. Below /isolated/ the same, isolated."""
    folders = {
        "/pages/": HERE / "pages",
        "/web/": ROOT / "src" / "nearfield" / "web",
        "/wheel/": wheel.parent,
        "/pyodide/": PYODIDE,
    }
    with Site(folders) as site:
        yield site


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, headless, with WebGPU on SwiftShader."""
    with sync_playwright() as playwright, launch(playwright) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A blank page; the test fails if its console shows an error."""
    with watched_page(browser) as page:
        yield page


@pytest.fixture(scope="module")
def pyodide(browser: Browser, site: Site, wheel: Path) -> Iterator[Pyodide]:
    """Pyodide with the wheel, shared by the tests of one file."""
    with watched_page(browser) as page:
        yield Pyodide(page, site, wheel=wheel)


@pytest.fixture
def count_cases(pytestconfig: pytest.Config) -> Callable[[str, int], None]:
    """`count_cases(where, n)`: so many cases agreed there; the report says how many in all."""
    counter = pytestconfig.stash.setdefault(CASES, Counter())
    return lambda where, n: counter.update({where: n})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """How many cases agreed in the browser."""
    for where, n in config.stash.get(CASES, Counter()).items():
        terminalreporter.write_line(f"cases that agree in the browser ({where}): {n}")
