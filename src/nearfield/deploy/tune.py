"""tune: what is fastest on this machine, measured once and remembered."""

import statistics
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ..compiler.build import build_steady
from ..compiler.cached import cached_build
from ..compiler.choice import Choices
from ..device import Device, Memory, Session, available
from ..errors import DeviceError
from ..jit import Jit, jit
from ..replay import Recording
from ..runtime import choices, current_device, evaluate, place, set_choices, target_of
from ..steady import Steady
from ..tensor import Node
from .measure import measure
from .model import Model

__all__ = ["tune"]

BETTER = 0.97  # of the time before: less than that is not told from noise
LEAST = 0.01  # seconds that one measurement should take


def tune(what: Any, *inputs: Any, rounds: int = 7) -> dict[str, Any]:
    """Measure what can be done in several ways, and do it in the fastest from now on, in later processes, too.

    what     a Model: it is measured on all devices that are here, and runs on the fastest if the user chooses none.
             A function or Module of the inputs: the ways to make its kernels are measured on the current device, one
             after the other, and all Programs with the same kernels use the fastest. State is read, not changed
    rounds   how many times are taken of each; more are more certain
    returns  of a Model, the median time in seconds by device; of a function, the answer to each question that had
             several, such as the tile of a product of matrices
    errors   DeviceError if there is nothing to measure: on the reference device, or a Model without a device here
    """
    if isinstance(what, Model):
        return _tune_model(what, list(inputs) or None, rounds)
    function = what if isinstance(what, Jit) else jit(lambda *args: what(*args), state=[what])
    return _tune_function(function, inputs, rounds)


def _tune_model(model: Model, inputs: list[Any] | None, rounds: int) -> dict[str, float]:
    times: dict[str, float] = {}
    for found in available():
        try:
            times[found.name] = measure(model, found.name, rounds, inputs).median
        except DeviceError:
            continue
    model.forget()
    if not times:
        raise DeviceError(f"tune: no device here runs {model.path}; export it for another target.")
    model.prefer(min(times, key=times.__getitem__))
    return times


def _tune_function(function: Jit, inputs: Iterable[Any], rounds: int) -> dict[str, str]:
    device = current_device()
    if device.name == "reference":
        raise DeviceError("tune: the reference device has one way to do everything; choose another with nf.use.")
    recording, nodes = function.recorded(*inputs)
    runs = _Runs(device, recording, nodes, rounds)
    known = dict(choices(device).chosen)
    noted = Choices(known, note=True)
    best, answers = runs.seconds(noted), dict[str, str]()
    for question, candidates in noted.asked.items():
        now = known.get(question, candidates[0])
        for candidate in candidates:
            if candidate != now:
                seconds = runs.seconds(Choices(known | {question: candidate}))
                if seconds < BETTER * best:
                    best, known[question] = seconds, candidate
        answers[question] = known.get(question, candidates[0])
    set_choices(device, known)
    function.forget()
    return answers


class _Runs:
    """One Graph, run as different choices make it."""

    def __init__(self, device: Device, recording: Recording, nodes: list[Node], rounds: int) -> None:
        self.device, self.recording, self.rounds = device, recording, rounds
        for node in nodes:
            if node.value is None:
                evaluate(node)
        self.memories = [place(node, device) for node in nodes]

    def seconds(self, made_with: Choices) -> float:
        """The median time of a run."""
        graph, steady = self.recording.graph, self.recording.steady()
        target = replace(target_of(self.device), choices=made_with)
        if made_with.note:  # from a file, nothing would be asked
            built = build_steady(graph, target, frozenset(), steady)
        else:
            built = cached_build(graph, target, steady=steady)
        session = self.device.load(built.program)
        memories = self.memories + (Steady(built, self.device).inputs(self.memories) or [])
        self._run(session, memories, 2)
        once = self._run(session, memories, 1)
        count = max(1, int(LEAST / max(once, 1e-6)))
        return statistics.median(self._run(session, memories, count) / count for _ in range(self.rounds))

    def _run(self, session: Session, memories: list[Memory], count: int) -> float:
        began = time.perf_counter()
        for _ in range(count):
            made = session.run("main", memories)
        for memory in made[:1]:
            self.device.read(memory, min(4, memory.nbytes))  # wait
        return time.perf_counter() - began
