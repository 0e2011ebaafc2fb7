"""What compiled functions keep of state from call to call: nobody can tell, whatever is done between two steps."""

import gc
import random
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from devices import need
from nearfield import nn, optim
from nearfield.errors import DeviceError
from nearfield.holding import holding_of
from nearfield.jit import Jit
from nearfield.runtime import current_device

X = np.arange(12, dtype="float32").reshape(4, 3) / 10


@pytest.fixture(autouse=True)
def _on(device: str) -> str:
    return device


def linear(n_in: int, n_out: int, seed: int = 0) -> nn.Linear:
    """With numbers of its own: the state of the package's generator would stay in the device's memory."""
    return nn.Linear(n_in, n_out, generator=nf.random.Generator(seed))


class Twins:
    """A model that compiled functions train, and its like that is trained as it is written: to stay the same."""

    def __init__(self) -> None:
        self.models = [nn.Sequential(linear(3, 8, 1), nf.tanh, linear(8, 8, 2), linear(8, 2, 3)) for _ in "ab"]
        self.adams = [optim.Adam(0.05).init(model) for model in self.models]
        self.kept: list[tuple[Any, np.ndarray[Any, Any]]] = []
        self.watched: list[weakref.ref[nf.Tensor]] = []
        self.steps = [self._step(n) for n in (0, 1)]
        self.heads = [self._head(n) for n in (0, 1)]
        model = self.models[0]
        self.compiled = nf.jit(self.steps[0]), nf.jit(self.heads[0]), nf.jit(lambda x: model(x))

    def _step(self, n: int) -> Callable[..., nf.Tensor]:
        model, adam = self.models[n], self.adams[n]

        def step(x: nf.Tensor) -> nf.Tensor:
            loss, grads = nn.value_and_grad(model, lambda: nf.mean(nf.square(model(x))))()
            adam.update(model, grads)
            return loss

        return step

    def _head(self, n: int) -> Callable[..., nf.Tensor]:
        """Changes a part of the model's state, found as an object of its own."""
        last = self.models[n][3]

        def head(x: nf.Tensor) -> nf.Tensor:
            last.weight = last.weight * 0.5 + nf.mean(x)
            return nf.sum(last.weight)

        return head

    def run(self, which: int, rows: int) -> None:
        plain = (self.steps[1], self.heads[1], self.models[1])[which]
        got, want = self.compiled[which](nf.asarray(X[:rows])), plain(nf.asarray(X[:rows]))
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=2e-4, atol=1e-5)

    def check(self) -> None:
        for kept, value in self.kept:
            np.testing.assert_array_equal(kept.numpy().reshape(value.shape), value)
        gc.collect()
        assert [watched for watched in self.watched if watched() is not None] == []
        for a, b in zip(*(m.state().values() for m in self.models), strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=2e-4, atol=1e-5)


def replace(t: Twins, rng: random.Random) -> None:
    n, value = rng.choice((0, 2, 3)), np.float32(rng.random())
    for m in t.models:
        m[n].weight = nf.asarray(np.full(m[n].weight.shape, value / 8, "float32"))


def exchange(t: Twins, rng: random.Random) -> None:
    for m in t.models:
        m[0].bias, m[2].bias = m[2].bias, m[0].bias


def share(t: Twins, rng: random.Random) -> None:
    for m in t.models:
        m[0].bias = m[2].bias


def change_dict(t: Twins, rng: random.Random) -> None:
    """In each of the ways in which a dict can be changed."""
    for adam in t.adams:
        slots = adam.slots
        names = list(slots)
        value = slots.pop(names[0])
        slots[names[0]] = value
        slots |= {names[1]: slots[names[1]] * 0.5}
        slots.update({names[2]: slots[names[2]] * 0.5})
        del slots[names[3]]
        slots.setdefault(names[3], nf.zeros(t.models[0].parameters()[names[3].partition(".")[2]].shape))
        slots.popitem()
        rest = dict(slots)
        slots.clear()
        slots.update(rest)
        slots[names[-1]] = nf.zeros(t.models[0].parameters()[names[-1].partition(".")[2]].shape)


def plain_dict(t: Twins, rng: random.Random) -> None:
    """Of one's own, which tells nobody."""
    for adam in t.adams:
        adam.slots = dict(adam.slots)
    for _ in range(3):
        t.run(0, 4)
    exchange_slots(t, rng)


def replace_slot(t: Twins, rng: random.Random) -> None:
    t.kept.append((old := t.adams[0].slots[list(t.adams[0].slots)[3]], old.numpy().copy()))
    for adam in t.adams:
        name = list(adam.slots)[3]
        adam.slots[name] = adam.slots[name] * 0.5


def exchange_slots(t: Twins, rng: random.Random) -> None:
    for adam in t.adams:
        slots, (a, b) = adam.slots, list(adam.slots)[:2]
        t.kept += [(slots[name], slots[name].numpy().copy()) for name in (a, b)]
        slots[a], slots[b] = nf.zeros(slots[a].shape), nf.ones(slots[b].shape)


def set_rate(t: Twins, rng: random.Random) -> None:
    rate = rng.choice((0.01, 0.03))
    for adam in t.adams:
        adam.learning_rate = rate


