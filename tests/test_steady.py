"""What compiled functions make of weights that stay: once, anew when they change, and gone with them."""

import gc
import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import nearfield as nf
from devices import need
from nearfield import nn, optim, steady
from nearfield.compiler.build import Target, build, build_steady
from nearfield.compiler.cached import _read, _written
from nearfield.device import Session, open_device
from nearfield.graph.interpret import interpret
from nearfield.jit import Jit
from nearfield.replay import Recording
from nearfield.runtime import target_of
from nearfield.steady import Steady
from nearfield.tensor import Tensor
from nearfield.trace import trace
from test_compiler import draw_graph, stand_in

NATIVE = [pytest.param(name, marks=pytest.mark.device(name)) for name in ("wasm", "webgpu")]
X = np.random.default_rng(0).normal(size=(40, 96)).astype("float32")


@pytest.fixture
def wasm() -> Iterator[None]:
    """Where factors of products are laid out in panels."""
    need("wasm")
    with nf.use("wasm"):
        yield


@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize("seed", range(20))
def test_random_graphs_mean_the_same_in_two_programs(seed: int, name: str) -> None:
    """Whatever stays: the same numbers, also after it has changed, and from a file."""
    rng, values = random.Random(seed), np.random.default_rng(seed)
    graph, shapes, constants = draw_graph(rng)
    which = frozenset(at for at in range(3) if rng.random() < 0.6) or frozenset([1])
    device = open_device(name)
    built = build_steady(graph, target_of(device), frozenset(), which)
    assert _read(_written(built)) == built
    assert set(built.feeds) <= which
    session, once = device.load(built.program), Steady(built, device)
    for _ in range(2):
        arrays = [values.uniform(-2, 2, shape).astype("float32") for shape in shapes] + constants
        given = [device.alloc(array.nbytes) for array in arrays]
        for memory, array in zip(given, arrays, strict=True):
            device.write(memory, array.tobytes())
        for _ in range(2):
            more = once.inputs(given)
            assert more is not None
            made = session.run("main", given + more)
            for (kind, n), want in zip(built.results, interpret(graph, arrays), strict=True):
                assert kind == "output"
                got = np.frombuffer(device.read(made[n], want.nbytes), "float32").reshape(want.shape)
                np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-4 * max(1.0, float(np.abs(want).max())))


def test_what_stays_leaves_the_call() -> None:
    """Scale and shift of a batch norm: one kernel that runs once, and one that reads them."""
    x, average, variance, scale, bias = stand_in(9, 40), *(stand_in(40) for _ in range(4))
    factor = 1 / nf.sqrt(variance + 1e-5) * scale
    y = x * factor + (bias - average * factor)
    graph, _ = trace([y.node], [t.node for t in (x, average, variance, scale, bias)])
    built = build_steady(graph, Target("webgpu"), frozenset(), frozenset([1, 2, 3, 4]))
    assert built.once is not None
    assert (len(built.once.steps), len(built.program.steps)) == (1, 1)
    assert sorted(built.feeds) == [1, 2, 3, 4]
    assert len(built.program.entries[0].inputs) == 5 + len(built.once.entries[0].outputs)
    none = build_steady(graph, Target("webgpu"), frozenset(), frozenset())
    assert none == build(graph, Target("webgpu"))


def network() -> nn.Sequential:
    draws = nf.random.Generator(0)
    return nn.Sequential(nn.Linear(96, 64, generator=draws), nn.relu, nn.Linear(64, 10, generator=draws))


def plain(model: nn.Sequential, x: np.ndarray) -> np.ndarray:
    first, last = model[0], model[2]
    hidden = np.maximum(x @ first.weight.numpy() + first.bias.numpy(), 0)
    return hidden @ last.weight.numpy() + last.bias.numpy()


