"""Files that save time: compiled Programs, machine code and measured choices, kept between processes.

Nothing depends on them: each is found by a hash of all that it was made from, carries a hash of its own bytes, and what
is missing, damaged or too old is made again. Names are hashes, so they tell nothing. The folder belongs to the user
alone, because machine code that somebody else could change must not be run: a folder that others may write is not used.

    NEARFIELD_CACHE=off       no files
    NEARFIELD_CACHE=/a/path   another folder than the system's usual one (for Linux ~/.cache/nearfield)

A page has no disk: device/browser_cache.py gives the cache a folder in memory, and is told what changes there.
"""

import os
import sys
import tempfile
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Protocol

__all__ = ["Cache", "Mirror", "cache"]

MOST = 512 << 20  # bytes of all files; the ones used least recently go first
TO_SPARE = 0.8  # of that is left when files have gone
SEAL = 32  # bytes of the hash in front of each file's contents
PUTS = 32  # files written before sizes are looked at again


class Mirror(Protocol):
    """Who keeps the files of a folder that does not last, by their names. Nobody waits for it."""

    def put(self, name: str, data: bytes) -> None:
        """A file is new, or has other contents."""

    def use(self, name: str) -> None:
        """A file was read: it is the one used last."""

    def remove(self, name: str) -> None:
        """A file is gone."""


class Cache:
    """Files in one folder, or with None nowhere."""

    def __init__(self, folder: Path | None, most: int = MOST) -> None:
        self.folder = folder
        self.mirror: Mirror | None = None
        self._most = most
        self._puts = 0
        self._ready = False

    def settle(self, folder: Path, mirror: Mirror, most: int) -> None:
        """Use a folder whose files are kept elsewhere too."""
        self.folder, self.mirror, self._most, self._ready = folder, mirror, most, False

    def get(self, kind: str, key: str) -> bytes | None:
        """What was put for this key; None if there is nothing, or not what was written."""
        if not self._open():
            return None
        path = self._path(kind, key)
        with suppress(OSError):
            data = path.read_bytes()
            if sha256(data[SEAL:]).digest() == data[:SEAL]:
                os.utime(path)  # used now
                if self.mirror is not None:
                    self.mirror.use(path.name)
                return data[SEAL:]
            self._remove(path)
        return None

    def put(self, kind: str, key: str, data: bytes) -> None:
        """Keep `data` for this key, if that is possible; whoever reads meanwhile sees the old file or the new one."""
        if not self._open() or SEAL + len(data) > self._most:
            return
        path = self._path(kind, key)
        with suppress(OSError):
            number, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
            try:
                with os.fdopen(number, "wb") as file:
                    file.write(sha256(data).digest() + data)
                Path(name).replace(path)
                if self.mirror is not None:
                    self.mirror.put(path.name, path.read_bytes())
            except OSError:
                Path(name).unlink(missing_ok=True)
                raise
            if self._puts % PUTS == 0:
                self._shrink()
            self._puts += 1

    def _path(self, kind: str, key: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{sha256(key.encode()).hexdigest()}.{kind}"

    def _open(self) -> bool:
        """Whether there is a folder that only this user can write to; it is made if it is missing."""
        if self.folder is not None and not self._ready:
            try:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._ready = _is_own(self.folder)
            except OSError:
                self._ready = False
            if not self._ready:
                self.folder = None
        return self.folder is not None

    def _shrink(self) -> None:
        """Remove the files used least recently until there is room to spare."""
        assert self.folder is not None
        found = []
        for path in self.folder.iterdir():
            with suppress(OSError):
                about = path.stat()
                found.append((about.st_mtime, about.st_size, path))
        total = sum(size for _, size, _ in found)
        if total <= self._most:
            return
        for _, size, path in sorted(found):
            if total <= TO_SPARE * self._most:
                break
            with suppress(OSError):
                self._remove(path)
                total -= size

    def _remove(self, path: Path) -> None:
        path.unlink()
        if self.mirror is not None:
            self.mirror.remove(path.name)


def _is_own(folder: Path) -> bool:
    if sys.platform == "win32":
        return True  # the folder for local data is the user's
    about = folder.stat()
    return about.st_uid == os.getuid() and not about.st_mode & 0o022


def _usual() -> Path | None:
    """Where this system keeps files that can be made again."""
    if sys.platform == "emscripten":
        return None  # until a device is opened
    try:
        if sys.platform == "win32":
            return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "nearfield" / "cache"
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "nearfield"
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nearfield"
    except RuntimeError:  # a user without a home
        return None


@lru_cache(maxsize=4)
def _at(setting: str) -> Cache:
    if setting == "off":
        return Cache(None)
    return Cache(Path(setting).absolute() if setting else _usual())


def cache() -> Cache:
    """The cache that NEARFIELD_CACHE says."""
    return _at(os.environ.get("NEARFIELD_CACHE", ""))
