"""Ctrl-C in a step: the state is what it was or what the step makes of it, and all goes on from there."""

import signal
from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

import nearfield as nf
from devices import need
from nearfield import nn, optim
from nearfield.device import Uninterrupted
from nearfield.device.wasmtime import WasmSession
from nearfield.jit import Jit
from nearfield.replay import Recording
from nearfield.runtime import current_device

X = np.arange(12, dtype="float32").reshape(4, 3) / 10
State = dict[str, np.ndarray[Any, Any]]


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def interrupted(function: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
    """The function, with a Ctrl-C before or after it."""

    def call(*args: Any) -> Any:
        if not after:
            interrupt()
        result = function(*args)
        if after:
            interrupt()
        return result

    return call


@pytest.fixture(params=["wasm", "webgpu"])
def _on(request: pytest.FixtureRequest) -> Iterator[None]:
    """A device with memory of its own."""
    need(request.param)
    with nf.use(request.param):
        yield


class Training:
    """A model, its optimiser, a compiled step, and what all of its state is."""

    def __init__(self, make: Callable[[], optim.Optimizer], exchange: bool) -> None:
        generator = nf.random.Generator(0)
        sizes = [(3, 4), (4, 4), (4, 2)]
        self.model = model = nn.Sequential(*[nn.Linear(a, b, generator=generator) for a, b in sizes])
        self.optimizer = optimizer = make().init(model)

        @nf.jit
        def step(x: nf.Tensor) -> nf.Tensor:
            loss, grads = nn.value_and_grad(model, lambda: nf.mean(nf.square(model(x))))()
            optimizer.update(model, grads)
            if exchange:
                model[0].bias, model[1].bias = model[1].bias, model[0].bias
            return loss

        self.step: Jit = step

    def state(self) -> State:
        tensors = {**self.model.state_tensors(), **{f"o.{n}": t for n, t in self.optimizer.state_tensors().items()}}
        return {name: t.numpy().copy() for name, t in tensors.items()}


def is_same(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(np.allclose(a[n], b[n], rtol=1e-4, atol=1e-6) for n in a)


CASES: dict[str, tuple[Callable[[], optim.Optimizer], bool]] = {
    "in_place": (lambda: optim.Adam(0.05), False),
    "moved": (lambda: optim.SGD(0.05), True),
}


def working(*, after: bool) -> Any:
    """The device's own work, interrupted."""
    device = current_device()
    owner, name = (WasmSession, "_execute") if device.name == "wasm" else (type(device), "_submit")
    return patch.object(owner, name, interrupted(getattr(owner, name), after=after))


@pytest.mark.usefixtures("_on")
@pytest.mark.parametrize("steps", [0, 1, 4])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_a_step_is_done_or_not_done(case: str, after: bool, steps: int) -> None:
    """What is written over and what is not belong together, in the first step and in a steady one."""
    trained, like = (Training(*CASES[case]) for _ in "ab")
    x = nf.asarray(X)
    for _ in range(steps):
        trained.step(x)
        like.step(x)
    old = like.state()
    like.step(x)
    new = like.state()
    with working(after=after), pytest.raises(KeyboardInterrupt):
        trained.step(x)
    now = trained.state()
    assert is_same(now, new) or (not after and is_same(now, old))
    for _ in range(4):
        if is_same(now, new):
            like.step(x)
            new = like.state()
        trained.step(x)
        now = trained.state()
        assert is_same(now, new)


def test_addresses_that_are_written_half() -> None:
    """They are written again: the next step of the same tokens does not take them for right."""
    need("wasm")
    with nf.use("wasm"):
        trained, like = (Training(*CASES["in_place"]) for _ in "ab")
        x = nf.asarray(X)
        for _ in range(4):
            trained.step(x)
            like.step(x)
        trained.model[0].bias = nf.asarray(np.ones(4, "float32"))  # elsewhere: all addresses are looked at
        like.model[0].bias = nf.asarray(np.ones(4, "float32"))
        with patch.object(WasmSession, "_address", lambda *_: interrupt()), pytest.raises(KeyboardInterrupt):
            trained.step(x)
        for _ in range(3):
            trained.step(x)
            like.step(x)
        assert is_same(trained.state(), like.state())


@pytest.mark.usefixtures("_on")
def test_state_that_is_put_back_after_a_trace() -> None:
    """An interruption meanwhile leaves no Tensor without values in a model or an optimiser."""
    put, calls = nn.Module.set_state_tensors, list[int]()

    def put_and_interrupt(self: nn.Module, tensors: Any, at: int) -> None:
        calls.append(at)
        if len(calls) == at:
            interrupt()
        put(self, tensors)

    for at in range(1, 7):  # stand-ins, three by the function, what was there before, what the step makes
        trained = Training(*CASES["in_place"])
        before = trained.state()
        calls.clear()
        late = patch.object(nn.Module, "set_state_tensors", lambda m, t, at=at: put_and_interrupt(m, t, at))
        with late, pytest.raises(KeyboardInterrupt):
            trained.step(nf.asarray(X))
        assert is_same(trained.state(), before) == (at < 6)
        trained.step(nf.asarray(X))
        assert not is_same(trained.state(), before)


@pytest.mark.usefixtures("_on")
def test_new_state_is_delivered_whole() -> None:
    """Also where nothing prepared the call."""
    trained, like = (Training(*CASES["in_place"]) for _ in "ab")
    x = nf.asarray(X)
    late = patch.object(Recording, "_deliver", interrupted(Recording._deliver, after=False))
    with late, pytest.raises(KeyboardInterrupt):
        trained.step(x)
    like.step(x)
    assert is_same(trained.state(), like.state())


def test_an_interruption_is_heard_afterwards() -> None:
    """Once, by whom it would have been heard; also if something else is raised."""
    done = []

    def twice() -> None:
        with Uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append(1)
            with Uninterrupted():
                signal.raise_signal(signal.SIGINT)
            done.append(2)

    def fail() -> None:
        with Uninterrupted():
            signal.raise_signal(signal.SIGINT)
            raise ZeroDivisionError

    with pytest.raises(KeyboardInterrupt):
        twice()
    assert done == [1, 2]
    with pytest.raises(KeyboardInterrupt) as raised:
        fail()
    assert isinstance(raised.value.__context__, ZeroDivisionError)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_handlers_and_other_threads() -> None:
    """A handler that raises nothing is called; what is ignored stays ignored; other threads are never interrupted."""
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        with Uninterrupted():
            signal.raise_signal(signal.SIGINT)
            assert heard == []
        assert heard == [signal.SIGINT]
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with Uninterrupted():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)

    def elsewhere() -> None:
        with Uninterrupted():
            heard.append(0)

    thread = Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert heard == [signal.SIGINT, 0]
