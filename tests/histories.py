"""Histories of a model: trained, changed, frozen, saved, copied, interrupted, moved; compiled, and as it is written.

Two worlds have the same history; in one functions are compiled. Their numbers stay the same, whatever happens between
two steps, and what fails changes nothing.
"""

import copy
import gc
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

import nearfield as nf
from nearfield import nn, optim
from nearfield.errors import DeviceError
from nearfield.runtime import current_device

Array = Any
OPTIMIZERS = (optim.SGD, optim.RMSprop)  # others make large steps of gradients that are 0 but for rounding
PARTS = ("conv", "norm", "body", "last", "out")


class Net(nn.Module):
    """An image's scores; with a number and a function that a user may change."""

    def __init__(self, seed: int) -> None:
        generator = nf.random.Generator(seed)
        self.conv = nn.Conv2d(2, 4, 3, padding="same", bias=False, generator=generator)
        self.norm = nn.BatchNorm(4)
        self.body = nn.Sequential(nn.Linear(4, 8, generator=generator), nn.tanh, nn.Linear(8, 8, generator=generator))
        self.last, self.out = nn.LayerNorm(8), nn.Linear(8, 3, generator=generator)
        self.scale, self.activation = 1.0, nn.relu

    def __call__(self, x: nf.Tensor) -> nf.Tensor:
        h = self.activation(self.norm(self.conv(x))) * self.scale
        return self.out(self.last(self.body(nn.global_avg_pool(h))))


class World:
    """A model, its optimiser, and functions that read and change them."""

    def __init__(self, *, compiled: bool) -> None:
        self.held: list[tuple[nf.Tensor, Array]] = []
        self.model, self.optimizer = Net(1), optim.SGD(1e-2)
        self.slope()
        keep: Callable[[Any], Any] = nf.jit if compiled else lambda function: function
        functions = (self._step, self._predict, self._features, self._gradients, self._head, self._part, self._argument)
        self.functions = {f.__name__[1:]: keep(lambda *args, f=f: f(*args)) for f in functions}

    def slope(self) -> None:
        """For the model that there is now."""
        model = self.model
        self.loss_and_grads = nn.value_and_grad(model, lambda x, y: nf.mean(nn.losses.cross_entropy(model(x), y)))

    def new_model(self, model: Net) -> None:
        self.model, self.optimizer = model, optim.SGD(1e-2)
        self.slope()

    def state(self) -> dict[str, Array]:
        slots = {f"o.{name}": t for name, t in self.optimizer.state_tensors().items()}
        return {name: t.numpy() for name, t in {**self.model.state(), **slots}.items()}

    def _step(self, x: nf.Tensor, y: nf.Tensor) -> nf.Tensor:
        loss, grads = self.loss_and_grads(x, y)
        self.optimizer.update(self.model, grads)
        return loss

    def _predict(self, x: nf.Tensor, y: nf.Tensor) -> nf.Tensor:
        return nn.softmax(self.model(x))

    def _features(self, x: nf.Tensor, y: nf.Tensor) -> nf.Tensor:
        return self.model.conv(x) + nf.sum(self.model.out.weight)

    def _gradients(self, x: nf.Tensor, y: nf.Tensor) -> nf.Tensor:
        return sum((nf.sum(nf.abs(g)) for g in self.loss_and_grads(x, y)[1].values()), nf.zeros(()))

    def _head(self, x: nf.Tensor, y: nf.Tensor) -> nf.Tensor:
        """Changes a parameter by hand."""
        loss, grads = self.loss_and_grads(x, y)
        out = self.model.out
        out.weight = out.weight - 0.01 * grads.get("out.weight", 0.0)
        return loss + nf.sum(out.bias)

    def _part(self, x: nf.Tensor, y: nf.Tensor) -> nf.Tensor:
        """Changes one, and reads another."""
        first = self.model.body.layers[0]
        first.bias = first.bias * 0.9 + nf.mean(x) * 0.1
        return nf.sum(self.model.out.weight) + nf.sum(first.bias)

    def _argument(self, x: nf.Tensor, y: nf.Tensor) -> nf.Tensor:
        """Changes and returns what it reads."""
        old = self.model.out.weight
        self.model.out.weight = old * 0.97
        return old * 2 + self.model.out.weight


class History:
    """What is done to both worlds, drawn from a seed."""

    def __init__(self, seed: int, device: str, folder: Path) -> None:
        self.rng, self.numbers = random.Random(seed), np.random.default_rng(seed)
        self.device, self.folder, self.saved = device, folder, False
        self.worlds = World(compiled=True), World(compiled=False)
        self.done: list[str] = []

    def both(self, action: Callable[[World], Any]) -> None:
        for world in self.worlds:
            action(world)

    def batch(self) -> tuple[nf.Tensor, nf.Tensor]:
        n = self.rng.choice((4, 4, 4, 3))
        x, y = self.numbers.normal(size=(n, 5, 5, 2)), self.numbers.integers(0, 3, n)
        return nf.asarray(x.astype("float32")), nf.asarray(y.astype("int32"))

    def started(self) -> nf.use:
        """On its device; afterwards on what was there before."""
        return nf.use(self.device)

    def run(self, steps: int) -> None:
        """So many actions."""
        with self.started():
            calls = tuple(self.worlds[0].functions)
            for n in range(steps):
                self.do(self.rng.choice((*calls, "step", "step", "predict", *ACTIONS, "no_memory")))
                if n % 5 == 4 or n == steps - 1:
                    self.compare()

    def do(self, name: str) -> None:
        """One action, and a look at what must not have changed."""
        self.done.append(name)
        if name in ACTIONS:
            ACTIONS[name](self)
        else:
            self.call(name)
        for world in self.worlds:
            for tensor, value in world.held:
                np.testing.assert_array_equal(tensor.numpy().reshape(value.shape), value, f"{self.done}")

    def call(self, name: str) -> None:
        batch = self.batch()
        got, want = (world.functions[name](*batch).numpy() for world in self.worlds)
        np.testing.assert_allclose(got, want, 3e-3, 3e-4, err_msg=f"{self.done}")

    def compare(self) -> None:
        """The states; an optimiser's slots may be there before they are used, and are 0 then."""
        got, want = (world.state() for world in self.worlds)
        for name in got.keys() | want.keys():
            a, b = got.get(name, 0.0), want.get(name, 0.0)
            np.testing.assert_allclose(a, b, 2e-2, 2e-3, err_msg=f"{name} after {self.done}")


