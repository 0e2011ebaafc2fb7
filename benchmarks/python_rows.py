"""Functions traced and compiled steps called, timed: of Nearfield and the standard library alone, so in Pyodide too."""

import functools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import nearfield as nf
from nearfield import nn, optim
from nearfield.dtype import DTYPES
from nearfield.jit import tracing
from nearfield.tensor import Node, Tensor

__all__ = ["Clock", "Rows", "function_rows", "step_rows", "traced_row", "training_step"]

Rows = dict[str, dict[str, float]]
now = time.perf_counter_ns if sys.platform == "emscripten" else time.thread_time_ns


def loop() -> None:
    """Plain Python: a dict, tuples, texts."""
    found: dict[int, tuple[int, str]] = {}
    for i in range(200):
        found[i & 7] = (i, str(i))


class Clock:
    """Times functions beside the loop."""

    def __init__(self, rounds: int) -> None:
        self.rounds, self.fastest = rounds, float("inf")

    def measure(self, function: Callable[[], Any], times: int, rounds: int = 0) -> float:
        """One call's time in units of the loop."""
        ratios = []
        for _ in range(rounds or self.rounds):
            began = now()
            loop()
            between = now()
            for _ in range(times):
                function()
            ended = now()
            self.fastest = min(self.fastest, between - began)
            ratios.append((ended - between) / times / (between - began))
        return statistics.median(ratios)


@contextmanager
def counted() -> Iterator[list[int]]:
    """How many operations are made meanwhile."""
    count, real = [0], Node.__init__

    def init(node: Node, op: Any, *values: Any) -> None:
        count[0] += op is not None
        real(node, op, *values)

    Node.__init__ = init  # type: ignore[method-assign]
    try:
        yield count
    finally:
        Node.__init__ = real  # type: ignore[method-assign]


def traced(*shape: int) -> Tensor:
    """What a function's argument is while it is traced."""
    return Tensor(Node(None, (), {}, shape, DTYPES["float32"]))


def operations() -> dict[str, Callable[[], Any]]:
    """Single functions and layers."""
    x, y, w, v, image = traced(32, 64), traced(32, 64), traced(64, 16), traced(64), traced(1, 16, 16, 8)
    linear, conv, norm = nn.Linear(64, 16), nn.Conv2d(8, 8, 3, padding="same"), nn.LayerNorm(64)
    return {
        "x + y": lambda: x + y,
        "exp(x)": lambda: nf.exp(x),
        "x * 2.0": lambda: x * 2.0,
        "x + vector": lambda: x + v,
        "x.astype(int32)": lambda: x.astype("int32"),
        "reshape(x, (64, 32))": lambda: nf.reshape(x, (64, 32)),
        "x.T": lambda: x.T,
        "x[1:5]": lambda: x[1:5],
        "concat([x, y])": lambda: nf.concat([x, y]),
        "sum(x, axis=0)": lambda: nf.sum(x, axis=0),
        "mean(x, axis=1)": lambda: nf.mean(x, axis=1),
        "where(x < y, x, y)": lambda: nf.where(x < y, x, y),
        "x @ w": lambda: x @ w,
        "Linear(x)": lambda: linear(x),
        "Conv2d(image)": lambda: conv(image),
        "LayerNorm(x)": lambda: norm(x),
    }


def traced_row(clock: Clock, function: Callable[[], Any], times: int) -> dict[str, float]:
    """How many operations a function makes, and how long that takes."""
    with tracing():
        with counted() as count:
            function()
        return {"operations": count[0], "time": clock.measure(function, times)}


def function_rows(clock: Clock, times: int = 200) -> Rows:
    """Single functions and layers."""
    return {title: traced_row(clock, function, times) for title, function in operations().items()}


def training_step(model: nn.Module, loss: Callable[..., nf.Tensor]) -> Any:
    """Loss, gradients, Adam; compiled."""
    adam = optim.Adam(1e-3)
    adam.init(model)
    slope = nn.value_and_grad(model, loss)

    @nf.jit
    def step(*inputs: nf.Tensor) -> nf.Tensor:
        value, gradients = slope(*inputs)
        adam.update(model, gradients)
        return value

    return step


def step_rows(clock: Clock) -> Rows:
    """A call of a compiled training step so small that hardly anything else takes time."""
    found: Rows = {}
    x = nf.ones((4, 4))
    for layers in (2, 49):
        model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(layers)])
        call = functools.partial(training_step(model, lambda x, model=model: nf.mean(nf.square(model(x)))), x)
        for _ in range(20):
            call()
        found[f"{layers} layers, {6 * layers + 2} tensors of state"] = {"time": clock.measure(call, 10)}
    return found
