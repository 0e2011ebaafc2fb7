"""A claim: rows added at places that data tells (the gradient of `take`) cost as much as there are rows.

K says of each element which rows it is the sum of, so its kernel looks at every row for every element. Here each row is
looked at once by each thread, and added if its place is in the thread's part of the result: no two threads write one
place, and the sums have one order, whatever the number of threads.
"""

from math import prod

from .. import scalar as k
from .kernel import Kernel, Store, vary
from .scatter import Scatter, scatter_of
from .wasm_bytes import OP, get, i32
from .wasm_loops import Compiled, Loops
from .wasm_schedule import PIECES, Schedule, extent, simplified

__all__ = ["compile_scatter"]

TYPES = ("float32", "int32", "uint32")  # that are stored as they are computed
LOOK = 64  # elements that are added in the time that it takes to look whether a row is in a part, if half of them are
UNROLLED = 4  # vectors of a row that are added side by side


def compile_scatter(kernel: Kernel, *, relaxed: bool) -> Compiled | None:
    """The function of a kernel that only adds rows at places; None for other kernels."""
    found = _scatter_of(kernel)
    if found is None:
        return None
    body = _Adding(kernel, found, relaxed).written()
    total = extent(found.axis)
    return Compiled(len(kernel.arguments) + 2, body, total, -(-total // _pieces(found)))


def _pieces(scatter: Scatter) -> int:
    """In how many pieces looking at all rows again for each takes no longer than the adding."""
    width = prod(map(extent, (*scatter.before, *scatter.after)))
    rows = prod(map(extent, scatter.rows))
    work = width * (rows + extent(scatter.axis))
    return max(1, min(PIECES, work // max(1, rows * LOOK)))


def _scatter_of(kernel: Kernel) -> Scatter | None:
    found = scatter_of(*simplified(kernel))
    if found is None or kernel.arguments[found.store.argument].name not in TYPES:
        return None
    fits = len(found.before) <= 1 and len(found.after) <= 1 and vary(found.store.index, found.axis) is not None
    return found if fits else None


class _Adding(Loops):
    """Zeros, and then all rows one after the other."""

    def __init__(self, kernel: Kernel, scatter: Scatter, relaxed: bool) -> None:
        self.scatter = scatter
        index = k.substitute(scatter.store.index, {scatter.axis: scatter.place})
        there = k.load(scatter.store.argument, index, scatter.term.type)
        sums = (Store(scatter.store.argument, index, there + scatter.term),)
        plan = Schedule((*scatter.before, *scatter.rows, *scatter.after), sums)
        if scatter.after and extent(scatter.after[0]) >= 4 and vary(index, scatter.after[0]) == 1:
            (plan.lane,) = scatter.after
            plan.tiles[plan.lane] = min(UNROLLED, extent(plan.lane) // 4)
        super().__init__(kernel, plan, relaxed)

    def written(self) -> bytes:
        """The function's entry in the code section."""
        for body in (self._zeros, lambda: self._nest(0)):
            self.enter()
            body()
            scope = self.leave()
            self.emit(get(self.begin) + get(self.end) + OP["i32.lt_u"] + OP["if"] + bytes(scope.code) + OP["end"])
        return self.f.body(bytes(self.chain[0].code))

    def _zeros(self) -> None:
        """This part of the result, set to 0."""
        scatter, store = self.scatter, self.scatter.store
        room = (vary(store.index, scatter.axis) or 0) * self.arguments[store.argument].itemsize
        first = k.substitute(store.index, dict.fromkeys((scatter.axis, *scatter.after), k.const(0, "index")))

        def fill() -> None:
            address, offset = self.address(store.argument, first)
            start = address + i32(offset) + OP["i32.add"] + get(self.begin) + i32(room) + OP["i32.mul"] + OP["i32.add"]
            length = get(self.end) + get(self.begin) + OP["i32.sub"] + i32(room) + OP["i32.mul"]
            self.emit(start + i32(0) + length + OP["memory.fill"])

        if scatter.before:
            self.loop(scatter.before[0], self.counter(i32(0)), 1, extent(scatter.before[0]), fill)
        else:
            fill()

    def _nest(self, level: int) -> None:
        """The loops; what is inside those over rows is done where the place is in this thread's part."""
        scatter = self.scatter
        if level != len(scatter.before) + len(scatter.rows):
            super()._nest(level)
            return
        place = self.value(scatter.place, "s")
        inside = place + get(self.begin) + OP["i32.sub"] + get(self.end) + get(self.begin) + OP["i32.sub"]
        self.enter()
        super()._nest(level)
        scope = self.leave()
        self.emit(inside + OP["i32.lt_u"] + OP["if"] + bytes(scope.code) + OP["end"])