# --- actions --------------------------------------------------------------------------------------------------------


def freeze(h: History) -> None:
    part, action = h.rng.choice(PARTS), h.rng.choice(("freeze", "unfreeze"))
    h.both(lambda w: getattr(getattr(w.model, part), action)())


def assign(h: History) -> None:
    value = h.numbers.normal(size=(8, 3)).astype("float32")
    h.both(lambda w: setattr(w.model.out, "weight", nf.asarray(value)))


def scale_weight(h: History) -> None:
    h.both(lambda w: setattr(w.model.out, "weight", w.model.out.weight * 0.9))


def switch_mode(h: History) -> None:
    mode = h.rng.choice(("train", "eval"))
    h.both(lambda w: getattr(w.model, mode)())


def set_rate(h: History) -> None:
    rate = h.rng.choice((1e-2, 1e-3, 3e-2))
    h.both(lambda w: setattr(w.optimizer, "learning_rate", rate))


def set_scale(h: History) -> None:
    scale = h.rng.choice((1.0, 2.0, 0.5))
    h.both(lambda w: setattr(w.model, "scale", scale))


def set_activation(h: History) -> None:
    activation = h.rng.choice((nn.relu, nn.tanh, nn.gelu))
    h.both(lambda w: setattr(w.model, "activation", activation))


def hold(h: History) -> None:
    view = h.rng.choice((lambda t: t, lambda t: nf.reshape(t, (-1,)), lambda t: t * 1.0, lambda t: t[:]))
    layer = h.rng.choice((lambda m: m.out, lambda m: m.body.layers[0]))
    h.both(lambda w: w.held.append((view(layer(w.model).weight), layer(w.model).weight.numpy().copy())))


def let_go(h: History) -> None:
    h.both(lambda w: w.held.clear())


def new_optimizer(h: History) -> None:
    make = h.rng.choice(OPTIMIZERS)
    h.both(lambda w: setattr(w, "optimizer", make(1e-2)))


def new_model(h: History) -> None:
    seed = h.rng.randrange(99)
    h.both(lambda w: w.new_model(Net(seed)))


def copy_model(h: History) -> None:
    h.both(lambda w: w.new_model(copy.deepcopy(w.model)))


def new_layer(h: History) -> None:
    seed = h.rng.randrange(99)
    h.both(lambda w: setattr(w.model, "out", nn.Linear(8, 3, generator=nf.random.Generator(seed))))


def share(h: History) -> None:
    h.both(lambda w: setattr(w.model.body.layers[2], "bias", w.model.body.layers[0].bias))


def update_all(h: History) -> None:
    h.both(lambda w: w.model.update({name: p * 0.99 for name, p in w.model.parameters().items()}))


def new_slots(h: History) -> None:
    for world in h.worlds:
        slots = world.optimizer.state_tensors()
        real = [name for name, t in slots.items() if t.ndim and t.dtype.kind == "f"][:1]
        world.optimizer.set_state_tensors({name: slots[name] * 0.5 for name in real})
    h.compare()


def change_device(h: History) -> None:
    nf.use(h.rng.choice(("wasm", "reference", h.device)))


def save(h: History) -> None:
    for n, world in enumerate(h.worlds):
        world.model.save(h.folder / f"{n}.safetensors")
    h.saved = True


def load(h: History) -> None:
    for n, world in enumerate(h.worlds if h.saved else ()):
        world.model.load(h.folder / f"{n}.safetensors")


def collect(h: History) -> None:
    gc.collect()


def forget(h: History) -> None:
    nf.forget_programs()


def wrong_shape(h: History) -> None:
    """An error while a step is traced, or before an operation is made."""
    _, y = h.batch()
    for world in h.worlds:
        try:
            world.functions["step"](nf.ones((4, 5, 5, 3)), y)
        except nf.NearfieldError:
            continue
        raise AssertionError("an image of 3 channels was taken for one of 2")


def no_memory(h: History) -> None:
    """For some allocation in a compiled call: if it fails, nothing has changed; if it does not, it has been done."""
    device, name, batch = current_device(), h.rng.choice(("step", "predict")), h.batch()
    if device.name == "reference":
        return
    compiled, plain = h.worlds
    before = compiled.state()
    left, alloc = h.rng.randint(1, 6), device.alloc

    def failing(nbytes: int) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            raise DeviceError("no memory, for a test")
        return alloc(nbytes)

    with patch.object(device, "alloc", failing):
        try:
            compiled.functions[name](*batch)
        except DeviceError:
            after = compiled.state()
            for key, value in before.items():
                np.testing.assert_array_equal(after[key], value, f"{key} after {h.done}")
            return
    plain.functions[name](*batch)


ACTIONS: dict[str, Callable[[History], None]] = {
    action.__name__: action
    for action in (
        freeze, assign, scale_weight, switch_mode, set_rate, set_scale, set_activation, hold, let_go, new_optimizer,
        new_model, copy_model, new_layer, share, update_all, new_slots, change_device, save, load, collect, forget,
        wrong_shape, no_memory,
    )
}  # fmt: skip
