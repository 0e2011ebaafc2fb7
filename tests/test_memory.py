"""Nothing grows and nothing is left: long loops without any call to clean up, and what goes wrong on the way."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from devices import MANY, need
from nearfield import nn, optim, runtime
from nearfield.errors import DeviceError, TraceError

X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
Y = X.sum(axis=1, keepdims=True)
LONG = pytest.param(MANY, marks=pytest.mark.slow)


@pytest.fixture(params=["wasm", "webgpu"], autouse=True)
def on(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each test runs on both devices that have memory of their own, and begins without Programs."""
    need(request.param)
    with nf.use(request.param):
        nf.forget_programs()
        gc.collect()
        yield request.param


def small_model() -> nn.Module:
    """With numbers of its own: the state of the package's generator would stay in the device's memory."""
    generator = nf.random.Generator(0)
    return nn.Sequential(nn.Linear(4, 8, generator=generator), nf.tanh, nn.Linear(8, 1, generator=generator))


def training(*, compiled: bool) -> Callable[[], nf.Tensor]:
    """One step of Adam; its result is the loss."""
    model, adam = small_model(), optim.Adam(1e-2)
    slope = nn.value_and_grad(model, lambda model, x, y: nf.mean(nf.square(model(x) - y)))

    def step(x: nf.Tensor, y: nf.Tensor) -> nf.Tensor:
        loss, grads = slope(model, x, y)
        adam.update(model, grads)
        return loss

    run = nf.jit(step) if compiled else step
    return lambda: run(nf.asarray(X), nf.asarray(Y))


def predicting(*, compiled: bool) -> Callable[[], nf.Tensor]:
    model = small_model()
    run = nf.jit(lambda x: model(x)) if compiled else model
    return lambda: run(nf.asarray(X))


def loop(step: Callable[[], nf.Tensor], times: int, read_every: int) -> tuple[Any, Any, int]:
    """Memory after step 10 and after the last, and by how many Python objects the loop has grown between."""
    for n in range(1, times + 1):
        y = step()
        if n % read_every == 0 or n == times:
            assert np.isfinite(y.numpy()).all()
        if n == 10:
            tenth, objects = nf.memory_stats(), len(gc.get_objects())
    return tenth, nf.memory_stats(), len(gc.get_objects()) - objects


@pytest.mark.parametrize("times", [300, LONG])
def test_training_grows_nothing(times: int) -> None:
    """A compiled step, its state updated in place, the loss read now and then."""
    tenth, last, objects = loop(training(compiled=True), times, read_every=10)
    assert last == tenth
    assert objects < 100


@pytest.mark.parametrize("compiled", [True, False], ids=["jit", "lazy"])
@pytest.mark.parametrize("times", [300, LONG])
def test_predicting_grows_nothing(times: int, compiled: bool) -> None:
    """Each answer is read and dropped."""
    tenth, last, objects = loop(predicting(compiled=compiled), times, read_every=1)
    assert last == tenth
    assert objects < 100


def test_training_without_jit_grows_nothing() -> None:
    """Each loss read evaluates the parameters, too, so that expressions do not pile up."""
    tenth, last, _ = loop(training(compiled=False), 60, read_every=1)
    assert last == tenth


def in_use() -> tuple[int, int]:
    stats = nf.memory_stats()
    return stats.bytes, stats.buffers


