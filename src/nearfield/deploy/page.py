"""Pages: the runner beside your own files, and a web server to try them with."""

import functools
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import Any, Self

__all__ = ["Server", "copy_page"]

RUNNER = "nearfield.js"


def copy_page(page: str | PathLike[str], folder: str | PathLike[str]) -> Path:
    """Copy a page's files into a folder, and the runner (nearfield.js) beside them; what else is there stays.

    returns  the folder: static files that any web server can serve
    """
    target = Path(folder)
    shutil.copytree(page, target, dirs_exist_ok=True)
    runner = files("nearfield").joinpath("web", RUNNER).read_bytes()
    (target / RUNNER).write_bytes(runner)
    return target


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else the body of a small file waits 40 ms for the header's receipt
    extensions_map: dict[str, str] = {  # noqa: RUF012 - this is how the base class declares it
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript", ".mjs": "text/javascript", ".json": "application/json", ".wasm": "application/wasm",
        ".nfp": "application/octet-stream", ".safetensors": "application/octet-stream",
    }  # fmt: skip

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a page tells what goes wrong in its console."""


class Server:
    """A folder on http://127.0.0.1, for this machine only; isolated across origins, so WebAssembly may use threads.

    url   where the page is

    with nf.deploy.Server("site") as server: print(server.url); server.wait()
    """

    def __init__(self, folder: str | PathLike[str], port: int = 0) -> None:
        handler = functools.partial(_Handler, directory=str(folder))
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """The address of the folder's index.html."""
        return f"http://127.0.0.1:{self._server.server_port}/"

    def wait(self) -> None:
        """Serve until Ctrl-C."""
        try:
            while self._thread.is_alive():
                self._thread.join(1)
        except KeyboardInterrupt:
            return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