def train_as_written(t: Twins, rng: random.Random) -> None:
    for step in t.steps:
        step(nf.asarray(X))


def hold(t: Twins, rng: random.Random) -> None:
    w = t.models[0][rng.choice((0, 2))].weight
    value = w.numpy().copy()
    held = rng.choice([lambda: w, lambda: w * 1.0, lambda: nf.reshape(w, (-1,)), lambda: (w + 0) - 0])()
    t.kept.append((held, value))


def let_go(t: Twins, rng: random.Random) -> None:
    t.kept.clear()


def watch(t: Twins, rng: random.Random) -> None:
    t.watched = [weakref.ref(t.models[0][2].weight)]
    t.run(0, 4)


def look(t: Twins, rng: random.Random) -> None:
    np.testing.assert_allclose(t.models[0][0].weight.numpy(), t.models[1][0].weight.numpy(), rtol=2e-4, atol=1e-5)


def load(t: Twins, rng: random.Random) -> None:
    values = {name: value.numpy() * np.float32(0.9) for name, value in t.models[1].state().items()}
    for m in t.models:
        m.update(values)


def elsewhere(t: Twins, rng: random.Random) -> None:
    with nf.use("reference"):
        (t.models[0][0].weight + 1).numpy()


ACTIONS = [
    replace, exchange, share, change_dict, plain_dict, replace_slot, exchange_slots, set_rate, train_as_written, hold,
    let_go, watch, look, load, elsewhere,
]  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_random_histories(seed: int) -> None:
    """Steps for two shapes, a step of a part, predictions, and anything between them: as without jit."""
    rng, twins = random.Random(seed), Twins()
    for _ in range(12):
        which, rows = rng.choice([(0, 4), (0, 4), (0, 2), (1, 4), (2, 4), (2, 2)])
        for _ in range(rng.choice((1, 3))):
            twins.run(which, rows)
        rng.choice(ACTIONS)(twins, rng)
        twins.check()
    assert current_device().name == "reference" or any(f.replays for f in twins.compiled)


@pytest.mark.parametrize("action", ACTIONS, ids=lambda f: f.__name__)
def test_each_action_between_steady_steps(action: Callable[[Twins, random.Random], None]) -> None:
    """And the steps after it are quick again, unless something stays held or shared."""
    rng, twins = random.Random(0), Twins()
    for which in (0, 0, 0, 2, 2, 2, 0, 0):
        twins.run(which, 4)
    action(twins, rng)
    for _ in range(3):
        twins.run(0, 4)
        twins.run(2, 4)
    twins.check()


def trained(sizes: int = 64) -> tuple[nn.Sequential, optim.Adam, Jit]:
    """A model in its steady state, of `sizes`² parameters in each layer."""
    model = nn.Sequential(linear(3, sizes), linear(sizes, sizes), linear(sizes, 2))
    adam = optim.Adam(0.01).init(model)

    @nf.jit
    def step(x: nf.Tensor) -> nf.Tensor:
        loss, grads = nn.value_and_grad(model, lambda: nf.mean(nf.square(model(x))))()
        adam.update(model, grads)
        return loss

    for _ in range(4):
        step(nf.asarray(X))
    return model, adam, step


def used() -> int:
    """Bytes in use, asked in a way that makes nobody let go of anything."""
    gc.collect()
    device = current_device()
    return 0 if device.name == "reference" else device.stats().bytes


def test_a_replaced_parameter_goes_at_once() -> None:
    """Its memory does not wait for the next step; slots that are dropped go, too."""
    if current_device().name == "reference":
        return
    model, adam, _ = trained()
    before = used()
    model[1].weight = nf.asarray(np.ones((64, 64), "float32"))  # not in the device's memory yet
    assert used() == before - 4 * 64 * 64
    model[1].bias = None
    assert used() == before - 4 * 64 * 64 - 4 * 64
    adam.slots = {}
    assert used() < before - 4 * 3 * 64 * 64


def test_a_removed_layer_goes_when_memory_is_counted() -> None:
    """A list tells nobody that it has changed."""
    if current_device().name == "reference":
        return
    model, _, _ = trained()
    before = used()
    del model.layers[1]
    nf.memory_stats()
    assert used() == before - 4 * 64 * 64 - 4 * 64


def test_a_model_that_is_gone_leaves_nothing() -> None:
    """Nor does its optimiser, nor the step, in any order."""
    trained(8)
    before = used()  # its Program stays
    for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2)):
        parts: list[Any] = list(trained(8))
        assert used() > before or current_device().name == "reference"
        for n in order:
            parts[n] = None
            gc.collect()
        assert used() == before


