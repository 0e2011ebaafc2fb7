"""jit finds state behind whatever a function names, and notices when a name stands for another object."""

import functools
import gc
import types
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from nearfield import nn, optim
from nearfield.surroundings import Surroundings

X = np.arange(6, dtype="float32").reshape(2, 3)
Y = np.array([0, 1], "int32")


@pytest.fixture(autouse=True)
def _on(device: str) -> Iterator[str]:
    yield device
    NET.set_state_tensors(linear().state_tensors())  # with values that are in no device's memory
    HEAD.scale = nf.ones(3)


def linear(seed: int = 0) -> nn.Linear:
    return nn.Linear(3, 2, generator=nf.random.Generator(seed))


class Shared:
    """A class as a place for a model, and for functions."""

    net: Any = None

    @staticmethod
    def score(x: Any) -> Any:
        return near(x)


class Head(nn.Module):
    """A module whose code names another."""

    def __init__(self) -> None:
        self.scale = nf.ones(3)

    def __call__(self, x: Any) -> Any:
        return NET(x * self.scale)


@dataclass  # which has no hash
class Service:
    """An object of no library's, with a model in it."""

    net: nn.Linear
    factor: float = 1.0
    parts: list[Any] = field(default_factory=list)

    def score(self, x: Any) -> Any:
        return self.net(x) * self.factor

    @nf.jit
    def compiled(self, x: Any) -> Any:
        return self.score(x)

    def indirect(self, x: Any) -> Any:
        return far(x)


NET = linear()
HEAD = Head()
Shared.net = NET
PLACE = types.ModuleType("a_module_of_ones_own")
vars(PLACE)["net"] = NET
SERVICE = Service(NET)
SETTINGS = {"models": [types.SimpleNamespace(net=NET)]}


def near(x: Any) -> Any:
    return NET(x)


def far(x: Any) -> Any:
    return near(x)


def nested(x: Any) -> Any:
    def inner(y: Any) -> Any:
        return NET(y)

    return inner(x)


def enclosed() -> Callable[[Any], Any]:
    net = NET

    def inner(x: Any) -> Any:
        return net(x)

    return lambda x: inner(x)


WAYS: dict[str, Callable[[], Any]] = {
    "itself": lambda: nf.jit(NET),
    "named": lambda: nf.jit(lambda x: NET(x)),
    "in a comprehension": lambda: nf.jit(lambda x: sum([NET(part) for part in (x, x)])),
    "in a function inside": lambda: nf.jit(nested),
    "two functions away": lambda: nf.jit(lambda x: far(x)),
    "in a closure behind a closure": lambda: nf.jit(enclosed()),
    "a default": lambda: nf.jit(lambda x, net=NET: net(x)),
    "partial": lambda: nf.jit(functools.partial(lambda net, x: net(x), NET)),
    "in lists and dicts": lambda: nf.jit(lambda x: SETTINGS["models"][0].net(x)),
    "attribute": lambda: nf.jit(lambda x: SERVICE.net(x)),
    "bound method": lambda: nf.jit(SERVICE.score),
    "method that names a function": lambda: nf.jit(SERVICE.indirect),
    "compiled method": lambda: Service(NET).compiled,
    "module that names another": lambda: nf.jit(lambda x: HEAD(x)),
    "attribute of a class": lambda: nf.jit(lambda x: Shared.net(x)),
    "attribute of a module": lambda: nf.jit(lambda x: PLACE.net(x)),
    "function in a class": lambda: nf.jit(lambda x: Shared.score(x)),
    "compiled twice": lambda: nf.jit(nf.jit(near)),
}


@pytest.mark.parametrize("way", WAYS)
def test_weights_are_found(way: str) -> None:
    """What is assigned to them later is what the next call computes with."""
    function = WAYS[way]()
    for _ in range(2):
        want = NET(nf.asarray(X)).numpy() * (2 if way == "in a comprehension" else 1)
        np.testing.assert_allclose(function(X).numpy(), want, rtol=1e-6)
        NET.weight = NET.weight + 1.0


