"""One training script, unchanged, natively and in Pyodide, on both devices: the same course and accuracy, no growth."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from browser.harness import ROOT, Pyodide, Site, watched_page
from devices import need

EXAMPLE = ROOT / "examples" / "digits"
TOLERANCE = 1e-3  # between losses, step by step
LEAST_ACCURACY = 0.97

NATIVELY = """
import json, sys, train
losses, accuracy = train.main(open(sys.argv[1], "rb").read())
print(json.dumps([losses, accuracy]))
"""

FETCH = """
    import sys
    from pyodide.http import pyfetch
    import nearfield as nf
    for name, address in (("train.py", "../digits/train.py"), ("digits.bin", "../data/digits.bin")):
        with open(name, "wb") as file:
            file.write(await (await pyfetch(address)).bytes())
    sys.path.insert(0, ".")
    import train
    data = open("digits.bin", "rb").read()
    len(data) // 65
"""

LOOP = """
    from nearfield import nn, optim

    examples, held_out = train.read(data)
    x, y = examples[:4]
    model, optimizer = train.Digits(), optim.Adam(1e-3)
    optimizer.init(model)
    slope = nn.value_and_grad(model, lambda x, y: nf.mean(nn.losses.cross_entropy(model(x), y)))

    @nf.jit
    def step(x, y):
        loss, gradients = slope(x, y)
        optimizer.update(model, gradients)
        return loss

    @nf.jit
    def answer(x):
        return nf.argmax(model(x), axis=-1)

    def held():
        stats = nf.memory_stats()
        return [stats.bytes, stats.buffers]

    def go_on(times):
        for n in range(1, times + 1):
            loss, label = step(x, y), answer(x)
            if n % 10 == 0:
                loss.item(), label.tolist()
        loss.item()

    go_on(10)
    before = held()
    go_on(TIMES)
    [before, held()]
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples, as the demo writes them."""
    pytest.importorskip("sklearn")
    file = tmp_path_factory.mktemp("digits") / "digits.bin"
    subprocess.run([sys.executable, EXAMPLE / "demo.py", "--data", file], check=True, env=environment("wasm"))
    return file


def environment(device: str) -> dict[str, str]:
    paths = f"{ROOT / 'src'}{os.pathsep}{EXAMPLE}"
    return {**os.environ, "NEARFIELD_DEVICE": device, "PYTHONPATH": paths}


@pytest.fixture(scope="module")
def natively(data: Path) -> Callable[[str], Any]:
    """Losses and accuracy of the whole training in a Python of its own, once for each device."""
    known: dict[str, Any] = {}

    def trained(device: str) -> Any:
        need(device)
        if device not in known:
            command = [sys.executable, "-c", NATIVELY, data]
            done = subprocess.run(command, check=True, env=environment(device), stdout=subprocess.PIPE, text=True)
            known[device] = json.loads(done.stdout.splitlines()[-1])
        return known[device]

    return trained


@pytest.fixture(scope="module")
def python(browser: Browser, site: Site, wheel: Path, data: Path) -> Iterator[Pyodide]:
    """Pyodide with the wheel, the script and the examples."""
    site.folders |= {"/digits/": EXAMPLE, "/data/": data.parent}
    with watched_page(browser) as page:
        made = Pyodide(page, site, wheel=wheel)
        assert made.run(block(FETCH)) == 1797
        yield made


def block(code: str) -> str:
    return "\n".join(line.removeprefix("    ") for line in code.splitlines())


def furthest(one: list[float], other: list[float]) -> float:
    """The largest difference at one step."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


@pytest.mark.slow
def test_native_devices_agree(natively: Callable[[str], Any]) -> None:
    """The whole course of the loss, and the accuracy."""
    (on_wasm, right), (on_webgpu, also_right) = natively("wasm"), natively("webgpu")
    assert len(on_wasm) == len(on_webgpu) > 100
    assert furthest(on_wasm, on_webgpu) < TOLERANCE
    assert min(right, also_right) >= LEAST_ACCURACY


@pytest.mark.slow
@pytest.mark.parametrize("device", ["wasm", "webgpu"])
def test_devices_of_the_page_agree(device: str, natively: Callable[[str], Any], python: Pyodide) -> None:
    """All the steps, and the accuracy."""
    python.run(f"nf.use({device!r}); nf.forget_programs()")
    losses, accuracy = python.run("train.main(data)")
    for where in ("wasm", "webgpu"):
        assert len(losses) == len(natively(where)[0])
        assert furthest(losses, natively(where)[0]) < TOLERANCE
    assert accuracy >= LEAST_ACCURACY


@pytest.mark.slow
@pytest.mark.parametrize(("device", "times"), [("wasm", 500), ("webgpu", 50)])
def test_memory_stays_as_it_is(device: str, times: int, python: Pyodide) -> None:
    """After many steps and predictions the device holds what it held after the tenth."""
    python.run(f"nf.use({device!r}); nf.forget_programs(); TIMES = {times}")
    before, after = python.run(block(LOOP))
    assert after == before