def test_two_functions_of_one_model_share_what_is_kept() -> None:
    """Both stay quick: neither counts as somebody who holds what the other writes."""
    if current_device().name == "reference":
        return
    model, _, step = trained(96)
    predict = nf.jit(lambda x: model(x))
    x = np.tile(X, (10, 1))  # so many rows that weights are laid out anew
    for _ in range(4):
        step(nf.asarray(x))
        for _ in range(3):  # once would not be worth it
            predict(nf.asarray(x))
        step(nf.asarray(x[:2]))
    held = holding_of(model)
    assert held is not None
    number = held.number
    old, key = model[0].weight.numpy(), id(model[0].weight)
    for f, rows in ((step, 40), (predict, 40), (predict, 40), (step, 2), (step, 40), (step, 40)):
        f(nf.asarray(x[:rows]))
        assert held.number == number
    assert id(model[0].weight) == key
    assert not np.array_equal(model[0].weight.numpy(), old)
    np.testing.assert_allclose(predict(nf.asarray(x)).numpy(), model(nf.asarray(x)).numpy(), rtol=1e-4, atol=1e-5)


def test_state_that_goes_to_another_device() -> None:
    """What shares its memory stays in the old one, and is not written over."""
    name = current_device().name
    if name == "reference":
        return
    model, _, step = trained(8)
    other = "wasm" if name == "webgpu" else "webgpu"
    need(other)
    view = nf.reshape(model[1].weight, (-1,))
    want = view.numpy().copy()
    with nf.use(other):
        np.testing.assert_array_equal((model[1].weight + 1).numpy().reshape(-1), want + 1)
    for _ in range(3):
        step(nf.asarray(X))
    np.testing.assert_array_equal(view.numpy(), want)
    _, _, like_step = trained(8)
    for _ in range(3):
        like_step(nf.asarray(X))
    for device in (other, other, other, name, name, other, name):
        with nf.use(device):
            for _ in range(3):
                got = step(nf.asarray(X)).item()
        for _ in range(3):
            expected = like_step(nf.asarray(X)).item()
        assert got == pytest.approx(expected, rel=1e-4)
    predict = nf.jit(lambda x: model(x))  # two functions, each on a device of its own
    for _ in range(4):
        with nf.use(other):
            for _ in range(3):
                predict(nf.asarray(X))
        assert step(nf.asarray(X)).item() == pytest.approx(like_step(nf.asarray(X)).item(), rel=1e-4)
    assert not np.array_equal(model[1].weight.numpy().reshape(-1), want)


def test_a_learning_rate_that_is_set_before_each_step() -> None:
    """It is a value of this process: it goes to the device, and the step stays a quick one that keeps Tensors."""
    if current_device().name == "reference":
        return
    model, adam, step = trained(8)
    weight = id(model[0].weight)
    for rate in (0.0, 0.1, 0.0):
        adam.learning_rate = rate
        before = model[0].weight.numpy().copy()
        step(nf.asarray(X))
        assert np.array_equal(model[0].weight.numpy(), before) == (rate == 0)
        assert id(model[0].weight) == weight


def test_after_an_error_in_the_middle() -> None:
    """No memory for the result: nothing has changed, and the next step is as if nothing had been."""
    device = current_device()
    if device.name == "reference":
        return
    model, _, step = trained()
    like, _, other = trained()

    def full(nbytes: int) -> Any:
        raise DeviceError("full")

    alloc, device.alloc = device.alloc, full  # type: ignore[method-assign]
    x = nf.asarray(X)
    try:
        with pytest.raises(DeviceError, match="full"):
            step(x)
    finally:
        device.alloc = alloc  # type: ignore[method-assign]
    for _ in range(3):
        np.testing.assert_array_equal(step(nf.asarray(X)).numpy(), other(nf.asarray(X)).numpy())
    np.testing.assert_array_equal(model[1].weight.numpy(), like[1].weight.numpy())


def test_no_memory_for_what_is_made_of_weights() -> None:
    """They have changed: the next call makes it again, and does not take what was made of the old ones."""
    device = current_device()
    if device.name == "reference":
        return
    model, _, step = trained(96)
    predict = nf.jit(lambda x: model(x))
    x = nf.asarray(np.tile(X, (10, 1)))  # so many rows that weights are laid out anew
    for _ in range(4):
        step(x)
        for _ in range(3):  # once would not be worth it
            predict(x)
    step(x)

    def full(nbytes: int) -> Any:
        raise DeviceError("full")

    alloc, device.alloc = device.alloc, full  # type: ignore[method-assign]
    try:
        with pytest.raises(DeviceError, match="full"):
            predict(x)
    finally:
        device.alloc = alloc  # type: ignore[method-assign]
    np.testing.assert_allclose(predict(x).numpy(), model(x).numpy(), rtol=1e-4, atol=1e-5)


def test_state_given_as_an_argument() -> None:
    """A parameter that is an input as well keeps its value for the whole step."""
    model, _, step = trained(4)
    like, _, other = trained(4)
    for _ in range(3):
        x = model[1].weight
        got = step(nf.reshape(x, (-1,))[:12].numpy().reshape(4, 3))
        want = other(like[1].weight.numpy().reshape(-1)[:12].reshape(4, 3))
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-5)
    double = nf.jit(lambda x: (model.update({"layers.0.bias": model[0].bias + x}), x + x)[1])
    for _ in range(4):
        before = model[0].bias.numpy().copy()
        np.testing.assert_array_equal(double(model[0].bias).numpy(), 2 * before)
        np.testing.assert_array_equal(model[0].bias.numpy(), 2 * before)