@contextmanager
def without_collector() -> Iterator[None]:
    """Only counting references frees anything here."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def repeated(action: Callable[[], object], times: int = 20) -> tuple[tuple[int, int], tuple[int, int]]:
    """Memory after doing it three times, and after doing it more often, with references counted and nothing else."""
    with without_collector():
        for _ in range(3):
            action()
        before = in_use()
        for _ in range(times):
            action()
        return before, in_use()


def raise_while_traced() -> None:
    model, adam = small_model(), optim.Adam()

    @nf.jit
    def step(x: nf.Tensor) -> nf.Tensor:
        adam.update(model, {name: nf.ones_like(p) for name, p in model.parameters().items()})
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        step(nf.asarray(X))
    assert np.isfinite(model(nf.asarray(X)).numpy()).all()  # what it had before the step


def ask_while_traced() -> None:
    with pytest.raises(TraceError):
        nf.jit(lambda x: x if nf.sum(x) > 0 else -x)(nf.asarray(X))


def raise_between_operations() -> None:
    half = nf.asarray(X) * 2.0 + 1.0
    with pytest.raises(ValueError, match="broadcast"):
        _ = half + nf.ones((3,))


def let_a_model_go() -> None:
    step = training(compiled=True)
    for _ in range(3):
        step().item()


def let_a_capture_go() -> None:
    constant = nf.asarray(X) * 3.0
    assert nf.jit(lambda x: x + constant)(nf.asarray(X)).numpy()[0, 0] == np.float32(4) * X[0, 0]


def let_a_pull_back_go() -> None:
    value, _ = nf.vjp(lambda x: nf.sum(x * x), nf.asarray(X))
    value.item()


def let_rows_go() -> None:
    for row in nf.asarray(X) + 1.0:
        row.numpy()


DROPPED = [
    raise_while_traced, ask_while_traced, raise_between_operations,
    let_a_model_go, let_a_capture_go, let_a_pull_back_go, let_rows_go,
]  # fmt: skip


@pytest.mark.parametrize("action", DROPPED, ids=lambda f: f.__name__)
def test_references_alone_free_memory(action: Callable[[], object]) -> None:
    """No cycle of ours keeps a tensor alive: what is dropped, also by an error, is free without a collector."""
    before, after = repeated(action)
    assert after == before


def test_tensors_in_a_cycle_wait_for_the_collector() -> None:
    """A cycle of the user's is all that Python's collector is needed for; it then frees the device's memory."""

    class Holder:
        def __init__(self, held: nf.Tensor) -> None:
            self.held, self.me = held, self

    (nf.asarray(X) * 2.0).numpy()
    before = in_use()
    with without_collector():
        for _ in range(10):
            Holder(nf.asarray(X) * 2.0).held.numpy()
        assert in_use()[1] >= before[1] + 10
    gc.collect()
    assert in_use() == before
    several = [(nf.asarray(X) + float(n)).numpy() for n in range(3)]  # the blocks that came back are sound
    assert all(np.array_equal(y, X + np.float32(n)) for n, y in enumerate(several))


def test_only_what_has_a_name_keeps_a_value() -> None:
    """Intermediate results without a name get no memory of their own; those with one get theirs, once."""
    sizes = {}
    for keep in (False, True, False, True):
        x = nf.asarray(X)
        a = nf.exp(x) + 1.0
        b = nf.sum(a * a, axis=1)
        if not keep:
            del a
        b.numpy()
        sizes.setdefault(keep, []).append(in_use())
        if keep:
            assert a.device == runtime.current_device().name
            del a
        del x, b
    assert sizes[True][1][1] == sizes[False][1][1] + 1
    assert sizes[True][1][0] == sizes[False][1][0] + X.nbytes


def test_what_is_dropped_is_written_over() -> None:
    """A result takes over the memory of a tensor that nobody can reach any more."""
    x = nf.asarray(X) + 1.0
    x.numpy()
    before = x.node.value.key
    y = x * 2.0 + 1.0
    del x
    np.testing.assert_array_equal(y.numpy(), X * 2 + 3)
    assert y.node.value.key == before


def test_views_keep_their_value() -> None:
    """Memory that two tensors share is not written over when one of them is dropped."""
    x = nf.asarray(X) + 1.0
    view = nf.reshape(x, (-1,))
    np.testing.assert_array_equal(view.numpy(), X.reshape(-1) + 1)
    y = x * 2.0 + 1.0
    del x
    np.testing.assert_array_equal(y.numpy(), X * 2 + 3)
    np.testing.assert_array_equal(view.numpy(), X.reshape(-1) + 1)


