"""The JavaScript runner: its own tests under Node.js, its types, and its size."""

import shutil
import subprocess
from pathlib import Path

import pytest

from devices import missing

ROOT = Path(__file__).resolve().parent.parent
TESTS = sorted(p for p in (ROOT / "tests" / "web").rglob("*.test.*") if p.suffix in {".js", ".mjs"})


def run(*command: str | Path) -> None:
    """Run it in the repository's root; what it prints is the failure's message."""
    if shutil.which(command[0]) is None:
        missing(f"{command[0]} is not installed; make setup installs it")
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}"


@pytest.mark.parametrize("path", TESTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_node(path: Path) -> None:
    """One file of tests under `node --test`."""
    run("node", "--test", path)


@pytest.mark.skipif(not (ROOT / "web" / "build.mjs").exists(), reason="there is no web/build.mjs yet")
def test_types_and_size() -> None:
    """The runner type-checks, is built from its source, and is within its budget."""
    if not (ROOT / "web" / "node_modules" / "typescript").exists():
        missing("web/node_modules is not there; make setup installs it")
    run("npm", "--prefix", "web", "run", "--silent", "check")
