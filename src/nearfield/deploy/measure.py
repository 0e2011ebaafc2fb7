"""How long an exported model takes on a device, and which of its steps take it."""

import statistics
import time
from dataclasses import dataclass
from math import prod
from struct import pack
from typing import Any

from ..device import Device
from ..dtype import canonical
from ..runtime import current_device, use
from ..tensor import Tensor, leaf
from .manifest import ENTRY, Value
from .model import Model

__all__ = ["Measured", "examples", "measure"]

REPEAT = 61  # numbers of an example, which come again and again; a prime, so that no two rows are alike
LEAST = 0.02  # seconds that one round should take: shorter ones measure the clock


@dataclass(frozen=True, slots=True)
class Measured:
    """Times in seconds, memory in bytes.

    first   loading the Program, filling its weights and the first run
    median  of the rounds: one run, outputs read
    spread  (90th percentile - 10th percentile) / median
    memory  what the device holds more than before: weights, scratch, outputs
    shares  the kernels by their part of the time, longest first; `told` says how that is known
    """

    device: str
    description: str
    first: float
    median: float
    spread: float
    memory: int
    shares: tuple[tuple[str, float], ...]
    told: str


def examples(model: Model) -> list[Tensor]:
    """Inputs for measuring: the same each time, small numbers that any model accepts."""
    return [_example(value) for value in model.inputs]


def _example(value: Value) -> Tensor:
    dtype, size = canonical(value.dtype), prod(value.shape)
    numbers = [n / REPEAT if dtype.kind == "f" else n % 2 for n in range(REPEAT)]
    block = pack(f"<{REPEAT}{dtype.code}", *numbers)
    return leaf((block * -(-size // REPEAT))[: size * dtype.itemsize], value.shape, dtype)


def measure(model: Model, device: str, rounds: int = 15, inputs: list[Any] | None = None) -> Measured:
    """The model on a device, of this machine.

    rounds  how many times are taken; each is of as many runs as take 20 ms
    inputs  in the order of model.inputs; made up if they are not given
    errors  DeviceError if the device is missing, or the model has no Program for it
    """
    with use(device):
        here: Device = current_device()
        given = examples(model) if inputs is None else inputs
        model.forget()
        before = here.stats().bytes
        first = _seconds(model, given, 1)
        once = min(_seconds(model, given, 1) for _ in range(2))
        count = max(1, int(LEAST / max(once, 1e-6)))
        times = sorted(_seconds(model, given, count) / count for _ in range(rounds))
        memory = here.stats().bytes - before
        shares, told = _shares(model, given)
    median = statistics.median(times)
    spread = (times[int(0.9 * (rounds - 1))] - times[int(0.1 * (rounds - 1))]) / median
    return Measured(device, here.description, first, median, spread, memory, shares, told)


def _seconds(model: Model, inputs: list[Any], count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        made = model(*inputs)
    for y in made if isinstance(made, tuple) else (made,):
        y._bytes()
    return time.perf_counter() - began


def _shares(model: Model, inputs: list[Any]) -> tuple[tuple[tuple[str, float], ...], str]:
    session, memories = model.prepared(inputs)
    program = session.program
    entry = next(e for e in program.entries if e.name == ENTRY)
    steps = program.steps[entry.start : entry.stop]
    times = session.step_times(ENTRY, memories)
    told = "measured, on one thread" if times is not None else "estimated from their arithmetic"
    total: dict[str, float] = {}
    for step, amount in zip(steps, times or [float(step.cost) for step in steps], strict=True):
        name = program.kernels[step.kernel].name
        total[name] = total.get(name, 0.0) + amount
    whole = sum(total.values()) or 1.0
    found = sorted(((name, amount / whole) for name, amount in total.items()), key=lambda row: -row[1])
    return tuple(found), told
