"""What every test gets: fixed seeds, a device to run on, and a check that no device memory is left behind."""

import gc
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from devices import CHROMIUM, DEVICES, chosen_devices, missing, need

ROOT = Path(__file__).resolve().parent.parent
FAILED = pytest.StashKey[bool]()

os.environ["NEARFIELD_CACHE"] = "off"  # what is compiled is compiled here and now
os.environ["NEARFIELD_DEBUG"] = "1"  # every Graph that a test compiles is verified

hypothesis.settings.register_profile("nearfield", derandomize=True, deadline=None, database=None, print_blob=True)
hypothesis.settings.load_profile("nearfield")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests in the browser run last: Playwright keeps an event loop open, so `asyncio.run` fails after them."""
    items.sort(key=lambda item: item.get_closest_marker("browser") is not None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, or in CI fail, what asks for a device or a browser that is not here."""
    for mark in item.iter_markers("device"):
        need(mark.args[0])
    if item.get_closest_marker("browser") and not os.access(CHROMIUM, os.X_OK):
        missing(f"no browser at {CHROMIUM}; install Chromium, or set CHROMIUM to its path")


def pytest_collection_finish() -> None:
    """What has been imported and collected stays until the end: the garbage collector need not look at it again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Remember a failure: its traceback keeps tensors alive, which is no leak."""
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a device, in use during the test; every test that asks for it runs once per device."""
    if request.param not in chosen_devices():
        pytest.skip(f"NEARFIELD_DEVICE={os.environ['NEARFIELD_DEVICE']}")
    need(request.param)
    import nearfield

    with nearfield.use(request.param):
        yield request.param


@pytest.fixture(autouse=True)
def _seeds() -> None:
    random.seed(0)
    np.random.seed(0)


def memory_in_use() -> dict[str, tuple[int, int]]:
    """Bytes and buffers in use on every device that was opened; those that hold nothing are left out."""
    opened = getattr(sys.modules.get("nearfield.device.open"), "_opened", {})
    stats = {name: device.stats() for name, device in opened.items() if not device.is_lost}
    return {name: (s.bytes, s.buffers) for name, s in stats.items() if s.buffers}


@pytest.fixture(autouse=True)
def _no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Device memory in use after a test is what it was before; `@pytest.mark.leaks_ok(reason)` allows more."""
    nf = sys.modules.get("nearfield")
    if (
        nf is not None and nf.tensor.PENDING
    ):  # tensors of test modules: evaluated now, on the host, and not in some test
        gc.collect()  # but not what only a cycle of objects still holds: it may stand for inputs without values
        with nf.use("reference"):
            nf.synchronize()
    before = memory_in_use()
    yield
    mark = request.node.get_closest_marker("leaks_ok")
    if mark:
        assert mark.args, "leaks_ok needs a reason"
    if mark or request.node.stash.get(FAILED, False):
        return
    if memory_in_use() != before:
        from nearfield import runtime

        runtime.forget_programs()
    if memory_in_use() != before:
        gc.collect()
    after = memory_in_use()
    assert all(a <= b for n in after for a, b in zip(after[n], before.get(n, (0, 0)), strict=True)), (
        f"(bytes, buffers) in use before the test: {before}; after: {after}"
    )


@pytest.fixture(scope="module")
def node_process() -> Iterator[None]:
    """The JavaScript runner under Node.js, in one process for all tests of a file that ask for it."""
    from node_runner import node, runner

    if node() is None:
        missing("node is not installed; make setup installs it")
    yield
    runner().close()
    runner.cache_clear()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, freshly built from this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        folder,
        ROOT,
    ]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """`golden("api.txt", text)`: the text equals tests/golden/api.txt; under `make golden` it is written there."""

    def check(name: str, text: str) -> None:
        path = ROOT / "tests" / "golden" / name
        if os.environ.get("NEARFIELD_GOLDEN") == "1":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        wanted = path.read_text() if path.exists() else ""
        assert text == wanted, (
            f"{path.relative_to(ROOT)} differs. If the change is meant: make golden, and read the diff"
        )

    return check
