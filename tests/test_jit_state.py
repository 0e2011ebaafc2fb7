"""jit finds state anew where it has changed, and only there: state added, removed, replaced, frozen, held, swapped."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from nearfield import nn, optim
from nearfield.errors import TraceError
from nearfield.jit import Jit
from nearfield.runtime import current_device
from nearfield.tensor import Tensor

X = np.arange(6, dtype="float32").reshape(2, 3)
ONES = np.ones((3, 3), "float32")


@pytest.fixture(autouse=True)
def _on(device: str) -> str:
    return device


def linear(n_in: int, n_out: int, *, bias: bool = True) -> nn.Linear:
    """With numbers of its own: the state of the package's generator would stay in the device's memory."""
    return nn.Linear(n_in, n_out, bias=bias, generator=nf.random.Generator(0))


class Pile(nn.Module):
    """y = x times each of its matrices, which are in an attribute, a list and a dict."""

    def __init__(self) -> None:
        self.first = nf.asarray(ONES)
        self.several = [nf.asarray(ONES), nf.asarray(2 * ONES)]
        self.named = {"a": nf.asarray(ONES), "linear": linear(3, 3, bias=False)}
        self.named["linear"].weight = nf.asarray(ONES)
        self.scale = 1.0

    def __call__(self, x: nf.Tensor) -> nf.Tensor:
        last = self.named["linear"](self.named["a"]) if "linear" in self.named else self.named["a"]
        for w in (self.first, *self.several, last):
            x = x @ w
        return x * self.scale


def settled(model: nn.Module) -> Jit:
    """A compiled call that knows where the model's state is."""
    f = nf.jit(lambda x: model(x))
    for _ in range(3):
        f(nf.asarray(X)).numpy()
    assert len(f.replays) == (current_device().name != "reference")
    return f


def put_attribute(m: Pile) -> None:
    m.first = nf.asarray(3 * ONES)


def put_in_list(m: Pile) -> None:
    m.several[1] = nf.asarray(5 * ONES)


def put_other_shape(m: Pile) -> None:
    m.several[:] = [nf.asarray(ONES[:, :2]), nf.asarray(ONES[:2])]


def grow_list(m: Pile) -> None:
    m.several.append(nf.asarray(ONES))


def shrink_list(m: Pile) -> None:
    del m.several[0]


def new_list(m: Pile) -> None:
    m.several = [nf.asarray(7 * ONES), nf.asarray(ONES)]


def remove_from_dict(m: Pile) -> None:
    del m.named["linear"]


def put_module(m: Pile) -> None:
    layer = linear(3, 3)
    layer.weight, layer.bias = nf.asarray(ONES), nf.asarray(ONES[0])
    m.named["linear"] = layer


def put_inside_module(m: Pile) -> None:
    m.named["linear"].weight = nf.asarray(11 * ONES)


def remove_bias(m: Pile) -> None:
    m.named["linear"].bias = None


def set_number(m: Pile) -> None:
    m.scale = 3.0


def update_all(m: Pile) -> None:
    m.update({name: value * 2.0 for name, value in m.state().items()})


