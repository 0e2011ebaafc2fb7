"""What Python costs, natively: tracing an operation, a compiled step's call, and compiling a model's training step.

    python -m benchmarks.python_cost [--rounds 40] [--out file.json]

Beside each round a loop of plain Python is timed. A figure is the median of the rounds' times in units of that loop,
times the loop at its fastest in all of the run: what slows a core down for a while slows both, and falls out. Clocks
count the time of this thread alone.
"""

import argparse
import functools
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nearfield as nf
from nearfield import nn, optim, runtime
from nearfield.compiler.build import build, build_steady
from nearfield.dtype import DTYPES
from nearfield.jit import tracing
from nearfield.tensor import Node, Tensor

from .models import MobileNetV2
from .workloads import WORKLOADS

MODELS = ("mobilenet_v2", "resnet50", "bert_mini", "minilm_l6", "gpt2_decode")
Rows = dict[str, dict[str, float]]


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
            began = time.thread_time_ns()
            loop()
            between = time.thread_time_ns()
            for _ in range(times):
                function()
            ended = time.thread_time_ns()
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


def tracing_rows(clock: Clock) -> Rows:
    """Functions and whole models, forward."""
    found: Rows = {}

    def add(title: str, function: Callable[[], Any], times: int) -> None:
        with tracing():
            with counted() as count:
                function()
            found[title] = {"operations": count[0], "time": clock.measure(function, times)}

    for title, function in operations().items():
        add(title, function, 200)
    for name in MODELS:
        job = WORKLOADS[name].make()
        inputs = [nf.asarray(value) for value in job.inputs.values()]
        add(WORKLOADS[name].title, functools.partial(job.function, *inputs), 1)
    return found


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


def forget() -> None:
    """Everything that was remembered of earlier compilations."""
    for found in gc.get_objects():
        if isinstance(found, functools._lru_cache_wrapper) and str(found.__module__).startswith("nearfield"):
            found.cache_clear()
    runtime.forget_programs()
    gc.collect()


def compile_rows(clock: Clock) -> Rows:
    """From the call of MobileNetV2's training step to its Program: traced, and compiled for a device."""
    model, x, y = MobileNetV2(), nf.zeros((1, 224, 224, 3)), nf.zeros((1,), dtype="int32")
    found: Rows = {}
    for device in ("wasm", "webgpu"):
        with nf.use(device) as used:
            target = runtime.target_of(used)

            def compiled(target: Any = target) -> None:
                forget()
                step = training_step(model, lambda x, y: nf.mean(nn.losses.cross_entropy(model(x), y)))
                recording, _ = step.recorded(x, y)
                kept = frozenset(recording.first + n for n in recording.changed)
                steady = recording.steady()
                if steady:
                    build_steady(recording.graph, target, kept, steady)
                else:
                    build(recording.graph, target, kept)

            found[device] = {"time": clock.measure(compiled, 1, 5)}
    return found


def main() -> None:
    """Measure, print, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/python.json"))
    options = parser.parse_args()
    os.environ.update(NEARFIELD_CACHE="off")
    clock = Clock(options.rounds)
    with nf.use("wasm"):
        data: dict[str, Any] = {
            "machine": {"python": platform.python_version(), "processor": processor()},
            "tracing": tracing_rows(clock), "steps": step_rows(clock), "compile": compile_rows(clock),
        }  # fmt: skip
    for part in ("tracing", "steps", "compile"):
        for title, row in data[part].items():
            row["us"] = row.pop("time") * clock.fastest / 1e3
            each = f"{row['us'] / row['operations']:6.2f} µs an operation" if "operations" in row else ""
            print(f"{part:8} {title:40} {row['us']:12.2f} µs  {each}")
    options.out.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def processor() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()
