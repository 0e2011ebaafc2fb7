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
from wasm_machine import executed

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


@pytest.mark.parametrize("shape", [(3, 8), (5, 64), (3, 4, 130)], ids=str)
def test_a_sum_of_sums(shape: tuple[int, ...], device: str) -> None:
    """The outer sum's terms have the row's parts in them as the inner one's have; these are kept by the inner one."""
    x = values(*shape)

    def f(x: nf.Tensor) -> nf.Tensor:
        s = nn.sigmoid(x)
        total = nf.broadcast_to(nf.sum(s, axis=-1, keepdims=True), x.shape)
        return s / nf.sum(total, axis=-1, keepdims=True)

    s = 1 / (1 + np.exp(-x))
    want = s / (s.sum(-1, keepdims=True) * shape[-1])
    np.testing.assert_allclose(f(nf.asarray(x)).numpy(), want, rtol=1e-5)


@pytest.mark.parametrize("n", [1, 5, 63, 64])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int32"])
def test_where_the_extremes_of_padded_rows_are(dtype: str, n: int, device: str) -> None:
    """The search for a row's maximum runs over the row as the maximum in it does, and each has masks of its own."""
    x = (values(n) - 4).astype(dtype)
    padded = np.pad(x, 2)
    got = nf.argmax(nf.pad(nf.asarray(x), 2)), nf.argmin(nf.pad(nf.asarray(-x), 2))
    assert [y.item() for y in got] == [padded.argmax(), (-padded).argmin()]


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


def test_softmax_of_one_row_that_threads_could_share() -> None:
    """What is computed for the sum is kept where the result goes: a single row is one thread's, whatever it costs."""
    need("wasm")
    x = values(4096)
    with nf.use("wasm"):
        y = nn.softmax(30 * nf.tanh(nf.asarray(x) / 30)).numpy()
    powers = np.exp(30 * np.tanh(x.astype("float64") / 30))
    np.testing.assert_allclose(y, powers / powers.sum(), rtol=1e-5)


@pytest.mark.parametrize("n", [5, 64, 70, 1030])
@pytest.mark.parametrize("axis", [0, 1])
def test_softmax_of_nan_anywhere(n: int, axis: int) -> None:
    """Of whatever bits and in whatever place, NaN is in the whole row, and so it is in a row of nothing but -∞."""
    need("wasm")
    places = [0, 3, n // 2, n - 1]
    x = values(len(places) + 3, n)
    for row, place in enumerate(places):
        x[row, place] = np.array([0x7F800001 + row * 0x1FFFFF], "uint32").view("float32")[0]
    x[len(places)] = -np.inf
    x[len(places) + 1, ::2] = -np.inf
    with nf.use("wasm"):
        y = nn.softmax(nf.asarray(x if axis else np.ascontiguousarray(x.T)), axis=axis).numpy()
    y = y if axis else y.T
    assert np.isnan(y[: len(places) + 1]).all()
    assert (y[len(places) + 1, ::2] == 0).all()
    np.testing.assert_allclose(y[len(places) + 1 :].sum(-1), 1, rtol=1e-5)


@pytest.mark.parametrize("relaxed", [True, False])
def test_softmax_is_accurate(relaxed: bool) -> None:
    """To 3e-7 down to 1e-12, to 6e-7 in all numbers that are not subnormal, and subnormal ones are there."""
    x = np.zeros((800, 8), "float32")
    x[:, 1:] = np.linspace(-103, -4, 5600).reshape(800, 7)
    exact = np.exp(x.astype("float64"))
    exact /= exact.sum(1, keepdims=True)
    (y,) = executed(kernel_of(nn.softmax, x.shape), [x], np.zeros_like(x), relaxed=relaxed)
    error = np.abs(y - exact)
    assert (error / exact)[exact > 1e-12].max() < 3e-7
    assert (error / exact)[exact > 2.0**-126].max() < 6e-7
    assert (error - 6e-7 * exact).max() <= 2.0**-149
    assert (y > 0).all()


def test_maxima_that_leave_nan_to_the_sum() -> None:
    """That of softmax does; one that is a result does not, nor one whose sum is not in every result."""
    assert len(plan_of(nn.softmax, (64, 256)).blind) == 1
    assert not plan_of(lambda x: nf.max(x, axis=1), (64, 256)).blind
    assert not plan_of(lambda x: nf.where(x > 0, nn.softmax(x), 0.0), (64, 256)).blind
    assert not plan_of(
        lambda x: nf.max(x, axis=1, keepdims=True) + nf.sum(nf.sign(x), axis=1, keepdims=True), (64, 256)
    ).blind


def kernel_of(function: Callable[..., Any], *shapes: tuple[int, ...]) -> Kernel:
    """The one kernel of a function of stored arrays."""
    with nf.use("reference"):
        inputs = [nf.zeros(shape) for shape in shapes]
        graph, _ = trace([function(*inputs).node], [x.node for x in inputs])
    stored = {i for i, line in enumerate(graph.lines) if line.op == "input"} | set(graph.outputs)
    return lower(graph, [graph.outputs[0]], stored.__contains__, []).kernel


def plan_of(function: Callable[..., Any], *shapes: tuple[int, ...]) -> Schedule:
    """How that kernel runs."""
    return schedule(kernel_of(function, *shapes), True)


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