CHANGES = [
    put_attribute, put_in_list, put_other_shape, grow_list, shrink_list, new_list, remove_from_dict, put_module,
    put_inside_module, remove_bias, set_number, update_all,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_what_changes_is_noticed(change: Callable[[Pile], None]) -> None:
    """In any place, also without an assignment to an attribute; and the call after it is quick again."""
    model = Pile()
    f = settled(model)
    before = f(nf.asarray(X)).numpy()
    change(model)
    want = model(nf.asarray(X)).numpy()
    for _ in range(3):
        np.testing.assert_array_equal(f(nf.asarray(X)).numpy(), want)
    assert change is remove_bias or not np.array_equal(want, before)


def test_a_function_between_layers_is_noticed() -> None:
    """A list of layers may hold functions, too."""
    model = nn.Sequential(linear(3, 3), nf.tanh)
    f = settled(model)
    model.layers[1] = nn.relu
    np.testing.assert_allclose(f(nf.asarray(X)).numpy(), model(nf.asarray(X)).numpy(), rtol=1e-6)


def trainer(model: nn.Module) -> Jit:
    adam = optim.Adam(0.1)
    adam.init(model)
    slope = nn.value_and_grad(model, lambda x: nf.mean(nf.square(model(x))))

    @nf.jit
    def step(x: nf.Tensor) -> nf.Tensor:
        loss, grads = slope(x)
        adam.update(model, grads)
        return loss

    for _ in range(4):
        step(nf.asarray(X))
    return step


def test_frozen_parameters_stay() -> None:
    """Also if they are frozen after many steps, and only until they are not."""
    model = nn.Sequential(linear(3, 3), linear(3, 2))
    step = trainer(model)
    for freeze in (True, False):
        (model[0].freeze if freeze else model[0].unfreeze)()
        before = [model[n].weight.numpy() for n in (0, 1)]
        for _ in range(3):
            step(nf.asarray(X))
        same = [np.array_equal(model[n].weight.numpy(), before[n]) for n in (0, 1)]
        assert same == [freeze, False]


def test_modes_are_noticed() -> None:
    model = nn.Sequential(nn.BatchNorm(3))
    f = settled(model)
    model.eval()
    mean = model[0].running_mean.numpy()
    f(nf.asarray(X + 100))
    np.testing.assert_array_equal(model[0].running_mean.numpy(), mean)
    model.train()
    f(nf.asarray(X + 100))
    assert not np.array_equal(model[0].running_mean.numpy(), mean)


def test_steps_keep_tensors_and_memory() -> None:
    """Nobody else holds the state: it is written over, and no object is made anew."""
    if current_device().name == "reference":
        return
    model = nn.Sequential(linear(3, 3))
    step = trainer(model)
    before = id(model[0].weight), model[0].weight.node.value.key
    old = model[0].weight.numpy()
    step(nf.asarray(X))
    assert (id(model[0].weight), model[0].weight.node.value.key) == before
    assert not np.array_equal(model[0].weight.numpy(), old)


HOLD: list[Callable[[nf.Tensor], object]] = [
    lambda t: t,
    lambda t: t * 1.0,
    lambda t: nf.reshape(t, (-1,)),
    lambda t: [nf.reshape(t, (-1,))[::-1].numpy(), nf.reshape(t, (-1,))][1],
]


@pytest.mark.parametrize("hold", HOLD, ids=["itself", "pending", "pending view", "view"])
def test_what_is_held_keeps_its_value(hold: Callable[[nf.Tensor], nf.Tensor]) -> None:
    """A parameter, an expression of one, another shape of one: in the steady state, too."""
    model = nn.Sequential(linear(3, 3))
    step = trainer(model)
    kept, want = hold(model[0].weight), model[0].weight.numpy().copy()
    for _ in range(3):
        step(nf.asarray(X))
    np.testing.assert_array_equal(kept.numpy().reshape(3, 3), want)
    assert not np.array_equal(model[0].weight.numpy(), want)


def test_a_weak_reference_sees_the_old_tensor_go() -> None:
    """A cache keyed by Tensors must not find the old entry for new values."""
    model = nn.Sequential(linear(3, 3))
    step = trainer(model)
    watched = weakref.ref(model[0].weight)
    step(nf.asarray(X))
    gc.collect()
    assert watched() is None


def test_a_trace_that_fails_leaves_no_state() -> None:
    """Slots that an optimiser has made while it was traced have no value, and go."""
    model, adam, fail = nn.Sequential(linear(3, 3)), optim.Adam(0.1), [True]

    @nf.jit
    def step(x: nf.Tensor) -> nf.Tensor:
        loss, grads = nn.value_and_grad(model, lambda x: nf.mean(nf.square(model(x))))(x)
        adam.update(model, grads)
        return loss if not fail or loss > 0 else x

    with pytest.raises(TraceError):
        step(nf.asarray(X))
    assert not adam.slots
    fail.clear()
    first = step(nf.asarray(X)).item()
    assert step(nf.asarray(X)).item() < first


def first_losses(*, begin: bool) -> list[float]:
    model, adam = nn.Sequential(linear(3, 3)), optim.Adam(0.1)
    slope = nn.value_and_grad(model, lambda x: nf.mean(nf.square(model(x))))
    if begin:
        adam.init(model)

    @nf.jit
    def step(x: nf.Tensor) -> nf.Tensor:
        loss, grads = slope(x)
        adam.update(model, grads)
        return loss

    losses = [step(nf.asarray(X)).item() for _ in range(4)]
    assert len(step.recordings) == 1
    return losses


def test_an_optimiser_that_is_new_is_compiled_for_once() -> None:
    """Its slots are there before the first step, as zeros, and the steps are those of one that was initialised."""
    assert first_losses(begin=False) == first_losses(begin=True)


class Pair(nn.Module):
    def __init__(self) -> None:
        self.a, self.b = nf.asarray(X), nf.asarray(X + 10)

    def swap(self, x: nf.Tensor) -> nf.Tensor:
        self.a, self.b = self.b, self.a + x
        return self.a


def test_state_that_changes_places() -> None:
    """New state may be the old value of other state, and the result be state."""
    model, plain = Pair(), Pair()
    f = nf.jit(lambda x: model.swap(x))
    for _ in range(6):
        np.testing.assert_array_equal(f(nf.asarray(X)).numpy(), plain.swap(nf.asarray(X)).numpy())
        np.testing.assert_array_equal(model.a.numpy(), plain.a.numpy())
        np.testing.assert_array_equal(model.b.numpy(), plain.b.numpy())


def test_a_compiled_method_is_traced_once_for_each_object() -> None:
    """Each object has its own state, and takes none of another's that is gone."""
    seen = []

    class Compiled(Pair):
        @nf.jit
        def compiled(self, x: nf.Tensor) -> nf.Tensor:
            seen.append(id(self))
            return self.swap(x)

    for _ in range(3):
        model, plain = Compiled(), Pair()
        for _ in range(4):
            np.testing.assert_array_equal(model.compiled(nf.asarray(X)).numpy(), plain.swap(nf.asarray(X)).numpy())
    assert 1 <= len(seen) <= 3


def test_a_model_as_an_argument_is_kept_by_nobody() -> None:
    """What a compiled function remembers of an argument does not keep it."""
    f = nf.jit(lambda model, x: model(x))
    model = Pile()
    for _ in range(4):
        f(model, nf.asarray(X)).numpy()
    watched = weakref.ref(model)
    del model
    gc.collect()
    assert watched() is None
    other = Pile()
    other.first = nf.asarray(4 * ONES)
    np.testing.assert_array_equal(f(other, nf.asarray(X)).numpy(), other(nf.asarray(X)).numpy())


class Slow(optim.SGD):
    """SGD that keeps where its parameters began."""

    def update(self, model: nn.Module, grads: Any) -> None:
        for name, parameter in model.parameters().items():
            self.slots.setdefault(f"begun.{name}", parameter)
        super().update(model, grads)


def test_state_of_ones_own_begins_as_it_is_made() -> None:
    """Slots of the optimisers here begin at 0; others do not, whatever they are."""
    model, slow, x = nn.Sequential(linear(3, 3)), Slow(0.1), nf.ones((2, 3))
    begun = {name: t.numpy() for name, t in model.parameters().items()}

    @nf.jit
    def step(x: Tensor) -> Tensor:
        loss, grads = nn.value_and_grad(model, lambda x: nf.mean(model(x) ** 2))(x)
        slow.update(model, grads)
        return loss

    for _ in range(3):
        step(x)
    for name, value in begun.items():
        np.testing.assert_array_equal(slow.slots[f"begun.{name}"].numpy(), value)


def test_weights_of_another_device() -> None:
    """What a step has left in one device's memory is read by the reference device, too."""
    w = nf.asarray(np.arange(4.0, dtype="float32"))
    with nf.use("wasm"):
        w = w + 1
        assert w.numpy()[0] == 1
    double = nf.jit(lambda x: x * w)
    with nf.use("reference"):
        np.testing.assert_array_equal(double(nf.ones(4)).numpy(), [1, 2, 3, 4])
