"""The wheel in the browser: installed from its address, imported with the standard library alone."""

import pytest
from playwright.sync_api import Browser, Page

from browser.harness import ROOT, Pyodide, Site, screenshot, watched_page

INIT = ROOT / "src" / "nearfield" / "__init__.py"
has_package = pytest.mark.skipif(not INIT.exists(), reason="there is no nearfield/__init__.py yet")


def test_browser_has_webgpu(page: Page, site: Site) -> None:
    """What later tests rely on: an adapter, with no isolation asked for."""
    page.goto(f"{site.url}/pages/blank.html")
    assert page.evaluate("navigator.gpu.requestAdapter().then(adapter => adapter !== null)")
    assert not page.evaluate("crossOriginIsolated")
    assert screenshot(page, "blank").stat().st_size > 0


def test_isolation_is_a_matter_of_the_path(page: Page, site: Site) -> None:
    """The same page below /isolated/ has SharedArrayBuffer."""
    page.goto(f"{site.url}/isolated/pages/blank.html")
    assert page.evaluate("crossOriginIsolated && typeof SharedArrayBuffer") == "function"


def test_site_serves_nothing_outside_its_folders(page: Page, site: Site) -> None:
    """Neither unknown prefixes nor climbing paths."""
    for path in ("/pyproject.toml", "/pages/%2e%2e/%2e%2e/conftest.py", "/pages/../../conftest.py"):
        assert page.request.get(site.url + path).status == 404


def test_run_gives_json(pyodide: Pyodide) -> None:
    """Values come back, `await` works, errors are Python's, and blocking on a promise is possible."""
    assert pyodide.run("import asyncio; await asyncio.sleep(0); {'a': [1, 2.5, None, 'ü']}") == {
        "a": [1, 2.5, None, "ü"]
    }
    assert pyodide.run("from pyodide.ffi import can_run_sync; can_run_sync()") is True
    with pytest.raises(AssertionError, match=r"(?s)in Pyodide:\nFile \"<exec>\", line 2.*ZeroDivisionError"):
        pyodide.run("\n1 / 0")


@has_package
def test_import_needs_only_the_standard_library(pyodide: Pyodide) -> None:
    """`import nearfield` in the browser: nothing from outside, and no NumPy to be had."""
    code = """
        import sys
        before = set(sys.modules)
        import nearfield
        loaded = {name.split(".")[0] for name in set(sys.modules) - before}
        ours = {"nearfield", "js", "pyodide_js", "pyodide", "_pyodide", "_pyodide_core"}
        sorted(loaded - set(sys.stdlib_module_names) - ours)
    """
    assert pyodide.run(code) == []
    assert pyodide.run("import importlib.util; importlib.util.find_spec('numpy') is None") is True
    assert pyodide.run("import nearfield; nearfield.__file__").endswith("site-packages/nearfield/__init__.py")


@pytest.mark.slow
def test_pyodide_boots_isolated_too(browser: Browser, site: Site) -> None:
    """Cross-origin isolation changes nothing for Pyodide itself."""
    with watched_page(browser) as page:
        python = Pyodide(page, site, wheel=None, isolated=True)
        assert python.run("import sys; sys.platform") == "emscripten"
        assert page.evaluate("crossOriginIsolated")


def test_weights_that_stay_are_laid_out_once(pyodide: Pyodide) -> None:
    """Compiled predictions see the weights as a step of training has left them, also in their own memory."""
    code = """
        import nearfield as nf
        from nearfield import nn, optim
        from nearfield.replay import Recording

        nf.use("wasm")
        model, sgd = nn.Sequential(nn.Linear(96, 64), nn.tanh), optim.SGD(0.1)
        x = nf.random.normal((40, 96))
        predict = nf.jit(lambda x: model(x))
        slope = nn.value_and_grad(model, lambda x: nf.mean(nf.square(model(x))))

        @nf.jit
        def step(x):
            loss, grads = slope(x)
            sgd.update(model, grads)
            return loss

        far = []
        for _ in range(3):
            for _ in range(3):
                far.append(nf.max(nf.abs(predict(x) - model(x))).item())
            for _ in range(3):
                step(x)
        [recording] = predict.recordings.values()
        [(_, _, steady)] = recording.ready.values()
        max(far), recording.prepares, steady.session is not None
    """
    far, *told = pyodide.run(code)
    assert far < 1e-5
    assert told == [True, True]


def test_a_model_is_tuned(pyodide: Pyodide) -> None:
    """Without NumPy, on what is there; it runs on the fastest."""
    code = """
        import nearfield as nf

        nf.use("wasm")
        w = nf.ones((8, 8))
        nf.export(lambda x: x @ w, "/tmp/tuned", inputs={"x": nf.ones((4, 8))})
        model = nf.load("/tmp/tuned")
        times = nf.tune(model, rounds=1)
        "wasm" in times, model._fastest == min(times, key=times.get)
    """
    assert pyodide.run(code) == [True, True]
