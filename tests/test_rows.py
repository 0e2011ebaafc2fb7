"""Row programs (softmax, norms and their gradients) at sizes beside those of vectors and blocks, against NumPy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from devices import need
from nearfield import nn
from nearfield.compiler.kernel import Kernel
from nearfield.compiler.lower import lower
from nearfield.compiler.wasm_schedule import Schedule, reduces_of, schedule
from nearfield.trace import trace

Array = np.ndarray[Any, Any]
SHAPES = [(1, 1), (3, 2), (4, 5), (2, 7), (5, 64), (3, 130), (40, 17), (2, 1025)]
ROWS: dict[str, Callable[[Any], Any]] = {
    "softmax": nn.softmax,
    "log_softmax": nn.log_softmax,
    "layer_norm": nn.layer_norm,
    "rms_norm": nn.rms_norm,
    "logsumexp": nn.logsumexp,
}


def values(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype("float32") * 3


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ROWS)
def test_rows_and_gradients(name: str, shape: tuple[int, ...]) -> None:
    """What WebAssembly makes of rows is what NumPy makes of them, and so are the gradients."""
    need("wasm")
    x, found = values(*shape), []
    for device in ("wasm", "reference"):
        with nf.use(device):
            y, pull = nf.vjp(ROWS[name], nf.asarray(x))
            (g,) = pull(nf.asarray(values(*y.shape) + 1))
            found.append((y.numpy(), g.numpy()))
    for got, want in zip(*found, strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_softmax_of_special_values(special: float) -> None:
    """NaN and ∞ spoil their row, -∞ has no share in it, and no other row is touched."""
    need("wasm")
    x = values(3, 70)
    x[1, 66] = special
    with nf.use("wasm"):
        y = nn.softmax(nf.asarray(x)).numpy()
    np.testing.assert_allclose(y[[0, 2]].sum(-1), 1, rtol=1e-5)
    if special == -np.inf:
        assert y[1, 66] == 0
        np.testing.assert_allclose(y[1].sum(), 1, rtol=1e-5)
    else:
        assert np.isnan(y[1]).all()


def plan_of(function: Callable[..., Any], *shapes: tuple[int, ...]) -> Schedule:
    """How the one kernel of a function of stored arrays runs."""
    with nf.use("reference"):
        inputs = [nf.zeros(shape) for shape in shapes]
        graph, _ = trace([function(*inputs).node], [x.node for x in inputs])
    stored = {i for i, line in enumerate(graph.lines) if line.op == "input"} | set(graph.outputs)
    kernel: Kernel = lower(graph, [graph.outputs[0]], stored.__contains__, []).kernel
    return schedule(kernel, True)


def test_exponentials_are_computed_once() -> None:
    """Softmax stores each in the place of its result, whence the quotient takes it; the norm has nothing to keep."""
    kept = plan_of(nn.softmax, (64, 256))
    assert kept.kept is not None
    assert kept.kept.argument == kept.stores[0].argument
    assert plan_of(nn.layer_norm, (64, 256)).kept is None


def test_sums_share_a_loop() -> None:
    """The two sums in the gradient of softmax run over one variable, so each exponential serves both."""
    plan = plan_of(lambda x, g: nf.vjp(nn.softmax, x)[1](g)[0], (64, 256), (64, 256))
    sums = {n.value for n in reduces_of(s.value for s in plan.stores) if n.value[0] == "sum"}
    assert len(sums) == 1