def check(f: Jit, model: nn.Sequential, rows: int = 40) -> None:
    np.testing.assert_allclose(f(nf.asarray(X[:rows])).numpy(), plain(model, X[:rows]), rtol=1e-4, atol=1e-4)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows whenever something is made of weights, by how many."""
    seen: list[int] = []
    real = steady.Steady._of

    def counted(self: Steady, sources: list, serials: list, session: Session) -> object:  # type: ignore[type-arg]
        seen.append(len(sources))
        return real(self, sources, serials, session)

    monkeypatch.setattr(steady.Steady, "_of", counted)
    return seen


def halve(model: nn.Sequential) -> None:
    model.update({name: value * 0.5 for name, value in model.state().items()})


def replace(model: nn.Sequential) -> None:
    model[0].weight = nf.asarray(np.ones((96, 64), "float32"))


def train(model: nn.Sequential) -> None:
    slope, sgd = nn.value_and_grad(model, lambda x: nf.mean(nf.square(model(x)))), optim.SGD(0.1)

    @nf.jit
    def step(x: Tensor) -> Tensor:
        loss, grads = slope(x)
        sgd.update(model, grads)
        return loss

    for _ in range(3):
        step(nf.asarray(X))
    (recording,) = step.recordings.values()
    assert all(ready[2].session is None for ready in recording.ready.values())  # a step pays nothing for this


@pytest.mark.usefixtures("wasm")
@pytest.mark.parametrize("change", [halve, replace, train], ids=lambda f: f.__name__)
def test_predictions_make_it_once(change: Callable[[nn.Sequential], None], made: list[int]) -> None:
    """For as many calls as there are; and once more after any change of the weights, also in their own memory."""
    model = network()
    f = nf.jit(lambda x: model(x))
    for _ in range(4):
        check(f, model)
    assert len(made) == 1
    change(model)
    for _ in range(4):
        check(f, model)
    assert len(made) == 2


@pytest.mark.usefixtures("wasm")
def test_shapes_and_functions_share_it() -> None:
    """Other numbers of rows, another compiled function: of one model there is one set of panels."""
    model = network()
    f, g = nf.jit(lambda x: model(x)), nf.jit(lambda x: nn.softmax(model(x)))
    check(f, model)
    before = len(steady._shared)
    for rows in (17, 39, 40):
        check(f, model, rows)
        g(nf.asarray(X[:rows])).numpy()
    assert len(steady._shared) == before == 1


@pytest.mark.usefixtures("wasm")
def test_it_goes_with_the_weights() -> None:
    """A model that was an argument is not kept by what was made of it; nor is that, by the function."""
    f = nf.jit(lambda model, x: model(x))
    model = network()
    for _ in range(3):
        f(model, nf.asarray(X)).numpy()
    (kept,) = steady._shared.values()
    assert sum(memory.nbytes for memory in kept.memories) >= 4 * 96 * 64
    del model
    gc.collect()
    assert not kept.memories
    other = network()
    halve(other)
    np.testing.assert_allclose(f(other, nf.asarray(X)).numpy(), plain(other, X), rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("wasm")
def test_weights_that_change_at_each_call_are_taken_as_they_are(made: list[int]) -> None:
    """After a few calls nothing is made of them any more; other functions still do."""
    model = network()
    f, other = nf.jit(lambda x: model(x)), nf.jit(lambda x: model(x) + 0.0)
    for _ in range(6):
        check(f, model)
        halve(model)
    assert len(made) == 2
    recordings: list[Recording] = list(f.recordings.values())
    assert [recording.prepares for recording in recordings] == [False]
    check(other, model)
    assert len(made) == 3


@pytest.mark.usefixtures("wasm")
def test_frozen_layers_are_made_once_in_training(made: list[int]) -> None:
    """A step that changes the last layer has the panels of the first; and not when that learns again."""
    model = network()
    model[0].freeze()
    slope, adam = nn.value_and_grad(model, lambda x: nf.mean(nf.square(model(x)))), optim.Adam(0.01)
    adam.init(model)

    @nf.jit
    def step(x: Tensor) -> Tensor:
        loss, grads = slope(x)
        adam.update(model, grads)
        return loss

    losses = [step(nf.asarray(X)).item() for _ in range(4)]
    assert len(made) == 1
    assert losses == sorted(losses, reverse=True)
    want = float(np.mean(np.square(plain(model, X))))
    model[0].unfreeze()
    assert step(nf.asarray(X)).item() == pytest.approx(want, rel=1e-4)
    assert len(made) == 1
