"""The wheel: what is in it, how large it is, and that it works where nothing else is."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "nearfield"
MAX_WHEEL_BYTES = 500_000  # a page waits for it
SUFFIXES = {".py", ".typed", ".js", ".json", ".html", ".css"}


def test_wheel_is_pure_python(wheel: Path) -> None:
    """One file for every machine, the browser included."""
    assert wheel.name.endswith("-py3-none-any.whl")


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """Every file of src/nearfield, the licence, and no tests, caches or sources of the runner."""
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    here = {p for p in PACKAGE.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert inside == {p.relative_to(PACKAGE.parent).as_posix() for p in here}
    assert {Path(name).suffix for name in inside} <= SUFFIXES
    assert "nearfield/py.typed" in inside
    assert any(name.endswith("licenses/LICENSE") for name in zipfile.ZipFile(wheel).namelist())


def test_wheel_is_small(wheel: Path) -> None:
    """Its size is a budget, because a page downloads it."""
    size = wheel.stat().st_size
    assert size <= MAX_WHEEL_BYTES, f"{size:,} bytes; at most {MAX_WHEEL_BYTES:,}"


@pytest.mark.slow
def test_wheel_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """Installed without its dependencies, it imports; that is what happens in the browser."""
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    folder = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    ).strip()
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", folder, wheel]
    subprocess.run(command, check=True)
    code = "import nearfield; print(nearfield.__version__); print(nearfield.__file__)"
    printed = subprocess.check_output([python, "-c", code], text=True, cwd=tmp_path).splitlines()
    assert wheel.name == f"nearfield-{printed[0]}-py3-none-any.whl"
    assert Path(printed[1]).is_relative_to(folder)
