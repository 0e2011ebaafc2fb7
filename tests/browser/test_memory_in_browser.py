"""Memory in the browser: thousands of steps without any call to clean up, in Python and by the runner alone."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

import nearfield as nf
from browser.harness import Pyodide, Site, watched_page
from devices import MANY
from nearfield import nn
from nearfield.deploy.export import Spec, export

DEVICES = ["wasm", "webgpu"]
SETUP = """
import gc
import nearfield as nf
from nearfield import nn, optim
from nearfield.errors import DeviceError, TraceError

X = [[((3 * i + j) % 7) / 7 - 0.5 for j in range(4)] for i in range(16)]
Y = [[sum(row)] for row in X]

def small_model():
    generator = nf.random.Generator(0)
    return nn.Sequential(nn.Linear(4, 8, generator=generator), nf.tanh, nn.Linear(8, 1, generator=generator))

def training():
    model, adam = small_model(), optim.Adam(1e-2)
    slope = nn.value_and_grad(model, lambda model, x, y: nf.mean(nf.square(model(x) - y)))

    @nf.jit
    def step(x, y):
        loss, grads = slope(model, x, y)
        adam.update(model, grads)
        return loss

    return lambda: step(nf.asarray(X), nf.asarray(Y))

def predicting(compiled):
    model = small_model()
    run = nf.jit(lambda x: model(x)) if compiled else model
    return lambda: run(nf.asarray(X))

def loop(step, times, read_every=1):
    for n in range(1, times + 1):
        y = step()
        if n == 1:
            first = nf.mean(y).item()
        if n % read_every == 0 or n == times:
            last = nf.mean(y).item()
        if n == 10:
            tenth = nf.memory_stats()
    return [tenth, nf.memory_stats(), first, last]

def in_use():
    stats = nf.memory_stats()
    return stats.bytes, stats.buffers

def raise_while_traced():
    def broken(x):
        raise ZeroDivisionError
    try:
        nf.jit(broken)(nf.asarray(X))
    except ZeroDivisionError:
        pass

def let_a_model_go():
    step = training()
    step(), step().item()

def let_a_capture_go():
    constant = nf.asarray(X) * 3.0
    nf.jit(lambda x: x + constant)(nf.asarray(X)).tolist()

def repeated(action):
    gc.collect()
    gc.disable()
    try:
        for _ in range(3): action()
        before = in_use()
        for _ in range(20): action()
        return before, in_use()
    finally:
        gc.enable()
None
"""


@pytest.fixture(params=DEVICES)
def python(request: pytest.FixtureRequest, pyodide: Pyodide) -> Iterator[Pyodide]:
    """Pyodide with what the tests repeat, on one device."""
    pyodide.run(SETUP)
    pyodide.run(f"nf.use({request.param!r}); nf.forget_programs(); gc.collect(); None")
    yield pyodide
    pyodide.run("nf.forget_programs(); gc.collect(); None")


@pytest.mark.slow
@pytest.mark.parametrize(
    "loop",
    [f"loop(training(), {MANY}, 10)", f"loop(predicting(True), {MANY})", f"loop(predicting(False), {MANY})"],
    ids=["training", "jit", "lazy"],
)
def test_many_steps_grow_nothing(loop: str, python: Pyodide) -> None:
    """The state is updated in place, answers are read and dropped, and step 10 is where the last step is."""
    tenth, last, first_value, last_value = python.run(loop)
    assert last == tenth
    assert "training" not in loop or last_value < first_value / 10


@pytest.mark.parametrize("action", ["raise_while_traced", "let_a_model_go", "let_a_capture_go"])
def test_references_alone_free_memory(action: str, python: Pyodide) -> None:
    """As natively: what is dropped is free at once, without Python's collector."""
    before, after = python.run(f"repeated({action})")
    assert after == before


