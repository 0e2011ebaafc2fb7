"""Learning rates that change: functions of the step, in Tensor code, so that they are part of the compiled step."""

from collections.abc import Callable
from math import log, pi
from typing import Any

from ..argument import real, whole
from ..errors import ArgumentError
from ..ops.arithmetic import floor, maximum, minimum, where
from ..ops.mathematics import cos, exp
from ..tensor import Tensor, call

__all__ = ["Schedule", "constant", "cosine", "exponential", "join", "linear", "step_decay", "warm_up"]


class Schedule:
    """A rate for each step: call it with a step, or with many to plot them."""

    def __init__(self, text: str, rate: Callable[[Tensor], Tensor]) -> None:
        self.text, self.rate = text, rate

    def __call__(self, step: Any) -> Tensor:
        """The rate at a step, float32."""
        t = call("astype", call("asarray", step), "float32")
        return call("broadcast_to", self.rate(t), t.shape)

    def __repr__(self) -> str:
        return self.text


def _decay(who: str, start: float, factor: float, every: int) -> None:
    real(who, 0, start=start)
    whole(who, every=every)
    real(who, factor=factor)
    if factor <= 0:
        raise ArgumentError(f"{who}: factor is {factor}; accepted are numbers above 0.")


def constant(rate: float) -> Schedule:
    """The same rate always."""
    real("constant", 0, rate=rate)
    return Schedule(f"constant({rate:g})", lambda t: call("full", t.shape, rate, dtype="float32"))


def linear(start: float, end: float, steps: int) -> Schedule:
    """From start to end on a straight line, then end."""
    real("linear", 0, start=start, end=end)
    whole("linear", steps=steps)
    return Schedule(f"linear({start:g}, {end:g}, {steps})", lambda t: minimum(t / steps, 1) * (end - start) + start)


def step_decay(start: float, factor: float, every: int) -> Schedule:
    """start · factor^⌊step / every⌋"""
    _decay("step_decay", start, factor, every)
    return Schedule(
        f"step_decay({start:g}, {factor:g}, {every})", lambda t: exp(floor(t / every) * log(factor)) * start
    )


def exponential(start: float, factor: float, every: int = 1) -> Schedule:
    """start · factor^(step / every)"""
    _decay("exponential", start, factor, every)
    return Schedule(f"exponential({start:g}, {factor:g}, {every})", lambda t: exp(t * (log(factor) / every)) * start)


def cosine(start: float, steps: int, *, end: float = 0.0) -> Schedule:
    """From start to end along half a cosine, then end.

    source  Loshchilov & Hutter 2017, arXiv:1608.03983, equation 5, without restarts
    """
    real("cosine", 0, start=start, end=end)
    whole("cosine", steps=steps)
    return Schedule(
        f"cosine({start:g}, {steps}, end={end:g})",
        lambda t: (cos(minimum(t / steps, 1) * pi) + 1) * ((start - end) / 2) + end,
    )


def join(*parts: Schedule | int) -> Schedule:
    """Schedules one after the other, with the steps between them where the next begins: join(a, 100, b, 500, c).

    Each counts its steps from where it begins.
    """
    schedules, borders = parts[::2], parts[1::2]
    if len(parts) % 2 == 0 or not all(callable(s) for s in schedules) or not all(isinstance(n, int) for n in borders):
        raise ArgumentError("join: accepted are schedules with a step between each two, as in join(a, 100, b).")

    def rate(t: Tensor) -> Tensor:
        found = schedules[0](t)  # type: ignore[operator]
        for border, schedule in zip(borders, schedules[1:], strict=True):
            found = where(t < border, found, schedule(maximum(t - border, 0)))  # type: ignore[operator]
        return found

    return Schedule(f"join({', '.join(map(repr, parts))})", rate)


def warm_up(steps: int, then: Schedule | float) -> Schedule:
    """From 0 to the first rate of `then` on a straight line, then `then`.

    source  Goyal et al. 2017, arXiv:1706.02677, section 2.2
    """
    whole("warm_up", steps=steps)
    after = then if isinstance(then, Schedule) else constant(then)
    return Schedule(
        f"warm_up({steps}, {after!r})",
        lambda t: where(t < steps, after(call("full", t.shape, 0.0)) * (t / steps), after(maximum(t - steps, 0))),
    )