class Trainer:
    def __init__(self, seed: int) -> None:
        self.model, self.optimizer = linear(seed), optim.SGD(0.1)
        self.traced = 0

    def loss(self, x: Any, y: Any) -> Any:
        return nf.mean(nn.losses.cross_entropy(self.model(x), y))

    def plain(self, x: Any, y: Any) -> Any:
        TRACES.append(id(self))
        loss, grads = nn.value_and_grad(self.model, self.loss)(x, y)
        self.optimizer.update(self.model, grads)
        return loss

    step = nf.jit(plain)


TRACES: list[int] = []


def test_a_step_of_ones_own_class() -> None:
    """Each object trains its own model, is traced once, and is kept by nobody."""
    for seed in (1, 2):
        compiled, plain = Trainer(seed), Trainer(seed)
        TRACES.clear()
        for _ in range(4):
            got = compiled.step(X, Y).item()
            assert got == pytest.approx(plain.plain(nf.asarray(X), nf.asarray(Y)).item(), rel=1e-5)
        assert TRACES.count(id(compiled)) == 1
        np.testing.assert_allclose(compiled.model.weight.numpy(), plain.model.weight.numpy(), rtol=1e-5)
    gone = weakref.ref(compiled)
    del compiled
    gc.collect()
    assert gone() is None


def test_another_model_under_the_same_name() -> None:
    """As if the function had been run: it takes the new one. Numbers in `self` count, too."""
    model = linear(1)
    models = [linear(2)]
    service = Service(linear(3), parts=[linear(4)])
    functions: list[tuple[Callable[[Any], Any], Callable[[Any], Any]]] = [
        (nf.jit(lambda x: model(x)), lambda x: model(x)),
        (nf.jit(lambda x: sum(m(x) for m in models)), lambda x: sum(m(x) for m in models)),
        (nf.jit(lambda x: service.net(x)), lambda x: service.net(x)),
        (nf.jit(lambda x: service.parts[0](x)), lambda x: service.parts[0](x)),
        (lambda x: service.compiled(x), service.score),
    ]

    def check() -> None:
        for compiled, plain in functions:
            for _ in range(2):
                np.testing.assert_allclose(compiled(X).numpy(), plain(nf.asarray(X)).numpy(), rtol=1e-6)

    check()
    model, models[0], service.net, service.parts[0] = (linear(n) for n in range(5, 9))
    check()
    models.append(linear(9))
    service.factor = 3.0
    check()
    service.parts = [linear(10)]
    check()


class Anything:
    def __getattr__(self, name: str) -> Any:
        if name == "state_tensors":
            raise AttributeError(name)
        return Anything()


def test_objects_that_have_every_attribute() -> None:
    strange = Anything()
    assert Surroundings(lambda x: NET(x) if strange.trained else strange(x)).owners == [NET]


def test_objects_of_others_are_left_alone() -> None:
    """A large thing that holds no state costs no more than a look."""
    table = {n: [n] * 3 for n in range(9000)}
    found = Surroundings(lambda x: NET(x) * len(table) * np.linalg.norm(X))
    assert found.owners == [NET]
    assert len(found._places) + len(found._cells) + len(found._sizes) == 1
    assert found.is_current()


def test_a_part_has_its_state_in_the_whole() -> None:
    """A function that names a model and a layer of it: each Tensor is an input once, also when the layer is another."""
    model, plain = (nn.Sequential(linear(1), nf.tanh, nn.Linear(2, 2, generator=nf.random.Generator(2))) for _ in "ab")
    head, optimizer, twin, other = model.layers[2], optim.SGD(0.1), plain.layers[2], optim.SGD(0.1)

    @nf.jit
    def step(x: Any, y: Any) -> Any:
        loss, grads = nn.value_and_grad(model, lambda x, y: nf.mean(nn.losses.cross_entropy(model(x), y)))(x, y)
        optimizer.update(model, grads)
        return loss + nf.sum(head.weight)

    for n in range(6):
        loss, grads = nn.value_and_grad(plain, lambda x, y: nf.mean(nn.losses.cross_entropy(plain(x), y)))(X, Y)
        other.update(plain, grads)
        np.testing.assert_allclose(step(X, Y).item(), (loss + nf.sum(twin.weight)).item(), rtol=1e-5)
        assert len(step._owners([])) == (2 if n < 3 else 3)
        if n == 2:
            for each in (model, plain):
                each.layers[2] = nn.Linear(2, 2, generator=nf.random.Generator(3))
