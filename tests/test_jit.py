"""jit: one trace for each signature; state updated in place where nobody else holds it; errors leave all as it was."""

import numpy as np
import pytest

import nearfield as nf
from nearfield import nn, optim
from nearfield.errors import TraceError
from nearfield.runtime import current_device

X = np.arange(12, dtype="float32").reshape(3, 4)


@pytest.fixture(autouse=True)
def _on(device: str) -> str:
    return device


class Counter(nn.Module):
    """State that each call changes."""

    buffers = ("total",)

    def __init__(self) -> None:
        self.total = nf.zeros((3, 4))

    def __call__(self, x: nf.Tensor) -> nf.Tensor:
        self.total = self.total + x
        return self.total * 2.0


def test_a_signature_is_traced_once() -> None:
    """Shapes, dtypes and plain arguments make a signature; values of tensors do not."""
    seen = []

    @nf.jit
    def f(x: nf.Tensor, n: int) -> nf.Tensor:
        seen.append((x.shape, x.dtype.name, n))
        return x * n

    arguments = [(X, 2), (X + 1, 2), (X, 3), (X[:2], 2), (X.astype("int32"), 2), (X.astype("float16"), 2)]
    for x, n in arguments * 2:
        y = f(nf.asarray(x), n)
        assert y.dtype.name == x.dtype.name
        np.testing.assert_array_equal(y.numpy(), x * x.dtype.type(n))
    assert len(seen) == 5


def test_state_is_assigned_after_each_call() -> None:
    """As if the function had run as it is written."""
    counter = Counter()
    f = nf.jit(lambda x: counter(x))
    for n in range(1, 5):
        np.testing.assert_array_equal(f(nf.asarray(X)).numpy(), 2 * n * X)
        np.testing.assert_array_equal(counter.total.numpy(), n * X)


def test_state_that_somebody_holds_keeps_its_value() -> None:
    """A tensor taken from the state before a call is not written over by it, nor are results of earlier calls."""
    counter = Counter()
    f = nf.jit(lambda x: counter(x))
    f(nf.asarray(X))
    held = counter.total
    results = [f(nf.asarray(X)) for _ in range(3)]
    np.testing.assert_array_equal(held.numpy(), X)
    for n, y in enumerate(results, 2):
        np.testing.assert_array_equal(y.numpy(), 2 * n * X)


def test_a_view_of_the_state_keeps_its_value() -> None:
    """A reshaped tensor shares the state's memory, which is then not written over."""
    counter = Counter()
    f = nf.jit(lambda x: counter(x))
    f(nf.asarray(X))
    view = nf.reshape(counter.total, (4, 3))
    np.testing.assert_array_equal(view.numpy(), X.reshape(4, 3))
    f(nf.asarray(X))
    np.testing.assert_array_equal(view.numpy(), X.reshape(4, 3))


def test_pending_expressions_of_the_state_keep_their_value() -> None:
    """What was made from the state before a call, and not computed yet, means the state of then."""
    counter = Counter()
    f = nf.jit(lambda x: counter(x))
    f(nf.asarray(X))
    doubled = counter.total * 2.0
    f(nf.asarray(X))
    np.testing.assert_array_equal(doubled.numpy(), 2 * X)


def test_an_input_keeps_its_value() -> None:
    """Arguments belong to the caller, also if nothing else refers to what was computed from them."""
    x = nf.asarray(X)
    y = nf.jit(lambda x: x + 1.0)(x)
    np.testing.assert_array_equal(x.numpy(), X)
    np.testing.assert_array_equal(y.numpy(), X + 1)


def test_updates_in_place_need_no_memory() -> None:
    """A step whose state nobody else holds writes over it."""
    if current_device().name == "reference":
        return
    counter = Counter()
    f = nf.jit(lambda x: counter(x))
    x = nf.asarray(X)
    for _ in range(3):
        f(x)
    before = counter.total.node.value.key
    f(x)
    assert counter.total.node.value.key == before


def test_an_error_leaves_the_state_as_it_was() -> None:
    """Also a trace that ends in the middle puts everything back."""
    counter = Counter()

    @nf.jit
    def f(x: nf.Tensor) -> nf.Tensor:
        y = counter(x)
        return y if nf.sum(y) > 0 else x

    with pytest.raises(TraceError):
        f(nf.asarray(X))
    np.testing.assert_array_equal(counter.total.numpy(), np.zeros((3, 4)))


def test_a_traced_value_that_escapes_says_so() -> None:
    """Used outside, it is an error in words; the function itself goes on working."""
    kept = []

    @nf.jit
    def f(x: nf.Tensor) -> nf.Tensor:
        kept.append(x * 2.0)
        return x + 1.0

    np.testing.assert_array_equal(f(nf.asarray(X)).numpy(), X + 1)
    with pytest.raises(TraceError, match="traced function"):
        kept[0].numpy()
    np.testing.assert_array_equal(f(nf.asarray(X)).numpy(), X + 1)


def test_jit_and_plain_training_agree() -> None:
    """The same numbers, step by step: parameters, slots, losses."""

    def losses(*, compiled: bool) -> list[float]:
        generator = nf.random.Generator(1)
        model = nn.Sequential(nn.Linear(4, 5, generator=generator), nf.tanh, nn.Linear(5, 1, generator=generator))
        adam = optim.Adam(0.05)
        slope = nn.value_and_grad(model, lambda model, x, y: nf.mean(nf.square(model(x) - y)))

        def step(x: nf.Tensor, y: nf.Tensor) -> nf.Tensor:
            loss, grads = slope(model, x, y)
            adam.update(model, grads)
            return loss

        run = nf.jit(step) if compiled else step
        return [run(nf.asarray(X / 12), nf.asarray(X[:, :1])).item() for _ in range(6)]

    np.testing.assert_allclose(losses(compiled=True), losses(compiled=False), rtol=1e-5)


def test_random_numbers_differ_from_call_to_call() -> None:
    """The default generator is state of a function that draws from it, however deep inside, and of no other."""
    drop = nn.Dropout(0.5)
    dropped, drawn = nf.jit(lambda x: drop(x)), nf.jit(lambda: nf.random.uniform(8))
    nf.random.seed(0)
    eager = [nf.random.uniform(8).tolist() for _ in range(3)]
    nf.random.seed(0)
    assert [drawn().tolist(), nf.random.uniform(8).tolist(), drawn().tolist()] == eager
    assert dropped(nf.ones(64)).tolist() != dropped(nf.ones(64)).tolist()
    plain = nf.jit(lambda x: x + 1)
    plain(nf.ones(3))
    assert [r.draws for f in (dropped, drawn, plain) for r in f.recordings.values()] == [True, True, False]
    nf.random.seed(0)
