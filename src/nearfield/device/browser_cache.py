"""What is compiled in one visit of a page need not be compiled in the next: files in the browser's Cache Storage.

Python reads and writes files without waiting, Cache Storage only with. So when the first device is opened, all files
come into a folder in memory, where program/cache.py finds them; from then on each one that it writes goes to the
browser too, behind Python's back. The browser keeps them for this origin alone, and may drop them when room is needed.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyodide.code import run_js
from pyodide.ffi import JsException, run_sync, to_js

from ..program.cache import cache

__all__ = ["restore", "restore_at_once"]

MOST = 32 << 20  # bytes of all files: they are in Python's memory too

# A file used again becomes the last one, so that files come back in the order in which they were used. What the
# browser cannot do (a private window, no room left) costs time later and nothing else.
OPEN = r"""async () => {
  const address = name => `${globalThis.origin}/nearfield-cache/${name}`;
  const quiet = promise => { promise.catch(() => {}); };
  const store = await globalThis.caches.open("nearfield");
  const kept = (await store.keys()).map(request => request.url).filter(url => url.startsWith(address("")));
  const names = kept.map(url => url.split("/").pop()).filter(name => /^\w+\.\w+$/.test(name));
  const read = async name => {  // another tab may have removed it meanwhile
    const found = await store.match(address(name));
    return found && [name, new Uint8Array(await found.arrayBuffer())];
  };
  return {
    files: (await Promise.all(names.map(read))).filter(Boolean),
    put: (name, bytes) => quiet(store.put(address(name), new Response(bytes))),
    use: name => quiet(store.match(address(name)).then(found => found && store.put(address(name), found))),
    remove: name => quiet(store.delete(address(name))),
  };
}"""


class _Storage:
    """The browser's side, told of each change: what program/cache.py calls a Mirror."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def put(self, name: str, data: bytes) -> None:
        self._store.put(name, to_js(data))

    def use(self, name: str) -> None:
        self._store.use(name)

    def remove(self, name: str) -> None:
        self._store.remove(name)


async def restore() -> None:
    """Bring the files of earlier visits into memory, once; nothing if NEARFIELD_CACHE is set: a folder, or "off"."""
    kept = cache()
    if os.environ.get("NEARFIELD_CACHE") or kept.mirror is not None:
        return
    with suppress(JsException, OSError):  # no Cache Storage here, or not for this page
        store = await run_js(OPEN)()
        folder = Path.home() / ".cache" / "nearfield"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for at, (name, data) in enumerate(store.files):
            path = folder / name
            path.write_bytes(data.to_bytes())
            os.utime(path, (at, at))
        del store.files
        kept.settle(folder, _Storage(store), MOST)


def restore_at_once() -> None:
    """The same, while Python waits; the page must be able to stop it."""
    run_sync(restore())
