"""The JavaScript runner: its own tests under Node.js, its types, and its size."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from devices import missing

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "tests" / "web"
TESTS = sorted(p for p in HERE.rglob("*.test.*") if p.suffix in {".js", ".mjs"})


def run(*command: str | Path, **variables: str) -> None:
    """Run it in the repository's root; what it prints is the failure's message."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # Node.js may be in .venv
    if shutil.which(command[0], path=path) is None:
        missing(f"{command[0]} is not installed; make setup installs it")
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT / "src")} | variables
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}"


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of Programs, written by Python, that the tests under Node.js read ($SAMPLES)."""
    folder = tmp_path_factory.mktemp("samples")
    run(sys.executable, HERE / "runner_samples.py", folder)
    return str(folder)


@pytest.mark.parametrize("path", TESTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_node(path: Path, samples: str) -> None:
    """One file of tests under `node --test`."""
    run("node", "--test", path, SAMPLES=samples)


@pytest.mark.skipif(not (ROOT / "web" / "build.mjs").exists(), reason="there is no web/build.mjs yet")
def test_types_and_size() -> None:
    """The runner type-checks, is built from its source, and is within its budget."""
    if not (ROOT / "web" / "node_modules" / "typescript").exists():
        missing("web/node_modules is not there; make setup installs it")
    run("npm", "--prefix", "web", "run", "--silent", "check")
