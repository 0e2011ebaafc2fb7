"""The JavaScript runner in Chromium, on Programs written by hand (the Node tests are run by ../test_web_runner.py)."""

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("wasmtime")
pytest.importorskip("playwright.sync_api")
from playwright.sync_api import sync_playwright

from browser.harness import Site, launch, watched_page
from web.runner_samples import N, write

pytestmark = pytest.mark.browser
HERE = Path(__file__).parent
RUNNER = HERE.parents[1] / "src" / "nearfield" / "web" / "nearfield.js"


class Page:
    """page.html; `call` runs one of its tests."""

    def __init__(self, thread: ThreadPoolExecutor, page: Any) -> None:
        self.thread, self.page = thread, page

    def call(self, name: str, *args: object) -> Any:
        """What the page's test returns; its exception is this test's failure."""
        script = f"window.tests.{name}(...{json.dumps(args)})"
        return self.thread.submit(self.page.evaluate, script).result()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("samples")
    write(directory)
    shutil.copy(HERE / "page.html", directory)
    shutil.copy(RUNNER, directory)
    with Site({"/": directory}) as site:
        yield site


@pytest.fixture(scope="module")
def thread() -> Iterator[ThreadPoolExecutor]:
    """Playwright allows one event loop in a thread, and the main one may have its own."""
    with ThreadPoolExecutor(1) as thread:
        yield thread


@pytest.fixture(scope="module")
def browser(thread: ThreadPoolExecutor) -> Iterator[Any]:
    playwright = thread.submit(sync_playwright().start).result()
    browser = thread.submit(launch, playwright).result()
    yield browser
    thread.submit(browser.close).result()
    thread.submit(playwright.stop).result()


def opened(thread: ThreadPoolExecutor, browser: Any, url: str) -> Iterator[Page]:
    watched = watched_page(browser)
    page = thread.submit(watched.__enter__).result()
    thread.submit(page.goto, url).result()
    thread.submit(page.wait_for_function, "window.tests").result()
    yield Page(thread, page)
    thread.submit(watched.__exit__, None, None, None).result()


@pytest.fixture
def plain(thread: ThreadPoolExecutor, browser: Any, site: Site) -> Iterator[Page]:
    yield from opened(thread, browser, f"{site.url}/page.html")


@pytest.fixture(params=["", "/isolated"], ids=["plain", "isolated"])
def page(request: pytest.FixtureRequest, thread: ThreadPoolExecutor, browser: Any, site: Site) -> Iterator[Page]:
    yield from opened(thread, browser, f"{site.url}{request.param}/page.html")


def test_the_file_is_a_module_and_also_a_script(plain: Page) -> None:
    names = ["DeviceError", "FormatError", "bridge", "decode", "load", "openDevice", "verify"]
    assert plain.call("cut") == names
    assert RUNNER.read_text(encoding="utf-8").endswith(f"\nexport const {{{','.join(names)}}}=nearfield;\n")


@pytest.mark.parametrize("threads", [1, 2])
def test_wasm_lives_and_leaves_nothing(page: Page, threads: int) -> None:
    used = page.call("life", "wasm", threads)
    assert used["threads"] == (threads if page.call("isolated") else 1)


def test_webgpu_lives_and_leaves_nothing(page: Page) -> None:
    page.call("life", "webgpu", 1)


@pytest.mark.parametrize("device", ["wasm", "webgpu", None])
def test_a_model_directory_loads_and_runs(page: Page, device: str | None) -> None:
    used = page.call("model", device)
    assert used == (device or "wasm")  # the only adapter is software, which is not chosen


@pytest.mark.parametrize("target", ["wasm", "webgpu"])
def test_pictures_become_arrays(plain: Page, target: str) -> None:
    assert plain.call("pictures", target) == 3


def test_webgpu_reports_what_goes_wrong(plain: Page) -> None:
    compiling, reading, lost, again = plain.call("webgpuErrors")
    assert "kernel 'axpy'" in compiling
    assert "nothing" in compiling
    assert reading.startswith("webgpu: read: ")
    assert "lost" in lost
    assert "lost" in again


def test_webgpu_reuses_buffers_and_bind_groups(plain: Page) -> None:
    seen = plain.call("pool")
    assert seen["made"] <= 1
    assert seen["groups"] <= 4
    assert seen["used"] == 4 * N + 12 * 40_000_000
    assert seen["pooled"] <= 2**28


@pytest.mark.parametrize("name", ["wasm", "webgpu"])
def test_the_bridge_speaks_in_numbers(plain: Page, name: str) -> None:
    seen = plain.call("bridge", name)
    assert seen["value"] == 5
    assert seen["limits"]["maxBufferSize"] >= 2**28
    assert seen["stats"]["buffers"] == 2
    assert {row["name"] for row in seen["devices"]} == {"wasm", "webgpu"}