def test_a_pull_back_outlives_the_value() -> None:
    """Values forget how they were made once they are known; what still needs that has kept it."""
    value, pull = nf.vjp(lambda x: nf.sum(nf.exp(x) * x), nf.asarray(X))
    one = nf.asarray(1.0)
    before = pull(one)[0].numpy()
    value.item()
    np.testing.assert_allclose(pull(one)[0].numpy(), np.exp(X) * (1 + X), rtol=1e-5)
    np.testing.assert_array_equal(before, pull(one)[0].numpy())


def test_new_constants_compile_anew_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """An expression with a new number each time is a new Program; only so many are kept."""
    monkeypatch.setattr(runtime, "MOST_PROGRAMS", 8)

    def step(number: float) -> None:
        (nf.asarray(X) * number).numpy()

    for n in range(12):
        step(n + 0.5)
    before = in_use()
    for n in range(12, 40):
        step(n + 0.5)
    assert in_use() == before


def test_what_is_too_large_harms_nothing_else() -> None:
    """An expression that the device cannot hold fails when it is asked for, and only then."""
    y = nf.asarray(X) * 2.0
    y.numpy()
    large = nf.zeros((1 << 18, 1 << 18)) + y[0, 0]
    before = in_use()
    z = y + 1.0
    np.testing.assert_array_equal(z.numpy(), X * 2 + 1)
    with pytest.raises(DeviceError):
        large.numpy()
    assert large.device == "pending"
    np.testing.assert_array_equal((z * 2.0).numpy(), (X * 2 + 1) * 2)
    del large, z
    nf.forget_programs()
    gc.collect()
    assert in_use()[0] <= before[0]


@pytest.mark.parametrize("on", ["webgpu"], indirect=True)
def test_a_lost_device_is_opened_again() -> None:
    """What lived there is gone, in words; what is made afterwards lives on the new one, compiled functions too."""
    step = predicting(compiled=True)
    want = step().numpy()
    kept = nf.asarray(X) * 2.0
    kept.numpy()
    drawn = nf.random.uniform(4).numpy()
    device = runtime.current_device()
    device._gpu.destroy()
    with pytest.raises(DeviceError, match="lost"):
        _ = nf.asarray(X).numpy(), (nf.asarray(X) + 1.0).numpy()
    with pytest.raises(DeviceError, match="lost"):
        (kept + 1.0).numpy()
    assert runtime.current_device() is not device
    assert not set(drawn) & set(nf.random.uniform(4).numpy())  # the default generator goes on, elsewhere in its numbers
    nf.random.seed(0)
    np.testing.assert_array_equal((nf.asarray(X) + 1.0).numpy(), X + 1)
    with pytest.raises(DeviceError, match="lost"):
        step()
    np.testing.assert_allclose(predicting(compiled=True)().numpy(), want, rtol=1e-6)


def test_a_loop_that_never_reads_is_evaluated_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every so many operations on one another; so that neither the expression nor its Program grows without end."""
    monkeypatch.setattr("nearfield.tensor.DEEPEST", 100)
    x, depths = nf.ones(3), []
    for _ in range(210):
        x = x + 1.0
        depths.append(x.node.depth)
    assert max(depths) == 99
    assert depths.count(0) == 2
    assert x.tolist() == [211] * 3


def test_what_is_traced_or_differentiated_stays_one_expression(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it is."""
    monkeypatch.setattr("nearfield.tensor.DEEPEST", 100)

    def power(x: nf.Tensor) -> nf.Tensor:
        y = x
        for _ in range(210):
            y = y * 1.001
        return nf.sum(y)

    x = nf.asarray([1.0, 2.0])
    slope = 1.001**210
    np.testing.assert_allclose(nf.grad(power)(x).numpy(), [slope, slope], rtol=1e-3)
    np.testing.assert_allclose(nf.jit(power)(x).item(), 3 * slope, rtol=1e-3)