def test_what_somebody_holds_keeps_its_value(python: Pyodide) -> None:
    """Updates in place count references, and each version of Python counts them in its own way."""
    code = """
        class Counter(nn.Module):
            buffers = ("total",)

            def __init__(self):
                self.total = nf.zeros((2,))

            def __call__(self, x):
                self.total = self.total + x
                return self.total * 2.0

        counter = Counter()
        step = nf.jit(lambda x: counter(x))
        x = nf.asarray([1.0, 2.0])
        results = [step(x)]
        held, pending = counter.total, counter.total * 10.0
        results += [step(x), step(x)]
        seen = [held.tolist(), pending.tolist(), x.tolist(), *(y.tolist() for y in results), counter.total.tolist()]
        del held, pending
        before = counter.total.node.value.key
        step(x)
        in_place = [counter.total.node.value.key == before]
        z = nf.asarray([1.0, 2.0]) + 1.0
        view = nf.reshape(z, (2, 1))
        seen.append(view.tolist())
        y = z * 2.0
        del z
        seen += [y.tolist(), view.tolist()]
        before, z = y.node.value.key, y + 1.0
        del y
        seen.append(z.tolist())
        in_place.append(z.node.value.key == before)
        seen, in_place
    """
    seen, in_place = python.run(code)
    assert seen.pop() == [5, 7]
    assert seen.pop() == seen.pop(-2) == [[2], [3]]
    assert seen.pop() == [4, 6]
    assert seen == [[1, 2], [10, 20], [1, 2], [2, 4], [4, 8], [6, 12], [3, 6]]
    assert in_place == [True, True]


def test_what_is_too_large_harms_nothing_else(python: Pyodide) -> None:
    """An expression that the device cannot hold fails when it is asked for; others do not notice."""
    code = """
        large = nf.zeros((1 << 18, 1 << 18)) + 1.0
        z = (nf.asarray([1.0, 2.0]) * 2.0).tolist()
        try:
            large.tolist()
        except DeviceError as error:
            told = str(error)
        del large
        z, told[:6]
    """
    values, told = python.run(code)
    assert values == [2.0, 4.0]
    assert told in ("webgpu", "wasm: ")


LOSE = {
    "closed": "runtime.current_device().close()",
    "lost": "js.gpus.at(-1).destroy()",
}
CATCH = """() => {
    const { requestDevice } = GPUAdapter.prototype;
    globalThis.gpus = [];
    GPUAdapter.prototype.requestDevice = async function (...args) {
        gpus.push(await requestDevice.apply(this, args));
        return gpus.at(-1);
    };
}"""


@pytest.mark.parametrize("how", LOSE)
def test_a_lost_device_is_opened_again(how: str, pyodide: Pyodide) -> None:
    """What lived there is gone, in words; what is made anew lives on a new device, and a compiled function too."""
    pyodide.page.evaluate("() => globalThis.gpus") or pyodide.page.evaluate(CATCH)
    pyodide.run(SETUP)
    code = f"""
        import js
        from nearfield import runtime
        nf.use("webgpu"); runtime.current_device().close(); nf.use("webgpu")  # so that the page knows the GPUDevice
        double = nf.jit(lambda x: x * 2.0)
        kept = double(nf.asarray(X))
        before = kept.tolist()
        device = runtime.current_device()
        {LOSE[how]}
        try:
            kept.tolist()
        except DeviceError as error:
            told = str(error)
        again = double(nf.asarray(X)).tolist()
        told, again == before, runtime.current_device() is not device
    """
    told, is_same, is_new = pyodide.run(code)
    assert told.startswith("webgpu: ")
    assert "lost" in told
    assert is_same
    assert is_new


@pytest.fixture(scope="module")
def model_page(
    browser: Browser, site: Site, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Page, nn.Module]]:
    """A page without Python, beside an exported model, and that model."""
    generator = nf.random.Generator(0)
    model = nn.Sequential(nn.Linear(4, 8, generator=generator), nf.tanh, nn.Linear(8, 1, generator=generator))
    folder: Path = tmp_path_factory.mktemp("memory") / "model"
    with nf.use("wasm"):
        export(model, folder, inputs={"x": Spec((16, 4))}, outputs=["output"])
    site.folders["/memory-model/"] = folder
    with watched_page(browser) as page:
        page.goto(f"{site.url}/pages/memory.html")
        page.wait_for_function("'predictMany' in globalThis")
        yield page, model


@pytest.mark.parametrize("times", [300, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("device", DEVICES)
def test_predictions_without_python_grow_nothing(device: str, times: int, model_page: tuple[Page, nn.Module]) -> None:
    """Each answer is read; wrong calls in between are refused and leave nothing either."""
    page, model = model_page
    seen = page.evaluate("([device, times]) => predictMany(device, times)", [device, times])
    assert seen["last"] == seen["tenth"]
    assert seen["errors"] == 2 * (times // 100)
    x = np.array([(i + times) % 5 for i in range(64)], "float32").reshape(16, 4)
    with nf.use("reference"):
        want = model(nf.asarray(x)).numpy()
    np.testing.assert_allclose(seen["answer"], want.reshape(-1), rtol=1e-4, atol=1e-5)
