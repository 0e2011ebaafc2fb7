"""A static web server on the loopback interface, Chromium, and Pyodide in a page of it."""

import functools
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import unquote, urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright

from devices import CHROMIUM

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / ".cache" / "screenshots"
PYODIDE = ROOT / ".cache" / "pyodide" / "node_modules" / "pyodide"

# WebGPU on a machine without a graphics card (SwiftShader), and no talk with the world outside.
FLAGS = (
    "--no-sandbox",
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--enable-features=Vulkan",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
)


class Handler(SimpleHTTPRequestHandler):
    """Files of a Site's folders. A path that begins with /isolated/ is the same file with cross-origin isolation."""

    protocol_version = "HTTP/1.1"
    extensions_map: ClassVar[dict[str, str]] = {
        "": "application/octet-stream",
        ".css": "text/css",
        ".html": "text/html; charset=utf-8",
        ".js": "text/javascript",
        ".json": "application/json",
        ".map": "application/json",
        ".mjs": "text/javascript",
        ".png": "image/png",
        ".svg": "image/svg+xml",
        ".txt": "text/plain; charset=utf-8",
        ".wasm": "application/wasm",
        ".whl": "application/zip",
        ".zip": "application/zip",
    }

    def __init__(self, *args: Any, site: "Site", **options: Any) -> None:
        self.site = site
        super().__init__(*args, **options)

    def route(self) -> tuple[bool, str]:
        """Is it isolated, and the path without that prefix."""
        path = unquote(urlsplit(self.path).path)
        bare = path.removeprefix("/isolated")
        return self.site.isolated or bare != path, bare

    def translate_path(self, _: str) -> str:
        path = self.route()[1]
        for prefix, folder in self.site.folders.items():
            if path.startswith(prefix):
                file = (folder / path.removeprefix(prefix)).resolve()
                inside = file.is_relative_to(folder.resolve())
                return str(file if inside else folder / "outside")
        return str(ROOT / "no such file")

    def do_GET(self) -> None:
        if self.path == "/favicon.ico":
            self.send_response(204)
            self.end_headers()
        else:
            super().do_GET()

    def end_headers(self) -> None:
        if self.route()[0]:
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        self.site.log.append(format % args)


class Site:
    """A web server for the tests.

    folders   URL prefix -> folder, the first that fits; `site.folders["/model/"] = tmp_path` adds one
    isolated  send COOP and COEP with everything (SharedArrayBuffer, threads), not only below /isolated/
    log       one line per request
    """

    def __init__(self, folders: dict[str, Path], *, isolated: bool = False) -> None:
        self.folders, self.isolated, self.log = dict(folders), isolated, list[str]()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, site=self))
        self.server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Self:
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def launch(playwright: Playwright, *flags: str) -> Browser:
    """Debian's Chromium, headless."""
    return playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=[*FLAGS, *flags])


@contextmanager
def watched_page(browser: Browser) -> Iterator[Page]:
    """A page in a context of its own. Leaving it fails if the page wrote an error to its console, or threw one."""
    context = browser.new_context()
    page = context.new_page()
    errors: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error":
            errors.append(f"console: {message.text} ({message.location.get('url')})")

    page.on("console", on_console)
    page.on("pageerror", lambda error: errors.append(f"page: {error}"))
    try:
        yield page
    finally:
        context.close()
    assert not errors, "\n".join(errors)


def screenshot(page: Page, name: str) -> Path:
    """The page as it looks now, as .cache/screenshots/<name>.png."""
    path = SCREENSHOTS / f"{name}.png"
    page.screenshot(path=path, full_page=True)
    return path


class Pyodide:
    """Pyodide in a page, with the wheel installed. `run` is one cell of a notebook."""

    def __init__(self, page: Page, site: Site, *, wheel: Path | None, isolated: bool = False) -> None:
        """wheel: installed from its address by `pyodide.loadPackage(url)`, as users do it; None for Python alone."""
        self.page = page
        page.goto(f"{site.url}{'/isolated' if isolated else ''}/pages/pyodide.html")
        self.boot_ms: float = page.evaluate("boot()")
        if wheel:
            page.evaluate("url => install(url)", f"../wheel/{wheel.name}")

    def run(self, code: str) -> Any:
        """Run Python (`await` works at its top); the value of its last expression comes back by way of JSON."""
        answer = self.page.evaluate("code => run(code)", code)
        assert "error" not in answer, "in Pyodide:\n" + re.sub(r'(?s)^.*?(?=File "<exec>")', "", answer["error"])
        return json.loads(answer["value"])
