"""Peers that are pages: a web server for them, Chromium, and one page for each."""

import functools
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Playwright

from .exported import FOLDER

__all__ = ["PagePeer", "Site", "chromium", "folders"]

HERE = Path(__file__).resolve().parent
PEERS = HERE.parent / ".cache" / "peers"  # peers/setup.sh fills it
TIMEOUT = 240_000
FLAGS = [
    "--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--enable-precise-memory-info",
]  # fmt: skip
SOFTWARE_GPU = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"]


def folders() -> dict[str, Path]:
    """What the server serves: prefix -> folder."""
    return {
        "/web/": HERE / "web",
        "/nearfield/": Path(str(files("nearfield").joinpath("web"))),
        "/runner/": HERE.parent / "web" / "src",
        "/exports/": FOLDER,
        "/peers/": PEERS / "node_modules",
        "/bundles/": PEERS / "bundles",
        "/models/": PEERS / "models",
    }


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a small file, header and body apart, takes 40 ms
    extensions_map: ClassVar[dict[str, str]] = {
        "": "application/octet-stream", ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript",
        ".json": "application/json", ".wasm": "application/wasm",
    }  # fmt: skip

    def __init__(self, *args: Any, site: "Site", **options: Any) -> None:
        self.site = site
        super().__init__(*args, **options)

    def translate_path(self, path: str) -> str:
        return str(self.site.file(path) or HERE / "nothing")

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def copyfile(self, source: Any, outputfile: Any) -> None:
        while chunk := source.read(1 << 20):
            outputfile.write(chunk)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what a page asks for is recorded in the page."""


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: pages are closed while they load."""


class Site:
    """Folders on http://127.0.0.1, isolated across origins: pages may use threads, their clock has 5 µs."""

    def __init__(self, served: Mapping[str, Path] | None = None) -> None:
        self.folders = dict(served or folders())
        self.server = _QuietServer(("127.0.0.1", 0), functools.partial(_Handler, site=self))

    @property
    def url(self) -> str:
        """Without a slash at the end."""
        return f"http://127.0.0.1:{self.server.server_port}"

    def file(self, url: str) -> Path | None:
        """The file that an address means."""
        path = urlsplit(url).path
        for prefix, folder in self.folders.items():
            if path.startswith(prefix):
                return folder / path.removeprefix(prefix)
        return None

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def chromium(playwright: Playwright, software_gpu: bool = False) -> Iterator[Browser]:
    """Chromium without a window; the one that CHROMIUM names, or the system's."""
    flags = FLAGS + (SOFTWARE_GPU if software_gpu else [])
    path = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    browser = playwright.chromium.launch(executable_path=path, headless=True, args=flags)
    try:
        yield browser
    finally:
        browser.close()


class PagePeer:
    """A page in a context, and so a process, of its own.

    cores  what the page is told that the machine has: jax-js takes as many threads, tfjs half as many
    query  more for the page: "first=…", a workload to run at once: a cold start
    """

    def __init__(
        self, browser: Browser, site: Site, library: str, backend: str, threads: int, cores: int, query: str = ""
    ) -> None:
        self.site, self.requests = site, list[str]()
        self.context = browser.new_context()
        told = f"Object.defineProperty(Navigator.prototype, 'hardwareConcurrency', {{get: () => {cores}}})"
        self.context.add_init_script(told)
        self.page = self.context.new_page()
        self.page.set_default_timeout(TIMEOUT)
        self.page.on("response", lambda response: self.requests.append(response.url))
        self.page.goto(f"{site.url}/web/peer.html?peer={library}&backend={backend}&threads={threads}&{query}")
        self.page.wait_for_function("window.ready === true", timeout=TIMEOUT)
        failure = self.page.evaluate("window.failure ?? ''")
        if failure:
            self.close()
            raise RuntimeError(failure)

    def prepare(self, name: str) -> dict[str, Any]:
        """Load a workload and run it once: milliseconds of both, and the output's fingerprint."""
        return self._call("prepare", name)

    def run(self, budget: float, least: int, most: int, left: bool) -> list[float]:
        """Milliseconds of single runs."""
        return self._call("run", budget, least, most, left)

    def profile(self, times: int) -> list[tuple[str, float]]:
        """(kernel, milliseconds) of each step; Nearfield on WebAssembly only."""
        return [(name, ms) for name, ms in self._call("profile", times)]

    def release(self) -> None:
        """Give the workload's memory back."""
        self._call("release")

    def memory(self) -> dict[str, float]:
        """Bytes in use."""
        return self._call("memory")

    def first(self) -> dict[str, Any]:
        """Milliseconds from the navigation to the first output, and of its parts."""
        return self.page.evaluate("window.first")

    def close(self) -> None:
        """Close the page and its process."""
        self.context.close()

    def _call(self, name: str, *values: Any) -> Any:
        script = """([name, values, limit]) => Promise.race([
            new Promise((resolve) => setTimeout(() => resolve({error: "it takes too long"}), limit)),
            window.bench[name](...values).then((result) => ({result}), (e) => ({error: String(e?.stack ?? e)})),
        ])"""
        answer = self.page.evaluate(script, [name, list(values), TIMEOUT - 60_000])
        if "error" in answer:
            raise RuntimeError(answer["error"][:600])
        return answer.get("result")


def renderers() -> dict[str, int]:
    """Process -> KiB of memory (proportional set size) of the renderers of all Chromiums here."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"--type=renderer" in (folder / "cmdline").read_bytes():
                text = (folder / "smaps_rollup").read_text(encoding="utf-8")
                size = re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)
                found[folder.name] = int(size.group(1)) if size else 0
        except OSError:
            continue  # it has ended
    return found
